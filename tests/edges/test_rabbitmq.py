"""RabbitMQ as it really is: what it hands over, what it calls a message, and what comes again."""

import gzip
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

from processor import metrics
from processor.model import Delivery
from processor.sources.rabbitmq import RabbitMqSource, _acknowledgements
from tests.brokers.rabbitmq import RabbitQueue
from tests.builders import a_body
from tests.conformance.test_source import settled
from tests.fix_database import Saver, books
from tests.rabbit_sources import a_rabbitmq_source, end_connection
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


def test_two_events_under_one_message_id_are_two(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver, db: Db
) -> None:
    """A client that reuses the property would else lose the second one as a redelivery of the first."""
    for event_id in ("e1", "e2"):
        rabbitmq_queue.put(a_body(id=event_id), message_id="always the same")

    outcomes = saver.outcomes(*take(source, 2))

    assert outcomes == ["stored", "stored"]


def test_an_equal_message_under_the_same_message_id_is_a_redelivery(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver, db: Db
) -> None:
    for _ in range(2):
        rabbitmq_queue.put(a_body(id=None), message_id="sent twice")

    outcomes = saver.outcomes(*take(source, 2))

    assert outcomes == ["stored", "redelivered"]
    assert books(db) == {"message": 1, "duplicate": 0, "rejection": 0}


def test_what_was_saved_and_not_acknowledged_is_known_when_it_comes_again(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver, db: Db
) -> None:
    rabbitmq_queue.put(a_body(), message_id="m1")
    [first] = take(source)
    assert saver.outcomes(first) == ["stored"]

    end_connection(source)
    [second] = take(source)

    assert (second.delivery_id, second.receive_count) == (first.delivery_id, 2)
    assert saver.outcomes(second) == ["redelivered"]


def test_an_event_of_a_nameless_message_that_comes_again_is_known_by_its_own_id(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver, db: Db
) -> None:
    rabbitmq_queue.put(a_body(id="e1"))
    [first] = take(source)
    assert saver.outcomes(first) == ["stored"]

    end_connection(source)
    [again] = take(source)

    assert not again.named
    assert again.repeated
    assert again.delivery_id != first.delivery_id
    assert saver.outcomes(again) == ["redelivered"]
    assert books(db) == {"message": 1, "duplicate": 0, "rejection": 0}


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

    assert delivery.named
    assert len(delivery.delivery_id) == 64
    assert saver.outcomes(delivery) == ["stored"]


# ── what it says beside the body ──────────────────────────────────────────────────────────────────────


def test_headers_that_are_no_text_come_as_their_json(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource
) -> None:
    headers = {"n": 7, "yes": True, "none": None, "list": [1, "a"], "when": datetime(2026, 1, 1, tzinfo=UTC)}
    rabbitmq_queue.put(message_id="m", headers=headers)

    [delivery] = take(source)

    assert delivery.attributes == {
        "n": "7",
        "yes": "true",
        "none": "null",
        "list": '[1, "a"]',
        "when": '"2026-01-01T00:00:00+00:00"',
    }


def test_headers_that_nobody_can_read_take_no_other_message_with_them(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource
) -> None:
    """The client's own reader gives up at some hundred levels, and its connection with it."""
    deep: Any = []
    for _ in range(3000):
        deep = [deep]
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        rabbitmq_queue.put(b"deep", message_id="m1", headers={"deep": deep})
    finally:
        sys.setrecursionlimit(limit)
    rabbitmq_queue.put(b"next", message_id="m2")

    taken = take(source, 2)

    assert [delivery.body for delivery in taken] == [b"deep", b"next"]
    assert all(delivery.receive_count == 1 for delivery in taken)


@pytest.mark.parametrize(
    ("timestamp", "age"),
    [(1_700_000_000, None), (None, 0), (2**40, 0), (2**63, 0)],
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


def test_a_body_that_is_compressed_is_rejected_as_it_came(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver
) -> None:
    rabbitmq_queue.put(gzip.compress(a_body()), message_id="m", content_encoding="gzip")

    assert saver.outcomes(*take(source)) == ["not_utf8"]


# ── how often it came, and what is ours ───────────────────────────────────────────────────────────────


def test_a_quorum_queue_counts_the_receives_until_a_message_is_suspect(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource
) -> None:
    rabbitmq_queue.put(message_id="m")
    counts = []

    for _ in range(3):
        [delivery] = take(source)
        counts.append(delivery.receive_count)
        source.release([delivery])

    assert counts == [1, 2, 3]
    assert delivery.suspect


def test_on_a_classic_queue_whatever_came_before_is_suspect(rabbitmq_queue: RabbitQueue) -> None:
    classic = RabbitQueue(rabbitmq_queue.url, f"{rabbitmq_queue.name}-classic", "classic")
    classic.make()
    classic.put(message_id="m")
    source = a_rabbitmq_source(classic)

    [first] = take(source)
    source.release([first])
    [second] = take(source)

    assert not first.suspect
    assert second.suspect
    source.close()
    classic.close()


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
        "tenant_id": "acme",
        "x-first-death-queue": name,
        "x-first-death-reason": "rejected",
        "x-first-death-exchange": "",
    }
    assert here.queue == rabbitmq_queue.name
    assert here.delivery_id == there.delivery_id
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
    assert {each.delivery_id for each in take(again, 2)} == {
        deliveries[2].delivery_id,
        deliveries[4].delivery_id,
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
