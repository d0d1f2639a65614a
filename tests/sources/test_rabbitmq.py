"""RabbitMQ as it really is: what it hands over, what it calls a message, and what comes again."""

import gzip
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pika.exceptions
import psycopg
import pytest
from kombu.connection import Connection

from processor.errors import Reason
from processor.model import SUSPECT_RECEIVE_COUNT, Delivery, Rejection
from processor.operations import reader, registry
from processor.runtime import metrics
from processor.sources.quarantine import QuarantineSource, RejectionSelection
from processor.sources.rabbitmq.source import RabbitMqSource, _acknowledgements
from processor.wire.formats import Claimed
from processor.wire.hand_overs import base_of
from tests.broker_servers.rabbitmq import RabbitQueue
from tests.builders import a_body
from tests.conformance.test_source import settled
from tests.fixtures.database import Saver, books
from tests.rabbit_sources import a_rabbitmq_source, end_connection, put_too_deep
from tests.rig import wait_until

pytestmark = pytest.mark.xdist_group("rabbitmq")
Db = psycopg.Connection[Any]


@pytest.fixture
def source(rabbitmq_queue: RabbitQueue) -> Iterator[RabbitMqSource]:
    source = a_rabbitmq_source(rabbitmq_queue)
    yield source
    source.close()


def take(source: RabbitMqSource, count: int = 1) -> list[Delivery]:
    found: list[Delivery] = []
    give_up_at = time.monotonic() + 20
    while len(found) < count:
        assert time.monotonic() < give_up_at, f"{len(found)} of {count} came"
        found += source.receive(count - len(found), 1)
    return found


# ── what a message is called ──────────────────────────────────────────────────────────────────────────


def a_pulse(**more: object) -> bytes:
    return json.dumps(
        {"tenant_id": "acme", "product_sku": "vm", "used_amount": 3, "use_unity": "GB"} | more
    ).encode()


@pytest.fixture
def pulses(db: Db) -> None:
    registry.publish_schema(db, "pulse", {"type": "object"})


def test_four_hourly_pulses_under_one_message_id_and_two_resends_all_have_a_row(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver, db: Db, pulses: None
) -> None:
    """A device that sends its own name as message_id, each hour: it contradicts itself, and is told so."""
    hours = [1_700_000_000 + 3600 * hour for hour in (0, 1, 2, 3, 0, 0)]
    for hour in hours:
        rabbitmq_queue.put(a_pulse(), message_id="device-7", timestamp=hour)

    outcomes = [saver.outcomes(delivery)[0] for delivery in take(source, 6)]

    assert outcomes == ["stored", *["id_conflict"] * 3, *["duplicate"] * 2]
    words = db.execute("SELECT detail ->> 'message' FROM rejection").fetchall()
    assert all("its occurred_at is the property timestamp" in each for (each,) in words)
    assert books(db) == {"message": 1, "duplicate": 2, "rejection": 3}
    assert db.execute("SELECT message_id, occurred_at FROM message").fetchall() == [
        ("device-7", datetime.fromtimestamp(hours[0], UTC))
    ]
    assert {row["place"] for row in reader.trace(db, "device-7", None)} == {
        "message",
        "duplicate",
        "rejection",
    }


def test_an_event_published_again_with_a_fresh_trace_is_a_duplicate(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver, db: Db, pulses: None
) -> None:
    for span in ("b7ad6b7169203331", "00f067aa0ba902b7"):
        trace = f"00-0af7651916cd43dd8448eb211c80319c-{span}-01"
        rabbitmq_queue.put(a_pulse(), message_id="m-7", headers={"traceparent": trace, "x-retry": span})

    assert [saver.outcomes(each)[0] for each in take(source, 2)] == ["stored", "duplicate"]

    [(message_id, context)] = db.execute("SELECT message_id, context FROM message").fetchall()
    assert message_id == "m-7"
    assert context["traceparent"].endswith("-b7ad6b7169203331-01")


