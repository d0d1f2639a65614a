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

from processor.api_keys import read_key
from processor.cli import cli

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

    assert added.keys() == {"key_id", "tenant_id", "name", "key"}
    assert (row["key_id"], row["tenant_id"], row["name"]) == (added["key_id"], "acme", "")
    assert row.keys() == {"key_id", "tenant_id", "name", "created_at", "revoked_at"}
    assert row["revoked_at"] is None


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
