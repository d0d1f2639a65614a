"""What other people's producers put on a queue, through each source into the tables: used or refused."""

import base64
import gzip
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from processor.operations import registry
from processor.operations.queue_rules import set_queue
from processor.wire.formats import Attribute
from tests.conformance import test_source
from tests.conformance.test_source import PATIENCE_S, Queue, name_of
from tests.fixtures.database import Saver, books
from tests.wire.reading import a_cloudevent, a_pulse

Db = psycopg.Connection[Any]

PREFIXES = {
    "rabbitmq": "cloudEvents:",
    "kafka": "ce_",
    "lean": "ce_",
    "boto3": "ce-",
    "memory": "cloudEvents_",
}


@pytest.fixture(params=[*test_source.TIMED, *test_source.BOUND_TO_A_CONNECTION])
def queue(request: pytest.FixtureRequest) -> Iterator[Queue]:
    yield from test_source._KINDS[request.param](request, 60)


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["queue"])


@pytest.fixture(autouse=True)
def _event_types(db: Db) -> None:
    for event_type in ("pulse", "free"):
        registry.publish_schema(db, event_type, {})


def outcomes(queue: Queue, saver: Saver, sent: dict[str, str]) -> dict[str, str]:
    """Save all that comes, and say what became of each that was `sent`, by what it was called there."""
    found: dict[str, str] = {}
    give_up_at = time.monotonic() + PATIENCE_S
    while len(found) < len(sent):
        assert time.monotonic() < give_up_at, sent.values() - found.keys()
        for delivery in queue.source.receive(10, 1):
            [outcome] = saver.outcomes(delivery)
            found[sent[name_of(delivery)]] = outcome
    return found


def stored(db: Db) -> dict[str, dict[str, Any]]:
    columns = "message_id, tenant_id, event_type, producer, occurred_at, payload, context"
    names = columns.split(", ")
    return {
        row[0]: dict(zip(names, row, strict=True)) for row in db.execute(f"SELECT {columns} FROM message")
    }


def a_free_event(**changes: Any) -> bytes:
    event = {"id": "m", "tenant_id": "acme", "event_type": "free", "payload": {"n": 1}} | changes
    return json.dumps({name: value for name, value in event.items() if value is not ...}).encode()


def test_a_cloudevent_in_binary_mode_is_one_event_however_often_it_comes(
    queue: Queue, kind: str, saver: Saver, db: Db
) -> None:
    prefix = PREFIXES[kind]
    event = {"specversion": "1.0", "id": "b-1", "source": "/metering", "type": "pulse", "tenantid": "acme"}
    beside: dict[str, Attribute] = {prefix + name: value for name, value in event.items()}
    if kind not in ("rabbitmq", "memory"):
        beside |= {"content-type": "application/json"}
    data = json.dumps(a_pulse()).encode()
    sent = {
        queue.put(
            data, **beside, **{f"{prefix}time": "2026-11-29T09:00:00Z", "traceparent": "00-1"}
        ): "first",
        queue.put(
            data, **beside, **{f"{prefix}time": "2026-11-29T10:00:00+01:00", "traceparent": "00-2"}
        ): "again",
        queue.put(data, **{f"{prefix}id": "b-2", f"{prefix}type": "pulse"}): "half",
    }

    found = outcomes(queue, saver, sent)

    assert found.pop("half") == "envelope_invalid"
    assert sorted(found.values()) == ["duplicate", "stored"]
    [row] = stored(db).values()
    assert (row["message_id"], row["producer"], row["event_type"]) == ("b-1", "/metering", "pulse")
    assert row["occurred_at"] == datetime(2026, 11, 29, 9, tzinfo=UTC)
    assert row["payload"] == a_pulse()


def test_six_names_fill_or_contradict_and_nothing_passes_for_ours(queue: Queue, saver: Saver, db: Db) -> None:
    beside: dict[str, Attribute] = {
        "tenant_id": "acme",
        "event_type": "free",
        "message_id": "filled",
        "producer": "/shop",
        "occurred_at": "2016-12-31T23:59:60Z",
        "schema_version": "1",
    }
    forged: dict[str, Attribute] = {
        "amqp.message_id": "forged",
        "amqp.timestamp": "2001-01-01T00:00:00Z",
        "routing_key": "forged",
        "raw": b"\xff",
    }
    nameless = a_free_event(id=..., tenant_id=None, event_type=None)
    sent = {queue.put(nameless, **beside): "filled", queue.put(a_free_event(id="said"), **forged): "forged"}
    for name in beside:
        other = "2016-12-31T23:59:59Z" if name == "occurred_at" else "9"
        body = a_free_event(producer="/shop", occurred_at="2017-01-01T00:00:00Z", schema_version=1)
        sent[queue.put(body, **{name: other})] = name

    found = outcomes(queue, saver, sent)

    assert found == dict.fromkeys(beside, "envelope_invalid") | {"filled": "stored", "forged": "stored"}
    rows = stored(db)
    assert rows["filled"]["occurred_at"] == datetime(2017, 1, 1, tzinfo=UTC)
    assert rows["filled"]["producer"] == "/shop"
    assert rows["said"]["occurred_at"] is None or rows["said"]["occurred_at"].year >= 2026
    kept = {name.partition("#")[0]: value for name, value in rows["said"]["context"].items()}
    assert kept["raw"] == {"base64": "/w=="}
    assert {"forged", "2001-01-01T00:00:00Z"} <= {str(value) for value in rows["said"]["context"].values()}
    for (detail,) in db.execute("SELECT detail ->> 'message' FROM rejection"):
        assert "send the same value in both, or only one" in detail


