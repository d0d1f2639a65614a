"""Events without any id that are equal in everything: each has its row, whatever ends in the middle.

RabbitMQ tells of a message that it was handed over before, and not which of several equal ones it is.
"""

import json
import signal
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

from processor.errors import Reason
from processor.model import Delivery, Outcome, Rejection, Settlement
from processor.operations import registry
from processor.sources.rabbitmq.source import RabbitMqSource
from processor.store.save_statements import SETTLED_WITHIN_S
from processor.wire.formats import Claimed
from tests.broker_servers.rabbitmq import RabbitQueue
from tests.fixtures.database import MakeSaver, Saver, books, count
from tests.rabbit_sources import a_rabbitmq_source, end_connection
from tests.rig import wait_until
from tests.sources.test_rabbitmq import take
from tests.sources.test_rabbitmq_outages import processor

pytestmark = pytest.mark.xdist_group("rabbitmq")
Db = psycopg.Connection[Any]

PULSE = json.dumps({"tenant_id": "acme", "product_sku": "vm", "used_amount": 3, "use_unity": "GB"}).encode()
SENT = 1200
EQUAL = [
    pytest.param(PULSE, "stored", id="event"),
    pytest.param(b"no JSON", "not_json", id="not JSON"),
    pytest.param(PULSE.replace(b"acme", b"nobody"), "unknown_tenant", id="rejected"),
    pytest.param(b'{"id": "", "product_sku": 1, "used_amount": 1}', "envelope_invalid", id="an empty id"),
]


@pytest.fixture(autouse=True)
def pulses(db: Db) -> None:
    registry.publish_schema(db, "pulse", {"type": "object"})


@pytest.fixture
def source(rabbitmq_queue: RabbitQueue) -> Iterator[RabbitMqSource]:
    source = a_rabbitmq_source(rabbitmq_queue)
    yield source
    source.close()


# ── the whole program ─────────────────────────────────────────────────────────────────────────────────


def put_equal_ones(queue: RabbitQueue, number: int) -> None:
    for _ in range(number):
        queue.put(PULSE)


def test_plain_stops_in_the_middle_lose_none_and_double_none(
    rabbitmq_queue: RabbitQueue, database_url: str, db: Db, tmp_path: Path
) -> None:
    put_equal_ones(rabbitmq_queue, SENT)
    for stored in (50, 300):
        with processor(database_url, rabbitmq_queue.source_url, tmp_path) as running:
            wait_until(partial(more_are_stored_than, stored, db), "some are stored")
            running.send_signal(signal.SIGTERM)
            assert running.wait(30) == 0
        assert count(db, "message") + rabbitmq_queue.depth() == SENT, "none left the queue without a row"
        assert count(db, "unsettled") == 0
    assert rabbitmq_queue.depth(), "it was stopped in the middle"

    finish(rabbitmq_queue, database_url, db, tmp_path, SENT)


def more_are_stored_than(stored: int, db: Db) -> bool:
    return count(db, "message") > stored


def test_one_of_several_processes_that_stops_loses_none_and_doubles_none(
    rabbitmq_queue: RabbitQueue, database_url: str, db: Db, tmp_path: Path
) -> None:
    """What it gives back comes to another one, while that one is acknowledging equal events."""
    put_equal_ones(rabbitmq_queue, SENT)
    stops, stays = tmp_path / "stops", tmp_path / "stays"
    stops.mkdir()
    stays.mkdir()
    with (
        processor(database_url, rabbitmq_queue.source_url, stays) as staying,
        processor(database_url, rabbitmq_queue.source_url, stops) as stopping,
    ):
        wait_until(lambda: "started" in (stops / "processor.log").read_text(), "both are there")
        wait_until(lambda: consumers(rabbitmq_queue) == 2, "both consume")
        assert rabbitmq_queue.depth(), "it is stopped in the middle"
        stopping.send_signal(signal.SIGTERM)
        assert stopping.wait(30) == 0
        wait_until(lambda: count(db, "message") >= SENT, "all are stored")
        staying.send_signal(signal.SIGTERM)
        assert staying.wait(30) == 0

    assert rabbitmq_queue.depth() == 0
    assert books(db) == {"message": SENT, "duplicate": 0, "rejection": 0}
    assert count(db, "unsettled") == 0