def test_the_property_is_the_id_where_the_body_names_none_and_contradicts_none_that_it_names(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver, db: Db
) -> None:
    """Client libraries set it to something new at each publish."""
    rabbitmq_queue.put(a_body(id="own"), message_id="library-1", timestamp=1_700_000_000)
    rabbitmq_queue.put(a_body(id=None), message_id="the only one")
    rabbitmq_queue.put(a_body(id=None), message_id="library-2", headers={"message_id": "header"})

    assert saver.outcomes(*take(source, 3)) == ["stored"] * 3

    found = dict(db.execute("SELECT message_id, context ->> 'amqp.message_id' FROM message").fetchall())
    assert found == {"own": "library-1", "the only one": None, "header": "library-2"}
    assert {row["message_id"] for row in reader.trace(db, "library-1", None)} == {"own"}


def test_properties_and_headers_are_kept_as_context(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver, db: Db
) -> None:
    rabbitmq_queue.put(
        a_body(),
        app_id="shop",
        correlation_id="c",
        type="t",
        user_id="guest",
        priority=1,
        expiration="60000",
        headers={"region": "eu", "raw": b"\xff", "x-death": 1, "user_id": "u-1", "amqp.user_id": "forged"},
    )

    saver.save(*take(source))

    [(context,)] = db.execute("SELECT context FROM message").fetchall()
    assert context == {
        "app_id": "shop",
        "correlation_id": "c",
        "type": "t",
        "region": "eu",
        "raw": {"base64": "/w=="},
        "user_id": "u-1",
        "amqp.user_id": "guest",
        "amqp.user_id#2": "forged",
        "routing_key": rabbitmq_queue.name,
    }


REPEATED = [
    pytest.param({"body": a_body(), "message_id": "m1"}, id="named twice"),
    pytest.param({"body": a_body(id=None), "message_id": "m1"}, id="named by the property"),
    pytest.param({"body": a_body(id="e1")}, id="named by the body"),
    pytest.param({"body": a_body(id=None)}, id="anonymous"),
    pytest.param({"body": a_body(id=None), "message_id": "x" * 255}, id="too long a property"),
    pytest.param({"body": b"no JSON", "message_id": "m1"}, id="rejected, named"),
    pytest.param({"body": b"no JSON"}, id="rejected, anonymous"),
    pytest.param({"body": a_body(event_type="unknown"), "message_id": "m1"}, id="rejected with a key"),
]


@pytest.mark.parametrize("message", REPEATED)
def test_what_was_saved_and_not_acknowledged_is_known_when_it_comes_again(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver, db: Db, message: dict[str, Any]
) -> None:
    rabbitmq_queue.put(**message)
    [first] = take(source)
    saver.save(first)
    before = books(db)

    end_connection(source)
    [again] = take(source)

    assert again.delivery_id != first.delivery_id
    assert base_of(again.delivery_id) == base_of(first.delivery_id)
    assert again.repeated
    assert again.suspect
    assert saver.outcomes(again) == ["redelivered"]
    assert books(db) == before
    assert sum(before.values()) == 1


@pytest.mark.parametrize("message", REPEATED)
def test_what_came_before_and_was_not_saved_is_saved_as_a_new_one(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver, db: Db, message: dict[str, Any]
) -> None:
    rabbitmq_queue.put(**message)
    take(source)
    end_connection(source)

    [again] = take(source)
    saver.save(again)

    assert sum(books(db).values()) == 1


def test_a_duplicate_that_was_not_acknowledged_is_known_too(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver, db: Db
) -> None:
    rabbitmq_queue.put(a_body(id="e1"), app_id="first")
    rabbitmq_queue.put(a_body(id="e1"), app_id="second")
    assert [saver.outcomes(each)[0] for each in take(source, 2)] == ["stored", "duplicate"]

    end_connection(source)

    assert saver.outcomes(*take(source, 2)) == ["redelivered"] * 2
    assert books(db) == {"message": 1, "duplicate": 1, "rejection": 0}


