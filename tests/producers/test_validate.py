"""`producers validate`: what would become of messages, by a mapping, a queue's rules and the registry."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from processor.operations import registry
from processor.operations.queue_rules import set_queue
from processor.schemas.compiling import compile_schema
from processor.schemas.judge import judging
from producers.cli import main
from tests.builders import a_body
from tests.fixtures.database import count

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
        "  tenant_id: no value at /client_id, where the mapping of the queue expects one,",
        "  and no message attribute has it",
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


ORDER = """{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "required": ["order_id", "total"],
  "properties": {"order_id": {"type": "string"}, "total": {"type": "number", "minimum": 0}}
}"""
EVENTS = b"""\
{"id": "o-1", "tenant_id": "any-one", "event_type": "order.created", "payload": {"order_id": "1", "total": 1}}
{"id": "o-2", "tenant_id": "acme", "event_type": "order.created", "payload": {"total": "12,50"}}
{"id": "o-3", "tenant_id": "acme",
{"tenant_id": "acme", "product_sku": "vm-small", "used_amount": 1.25, "use_unity": "GB"}
{"tenant_id": "acme", "event_type": "void", "payload": {"message_id": "o-1"}}
{"id": "o-4", "tenant_id": "acme", "event_type": "order.paid", "payload": {}}
{"id": "o-5", "tenant_id": "acme", "event_type": "order.created", "schema_version": 7, "payload": {}}
"""


@pytest.fixture
def order(tmp_path: Path) -> Path:
    path = tmp_path / "order.created.schema.json"
    path.write_text(ORDER)
    return path


def verdicts(result: Result) -> list[str]:
    return [row["verdict"] for row in rows(result)]


def test_schemas_of_files_judge_where_there_is_no_database_and_no_setting_that_is_right(
    order: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nowhere")
    monkeypatch.setenv("BODY_BYTES_MAX", "no number")

    told = validate(EVENTS, f"--schema=order.created={order}")

    assert told.exit_code == 3
    assert told.output.splitlines() == [
        "line 1: stored",
        "line 2: schema_violation",
        '  the payload: "order_id" is a required property',
        '  /total: "12,50" is not of type "number"',
        "line 3: not_json",
        "  the body is invalid JSON: expected a member's name in double quotes at",
        "  character 34",
        "line 4: stored",
        "line 5: stored",
        "line 6: unknown_event_type",
        "  no schema is given for event type 'order.paid'; expected --schema TYPE=FILE",
        "line 7: schema_violation",
        '  the payload: "order_id" is a required property',
        '  the payload: "total" is a required property',
        "7 message(s), 3 good, 4 bad; by the schemas given, any tenant taken as known",
    ]
    assert validate(EVENTS.splitlines()[0], f"--schema=order.created={order}").exit_code == 0


def test_a_schema_without_a_type_is_for_each_and_a_directory_names_the_types(order: Path) -> None:
    every = verdicts(validate(EVENTS, f"--schema={order}", "--json"))
    named = verdicts(validate(EVENTS, f"--schema={order.parent}", "--json"))

    bad = "schema_violation"
    # A void says what it takes back, whatever else the schema is for.
    assert every == ["stored", bad, "not_json", bad, "stored", bad, bad]
    assert named == ["stored", bad, "not_json", "stored", "stored", "unknown_event_type", bad]


def test_one_of_a_type_goes_before_the_one_for_all(order: Path, tmp_path: Path) -> None:
    anything = tmp_path / "anything.json"
    anything.write_text("true")

    told = validate(EVENTS, f"--schema={anything}", f"--schema=pulse={order}", "--json")

    assert verdicts(told)[:4] == ["stored", "stored", "not_json", "schema_violation"]


def test_payloads_without_an_envelope_are_judged_as_they_are(order: Path) -> None:
    payloads = b'{"order_id": "1", "total": 1, "tenant_id": "a", "payload": 2}\n"text"\n{"total": 1}\n'

    for schema in (order, order.parent, f"order.created={order}"):
        told = validate(payloads, f"--schema={schema}", "--bare", "--json")

        assert verdicts(told) == ["stored", "schema_violation", "schema_violation"]
        assert rows(told)[0]["payload"] == json.loads(payloads.splitlines()[0])
    both = (f"--schema=a={order}", f"--schema=b={order}")
    assert verdicts(validate(payloads, *both, "--bare", "--event-type=b", "--json"))[0] == "stored"
    (untyped,) = rows(validate(b"{}", "--bare", "--tenant=acme", "--event-type=t", "--json"))
    assert (untyped["verdict"], untyped["tenant_id"], untyped["event_type"]) == ("read", "acme", "t")


def test_every_place_is_told_in_lines_of_80_columns_and_in_json(tmp_path: Path) -> None:
    schema = tmp_path / "s.json"
    schema.write_text('{"additionalProperties": {"type": "integer"}}')
    payload = json.dumps({f"name-{number:02}\a": "\x1b[2J" + "long " * 80 for number in range(14)}).encode()

    told = validate(payload, f"--schema={schema}", "--bare")

    lines = told.output.splitlines()
    assert sum(line.startswith("  /name-") for line in lines) == 10
    assert "  and 4 more" in lines
    assert all(len(line) <= 80 and line.isprintable() for line in lines)
    (row,) = rows(validate(payload, f"--schema={schema}", "--bare", "--json"))
    assert [error["pointer"] for error in row["errors"]] == [f"/name-{number:02}\a" for number in range(14)]
    assert row["error_count"] == 14
    large = validate(b'{"a": 0.5, "b": "' + b"x" * 9000 + b'"}', f"--schema={schema}", "--bare")
    assert large.output.splitlines()[2] == "  a payload this long is searched for its first error only"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (EVENTS.replace(b"\n", b"\r\n"), [("line 1", "stored"), ("line 2", "schema_violation")]),
        (b"\xef\xbb\xbf" + EVENTS, [("line 1", "stored"), ("line 2", "schema_violation")]),
        (b"\n \n" + EVENTS, [("line 3", "stored"), ("line 4", "schema_violation")]),
        (EVENTS.decode().encode("utf-16"), [("line 1", "not_utf8"), ("line 2", "not_json")]),
        (b"\xff\n" + EVENTS, [("line 1", "not_utf8"), ("line 2", "stored")]),
        (b" " * 2_000_000 + b"{}\n" + EVENTS, [("line 1", "too_large"), ("line 2", "stored")]),
        (b"{\n\n" + EVENTS[1:], [("document", "not_json")]),
        (b"\xef\xbb\xbf{\r\n" + EVENTS.splitlines()[0][1:] + b"\r\n", [("document", "stored")]),
        (b"[\n  1\n]", [("document", "envelope_invalid")]),
        (b"", []),
        (b"\r\n", []),
    ],
)
def test_files_are_read_however_they_were_written(
    order: Path, text: bytes, expected: list[tuple[str, str]]
) -> None:
    told = validate(text, f"--schema={order}", "--json")

    assert [(row["message_at"], row["verdict"]) for row in rows(told)][:2] == expected
    assert told.exit_code == (3 if {*verdicts(told)} - {"stored"} else 0)


def test_several_files_are_told_apart(order: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    first.write_bytes(EVENTS)
    second.write_text(json.dumps(json.loads(EVENTS.splitlines()[0]), indent=1))

    told = CliRunner().invoke(main, ["validate", str(first), str(second), "--schema", str(order), "--json"])

    assert told.exit_code == 3
    assert [row["message_at"] for row in rows(told)] == [
        *(f"{first} line {number}" for number in range(1, 8)),
        f"{second} document",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--schema={order}", "--schema={order}"], "a second schema for every event type"),
        (["--schema=a={order}", "--schema=a={order}"], "a second schema for event type 'a'"),
        (["--schema=nowhere.json"], "nowhere.json: No such file"),
        (["--schema=a=nowhere.json"], "nowhere.json: No such file"),
        (["--schema={empty}"], "no TYPE.schema.json in this directory"),
        (["--schema==x"], "expected TYPE=FILE"),
        (["--schema=a="], "expected TYPE=FILE"),
        (["--schema=a={bad}"], "the schema of 'a': not a usable JSON Schema"),
        (["--schema={bad}"], "the schema given: not a usable JSON Schema"),
        (["--schema={order}", "--queue=q"], "give one of the two"),
        (["--schema={order}", "--bare", "--map=payload=/p"], "give one of the two"),
        (["--bare"], "expected --schema FILE, or"),
        (["--schema=a={order}", "--schema=b={order}", "--bare"], "expected --event-type TYPE too"),
    ],
)
def test_schemas_that_can_not_be_meant_are_refused(
    order: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.json").write_text('{"type": 5}')
    names = {"order": order, "empty": tmp_path / "empty", "bad": tmp_path / "bad.json"}

    refused = validate(a_body(), *(argument.format(**names) for argument in arguments))

    assert refused.exit_code == 2
    assert words in refused.stderr
    assert refused.stdout == ""


def test_a_schema_within_a_document_is_named_behind_a_hash(tmp_path: Path) -> None:
    api = tmp_path / "api.yaml"
    api.write_text(
        "openapi: 3.0.3\ninfo: {title: E, version: '1'}\npaths: {}\ncomponents:\n  schemas:\n"
        f"    Order: {json.dumps(json.loads(ORDER))}\n    Payment: {{type: object, required: [paid]}}\n"
    )
    schemas = [
        f"--schema={event_type}={api}#/components/schemas/{name}"
        for event_type, name in (("order.created", "Order"), ("order.paid", "Payment"))
    ]

    told = rows(validate(EVENTS, *schemas, "--json"))

    assert [row["verdict"] for row in told][:2] == ["stored", "schema_violation"]
    assert told[5]["errors"][0]["message"] == '"paid" is a required property'
    hash_in_its_name = tmp_path / "order#1.json"
    hash_in_its_name.write_text(ORDER)
    assert verdicts(validate(EVENTS, f"--schema={hash_in_its_name}", "--json"))[0] == "stored"
    refused = validate(EVENTS, f"--schema=order.created={api}#/components/schemas/Ordre")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "this place does not exist" in refused.stderr


def test_each_schema_is_compiled_once_whichever_events_come_in_turn(
    order: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[object] = []

    def count(definition: Any, *, formats: str) -> Any:
        compiled.append(definition)
        return compile_schema(definition, formats=formats)

    monkeypatch.setattr(judging, "compile_schema", count)
    event = EVENTS.splitlines()[0]
    events = [event, event.replace(b"created", b"paid")] * 3

    told = validate(b"\n".join(events), f"--schema=order.created={order}", f"--schema={order}")

    assert told.exit_code == 0
    assert len(compiled) == 2
