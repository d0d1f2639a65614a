"""processor key add, list and revoke: a key is shown once, and ended by its id."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog
from click.testing import CliRunner, Result

from processor.cli import cli
from processor.wire.api_key import read_key

Db = psycopg.Connection[Any]
Command = Callable[..., Result]

FINE, FAILED, USAGE = range(3)


@pytest.fixture
def command(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    monkeypatch.chdir(tmp_path)  # A .env of this machine is none of ours.
    monkeypatch.setenv("DATABASE_URL", database_url)
    yield lambda *words: CliRunner().invoke(cli, ["key", *words])
    structlog.reset_defaults()


def test_a_key_is_printed_once_and_listed_without_its_secret(command: Command) -> None:
    added = command("add", "acme", "--name", "till 7")

    key = read_key(added.stdout.strip())
    assert added.exit_code == FINE
    assert key is not None
    assert re.fullmatch(r"ep_[0-9a-f]{16}_[A-Za-z0-9_-]{43}\n", added.stdout)
    assert f"processor key revoke {key.key_id}" in added.stderr
    assert "within GATEWAY_KEYS_EVERY_S seconds" in added.stderr
    listed = command("list")
    assert key.key_id in listed.stdout
    assert "till 7" in listed.stdout
    assert added.stdout.strip().split("_", 2)[2] not in listed.stdout + added.stderr


def test_json_has_all_that_is_known(command: Command) -> None:
    added = json.loads(command("add", "acme", "--json").stdout)
    command("add", "globex")

    [row] = json.loads(command("list", "--tenant", "acme", "--json").stdout)

    rights = {"event_types", "producers", "may_void", "may_correct"}
    assert added.keys() == {"key_id", "tenant_id", "name", "key"} | rights
    assert (row["key_id"], row["tenant_id"], row["name"]) == (added["key_id"], "acme", "")
    assert row.keys() == {"key_id", "tenant_id", "name", "created_at", "revoked_at"} | rights
    assert row["revoked_at"] is None
    nothing = {"event_types": None, "producers": None, "may_void": False, "may_correct": False}
    assert {name: row[name] for name in rights} == {name: added[name] for name in rights} == nothing


def test_what_a_key_may_send_is_said_once_and_shown(command: Command) -> None:
    added = command(
        "add", "acme", "--event-types", "pulse, order.created", "--producer", "till", "--producer", "/acme/*",
        "--producer", '""', "--producer", "till", "--may-void", "--may-correct", "--json",
    )  # fmt: skip

    said = json.loads(added.stdout)
    [row] = json.loads(command("list", "--json").stdout)
    listed = command("list").stdout

    rights = {
        "event_types": ["order.created", "pulse"],
        "producers": ["till", "/acme/*", ""],
        "may_void": True,
        "may_correct": True,
    }
    assert {name: said[name] for name in rights} == {name: row[name] for name in rights} == rights
    assert "note: no schema of event type 'pulse' yet: its events are rejected" in added.stderr
    assert "order.created" not in added.stderr
    for cell in ("order.created, pulse", 'till, /acme/*, ""', "void, correct"):
        assert cell in listed


def test_a_key_that_may_use_any_producer_says_so_and_what_prevents_it(command: Command) -> None:
    plain, voids = command("add", "acme"), command("add", "acme", "--may-void", "--json")
    own = command("add", "acme", "--producer", "till")

    words = "without --producer this key can use the producer of the platform's own events for this tenant"
    for answer in (plain, voids):
        assert words in answer.stderr
        assert "--producer NAME prevents it" in answer.stderr
    assert ["and void them" in answer.stderr for answer in (plain, voids)] == [False, True]
    assert words not in own.stderr
    older = [re.search(r"key revoke (\w{16})", plain.stderr), json.loads(voids.stdout)["key_id"]]
    assert older[0] is not None
    for key_id in (older[0][1], older[1]):
        assert f"processor key revoke {key_id}" in own.stderr


@pytest.mark.parametrize(
    ("pattern", "covered"),
    [("*", 'platform, platform/*, ""'), ("p*", "platform, platform/*"), ("platform/*", "platform/*")],
)
def test_a_pattern_that_covers_the_platforms_own_producers_says_so(
    command: Command, pattern: str, covered: str
) -> None:
    said = command("add", "acme", "--producer", pattern).stderr

    assert f"covers {covered} too" in said
    assert "covers" not in command("add", "acme", "--producer", "platform", "--producer", "till*").stderr


@pytest.mark.parametrize("name", ["*x", "a*b", "**", " platform", "platform "])
def test_a_producer_that_reads_as_a_pattern_and_is_none_is_refused(command: Command, name: str) -> None:
    added = command("add", "acme", "--producer", name)

    assert added.exit_code != FINE
    assert "a * at its end alone" in added.stderr


def test_a_key_is_revoked_by_its_id_or_by_itself_and_for_ever(command: Command, db: Db) -> None:
    first, second = command("add", "acme").stdout.strip(), command("add", "acme").stdout.strip()

    by_id = command("revoke", first.split("_")[1])
    since = db.execute("SELECT revoked_at FROM api_key WHERE revoked_at IS NOT NULL").fetchall()
    again = command("revoke", first.split("_")[1])
    by_itself = command("revoke", second)

    assert [by_id.exit_code, again.exit_code, by_itself.exit_code] == [FINE] * 3
    assert "key of tenant acme is revoked since" in by_id.stdout
    assert again.stdout == by_id.stdout
    assert len(since) == 1
    assert db.execute("SELECT count(*) FROM api_key WHERE revoked_at IS NULL").fetchone() == (0,)
    # Whoever found a key somewhere gives it to nobody else by ending it.
    assert second not in by_itself.output


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("add", "nobody"), FAILED, "processor tenant add nobody"),
        (("add", "acme", "--name", "x" * 257), USAGE, "at most 256 characters"),
        (("add", "acme", "--name", "a\tb"), USAGE, "no control characters"),
        (
            ("add", "acme", "--event-types", "pulse,void"),
            USAGE,
            "void is a right of its own",
        ),
        (("add", "acme", "--event-types", "pulse,"), USAGE, "expected names with commas between them"),
        (("add", "acme", "--event-types", "x" * 257), USAGE, "is no event type"),
        (("add", "acme", "--producer", "x" * 257), USAGE, "is no producer"),
        (("add", "acme", "--producer", "a\tb"), USAGE, "is no producer"),
        (("revoke", "0123456789abcdef"), FAILED, "no API key has this id"),
        (("revoke", "\x00"), FAILED, "no API key has this id"),
    ],
)
def test_what_is_wrong_is_said_in_words(
    words: tuple[str, ...], code: int, said: str, command: Command, db: Db
) -> None:
    answer = command(*words)

    assert answer.exit_code == code, answer.output
    assert said in answer.stderr
    assert db.execute("SELECT count(*) FROM api_key").fetchone() == (0,)


def test_no_keys_is_a_sentence(command: Command) -> None:
    assert "processor key add" in command("list").stdout