def test_what_was_stored_is_known_again_where_it_can_not_be_read_any_more(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver, db: Db
) -> None:
    rabbitmq_queue.put(a_body(id=None))
    assert saver.outcomes(*take(source)) == ["stored"]
    end_connection(source)
    [again] = take(source)
    words = {"message": "too large by now"}

    [settlement] = saver.store.save(
        [Rejection(again, saver.schemas.version, Reason.TOO_LARGE, words, Claimed())]
    )

    assert settlement.outcome == "redelivered"
    assert books(db) == {"message": 1, "duplicate": 0, "rejection": 0}


def test_no_message_is_taken_for_another_whose_id_begins_alike(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver, db: Db
) -> None:
    """Somebody who knows how ids are made names a message so that it looks like an outcome of another one."""
    rabbitmq_queue.put(b"victim", message_id="m")
    [victim] = take(source)
    rabbitmq_queue.put(b"forged", message_id=f"{base_of(victim.delivery_id)}~00")
    assert saver.outcomes(*take(source)) == ["not_json"]
    end_connection(source)

    outcomes = {each.body: saver.outcomes(each)[0] for each in take(source, 2)}

    assert outcomes == {b"victim": "not_json", b"forged": "redelivered"}


def test_an_event_without_any_id_is_counted_as_unnamed(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver
) -> None:
    before = metrics.unnamed._value.get()
    rabbitmq_queue.put(a_body(id=None))

    assert saver.outcomes(*take(source)) == ["stored"]

    assert metrics.unnamed._value.get() == before + 1


@pytest.mark.parametrize("message_id", ["x" * 255, "a\x00b", "line\nend"])
def test_an_id_that_no_table_takes_is_replaced_by_its_digest(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver, message_id: str
) -> None:
    rabbitmq_queue.put(a_body(), message_id=message_id)

    [delivery] = take(source)

    assert len(base_of(delivery.delivery_id)) == 64
    assert saver.outcomes(delivery) == ["stored"]


# ── what it says beside the body ──────────────────────────────────────────────────────────────────────


def test_headers_that_are_no_text_come_as_their_json(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource
) -> None:
    headers = {"n": 7, "yes": True, "none": None, "list": [1, "a"], "when": datetime(2026, 1, 1, tzinfo=UTC)}
    rabbitmq_queue.put(message_id="m", headers=headers)

    [delivery] = take(source)

    assert delivery.attributes == {
        "amqp.message_id": "m",
        "routing_key": rabbitmq_queue.name,
        "n": "7",
        "yes": "true",
        "list": '[1, "a"]',
        "when": "2026-01-01T00:00:00+00:00",
    }


def test_a_header_that_is_a_float_keeps_its_fraction(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver, db: Db
) -> None:
    """JavaScript has no other numbers: an id made of the clock is one."""
    ids = [1.2, 1.7, 1793000000.123, 1793000000.999, 5e-324, 2.0, -1e30]
    # pika writes none.
    with Connection(rabbitmq_queue.url) as connection:  # type: ignore[no-untyped-call]
        for each in ids:
            headers = {"message_id": each, "ratio": -each, "more": [{"ratio": each}]}
            connection.Producer().publish(a_body(id=None), routing_key=rabbitmq_queue.name, headers=headers)

    outcomes = saver.outcomes(*take(source, len(ids)))

    assert outcomes == ["stored"] * len(ids)
    rows = "SELECT message_id, context ->> 'ratio', context ->> 'more' FROM message"
    assert set(db.execute(rows).fetchall()) == {
        (str(each), str(-each), json.dumps([{"ratio": each}]))
        for each in [int(each) if each.is_integer() else each for each in ids]
    }


