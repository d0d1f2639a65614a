"""A schema tried before it is published: on what is stored, and on what was rejected."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from processor import registry, schema_trial
from processor.connection import connect
from processor.errors import StoreUnavailable
from processor.model import EventSchema
from processor.queue_rules import set_queue
from processor.schema_trial import Report
from processor.settings import Settings
from processor.wiring.trial import try_schema
from tests.builders import ORDER_SCHEMA, a_delivery
from tests.edges.test_cli import FAILED, FINE, PROBLEM_FOUND, USAGE, Answer, Command
from tests.edges.test_cli import run as run  # noqa: PLC0414 - a fixture
from tests.fix_database import LogIn, MakeSaver, Saver, books
from tests.fix_meters import a_pulse, a_void, add_meter

Db = psycopg.Connection[Any]
Try = Callable[..., Answer]

SMALL = {"properties": {"total": {"maximum": 5}}}


@pytest.fixture
def trial(run: Command, tmp_path: Path) -> Try:
    """Tries a schema, of order.created if nothing else is said."""
    file = tmp_path / "schema.json"

    def try_it(schema: Any, *options: object, event_type: str = "order.created", **more: str) -> Answer:
        file.write_text(schema if isinstance(schema, str) else json.dumps(schema))
        return run("schema", "test", event_type, file, *options, **more)

    return try_it


def totals(*values: Any, **changes: Any) -> list[Any]:
    return [a_delivery(payload={"total": value}, **changes) for value in values]


def look(url: str, definition: Any, **changes: Any) -> Report:
    """Try a schema of order.created without the command."""
    arguments: dict[str, Any] = {
        "against": ("stored", "rejected"),
        "since": None,
        "limit": schema_trial.LIMIT,
        "on_batch": lambda _what, _count: None,
    }
    tenant_id = changes.pop("tenant_id", None)
    schema = EventSchema(0, "order.created", tenant_id, 0, json.dumps(definition))
    settings = Settings(_env_file=None, database_url=url)  # type: ignore[call-arg]
    return try_schema(settings, schema, (), **arguments | changes)


def insert(db: Db, rows: Sequence[tuple[str, str, str, str]]) -> None:
    """Put messages in by psql: tenant, id, when it was stored, payload."""
    with db.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO message (tenant_id, message_id, event_type, schema_id, sent_at, stored_at, payload,"
            " queue, delivery_id, receive_count)"
            " VALUES (%s, %s, 'order.created', 1, now(), %s, %s::jsonb, 'q', %s, 1)",
            [(tenant, name, moment, payload, name) for tenant, name, moment, payload in rows],
        )


# ── stored messages ───────────────────────────────────────────────────────────────────────────────────


def test_stored_messages_that_it_would_reject_are_counted_and_the_newest_five_are_shown(
    trial: Try, saver: Saver, db: Db
) -> None:
    for number in range(10):
        saver.save(a_delivery(id=f"o-{number}", producer="shop", payload={"total": number + 0.5}))
    before = books(db)

    told = trial({"required": ["note"]}, "--against", "stored")

    assert (told.code, told.error) == (PROBLEM_FOUND, "")
    first, blank, head, *lines = told.out.splitlines()
    assert (first, blank) == ("order.created, version 2 to be (shared); nothing is published", "")
    assert head == "stored messages: 10 of 10 would be rejected"
    assert [line.split("  stored")[0] for line in lines[0::2]] == [
        *(f"  acme  o-{number}  (producer shop)" for number in (9, 8, 7, 6, 5)),
        "  ... and 5 more",
    ]
    assert lines[1] == '    the payload: "note" is a required property'
    assert books(db) == before
    assert db.execute("SELECT max(version) FROM event_schema").fetchall() == [(1,)]


def test_json_has_all_that_was_found(trial: Try, saver: Saver) -> None:
    saver.save(*totals(1, 9), *totals(9, 1, tenant_id="globex"), a_delivery(payload={}))

    told = trial(SMALL, "--json").json

    [newest, _] = told["stored"].pop("examples")
    assert newest["pointer"] == "/total"
    assert newest["rule"] == "/properties/total/maximum"
    assert newest["reason"] == "schema_violation"
    assert newest["message"] == "/total: 9 is greater than the maximum of 5"
    assert newest.keys() == {
        *("tenant_id", "message_id", "producer", "stored_at", "pointer", "rule", "reason", "message")
    }
    assert told["stored"].pop("seconds") > 0
    assert told["rejected"].pop("seconds") > 0
    assert told == {
        "event_type": "order.created",
        "tenant_id": None,
        "version": 2,
        "tenants_with_their_own": [],
        "finished": True,
        "stored": {
            "judged": 4,
            "would_be_rejected": 2,
            "rejected_already": 0,
            "unreadable": 0,
            "is_all": True,
            "estimated_count": 4,
        },
        "rejected": {
            "judged": 1,
            "would_pass": 1,
            "pass_already": 0,
            "would_be_rejected": {},
            "cut": 0,
            "is_all": True,
        },
        "tenants": [
            {"tenant_id": "acme", "stored": 2, "would_be_rejected": 1, "open_rejections": 1, "would_pass": 1},
            {
                "tenant_id": "globex",
                "stored": 2,
                "would_be_rejected": 1,
                "open_rejections": 0,
                "would_pass": 0,
            },
        ],
    }


def test_what_today_s_schema_would_reject_as_well_is_said(trial: Try, saver: Saver, db: Db) -> None:
    saver.save(*totals(1, 7, 9))
    registry.publish_schema(db, "order.created", {"properties": {"total": {"maximum": 8}}})

    told = trial(SMALL, "--against", "stored")

    assert told.code == PROBLEM_FOUND
    assert "stored messages: 2 of 3 would be rejected\n" in told.out
    assert "  1 of these would be rejected by what is published now, too\n" in told.out


def test_numbers_are_judged_by_every_digit_and_in_whatever_spelling_they_are_kept(
    trial: Try, saver: Saver
) -> None:
    bound = "0.10000000000000000000000000000000000001"
    for number in (bound, bound + "0", bound + "1", "0.1", "1E+2", "-0.0"):
        payload = b'{"b": "\\u00e9", "total": ' + number.encode() + b', "a": 1}'
        event = b'{"tenant_id": "acme", "event_type": "order.created", "payload": ' + payload + b"}"
        assert saver.outcomes(a_delivery(event)) == ["stored"]

    schema = '{"properties": {"total": {"maximum": ' + bound + "}}}"
    told = trial(schema, "--json").json["stored"]
    assert [row["message"] for row in told["examples"]] == [
        f"/total: {number} is greater than the maximum of {bound}" for number in ("100", bound + "1")
    ]
    assert trial('{"properties": {"b": {"const": "\u00e9"}, "total": {"maximum": 1e2}}}').code == FINE


def test_only_tenants_to_which_it_would_apply_are_judged(trial: Try, saver: Saver, db: Db) -> None:
    registry.publish_schema(db, "order.created", ORDER_SCHEMA, "globex")
    saver.save(*totals(9), *totals(9, 9, tenant_id="globex"), a_delivery(payload={}, tenant_id="globex"))

    shared = trial(SMALL)
    assert "it would not apply to globex: there are schemas of their own\n" in shared.out
    assert "stored messages: 1 of 1 would be rejected\n" in shared.out
    assert "open rejections: none of this type\n" in shared.out

    own = trial(SMALL, "--tenant", "globex")
    assert own.out.startswith("order.created, version 2 to be (tenant globex)")
    assert "stored messages: 2 of 2 would be rejected\n" in own.out
    assert "open rejections: 1 of 1 would pass\n" in own.out
    # Its first own one takes a tenant away from the shared ones.
    first = trial(SMALL, "--tenant", "acme")
    assert first.out.startswith("order.created, version 1 to be (tenant acme)")
    assert "stored messages: 1 of 1 would be rejected\n" in first.out


def test_messages_of_a_suspended_tenant_are_judged_and_its_rejections_stay(
    trial: Try, saver: Saver, db: Db
) -> None:
    saver.save(*totals(9))
    registry.set_tenant_status(db, "acme", "suspended")
    saver.save(*totals(1))

    told = trial(SMALL)

    assert told.code == PROBLEM_FOUND
    assert "open rejections: 0 of 1 would pass\n  still rejected: 1 tenant_suspended\n" in told.out


def test_meters_have_a_say_and_voided_messages_and_voids_are_judged(trial: Try, saver: Saver, db: Db) -> None:
    for event_type in ("pulse", "void"):
        registry.publish_schema(db, event_type, {})
    saver.save(a_pulse(1, id="p-1"), a_pulse(-1, id="p-2"))
    add_meter(db)
    saver.save(a_void("p-1"))

    pulses = trial({"properties": {"used_amount": {"maximum": 0}}}, "--json", event_type="pulse").json[
        "stored"
    ]

    assert [(row["message_id"], row["rule"]) for row in pulses["examples"]] == [
        ("p-2", "meter pulse"),
        ("p-1", "/properties/used_amount/maximum"),
    ]
    assert pulses["rejected_already"] == 1
    assert trial({"required": ["message_id"]}, event_type="void").code == FINE
    assert trial({"required": ["reason"]}, event_type="void").code == PROBLEM_FOUND


def test_large_payloads_are_read_a_few_at_a_time(
    trial: Try, saver: Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_trial, "_PAYLOADS_BYTES_MAX", 1_000_000)
    sizes: list[int] = []
    rows = schema_trial._rows

    def counted(connection: Db, name: str, parameters: Any) -> list[dict[str, Any]]:
        found = rows(connection, name, parameters)
        if name == "stored_payloads":
            sizes.append(len(found))
        return found

    monkeypatch.setattr(schema_trial, "_rows", counted)
    for number in range(5):
        noise = "".join(f"{(number + 7) ** (7 + place):x}" for place in range(1700))[:900_000]
        saver.save(a_delivery(payload={"total": number, "note": noise}))
    saver.save(*totals(6, 7))

    told = trial({"properties": {"note": {"maxLength": 10}}}, "--json").json["stored"]

    assert (told["judged"], told["would_be_rejected"]) == (7, 5)
    assert len(sizes) >= 3
    assert max(sizes) <= 4


def test_what_psql_put_in_is_judged_or_counted_apart(trial: Try, db: Db) -> None:
    deep = "[" * 5000 + "]" * 5000
    insert(
        db,
        [
            ("acme", "a", "2026-11-01", "null"),
            ("acme", "b", "2026-11-02", '{"total": 1e400}'),
            ("acme", "c", "2026-11-03", f'{{"total": {deep}}}'),
            ("acme", "d", "2026-11-04", "[1]"),
        ],
    )

    told = trial({"type": "object"}, "--json").json["stored"]

    assert told["judged"] == 4
    assert told["unreadable"] == 2
    assert [row["message_id"] for row in told["examples"]] == ["d", "a"]
    assert "\n  2 can't be read: no processor stored them so\n" in trial({"type": "object"}).out
