"""Tests schemas from YAML files, API descriptions and samples, with every digit."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from processor.devstack.seed import seed
from processor.errors import SettingsError
from processor.schemas.schema_text import schema_text, schema_value
from tests.builders import a_delivery
from tests.cli.test_cli import FAILED, FINE, USAGE, Command, run  # noqa: F401 - a fixture
from tests.fixtures.database import Saver, count

Db = psycopg.Connection[Any]

OPENAPI = """
openapi: 3.0.3
info: {title: Shop, version: 1.0.0}
paths: {}
components:
  schemas:
    Order:
      type: object
      required: [total]
      properties:
        total: {$ref: '#/components/schemas/Money'}
        state: {type: string, enum: [on, off], nullable: true}
    Money: {type: number, minimum: 0, exclusiveMinimum: true}
"""


def put(db: Db, text: str, event_type: str = "x") -> None:
    db.execute("INSERT INTO event_type (event_type) VALUES (%s)", (event_type,))
    db.execute(
        "INSERT INTO event_schema (event_type, version, definition) VALUES (%s, 1, %s::jsonb)",
        (event_type, text),
    )


@pytest.mark.parametrize("source", ["shop.yaml", "-"])
def test_a_schema_of_an_openapi_document_is_published_and_applied(
    run: Command,  # noqa: F811
    tmp_path: Path,
    saver: Saver,
    source: str,
) -> None:
    (tmp_path / "shop.yaml").write_text(OPENAPI)

    answer = run(
        "schema",
        "publish",
        "order.placed",
        source,
        "--pointer",
        "/components/schemas/Order",
        stdin=OPENAPI.encode(),
    )
    saver.save(*(a_delivery(event_type="order.placed", payload=payload) for payload in GOOD + BAD))

    assert (answer.code, answer.out) == (FINE, "published version 1 of order.placed (shared)\n")
    shown = run("schema", "show", "order.placed").json
    assert shown.keys() == {"$schema", "$defs", "type", "required", "properties"}
    rejections = run("rejection", "list", "--json").json
    assert [row["reason"] for row in rejections] == ["schema_violation"] * len(BAD)


GOOD: list[Any] = [{"total": 1}, {"total": 0.1, "state": None}, {"total": 1, "state": "off"}]
BAD: list[Any] = [{}, {"total": 0}, {"total": 1, "state": False}]


def test_a_whole_api_description_is_rejected_with_advice_on_pointers(
    run: Command,  # noqa: F811
    db: Db,
    tmp_path: Path,
) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(OPENAPI)

    whole = run("schema", "publish", "order.placed", file)
    wrong = run("schema", "publish", "order.placed", file, "--pointer", "/components/schemas/Oder")

    assert (whole.code, wrong.code, count(db, "event_type")) == (USAGE, USAGE, 1)
    assert "--pointer, such as /components/schemas/Order, /components/schemas/Money" in whole.error
    assert "did you mean /components/schemas/Order?" in wrong.error
    assert whole.error.count("\n") == wrong.error.count("\n") == 1


# ── every digit ───────────────────────────────────────────────────────────────────────────────────────

DIGITS = ["0.1000", "12345678901234567890123", "99999999999999999.99", "9" * 300, "0." + "1" * 300]


@pytest.mark.parametrize("digits", DIGITS)
def test_a_definition_is_shown_as_it_was_published(run: Command, tmp_path: Path, digits: str) -> None:  # noqa: F811
    (tmp_path / "a.yaml").write_text(f"const: {digits}\n")

    run("schema", "publish", "x", "a.yaml")
    shown, whole = run("schema", "show", "x").out, run("schema", "show", "x", "--json").out
    run("schema", "publish", "y", "-", stdin=shown.encode())

    assert f'"const": {digits}' in shown
    assert f'"const": {digits}' in whole
    assert run("schema", "show", "y").out == shown
    assert json.loads(whole).keys() >= {
        "event_type",
        "tenant_id",
        "version",
        "published_at",
        "id_scope",
        "formats",
    }


@pytest.mark.parametrize(
    "text", ['{"maximum": 1e9999}', '{"minimum": -1e-9999}', '{"a": ' + "[" * 3000 + "]" * 3000 + "}", "true"]
)
def test_a_schema_stored_by_psql_is_shown_and_breaks_no_command(
    run: Command,  # noqa: F811
    db: Db,
    database_url: str,
    text: str,
) -> None:
    put(db, text)

    shown = run("schema", "show", "x").out
    again = db.execute(
        "SELECT definition = %s::jsonb FROM event_schema WHERE event_type = 'x'", (shown,)
    ).fetchone()

    assert again == (True,)
    assert run("schema", "show", "x", "--json").code == FINE
    assert run("meter", "add", "m", "--event-type", "x", "--sum", "/a").code == FINE
    seed(database_url)


def test_a_sample_that_psql_changed_is_published_again(run: Command, db: Db, database_url: str) -> None:  # noqa: F811
    put(db, '{"maximum": 1e9999}', "pulse")

    seed(database_url)
    seed(database_url)

    assert [row["version"] for row in run("schema", "list", "--event-type", "pulse", "--json").json] == [1, 2]


# ── from samples ──────────────────────────────────────────────────────────────────────────────────────


def test_a_schema_is_inferred_from_stored_messages_and_accepts_them(
    run: Command,  # noqa: F811
    saver: Saver,
    tmp_path: Path,
) -> None:
    saver.save(*(a_delivery(payload={"total": number, "code": "a"}) for number in range(30)))
    saver.save(a_delivery(tenant_id="globex", payload={"total": 1.5}))

    both = run("schema", "infer", "order.created", "--from", "stored")
    one = run("schema", "infer", "order.created", "--from", "stored", "--tenant", "acme")
    newest = run("schema", "infer", "order.created", "--from", "stored", "--limit", 1)
    (tmp_path / "order.json").write_text(both.out)

    assert both.json["properties"]["total"] == {"type": "number"}
    assert (both.json["required"], one.json["required"]) == (["total"], ["code", "total"])
    assert newest.json["properties"].keys() == {"total"}
    assert "of 31 samples; each of them passes" in both.error
    assert run("schema", "test", "order.created", "order.json").code == FINE
    assert run("schema", "publish", "order.created", "order.json").code == FINE


def test_a_schema_is_inferred_from_a_file_of_events(run: Command, tmp_path: Path) -> None:  # noqa: F811
    events = [{"event_type": "a", "id": str(number), "payload": {"n": number}} for number in range(3)]
    (tmp_path / "events.ndjson").write_text("\n".join(map(json.dumps, events)))

    payloads = run("schema", "infer", "--from", "events.ndjson", "--payload", "/payload")
    whole = run("schema", "infer", "--from", "-", stdin=json.dumps(events).encode())

    assert payloads.json["properties"] == {"n": {"type": "integer"}}
    assert "whole events" not in payloads.error
    assert "these look like whole events" in whole.error
    assert "payload" in whole.json["properties"]


@pytest.mark.parametrize(
    ("words", "stdin", "code", "said"),
    [
        ("x --from stored", "", FAILED, "no message of event type 'x' is stored"),
        ("--from stored", "", USAGE, "expected EVENT_TYPE"),
        ("x --from -", "{}", USAGE, "are for --from stored"),
        ("--from - --tenant acme", "{}", USAGE, "are for --from stored"),
        ("--from lost.ndjson", "", USAGE, "No such file"),
        ("--from -", "", USAGE, "empty; expected JSON samples"),
        ("--from -", "[]", USAGE, "no samples"),
        (
            "--from -",
            '{"a": 1}\n{"a": 1, "a": 2}',
            USAGE,
            "line 2: invalid JSON: duplicate key 'a'",
        ),
        ("--from - --payload /p", '{"p": 1}\n{}', USAGE, "line 2: nothing is at /p"),
        ("--from - --payload p", "{}", USAGE, "expected a JSON pointer"),
        ("", "", USAGE, "--from"),
    ],
)
def test_a_source_without_samples_is_reported(
    run: Command,  # noqa: F811
    words: str,
    stdin: str,
    code: int,
    said: str,
) -> None:
    answer = run("schema", "infer", *words.split(), stdin=stdin.encode())

    assert (answer.code, answer.out) == (code, "")
    assert said in answer.error


def test_a_number_of_a_definition_is_never_rounded(run: Command) -> None:  # noqa: F811
    run("schema", "publish", "x", "-", stdin=b'{"maximum": 99999999999999999.99}')

    assert json.loads(run("schema", "show", "x").out, parse_float=Decimal)["maximum"] == Decimal(
        "99999999999999999.99"
    )


@given(
    st.from_regex(r"\A-?(0|[1-9][0-9]{0,3})(\.[0-9]{1,4})?(e[+-]?(0|[1-9][0-9]{0,2}))?\Z")
    | st.tuples(
        st.sampled_from(["", "-"]),
        st.sampled_from(["0", "1", "1.7", "9"]),
        st.integers(0, 1010).map(lambda count: "7" * count),
        st.integers(-1010, 310),
    ).map(
        lambda parts: (
            f"{parts[0]}{parts[1]}{'' if '.' in parts[1] or not parts[2] else '.'}{parts[2]}e{parts[3]}"
        )
    )
    | st.sampled_from(
        [str(2**1024 - 2**970), str(10**308), f"-{10**308}", f"0.{'1' * 998}", f"-0.{'1' * 997}"]
    )
)
@example(digits="1e308")
@example(digits="-1.7976931348623157e308")
@example(digits=f"-1.{'7' * 990}e-9")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_number_survives_a_round_trip_through_postgresql(db: Db, digits: str) -> None:
    try:
        value = schema_value(digits)
    except SettingsError:
        return

    [(written,)] = db.execute("SELECT %s::jsonb::text", (schema_text(value),)).fetchall()

    assert Decimal(str(schema_value(written))) == Decimal(str(value)) == Decimal(digits)