@pytest.mark.parametrize("message_id", ["1\u00a0000", "\U0001f469\u200d\U0001f4bb", "soft\u00adly", "\ue000"])
def test_whatever_can_be_an_id_can_be_the_property(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver, db: Db, message_id: str
) -> None:
    for _ in range(2):
        rabbitmq_queue.put(a_body(id=None), message_id=message_id)

    taken = take(source, 2)

    assert saver.outcomes(*taken) == ["stored", "duplicate"]
    assert db.execute("SELECT message_id FROM message").fetchall() == [(message_id,)]
    assert base_of(taken[0].delivery_id).startswith(f"{message_id}:")


@pytest.mark.parametrize("message_id", ["a\tb", "p2\n", "\x7f", "\x9f"])
def test_a_property_that_can_be_no_id_is_refused_where_nothing_else_names_the_event(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver, db: Db, message_id: str
) -> None:
    rabbitmq_queue.put(a_body(id=None), message_id=message_id)
    rabbitmq_queue.put(a_body(id="own"), message_id=message_id)

    assert saver.outcomes(*take(source, 2)) == ["envelope_invalid", "stored"]

    [(words,)] = db.execute("SELECT detail ->> 'message' FROM rejection").fetchall()
    assert (
        words == "id (from the message attribute amqp.message_id): has control characters or lone surrogates"
    )


def test_headers_that_nobody_can_read_are_a_rejection_and_take_no_other_message_with_them(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver, db: Db
) -> None:
    """The client's own reader gives up at some hundred levels, and its connection with it."""
    put_too_deep(rabbitmq_queue, a_body(), message_id="m1")
    rabbitmq_queue.put(a_body(id="next"), message_id="m2")

    taken = take(source, 2)

    assert [saver.outcomes(each)[0] for each in taken] == ["envelope_invalid", "stored"]
    words = "the headers can't be read: RecursionError"
    assert db.execute("SELECT detail ->> 'fault', detail ->> 'message' FROM rejection").fetchall() == [
        (words, words)
    ]
    [replayed] = QuarantineSource(db, RejectionSelection()).receive(10, 0)
    assert replayed.fault == words
    assert saver.outcomes(replayed) == ["envelope_invalid"]


@pytest.mark.parametrize(
    ("timestamp", "age"),
    [(1_700_000_000, None), (None, 0), (4_102_444_800, 0), (2**40, 0), (2**63, 0)],
)
def test_the_senders_moment_holds_unless_it_is_none_or_to_come(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, timestamp: int | None, age: int | None
) -> None:
    rabbitmq_queue.put(message_id="m", timestamp=timestamp)

    [delivery] = take(source)

    if age is None:
        assert delivery.sent_at == datetime.fromtimestamp(1_700_000_000, UTC)
    else:
        assert abs(delivery.sent_at - datetime.now(UTC)) < timedelta(seconds=20)


def test_the_sender_is_who_the_broker_says_and_no_other_may_say_so(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource
) -> None:
    rabbitmq_queue.put(message_id="m", user_id="guest")
    with pytest.raises(pika.exceptions.ChannelClosedByBroker):
        rabbitmq_queue.put(message_id="m", user_id="somebody else")
    rabbitmq_queue.reconnect()

    [delivery] = take(source)

    assert delivery.sender_id == "guest"


def test_a_body_that_is_compressed_is_unpacked_where_the_property_says_so_and_else_rejected_as_it_came(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver, db: Db
) -> None:
    body = gzip.compress(a_body())
    rabbitmq_queue.put(body, message_id="m1", content_encoding="gzip")
    rabbitmq_queue.put(body, message_id="m2")

    assert saver.outcomes(*take(source, 2)) == ["stored", "not_utf8"]
    assert db.execute("SELECT body FROM rejection").fetchall() == [(body,)]


