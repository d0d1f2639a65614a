"""The audit may run beside producers and processors, and over many messages, and still says what is so."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from processor.errors import SettingsError
from processor.operations.audit import LOOK_AGAIN_AFTER_S, audit
from tests.builders import a_delivery
from tests.fixtures.audit import Audited, Producer, ids, wrong
from tests.fixtures.database import Saver

Db = psycopg.Connection[Any]


def never(_seconds: float) -> None:
    pytest.fail("there was no reason to look again")


def at_once(_seconds: float) -> None:
    """Look again without a pause."""


# ── producers go on ───────────────────────────────────────────────────────────────────────────────────


def test_what_is_accepted_after_the_queue_was_asked_is_not_lost(
    saver: Saver, producer: Producer, audited: Audited
) -> None:
    saver.save(producer.sends(a_delivery()))

    def queued() -> int:
        producer.sends(a_delivery())
        return 0

    report = audited(queued, wait=never)

    assert report.holds
    assert report.accepted is not None
    assert report.accepted["accepted"] == 1


@pytest.mark.parametrize("changes", [{}, {"id": None}])
def test_what_is_accepted_after_the_queue_was_asked_is_not_unexpected(
    saver: Saver, producer: Producer, audited: Audited, changes: dict[str, Any]
) -> None:
    saver.save(producer.sends(a_delivery()))

    def queued() -> int:
        saver.save(producer.sends(a_delivery(**changes)))
        return 0

    assert wrong(audited(queued, wait=never)) == {}


def test_what_was_accepted_before_is_lost_however_much_is_sent_meanwhile(
    producer: Producer, audited: Audited
) -> None:
    lost = producer.sends(a_delivery())

    def queued() -> int:
        producer.sends(a_delivery())
        return 0

    report = audited(queued)

    # The second look has seen the line that came during the first.
    assert wrong(report) == {"lost": 2}
    assert lost.delivery_id in ids(report, "lost")


def test_a_last_line_without_its_line_feed_was_accepted_all_the_same(
    producer: Producer, audited: Audited
) -> None:
    producer.sends(a_delivery())
    producer.path.write_bytes(producer.path.read_bytes().rstrip(b"\n"))

    assert wrong(audited()) == {"lost": 1}


def test_a_manifest_that_can_be_read_once_only_is_refused(db: Db, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    with pytest.raises(SettingsError, match="no regular file"):
        audit(db, [pipe], None)


# ── processors go on ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("still_counted", [0, 1])
def test_a_delivery_that_moves_from_queue_to_table_is_seen(
    saver: Saver, producer: Producer, audited: Audited, still_counted: int
) -> None:
    delivery = producer.sends(a_delivery())

    def queued() -> int:
        saver.save(delivery)
        return still_counted

    assert wrong(audited(queued, wait=never)) == {}


@pytest.mark.parametrize("moved", ["the queue counts it", "the table has it"])
def test_what_a_second_look_finds_is_not_lost(
    saver: Saver, producer: Producer, audited: Audited, moved: str
) -> None:
    # SQS's counts are approximate: the first said less than there was.
    delivery = producer.sends(a_delivery())
    counts = [0]
    waits = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if moved == "the queue counts it":
            counts[0] = 1
        else:
            saver.save(delivery)

    report = audited(lambda: counts[0], wait=wait)

    assert wrong(report) == {}
    assert waits == [LOOK_AGAIN_AFTER_S]
    assert report.queued == {"visible": counts[0]}
    assert report.outcomes["message"] == 1 - counts[0]


def test_what_is_stored_between_two_looks_is_expected(
    saver: Saver, producer: Producer, audited: Audited
) -> None:
    first = producer.sends(a_delivery())

    def wait(_seconds: float) -> None:
        saver.save(first, producer.sends(a_delivery()))

    report = audited(0, wait=wait)

    assert wrong(report) == {}
    assert report.accepted == {"accepted": 2, "message": 2, "duplicate": 0, "rejection": 0, "missing": 0}


def test_what_two_looks_miss_is_lost_and_told_once(
    saver: Saver, producer: Producer, audited: Audited
) -> None:
    saver.save(producer.sends(a_delivery()), a_delivery())
    lost = producer.sends(a_delivery())
    waits: list[float] = []

    report = audited(0, wait=waits.append)

    assert wrong(report) == {"lost": 1, "unexpected": 1}
    assert ids(report, "lost") == [lost.delivery_id]
    assert len(waits) == 1


def test_a_queue_that_is_not_asked_is_not_waited_for(producer: Producer, audited: Audited) -> None:
    producer.sends(a_delivery())

    assert wrong(audited(None, wait=never)) == {"lost": 1}


# ── many ──────────────────────────────────────────────────────────────────────────────────────────────

MANY = 20_000

STORE_MANY = """
    INSERT INTO message (
      tenant_id, message_id, event_type, schema_id, sent_at, payload, queue, delivery_id, receive_count)
    SELECT 'acme', 'order-' || n, 'order.created', 1, now(), '{"total": 1}', 'events', 'delivery-' || n, 1
    FROM generate_series(1, %s) AS n
"""

NOTE_DUPLICATES = """
    INSERT INTO duplicate (
      queue, delivery_id, tenant_id, message_id, producer, sent_at, receive_count, received_at)
    SELECT queue, {mark}delivery_id, tenant_id, {mark}message_id, '', sent_at, 1, sent_at FROM message
"""


def test_a_manifest_of_many_takes_no_question_per_message(
    db: Db, database_url: str, write_many: Callable[..., Path]
) -> None:
    # It takes a second in all; a plan that reads a table anew for each message takes minutes.
    db.execute(STORE_MANY, [MANY])
    manifest = write_many(MANY)

    with psycopg.connect(database_url, autocommit=True, options="-c statement_timeout=10s") as connection:
        report = audit(connection, [manifest], lambda: {"visible": 0}, wait=never)

    assert report.holds
    assert report.accepted is not None
    assert report.accepted["message"] == MANY


@pytest.mark.parametrize(
    ("problem", "change"),
    [
        ("lost", "DELETE FROM message"),
        ("unexpected", "UPDATE message SET message_id = 'x' || message_id, delivery_id = 'x' || delivery_id"),
        ("altered", "UPDATE message SET payload = '{}'"),
        (
            "duplicates_of_nothing",
            NOTE_DUPLICATES.format(mark="'d' || "),
        ),
        (
            "twice",
            NOTE_DUPLICATES.format(mark=""),
        ),
    ],
)
def test_every_problem_is_counted_and_the_first_thousand_are_kept(
    db: Db, write_many: Callable[..., Path], problem: str, change: str
) -> None:
    db.execute(STORE_MANY, [1500])
    db.execute(change)

    report = audit(
        db, [write_many(1500)], lambda: {"visible": 1500 if problem == "unexpected" else 0}, wait=at_once
    )

    assert wrong(report) == {problem: 1500}
    assert len(report.examples[problem]) == 1000
    assert "found" not in report.examples[problem][0]
    assert "... and 1480 more" in report.text()
