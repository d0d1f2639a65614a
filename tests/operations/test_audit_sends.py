"""What a manifest proves of sends that were never answered, name no id, or share one."""

from typing import Any

import psycopg
import pytest

from processor.model import Delivery
from tests.builders import a_delivery, an_event
from tests.fixtures.audit import Audited, Producer, ids, wrong
from tests.fixtures.database import Saver

Db = psycopg.Connection[Any]


# ── events without an id: known by tenant and payload ─────────────────────────────────────────────────


def nameless(**changes: Any) -> Delivery:
    return a_delivery(id=None, **changes)


def test_an_event_without_an_id_whose_answer_was_lost_is_expected(
    saver: Saver, producer: Producer, audited: Audited
) -> None:
    saver.save(producer.intends(nameless(payload={"total": 1.0, "note": "x"})), producer.sends(nameless()))

    assert wrong(audited()) == {}


def test_a_retried_send_of_an_event_without_an_id_is_no_problem(
    saver: Saver, producer: Producer, audited: Audited
) -> None:
    # The first answer was lost; nothing tells the two deliveries to be one event.
    first, second = producer.intends(nameless()), nameless()
    producer.is_answered(second)

    saver.save(first, second)

    assert wrong(audited()) == {}


def test_an_intention_without_an_id_explains_one_row(
    saver: Saver, producer: Producer, audited: Audited
) -> None:
    deliveries = [nameless(delivery_id=f"d-{number}") for number in range(5)]
    for delivery in deliveries[:2]:
        producer.intends(delivery)

    saver.save(*deliveries)

    report = audited()
    assert wrong(report) == {"unexpected": 3}
    assert ids(report, "unexpected") == ["d-2", "d-3", "d-4"]


@pytest.mark.parametrize("changes", [{"payload": {"total": 13}}, {"id": "o-1"}])
def test_an_intention_without_an_id_explains_no_other_message(
    saver: Saver, producer: Producer, audited: Audited, changes: dict[str, Any]
) -> None:
    producer.intends(nameless())
    stranger = a_delivery(**{"id": None} | changes)

    saver.save(stranger)

    report = audited()
    assert wrong(report) == {"unexpected": 1}
    assert ids(report, "unexpected") == [stranger.delivery_id]


def test_garbage_whose_answer_was_lost_is_no_problem_and_explains_nothing(
    saver: Saver, producer: Producer, audited: Audited
) -> None:
    saver.save(producer.intends(a_delivery(b"nonsense")), producer.intends(a_delivery(b"[]" * 2)))
    assert wrong(audited()) == {}

    saver.save(nameless())
    assert audited().others == 1


# ── one id of several producers: the key allows it ────────────────────────────────────────────────────


@pytest.mark.parametrize("base", ["device-7:0123456789abcdef", "0123456789abcdef" * 4])
def test_of_equal_messages_of_rabbitmq_as_many_rows_must_be_there_as_were_accepted(
    saver: Saver, producer: Producer, audited: Audited, base: str
) -> None:
    """Its ids name no sending, so six accepted under one name and two rows are four that are lost."""
    event = an_event(id="o-1")
    for _ in range(6):
        producer.sends(a_delivery(delivery_id=base, **event))
    rows = [a_delivery(delivery_id=f"{base}~{number:012x}", **event) for number in range(6)]

    saver.save(*rows[:2])
    missing = audited()
    saver.save(*rows[2:])
    whole = audited()

    assert wrong(missing) == {"lost": 4}
    assert missing.accepted == {"accepted": 6, "message": 1, "duplicate": 1, "rejection": 0, "missing": 4}
    assert whole.holds, whole.text()
    assert whole.accepted == {"accepted": 6, "message": 1, "duplicate": 5, "rejection": 0, "missing": 0}


def test_two_producers_may_use_one_id(saver: Saver, producer: Producer, audited: Audited) -> None:
    deliveries = [a_delivery(id="o-1", producer=name) for name in ("shop", "till")]
    again = a_delivery(id="o-1", producer="till")
    saver.save(*map(producer.sends, [*deliveries, again]))

    report = audited()

    assert wrong(report) == {}
    assert report.accepted == {"accepted": 3, "message": 2, "duplicate": 1, "rejection": 0, "missing": 0}


def test_two_producers_may_use_one_id_though_their_answers_were_lost(
    saver: Saver, producer: Producer, audited: Audited
) -> None:
    saver.save(
        producer.intends(a_delivery(id="o-1", producer="shop")),
        producer.sends(a_delivery(id="o-1", producer="till")),
        producer.intends(a_delivery(id="o-1")),
    )

    assert wrong(audited()) == {}