def consumers(queue: RabbitQueue) -> int:
    return int(queue.channel.queue_declare(queue.name, passive=True).method.consumer_count)


@pytest.mark.parametrize("place", ["after insert_messages", "before commit", "after commit", "before settle"])
def test_a_kill_before_the_acknowledgement_loses_none_and_doubles_none(
    rabbitmq_queue: RabbitQueue, database_url: str, db: Db, tmp_path: Path, place: str
) -> None:
    put_equal_ones(rabbitmq_queue, 24)
    dying = ("tests.chaos.victims.dying", place)
    with processor(database_url, rabbitmq_queue.source_url, tmp_path, dying) as running:
        assert running.wait(30) == -signal.SIGKILL
    committed = place in ("after commit", "before settle")
    assert (count(db, "message") > 0) == committed
    wait_until(lambda: rabbitmq_queue.depth() == 24, "nothing was acknowledged")

    finish(rabbitmq_queue, database_url, db, tmp_path, 24)


def test_a_process_without_its_forgetter_ends(
    rabbitmq_queue: RabbitQueue, database_url: str, db: Db, tmp_path: Path
) -> None:
    put_equal_ones(rabbitmq_queue, 24)
    dying = ("tests.chaos.victims.dead_thread", "forgetter", "processor")
    with processor(database_url, rabbitmq_queue.source_url, tmp_path, dying) as running:
        assert running.wait(30) == 1


def finish(queue: RabbitQueue, database_url: str, db: Db, directory: Path, stored: int) -> None:
    """Let a processor read all that is left, stop it, and look: none was lost, none stored twice."""
    with processor(database_url, queue.source_url, directory) as running:
        wait_until(lambda: not queue.depth() and count(db, "message") >= stored, "all are stored")
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0
    assert queue.depth() == 0
    assert books(db) == {"message": stored, "duplicate": 0, "rejection": 0}
    assert count(db, "unsettled") == 0


# ── which outcome a redelivery takes ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("body", "outcome"), EQUAL)
def test_of_two_equal_ones_that_come_again_only_the_one_that_was_saved_is_known(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver, db: Db, body: bytes, outcome: str
) -> None:
    rabbitmq_queue.put(body)
    rabbitmq_queue.put(body)
    first, _ = take(source, 2)
    assert saver.outcomes(first) == [outcome]
    end_connection(source)

    assert saver.outcomes(*take(source, 2)) == ["redelivered", outcome]
    assert sum(books(db).values()) == 2

    end_connection(source)
    assert saver.outcomes(*take(source, 2)) == ["redelivered"] * 2
    assert sum(books(db).values()) == 2


@pytest.mark.parametrize("held_first", [True, False])
@pytest.mark.parametrize("properties", [{}, {"message_id": "m"}])
def test_what_is_held_when_its_connection_ends_is_left_to_whoever_gets_it_again(
    rabbitmq_queue: RabbitQueue,
    source: RabbitMqSource,
    saver: Saver,
    db: Db,
    held_first: bool,
    properties: dict[str, Any],
) -> None:
    """Two processes hold it then, with settings of their own maybe, and the first may be slow or paused."""
    rabbitmq_queue.put(PULSE, **properties)
    held = take(source, 1)
    end_connection(source)
    again = take(source, 1)

    outcomes = [saver.outcomes(*each) for each in ((held, again) if held_first else (again, held))]

    assert sorted(outcomes) == [["redelivered"], ["stored"]]
    assert books(db) == {"message": 1, "duplicate": 0, "rejection": 0}


def too_large_by_now(saver: Saver, delivery: Delivery) -> Rejection:
    words = {"message": "too large by now"}
    return Rejection(delivery, saver.schemas.version, Reason.TOO_LARGE, words, Claimed())


def test_of_equal_ones_that_can_not_be_read_any_more_only_the_stored_one_is_known(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver, db: Db
) -> None:
    put_equal_ones(rabbitmq_queue, 2)
    saver.save(take(source, 2)[0])
    end_connection(source)

    settlements = saver.store.save([too_large_by_now(saver, again) for again in take(source, 2)])

    assert [settlement.outcome for settlement in settlements] == ["redelivered", "rejected"]
    assert books(db) == {"message": 1, "duplicate": 0, "rejection": 1}


