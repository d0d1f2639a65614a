"""Faults of senders: reused ids, and headers that are malformed or not trustworthy.

    queue ◀─ one id: the same, the same with another trace, another content ─▶ message, duplicate, id_conflict
    queue ◀─ a header that is poison ─▶ one row, and no reader has died of it

Consumers are killed meanwhile, so that some messages are delivered twice.
"""

import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from processor.wire.manifest import ManifestLine, ManifestWriter
from tests.broker_servers.kafka import send_with_header
from tests.broker_servers.rabbitmq import RabbitQueue
from tests.chaos.field import Field, ScenarioFailed
from tests.chaos.run import Scenario
from tests.chaos.scenarios.brokers import AcceptedBooks, from_kafka, from_rabbitmq, missing
from tests.rabbit_sources import put_too_deep

_TENANT = "acme"

_ROWS = """
SELECT 'message' AS place, count(*) FROM message WHERE message_id = %(id)s
UNION ALL SELECT 'duplicate', count(*) FROM duplicate WHERE message_id = %(id)s
UNION ALL SELECT coalesce(min(reason), 'rejection'), count(*) FROM rejection
WHERE message_id = %(id)s OR position(convert_to(%(id)s, 'UTF8') IN body) > 0
"""


def _a_body(plan: str = "free", **more: object) -> bytes:
    """A sign-up, which no sum and no total counts; without an id unless one is given."""
    payload = {
        "user_id": str(uuid.UUID(int=7)),
        "email": "ada@example.org",
        "plan": plan,
        "signed_up_at": "2026-11-22T10:00:00Z",
    }
    event = {"tenant_id": _TENANT, "event_type": "user.signed_up", "payload": payload}
    return json.dumps(event | more).encode()


def _a_trace(field: Field) -> dict[str, Any]:
    return {"traceparent": f"00-{field.chance.getrandbits(128):032x}-{field.chance.getrandbits(64):016x}-01"}


def _intend(field: Field, message_id: str) -> None:
    """Say that messages of this id are sent."""
    manifest = field.folder / "senders.jsonl"
    with ManifestWriter(manifest) as writer:
        writer.intend([ManifestLine("intended", _TENANT, message_id, None)])
    if manifest not in field.load.more_manifests:
        field.load.more_manifests.append(manifest)


def _rows(field: Field, message_id: str) -> dict[str, int]:
    with field.admin() as admin:
        return dict(admin.execute(_ROWS, {"id": message_id}).fetchall())


def _kill_one(field: Field) -> None:
    field.pause(0, 0.3)
    with field.fault():
        field.fleet.kill(field.chance.randrange(field.fleet.size))
    field.wait_until_recovered()


def _queue(field: Field) -> RabbitQueue:
    assert field.broker is not None
    queue = RabbitQueue(field.broker.url, "events")
    # Its connection alone: the queue goes with the broker.
    field.cleanup.callback(queue.reconnect)
    return queue


def use_ids_again(field: Field) -> None:
    """Publish three times the same under one id, each with a trace of its own, and once something else."""
    queue, sends = _queue(field), 4
    for number in range(field.rounds):
        message_id = f"device-{number}"
        _intend(field, message_id)
        plans = ["free", "free", "free", "team"]
        field.chance.shuffle(plans)
        for plan in plans:
            queue.put(_a_body(plan), message_id=message_id, headers=_a_trace(field))
        _kill_one(field)
    for number in range(field.rounds):
        field.wait_until(
            lambda number=number: sum(_rows(field, f"device-{number}").values()) >= sends,  # type: ignore[misc]
            f"each of the {sends} sends has a row",
        )
        found = _rows(field, f"device-{number}")
        # Whichever of the two contents came first is the message.
        expected = (
            {"message": 1, "duplicate": 2, "id_conflict": 1},
            {"message": 1, "duplicate": 0, "id_conflict": 3},
        )
        if found not in expected:
            raise ScenarioFailed(f"four sends under one id have these rows: {found}")


def poison_rabbitmq(field: Field) -> None:
    """Publish counters that lie, and tables that the driver's reader gives up at."""
    queue = _queue(field)
    lies: tuple[object, ...] = (2**31, 2**63 - 1, -1, 10, "many", b"\xff")
    for number in range(field.rounds):
        for place, lie in enumerate(lies):
            message_id = f"lie-{number}-{place}"
            _intend(field, message_id)
            queue.put(_a_body(id=message_id), message_id=message_id, headers={"x-delivery-count": lie})
        message_id = f"deep-{number}"
        _intend(field, message_id)
        put_too_deep(queue, _a_body(id=message_id), message_id=message_id)
        _kill_one(field)
    for number in range(field.rounds):
        for place in range(len(lies)):
            _demand(field, f"lie-{number}-{place}", {"message": 1, "duplicate": 0, "rejection": 0})
        _demand(field, f"deep-{number}", {"message": 0, "duplicate": 0, "envelope_invalid": 1})


def poison_kafka(field: Field) -> None:
    """Send headers whose name is not UTF-8."""
    books = field.books
    assert isinstance(books, AcceptedBooks)
    for number in range(field.rounds):
        message_id = f"poison-{number}"
        _intend(field, message_id)
        send_with_header(books.tansu.servers, "events", b"\xff\xfe", _a_body(id=message_id))
        _kill_one(field)
    for number in range(field.rounds):
        _demand(field, f"poison-{number}", {"message": 0, "duplicate": 0, "envelope_invalid": 1})


def _demand(field: Field, message_id: str, rows: dict[str, int]) -> None:
    field.wait_until(lambda: sum(_rows(field, message_id).values()) > 0, f"{message_id} has a row", wait_s=60)
    found = _rows(field, message_id)
    if found != rows:
        raise ScenarioFailed(f"{message_id} has these rows: {found}; expected {rows}")


def _scenario(name: str, work: Callable[[Field], None], rounds: int) -> Scenario:
    return Scenario(name, "senders", work, rounds, rate=40)


SCENARIOS = [
    replace(_scenario("RabbitMQ, ids used again", use_ids_again, 8), prepare=from_rabbitmq, needs=missing),
    replace(
        _scenario("RabbitMQ, poison in headers", poison_rabbitmq, 4), prepare=from_rabbitmq, needs=missing
    ),
    replace(_scenario("Kafka, poison in headers", poison_kafka, 3), prepare=from_kafka),
]