# ── how often it came, and what is ours ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["quorum", "classic"])
@pytest.mark.parametrize("said", [2**31, 10, -1, "10", None])
def test_whatever_came_before_is_suspect_and_no_header_says_how_often(
    rabbitmq_queue: RabbitQueue, saver: Saver, kind: str, said: object
) -> None:
    """Any client can write the header in which a quorum queue counts."""
    queue = RabbitQueue(rabbitmq_queue.url, f"{rabbitmq_queue.name}-{kind}", kind)
    queue.make()
    queue.put(a_body(), message_id="m", headers=None if said is None else {"x-delivery-count": said})
    source = a_rabbitmq_source(queue)

    [first] = take(source)
    source.release([first])
    [second] = take(source)

    assert (first.receive_count, second.receive_count) == (1, SUSPECT_RECEIVE_COUNT)
    assert saver.outcomes(second) == ["stored"]
    source.close()
    queue.close()


def test_what_was_dead_lettered_keeps_its_id_and_says_where_it_lay(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource
) -> None:
    name = f"{rabbitmq_queue.name}-first"
    first = RabbitQueue(rabbitmq_queue.url, name)
    rabbitmq_queue.channel.exchange_declare(f"{name}-dead", "fanout")
    rabbitmq_queue.channel.queue_bind(rabbitmq_queue.name, f"{name}-dead")
    first.make(**{"x-dead-letter-exchange": f"{name}-dead"})
    first.put(b"dead", message_id="m", headers={"tenant_id": "acme"})
    before = a_rabbitmq_source(first)
    [there] = take(before)
    with before._changed:
        assert before._link is not None
        link = before._link
        link._do(lambda channel: channel.basic_nack(1, requeue=False))

    [here] = take(source)

    assert here.attributes == {
        "amqp.message_id": "m",
        "routing_key": name,
        "tenant_id": "acme",
        "x-first-death-queue": name,
        "x-first-death-reason": "rejected",
        "x-first-death-exchange": "",
    }
    assert here.queue == rabbitmq_queue.name
    assert base_of(here.delivery_id) == base_of(there.delivery_id)
    assert there.receive_count == here.receive_count == 1
    before.close()
    first.close()
    rabbitmq_queue.channel.exchange_delete(f"{name}-dead")


def test_no_more_is_taken_ahead_than_the_buffer_may_hold(rabbitmq_queue: RabbitQueue) -> None:
    for _ in range(15):
        rabbitmq_queue.put(message_id=str(uuid.uuid4()))
    source = a_rabbitmq_source(rabbitmq_queue, buffer_size_max=10)

    take(source, 3)

    wait_until(lambda: source.depth() == {"visible": 5, "in_flight": 10}, "the rest stays with the broker")
    source.close()
    wait_until(lambda: rabbitmq_queue.depth() == 15, "all of it is there again")


def test_what_is_settled_before_the_end_is_gone_for_good(rabbitmq_queue: RabbitQueue) -> None:
    for place in range(5):
        rabbitmq_queue.put(message_id=str(place))
    source = a_rabbitmq_source(rabbitmq_queue)
    deliveries = take(source, 5)

    source.settle(settled([deliveries[place] for place in (0, 1, 3)]))
    source.close()

    wait_until(lambda: rabbitmq_queue.depth() == 2, "two are left")
    again = a_rabbitmq_source(rabbitmq_queue)
    assert {base_of(each.delivery_id) for each in take(again, 2)} == {
        base_of(deliveries[2].delivery_id),
        base_of(deliveries[4].delivery_id),
    }
    again.close()


@pytest.mark.parametrize(
    ("tags", "oldest_open", "expected"),
    [
        ([1, 2, 3], None, [(3, True)]),
        ([3, 1, 2], 4, [(3, True)]),
        ([1, 2, 4, 6], 3, [(2, True), (4, False), (6, False)]),
        ([4, 5], 3, [(4, False), (5, False)]),
    ],
)
def test_one_acknowledgement_stands_for_no_tag_that_is_still_open(
    tags: list[int], oldest_open: int | None, expected: list[tuple[int, bool]]
) -> None:
    assert _acknowledgements(tags, oldest_open) == expected


def test_the_core_does_without_the_driver() -> None:
    program = (
        "import sys, processor.cli, producers.cli, processor.wiring.service, processor.wiring.commands; "
        "sys.exit(any(name.partition('.')[0] == 'pika' for name in sys.modules))"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
