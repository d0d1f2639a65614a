"""Tests envelopes of AWS services from a real queue into the tables: once each, and by a replay."""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from processor.devstack.servers.sqs import EmbeddedSqs
from processor.operations.queue_rules import set_queue
from processor.settings import Settings
from processor.sources.quarantine import RejectionSelection
from processor.wiring import commands
from processor.wiring.service import Stops, run
from tests.decoding.test_unwrapping import POINTERS, an_eventbridge_event, an_s3_record
from tests.fixtures.check import with_changes
from tests.fixtures.database import books
from tests.operations.registry.test_rejection_rules import add
from tests.wire.reading import a_pulse

pytestmark = pytest.mark.usefixtures("nothing_is_set", "pulses_are_metered")
Db = psycopg.Connection[Any]
Process = Callable[..., None]

S3_TEST_EVENT = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "drop", "RequestId": "R1"}
EARLIER = (datetime.now(UTC) - timedelta(hours=3)).replace(microsecond=0)


@pytest.fixture
def pulses_are_metered(db: Db) -> None:
    for event_type in ("pulse", "Order Created", "ObjectCreated:Put"):
        db.execute("INSERT INTO event_type (event_type) VALUES (%s)", (event_type,))
        db.execute(
            "INSERT INTO event_schema (event_type, version, definition) VALUES (%s, 1, 'true')", (event_type,)
        )
    db.execute(
        "INSERT INTO meter (meter, event_type, aggregation, value_pointer) "
        "VALUES ('pulse', 'pulse', 'sum', '/used_amount')"
    )


@pytest.fixture
def process(settings: Settings, sqs_server: EmbeddedSqs, queue_url: str) -> Process:
    """Sends bodies to the queue, and runs the processor until the queue is empty."""

    def work(*bodies: Any, times: int = 1, **changes: Any) -> None:
        client = sqs_server.client()
        for body in bodies * times:
            text = body if isinstance(body, str) else json.dumps(body)
            client.send_message(QueueUrl=queue_url, MessageBody=text)
        hand = with_changes(settings, receive_wait_s=1, http_port=0, **changes)
        run(hand, Stops(threading.Event(), threading.Event()), until_idle_s=1)

    return work


def a_notification(message: Any) -> dict[str, Any]:
    return {
        "Type": "Notification",
        "MessageId": "n-1",
        "TopicArn": "arn:aws:sns:us-east-1:000000000000:t",
        "Message": json.dumps(message),
        "Timestamp": EARLIER.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
    }


def test_an_sns_event_counts_once_in_the_hour_when_sns_received_it(process: Process, db: Db) -> None:
    process(a_notification(a_pulse()), times=2, unwrap="sns")

    assert books(db) == {"message": 1, "duplicate": 1, "rejection": 0}
    assert db.execute("SELECT sent_at, occurred_at FROM message").fetchall() == [(EARLIER, None)]
    assert db.execute("SELECT sent_at FROM duplicate").fetchall() == [(EARLIER,)]
    hour = EARLIER.replace(minute=0, second=0)
    assert db.execute("SELECT window_start, value FROM usage").fetchall() == [(hour, 3)]


def test_an_event_of_eventbridge_counts_once_in_its_hour(process: Process, db: Db) -> None:
    body = an_eventbridge_event(a_pulse(), time=EARLIER.strftime("%Y-%m-%dT%H:%M:%SZ"))

    process(body, times=2, unwrap="eventbridge")

    assert books(db) == {"message": 1, "duplicate": 1, "rejection": 0}
    [row] = db.execute(
        "SELECT message_id, producer, occurred_at, sent_at, context ->> 'account', context -> 'resources' "
        "FROM message"
    )
    assert row == (body["id"], "acme.shop", EARLIER, EARLIER, "111122223333", body["resources"])


def test_a_repeated_s3_notification_is_one_message_and_the_test_event_is_noise(
    process: Process, db: Db, settings: Settings
) -> None:
    add(db, conditions={"/Event": "s3:TestEvent"})
    set_queue(db, settings.queue_name(), {"unwrap": "s3", "tenants": ["acme"]})

    process({"Records": [an_s3_record()]}, S3_TEST_EVENT, times=2)

    assert books(db) == {"message": 1, "duplicate": 1, "rejection": 2}
    assert db.execute("SELECT DISTINCT status FROM rejection").fetchall() == [("discarded",)]
    [row] = db.execute("SELECT tenant_id, event_type, producer, payload FROM message")
    assert row == ("acme", "ObjectCreated:Put", "arn:aws:s3:::amzn-s3-demo-bucket", an_s3_record())


@pytest.mark.parametrize("unwrap", ["sns", "eventbridge", "s3"])
def test_events_from_before_the_setting_are_accepted_by_a_replay(
    process: Process, db: Db, settings: Settings, unwrap: str
) -> None:
    body = {
        "sns": a_notification(a_pulse()),
        "eventbridge": an_eventbridge_event(a_pulse()),
        "s3": {"Records": [an_s3_record()]},
    }[unwrap]
    process(body, times=2)
    [(words,)] = db.execute("SELECT DISTINCT detail ->> 'message' FROM rejection").fetchall()
    changed = with_changes(settings, unwrap=unwrap, queue_tenants=frozenset(["acme"]))

    outcomes, _ = commands.replay(changed, RejectionSelection(), dry_run=False, forced=False)

    assert f"UNWRAP={unwrap}" in words
    assert f"processor queue set QUEUE --unwrap {unwrap}" in words
    assert outcomes == {"stored": 1, "duplicate": 1}
    assert books(db) == {"message": 1, "duplicate": 1, "rejection": 2}


def test_a_mapping_applies_to_the_detail(process: Process, db: Db, settings: Settings) -> None:
    mapping = {"tenant_id": "/who", "payload": "/what"}
    set_queue(db, settings.queue_name(), {"unwrap": "eventbridge", "mapping": mapping})

    process(an_eventbridge_event({"who": "acme", "what": {"n": 1}, "more": 2}))

    [row] = db.execute(
        "SELECT tenant_id, event_type, payload, context -> 'more', context -> 'region' FROM message"
    )
    assert row == ("acme", "Order Created", {"n": 1}, 2, "us-west-1")


def test_a_pointer_to_s3_is_kept_as_a_rejection(process: Process, db: Db) -> None:
    process(*POINTERS)

    assert books(db) == {"message": 0, "duplicate": 0, "rejection": 3}
