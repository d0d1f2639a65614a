"""Every name of ours in the tables of `docs/howto/coming-from` is one that the code has."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from processor.cli import cli as processor_cli
from processor.settings import Settings
from processor.settings.foreign import FOREIGN
from processor.wire.formats import FORMATS
from producers.cli import main as producers_cli
from tests.shape.test_metrics import _metrics
from tests.shape.test_settings import FOR_TESTS_ALONE

TOP = Path(__file__).parents[2]
PAGES = sorted((TOP / "docs" / "howto" / "coming-from").glob("*.md"))
README = (TOP / "README.md").read_text(encoding="utf-8")
SQL = "\n".join(path.read_text(encoding="utf-8") for path in sorted((TOP / "sql/migrations").glob("*.sql")))
FIELDS = {"id", "producer", "occurred_at", "payload", "event_type", *re.findall(r"\w+", FORMATS)}
SYSTEMS = (
    "A RabbitMQ pulse ingestor",
    "An HTTP consumption ingestor",
    "An event counter",
    "An event process app",
    "A gRPC and Kafka ingestor",
    "sqs-consumer",
    "Outpost",
    "OpenMeter",
    "Lago",
)


def _rows() -> Iterator[tuple[str, list[str]]]:
    """Each row of each table, with the title of its page."""
    for page in PAGES:
        heading, _, text = page.read_text(encoding="utf-8").removeprefix("# ").partition("\n")
        for line in text.splitlines():
            cells = [cell.strip() for cell in line.split("|")[1:-1]]
            if cells and not set(cells[0]) <= {"-", " "} and cells[0] != "theirs":
                yield heading, cells


def _ours() -> list[tuple[str, str]]:
    """What our column names, and under which heading."""
    return [(heading, name) for heading, cells in _rows() for name in re.findall(r"`([^`]+)`", cells[1])]


def _command(words: list[str]) -> bool:
    """Whether these words are a command of ours, with options that it has."""
    command: click.Command = processor_cli if words[0] == "processor" else producers_cli
    for word in words[1:]:
        if word.startswith("--"):
            if not any(word in parameter.opts for parameter in command.params):
                return False
        elif isinstance(command, click.Group) and word in command.commands:
            command = command.commands[word]
        else:
            choices = [one.type.choices for one in command.params if isinstance(one.type, click.Choice)]
            if not any(word in found for found in choices):
                return False
    return True


def _column(table: str, column: str) -> bool:
    created = re.search(rf"CREATE TABLE {table} \((.*?)\n\)", SQL, re.DOTALL)
    added = rf"ALTER TABLE {table}\b[^;]*ADD COLUMN {column}\b"
    return created is not None and bool(
        re.search(rf"^  {column} ", created[1], re.MULTILINE) or re.search(added, SQL)
    )


def _is_ours(name: str) -> bool:
    if name.startswith(("processor ", "producers ")):
        return _command(name.split())
    if name == FOR_TESTS_ALONE or name.lower() in Settings.model_fields:
        return name.isupper()
    if "." in name:
        return _column(*name.split(".", 1)) or name.endswith(".json")
    return (
        name in _metrics()
        or name in FIELDS
        or name in {"POST /ingest", "POST /v1/events"}
        or bool(re.search(rf"CREATE TABLE {name} |CONSTRAINT {name} ", SQL))
    )


def test_each_system_has_a_table() -> None:
    assert {heading for heading, _ in _rows()} == set(SYSTEMS)


@pytest.mark.parametrize(("heading", "name"), _ours(), ids=lambda value: value.replace("/", " "))
def test_a_name_of_ours_is_one_that_the_code_has(heading: str, name: str) -> None:
    assert _is_ours(name), f"{heading}: {name}"


@pytest.mark.parametrize(("heading", "cells"), list(_rows()), ids=str)
def test_a_row_says_what_takes_its_place_or_why_nothing_does(heading: str, cells: list[str]) -> None:
    _, ours, why = cells

    assert (ours == "*nothing*" and why) or re.search(r"`[^`]+`", ours), heading


NEEDED = {"DATABASE_URL", "SQS_QUEUE_URL", "SOURCE_URL", "USAGE_SINK_URL", "AWS_ENDPOINT_URL"}
OF_TWO_SYSTEMS = {"INGESTOR_PORT"}
"""A database's port in one system, and a door's in another."""


@pytest.mark.parametrize(("heading", "cells"), list(_rows()), ids=str)
def test_their_name_for_what_is_needed_is_recognised_where_ours_is_missing(
    heading: str, cells: list[str]
) -> None:
    theirs = set(re.findall(r"`([A-Z][A-Z0-9]+_[A-Z0-9_]+)`", cells[0])) - OF_TWO_SYSTEMS
    ours = set(re.findall(r"`([A-Z_]+)`", cells[1]))

    for name in theirs if ours & NEEDED else ():
        if name not in ours:
            assert FOREIGN[name][0] in ours, f"{heading}: {name}"


def test_the_readme_leads_there() -> None:
    assert "docs/howto/coming-from.md" in README


def test_an_index_names_each_system() -> None:
    index = (TOP / "docs" / "howto" / "coming-from.md").read_text(encoding="utf-8")

    assert set(re.findall(r"\(coming-from/(\S+)\)", index)) == {page.name for page in PAGES}