def test_an_event_with_an_id_is_known_where_it_can_not_be_read_any_more(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver, db: Db
) -> None:
    rabbitmq_queue.put(PULSE[:-1] + b', "id": "e"}')
    saver.save(*take(source))
    end_connection(source)

    [settlement] = saver.store.save([too_large_by_now(saver, again) for again in take(source)])

    assert settlement.outcome == "redelivered"
    assert books(db) == {"message": 1, "duplicate": 0, "rejection": 0}


def test_a_save_that_is_repeated_takes_no_other_outcome(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver, db: Db
) -> None:
    """A COMMIT whose answer is lost is followed by the same save once more."""
    put_equal_ones(rabbitmq_queue, 10)
    saver.save(*take(source, 10)[:9])
    end_connection(source)
    again = take(source, 10)

    for delivery in again:
        once, twice = saver.outcomes(delivery), saver.outcomes(delivery)
        assert twice == ["redelivered"]
    assert once == ["stored"]
    assert count(db, "message") == count(db, "unsettled") == 10


def test_what_another_process_may_be_acknowledging_is_left_alone(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, make_saver: MakeSaver, db: Db
) -> None:
    rabbitmq_queue.put(PULSE)
    rabbitmq_queue.put(PULSE)
    take(source, 2)
    end_connection(source)
    first, second = take(source, 2)
    # The one came first and was waited for; the other has an outcome that nobody has acknowledged yet.
    assert make_saver().outcomes(first) == ["stored"]
    second = replace(second, received_at=second.received_at - timedelta(seconds=SETTLED_WITHIN_S))

    assert make_saver().outcomes(second) == ["stored"]
    assert count(db, "message") == 2


def test_equal_messages_with_an_id_have_a_row_each_also_where_one_of_them_comes_again(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver, db: Db
) -> None:
    for _ in range(2):
        rabbitmq_queue.put(PULSE, message_id="m")
    [first, _] = take(source, 2)
    assert saver.outcomes(first) == ["stored"]
    source.settle([Settlement(first, Outcome.STORED)])
    wait_until(lambda: source._asked == source._noted == [], "the acknowledgement has arrived")
    saver.store.forget_settled(first.queue, [first.delivery_id])
    end_connection(source)
    [again] = take(source, 1)

    assert again.repeated
    assert saver.outcomes(again) == ["duplicate"]
    assert (count(db, "message"), count(db, "duplicate")) == (1, 1)


# ── what is known to be acknowledged ──────────────────────────────────────────────────────────────────


def test_what_has_arrived_is_told_and_what_came_over_an_ended_connection_is_not(
    rabbitmq_queue: RabbitQueue,
) -> None:
    told: list[str] = []
    source = a_rabbitmq_source(rabbitmq_queue, on_arrival=told.extend)
    put_equal_ones(rabbitmq_queue, 2)
    lost = take(source, 2)
    end_connection(source)
    first, second = take(source, 2)

    source.settle([Settlement(delivery, Outcome.STORED) for delivery in (*lost, first)])
    source.settle([Settlement(second, Outcome.STORED)])
    source.close()

    assert told == [first.delivery_id, second.delivery_id]
    assert rabbitmq_queue.depth() == 0


def test_an_acknowledgement_that_nobody_has_answered_is_not_told(
    rabbitmq_queue: RabbitQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    source = a_rabbitmq_source(rabbitmq_queue, on_arrival=told.extend)
    put_equal_ones(rabbitmq_queue, 2)
    deliveries = take(source, 2)
    assert source._link is not None
    monkeypatch.setattr(source._link, "ask", lambda _on_answer: None)

    for delivery in deliveries:
        source.settle([Settlement(delivery, Outcome.STORED)])
    end_connection(source)
    assert source.receive(1, 0) == []
    source.close()

    assert told == []


def test_a_note_goes_when_its_key_may_be_forgotten(
    rabbitmq_queue: RabbitQueue, source: RabbitMqSource, saver: Saver, db: Db
) -> None:
    put_equal_ones(rabbitmq_queue, 2)
    old, young = take(source, 2)
    saver.save(old, young)
    db.execute(
        "UPDATE unsettled SET noted_at = now() - interval '29 days' WHERE delivery_id = %s", [old.delivery_id]
    )

    saver.store.note_hangs(rabbitmq_queue.name, [], keep_days=28)

    assert db.execute("SELECT delivery_id FROM unsettled").fetchall() == [(young.delivery_id,)]