def test_two_deliveries_are_two_sends_though_no_intention_is_named(
    saver: Saver, producer: Producer, audited: Audited
) -> None:
    deliveries = [a_delivery(id="o-1", producer=name) for name in ("shop", "till")]
    for delivery in deliveries:
        producer.is_answered(delivery)

    saver.save(*deliveries)

    assert wrong(audited()) == {}


@pytest.mark.parametrize("answered", [True, False])
def test_a_message_in_more_rows_than_it_was_sent_is_there_twice(
    saver: Saver, producer: Producer, audited: Audited, *, answered: bool
) -> None:
    send = producer.sends if answered else producer.intends
    saver.save(send(a_delivery(id="o-1")), a_delivery(id="o-1", producer="other"))

    report = audited()

    assert wrong(report) == {"twice": 1}
    assert report.examples["twice"] == [{"tenant_id": "acme", "message_id": "o-1", "count": 2, "sends": 1}]


def test_a_send_that_was_retried_is_one_send(saver: Saver, producer: Producer, audited: Audited) -> None:
    # One intention, two deliveries: the doubled row of another producer is still one too many.
    first, second = producer.intends(a_delivery(id="o-1")), a_delivery(id="o-1")
    producer.is_answered(second)
    saver.save(first, second)
    assert wrong(audited()) == {}

    saver.save(a_delivery(id="o-1", producer="other"))
    assert wrong(audited()) == {"twice": 1}


def test_one_delivery_in_two_rows_is_there_twice_however_often_it_was_sent(
    saver: Saver, db: Db, producer: Producer, audited: Audited
) -> None:
    deliveries = [producer.sends(a_delivery(id="o-1", producer=name)) for name in ("shop", "till")]
    saver.save(*deliveries)
    db.execute("UPDATE message SET delivery_id = %s", [deliveries[0].delivery_id])

    # The other delivery then is nowhere.
    assert wrong(audited()) == {"lost": 1, "twice": 1}


# ── RabbitMQ: a manifest names what the ids of equal messages begin with ──────────────────────────────


BASE = "device-7:0123456789abcdef"


def hand_over(number: int, body: bytes | None = None) -> Delivery:
    """One hand-over of the message that a manifest calls BASE."""
    return a_delivery(body, delivery_id=f"{BASE}~{number:012x}", id="o-1")


def is_accepted(producer: Producer, times: int) -> None:
    for _ in range(times):
        producer.sends(a_delivery(delivery_id=BASE, id="o-1"))


def test_equal_messages_are_as_many_sends_and_each_wants_its_row(
    saver: Saver, producer: Producer, audited: Audited
) -> None:
    is_accepted(producer, 6)
    saver.save(hand_over(1), hand_over(2))

    report = audited()

    assert wrong(report) == {"lost": 4}
    assert report.accepted == {"accepted": 6, "message": 1, "duplicate": 1, "rejection": 0, "missing": 4}
    saver.save(*map(hand_over, range(3, 7)))
    assert wrong(audited()) == {}


def test_an_equal_delivery_explains_no_other_message(
    saver: Saver, producer: Producer, audited: Audited
) -> None:
    """An outcome under the event's key, of another delivery, is not this delivery's."""
    saver.save(a_delivery(delivery_id="other", id="o-1"))
    is_accepted(producer, 1)

    assert wrong(audited()) == {"lost": 1}


def test_a_message_of_rabbitmq_that_is_stored_and_rejected_was_sent_twice_or_is_there_twice(
    saver: Saver, producer: Producer, audited: Audited, db: Db
) -> None:
    is_accepted(producer, 1)
    saver.save(hand_over(1), hand_over(2, b"too large, say"))

    report = audited()

    assert wrong(report) == {"twice": 1}
    assert report.examples["twice"] == [{"delivery_id": BASE, "places": "message, rejection"}]
    is_accepted(producer, 1)
    assert wrong(audited()) == {}


def test_a_message_of_rabbitmq_that_was_replayed_is_there_once(
    saver: Saver, producer: Producer, audited: Audited, db: Db
) -> None:
    is_accepted(producer, 1)
    saver.save(hand_over(1), hand_over(2, b"no JSON"))
    db.execute(
        "UPDATE rejection SET status = 'replayed', closed_at = now(),"
        " delivery_id = (SELECT delivery_id FROM message)"
    )

    assert wrong(audited()) == {}
