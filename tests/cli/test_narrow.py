"""On a narrow screen lines end between words: no number, time, id or code is cut."""

import re
from collections.abc import Iterator
from typing import Any

import click
import psycopg
import pytest
from click.testing import CliRunner

from processor.cli import cli as processor_cli
from processor.devstack.report import Printer
from processor.operations import registry
from processor.runtime.terminal import print_cells
from producers.cli import main as producers_cli
from tests.builders import a_delivery
from tests.database.test_times import ASKED
from tests.fixtures.database import Saver
from tests.fixtures.usage import Command, a_pulse, a_void

LONG = "0189f7ea-ae2c-7809-8aeb-b819cf5e9e7f-" * 3 + "end"
PROGRAMS = {"processor": processor_cli, "producers": producers_cli}


def _commands(group: click.Command, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield words
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            yield from _commands(command, (*words, name))


ALL = [words for name, group in PROGRAMS.items() for words in _commands(group, (name,))]


@pytest.mark.parametrize("words", ALL, ids=" ".join)
@pytest.mark.parametrize("width", [60, 80])
def test_help_is_broken_between_words_alone(words: tuple[str, ...], width: int) -> None:
    wide, narrow = (
        CliRunner().invoke(
            PROGRAMS[words[0]], [*words[1:], "--help"], terminal_width=columns, max_content_width=columns
        )
        for columns in (10_000, width)
    )

    # What a command does, in the list of them, is cut to one line on purpose.
    said = [re.split("\n(?:Commands|Core):\n", answer.stdout)[0].split() for answer in (narrow, wide)]
    assert said[0] == said[1]


@pytest.fixture(autouse=True)
def _somebody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("processor.runtime.terminal.is_watched", lambda: True)


@pytest.fixture
def _filled(db: psycopg.Connection[Any], saver: Saver, pulses: None) -> None:
    registry.add_tenant(db, "acme", "A tenant with a name of several words")
    registry.add_key(db, "acme", LONG)
    saver.store.load_registry()
    long = a_pulse("123456789012345678901234567890.12345", sku=LONG, message_id=LONG)
    stranger = a_delivery(tenant_id="umbrella-" + LONG, id=LONG)
    saver.outcomes(long, a_pulse(message_id=LONG), a_void(LONG + "2"), a_delivery(b"no JSON"), stranger)


@pytest.mark.usefixtures("_filled")
@pytest.mark.parametrize("width", [60, 80])
def test_no_table_and_no_report_cuts_a_word(
    processor: Command, db: psycopg.Connection[Any], width: int
) -> None:
    row = db.execute("SELECT rejection_id FROM rejection ORDER BY 1 LIMIT 1").fetchone()
    assert row is not None
    db.execute("UPDATE total SET value = value + 1")  # So that `usage verify` has something to list.

    for words in [*ASKED, f"trace {LONG}", "audit", "retention plan --message-days 40", "check"]:
        asked = words.format(rejection=row[0]).split()
        wide, narrow = (processor(*asked, COLUMNS=str(columns)).out for columns in (100_000, width))
        assert set(_words(wide)) == set(_words(narrow)), words
        breakable = [line for line in narrow.splitlines() if len(re.sub(r"\S{50,}", "", line)) > width]
        assert breakable == [] or "--json" in words or "show" in words, words


def _words(text: str) -> list[str]:
    # How long an answer took is another figure each time.
    return re.findall(r"\S+", re.sub(r"\d+(\.\d+)? m?s\b", "", text))


@pytest.mark.usefixtures("_filled")
@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_the_report_of_the_demo_cuts_no_word(
    database_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    shown = []
    for columns in (100_000, width):
        monkeypatch.setenv("COLUMNS", str(columns))
        Printer().outcomes(database_url)
        Printer().usage(database_url)
        shown.append(set(re.findall(r"[^\s─]+", capsys.readouterr().out)))

    assert shown[0] == shown[1]


@pytest.mark.parametrize("width", range(20, 140))
def test_a_table_of_words_of_any_length_cuts_none_at_any_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    found = "set it in the environment or in .env: postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
    headings = ["", "what", "found", "what to do", "at"]
    row = ["!!", "dead-letter queue", "DATABASE_URL is not set", found, "2026-11-29 10:00:00Z"]
    monkeypatch.setenv("COLUMNS", str(width))

    print_cells(headings, [row])

    assert set(" ".join(row).split()) <= set(capsys.readouterr().out.split())