def test_a_body_is_taken_as_it_was_packed_and_kept_as_it_came(
    queue: Queue, kind: str, saver: Saver, db: Db
) -> None:
    text_alone = kind in ("lean", "boto3")
    gzipped = gzip.compress(a_free_event(id="gzip"))
    bomb = gzip.compress(b"[" + b" " * 2_000_000 + b"]")
    sent = {
        queue.put(base64.b64encode(gzipped), **{"content-encoding": "gzip"}): "base64",
        queue.put(base64.b64encode(bomb), **{"content-encoding": "gzip"}): "bomb",
        queue.put(a_free_event(id="zstd"), **{"content-encoding": "zstd"}): "zstd",
        queue.put(b"\xef\xbb\xbf" + a_free_event(id="mark")): "mark",
    }
    if not text_alone:
        sent[queue.put(gzipped, **{"Content-Encoding": "gzip"})] = "binary"
        sent[queue.put(b"\0\0\0\0\7" + a_free_event(id="prefix"))] = "prefix"

    found = outcomes(queue, saver, sent)

    assert found.pop("bomb") == "too_large"
    assert found.pop("zstd") == "envelope_invalid"
    packed = sorted(found.pop(name) for name in ("base64", "binary") if name in found)
    assert packed == ([] if text_alone else ["duplicate"]) + ["stored"]
    assert set(found.values()) == {"stored"}
    assert stored(db)["gzip"]["payload"] == {"n": 1}
    if not text_alone:
        assert stored(db)["prefix"]["context"]["schema_registry_id"] == "7"
    bodies = db.execute("SELECT body FROM rejection WHERE reason = 'too_large'").fetchall()
    assert bodies == [(base64.b64encode(bomb),)]


def test_a_cloudevent_is_taken_as_the_specification_allows_it(queue: Queue, saver: Saver, db: Db) -> None:
    event = a_cloudevent(type="free")
    sent = {
        queue.put(json.dumps(body).encode()): name
        for name, body in {
            "no data": {name: value for name, value in event.items() if name != "data"} | {"id": "c-1"},
            "base64": event | {"id": "c-2", "data": None, "data_base64": "eyJuIjoxLjUwfQ=="},
            "extensions": event | {"id": "c-3", "payload": 1, "producer": "x", "dataref": "s3://b/k"},
            "both": event | {"id": "c-4", "data_base64": "eyJuIjoxLjUwfQ=="},
            "no json": event | {"id": "c-5", "data": None, "data_base64": "aGVsbG8="},
        }.items()
    }

    found = outcomes(queue, saver, sent)

    assert found == {
        "no data": "stored",
        "base64": "stored",
        "extensions": "stored",
        "both": "envelope_invalid",
        "no json": "envelope_invalid",
    }
    rows = stored(db)
    assert rows["c-1"]["payload"] is None
    assert rows["c-2"]["payload"] == {"n": 1.5}
    assert rows["c-3"]["context"]["dataref"] == "s3://b/k"
    assert rows["c-3"]["producer"] == "/shop"
    assert books(db) == {"message": 3, "duplicate": 0, "rejection": 2}


def test_an_envelope_is_taken_off_whichever_broker_brings_it(queue: Queue, saver: Saver, db: Db) -> None:
    notification = {"Type": "Notification", "MessageId": "n-1", "TopicArn": "arn"}
    body = json.dumps(notification | {"Message": json.dumps(a_pulse())}).encode()
    for _ in range(2):
        queue.put(body)
    deliveries = queue.take(2)
    set_queue(db, deliveries[0].queue, {"unwrap": "sns"})

    found = [outcome for delivery in deliveries for outcome in saver.outcomes(delivery)]

    assert found == ["stored", "duplicate"]
    assert db.execute("SELECT message_id FROM message").fetchall() == [(f"{deliveries[0].queue}/n-1",)]
