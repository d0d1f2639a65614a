"""`producers validate`: what would become of messages, by a mapping, a queue's rules and the registry."""

import json
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from processor import registry
from processor.queue_rules import set_queue
from producers.cli import main
from tests.builders import a_body
from tests.fix_database import count

pytestmark = pytest.mark.usefixtures("nothing_is_set")
Db = psycopg.Connection[Any]

APP = ["--map=tenant_id=/client_id", "--map=event_type=/event_type", "--map=payload=/message"]
GOOD = b'{"event_type": "order.created", "client_id": 7, "message": {"total": 1.50}, "host": "a"}'
BAD = b'{"event_type": "order.created", "message": {"total": 1.50}}'


def validate(text: bytes, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["validate", "-", *arguments], input=text)


def rows(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.output.splitlines()]


def test_without_a_database_the_form_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)

    told = validate(GOOD + b"\n\n" + BAD + b"\n", *APP)

    assert told.exit_code == 3
    assert told.output.splitlines() == [
        "line 1: read",
        "  tenant_id   7",
        "  event_type  order.created",
        '  payload     {"total": 1.50}',
        '  context     {"host": "a"}',
        "line 3: envelope_invalid",
        "  tenant_id: nothing at /client_id, where the queue's mapping has it, and none",
        "  beside the body",
        "  event_type  order.created",
        "2 message(s), 1 good, 1 bad; by their form alone, since DATABASE_URL is not set",
    ]
    assert validate(GOOD, *APP).exit_code == 0
    assert validate(GOOD, *APP, "--tenant", "acme").exit_code == 3


def test_with_a_database_the_registry_judges_and_nothing_is_written(
    database_url: str, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    set_queue(
        db,
        "app",
        {"mapping": {"tenant_id": "/client_id", "event_type": "/event_type", "payload": "/message"}},
    )
    text = b"\n".join(
        (GOOD, GOOD.replace(b"7", b'"acme"'), GOOD.replace(b"7", b'"acme"').replace(b"1.5", b"-1.5"))
    )

    def verdicts(*arguments: str) -> list[str]:
        return [row["verdict"] for row in rows(validate(text, "--queue", "app", "--json", *arguments))]

    assert verdicts() == ["unknown_tenant", "stored", "schema_violation"]
    assert verdicts("--tenant", "acme") == ["envelope_invalid", "stored", "schema_violation"]
    registry.add_tenant(db, "7")
    assert verdicts() == ["stored", "stored", "schema_violation"]
    # What is given goes first.
    assert verdicts("--map=payload=/message") == ["envelope_invalid"] * 3
    set_queue(db, "app", {"registers_tenants": True})
    told = validate(GOOD.replace(b"7", b"8"), "--queue", "app")
    assert told.exit_code == 0
    assert "registers tenant 8" in told.output
    assert told.output.endswith("on queue app\n")
    # Maybe a slip of the pen: then the verdicts are those of another queue.
    mistyped = validate(GOOD, "--queue", "apps").output
    assert mistyped.endswith("on queue apps, which has no rules in the registry\n")
    assert count(db, "tenant") == 3


def test_numbers_keep_their_digits_in_json() -> None:
    told = validate(GOOD.replace(b"1.50", b"0.10000000000000000000000001"), *APP, "--json")

    assert '"payload":{"total": 0.10000000000000000000000001}' in told.output


def test_a_document_of_several_lines_is_one_message() -> None:
    pretty = json.dumps(json.loads(GOOD), indent=2).encode()

    assert [row["message_at"] for row in rows(validate(pretty, *APP, "--json"))] == ["document"]
    assert [row["message_at"] for row in rows(validate(GOOD + b"\n" + GOOD, *APP, "--json"))] == [
        "line 1",
        "line 2",
    ]


def test_what_stands_beside_a_body_is_given_too() -> None:
    beside = ["--attribute", "tenant_id=acme", "--attribute", "event_type=t", "--attribute", "a=b=c"]

    (row,) = rows(validate(b'{"n": 1.0}', "--json", *beside))

    assert (row["tenant_id"], row["payload"], row["context"]) == ("acme", {"n": 1.0}, {"a": "b=c"})


@pytest.mark.parametrize(
    "text",
    [b"\xff\n", b"nonsense\n", b'{"event_type": "\\ud800", "client_id": 1}\n', b"\0", b'{"a": "\x1b[2J"}\n'],
)
def test_any_bytes_are_told_of_in_printable_words_of_80_columns(text: bytes) -> None:
    for arguments in ((), ("--json",)):
        told = validate(text, *APP, *arguments)

        assert told.exit_code == 3, told.output
        assert told.exception is None or isinstance(told.exception, SystemExit)
        assert all(line.isprintable() for line in told.output.splitlines())
    assert all(len(line) <= 80 for line in validate(text * 3 + GOOD * 9, *APP).output.splitlines()[:-1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--queue", "app"], "set DATABASE_URL too"),
        (["--attribute", "tenant_id"], "expected NAME=VALUE"),
        (["--map", "tenant_id"], "expected FIELD=/POINTER"),
        (["--unwrap", "sqs"], "is not one of"),
    ],
)
def test_what_can_not_be_meant_is_refused(arguments: list[str], words: str) -> None:
    refused = validate(a_body(), *arguments)

    assert refused.exit_code == 2
    assert words in refused.stderr
