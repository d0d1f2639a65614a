"""Replay: open rejections go through the same pipeline again, and each still ends in one place."""

import base64
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from processor.database.connection import connect
from processor.errors import SourceUnavailable
from processor.model import Settlement
from processor.operations import registry
from processor.pipeline.pipeline import once
from processor.sources.quarantine import QuarantineSource, RejectionSelection, discard
from tests.builders import ORDER_SCHEMA, a_delivery, an_event
from tests.fixtures.database import MakeSaver, Saver, books

Db = psycopg.Connection[Any]

EVERYTHING = RejectionSelection()


def replay(
    saver: Saver, db: Db, selection: RejectionSelection = EVERYTHING, limit: int = 100
) -> list[Settlement]:
    """Replay what is selected, batch by batch, until nothing is left."""
    source = QuarantineSource(db, selection)
    batches = iter(lambda: once(source, saver.schemas, saver.store, limit=limit, wait_s=0), [])
    return list(itertools.chain.from_iterable(batches))


def outcomes(settlements: list[Settlement]) -> list[str]:
    return [settlement.reason or settlement.outcome for settlement in settlements]


def rejections(db: Db, columns: str = "reason, status, replay_count") -> list[tuple[Any, ...]]:
    return db.execute(f"SELECT {columns} FROM rejection ORDER BY rejection_id").fetchall()


def accept_newcomers(db: Db) -> None:
    registry.add_tenant(db, "newcomer")


def test_what_was_mended_is_stored_under_its_original_delivery(saver: Saver, db: Db) -> None:
    delivery = a_delivery(tenant_id="newcomer", id="o-1", queue="old-queue", receive_count=3)
    saver.save(delivery)
    accept_newcomers(db)

    settlements = replay(saver, db)

    assert outcomes(settlements) == ["stored"]
    row = db.execute("SELECT message_id, queue, delivery_id, sent_at, receive_count FROM message").fetchone()
    assert row == ("o-1", "old-queue", delivery.delivery_id, delivery.sent_at, 3)
    assert rejections(db, "status, replay_count, closed_at IS NOT NULL, reason") == [
        ("replayed", 1, True, "unknown_tenant")
    ]


def test_what_is_still_bad_stays_open_with_the_reason_of_today(saver: Saver, db: Db) -> None:
    saver.save(a_delivery(tenant_id="newcomer", event_type="order.lost", payload={"total": "x"}))
    accept_newcomers(db)

    assert outcomes(replay(saver, db)) == ["unknown_event_type"]
    assert rejections(db) == [("unknown_event_type", "open", 1)]

    registry.publish_schema(db, "order.lost", ORDER_SCHEMA)
    assert outcomes(replay(saver, db)) == ["schema_violation"]
    assert rejections(db) == [("schema_violation", "open", 2)]
    assert rejections(db, "detail ->> 'error_count', closed_at") == [("1", None)]
    assert books(db) == {"message": 0, "duplicate": 0, "rejection": 1}


def test_what_was_stored_meanwhile_becomes_a_duplicate(saver: Saver, db: Db) -> None:
    event = an_event(tenant_id="newcomer", id="o-1")
    saver.save(a_delivery(**event))
    accept_newcomers(db)
    saver.save(a_delivery(**event))

    assert outcomes(replay(saver, db)) == ["duplicate"]
    assert rejections(db) == [("unknown_tenant", "replayed", 1)]
    assert books(db) == {"message": 1, "duplicate": 1, "rejection": 1}


def test_two_rejections_of_one_message_become_one_message_and_one_duplicate(saver: Saver, db: Db) -> None:
    event = an_event(tenant_id="newcomer", id="o-1")
    saver.save(a_delivery(**event), a_delivery(**event), a_delivery(**event | {"payload": {"total": 0}}))
    accept_newcomers(db)

    assert outcomes(replay(saver, db)) == ["stored", "duplicate", "id_conflict"]
    assert rejections(db) == [
        ("unknown_tenant", "replayed", 1),
        ("unknown_tenant", "replayed", 1),
        ("id_conflict", "open", 1),
    ]


def test_what_was_closed_is_not_replayed(saver: Saver, db: Db) -> None:
    saver.save(a_delivery(tenant_id="newcomer"), a_delivery(tenant_id="newcomer"))
    assert discard(db, RejectionSelection(rejection_ids=[1])) == 1
    accept_newcomers(db)

    assert outcomes(replay(saver, db)) == ["stored"]
    assert outcomes(replay(saver, db)) == []
    assert rejections(db, "status") == [("discarded",), ("replayed",)]


def test_a_replay_goes_on_in_batches_and_tries_each_once(saver: Saver, db: Db) -> None:
    saver.save(*[a_delivery(tenant_id="newcomer" if place % 3 else "nobody") for place in range(10)])
    accept_newcomers(db)

    settlements = replay(saver, db, limit=3)

    assert len(settlements) == 10
    assert outcomes(settlements).count("stored") == 6
    assert [row[2] for row in rejections(db)] == [1] * 10


def test_poison_among_the_replayed_stays_open_and_its_neighbours_are_stored(saver: Saver, db: Db) -> None:
    totals: list[Any] = [1, 2, 3, 4]
    for total in totals:
        note = "\0" if total == 3 else "fine"
        saver.save(a_delivery(tenant_id="newcomer", payload={"total": total, "note": note}))
    accept_newcomers(db)

    assert outcomes(replay(saver, db)) == ["stored", "stored", "unstorable", "stored"]
    assert [row[:2] for row in rejections(db)] == [
        ("unknown_tenant", "replayed"),
        ("unknown_tenant", "replayed"),
        ("unstorable", "open"),
        ("unknown_tenant", "replayed"),
    ]


def test_attributes_of_both_kinds_survive(saver: Saver, db: Db) -> None:
    attributes = {"tenant_id": "newcomer", "event_type": "order.created", "message_id": "é-1", "x": "1"}
    binary = {"blob": bytes(range(256)), "empty": b""}
    saver.save(a_delivery(b'{"total": 1}', attributes=attributes | binary))
    [delivery] = QuarantineSource(db, EVERYTHING).receive(10, 0)
    assert delivery.attributes == attributes | binary
    accept_newcomers(db)

    assert outcomes(replay(saver, db)) == ["stored"]
    row = db.execute("SELECT tenant_id, message_id, context FROM message").fetchone()
    kept = {name: {"base64": base64.b64encode(value).decode()} for name, value in binary.items()}
    assert row == ("newcomer", "é-1", {"x": "1"} | kept)


@pytest.mark.parametrize(
    ("selection", "selected"),
    [
        (EVERYTHING, {1, 2, 3, 4}),
        (RejectionSelection(rejection_ids=[2, 4, 99]), {2, 4}),
        (RejectionSelection(rejection_ids=[]), set()),
        (RejectionSelection(tenant_id="nobody"), {1, 2}),
        (RejectionSelection(event_type="order.lost"), {2, 3}),
        (RejectionSelection(reason="not_json"), {4}),
        (RejectionSelection(tenant_id="nobody", event_type="order.lost"), {2}),
        (RejectionSelection(since=datetime(2026, 1, 3, tzinfo=UTC)), {3, 4}),
        (RejectionSelection(until=datetime(2026, 1, 3, tzinfo=UTC)), {1, 2}),
        (
            RejectionSelection(
                since=datetime(2026, 1, 2, tzinfo=UTC), until=datetime(2026, 1, 4, tzinfo=UTC)
            ),
            {2, 3},
        ),
        (RejectionSelection(tenant_id="NOBODY"), set()),
    ],
)
def test_only_what_is_selected_is_replayed(
    saver: Saver, db: Db, selection: RejectionSelection, selected: set[int]
) -> None:
    for place, delivery in enumerate(
        [
            a_delivery(tenant_id="nobody"),
            a_delivery(tenant_id="nobody", event_type="order.lost"),
            a_delivery(event_type="order.lost"),
            a_delivery(b"nonsense"),
        ]
    ):
        saver.save(delivery)
        moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=place)
        db.execute("UPDATE rejection SET rejected_at = %s WHERE rejection_id = %s", [moment, place + 1])

    received = QuarantineSource(db, selection).receive(100, 0)

    assert {delivery.rejection_id for delivery in received} == selected
    assert discard(db, selection) == len(selected)


def test_the_same_delivery_from_the_queue_during_its_replay_is_redelivered(saver: Saver, db: Db) -> None:
    delivery = a_delivery(tenant_id="newcomer")
    saver.save(delivery)
    accept_newcomers(db)
    [replayed] = QuarantineSource(db, EVERYTHING).receive(1, 0)

    assert saver.outcomes(delivery) == ["redelivered"]
    assert saver.outcomes(replayed) == ["stored"]
    assert saver.outcomes(delivery) == ["redelivered"]
    assert books(db) == {"message": 1, "duplicate": 0, "rejection": 1}


def test_a_rejection_that_was_closed_after_it_was_read_is_redelivered(saver: Saver, db: Db) -> None:
    saver.save(a_delivery(tenant_id="newcomer"))
    accept_newcomers(db)
    [replayed] = QuarantineSource(db, EVERYTHING).receive(1, 0)
    discard(db, EVERYTHING)

    assert saver.outcomes(replayed) == ["redelivered"]
    assert rejections(db) == [("unknown_tenant", "discarded", 0)]
    assert books(db) == {"message": 0, "duplicate": 0, "rejection": 1}


def test_replays_and_redeliveries_side_by_side_put_each_delivery_in_one_place(
    make_saver: MakeSaver, db: Db, database_url: str
) -> None:
    deliveries = [a_delivery(tenant_id="newcomer") for _ in range(60)]
    make_saver().save(*deliveries)
    accept_newcomers(db)
    start = threading.Barrier(4)

    def replaying(saver: Saver) -> list[str]:
        with connect(database_url) as connection:
            start.wait()
            return outcomes(replay(saver, connection, limit=7))

    def redelivering(saver: Saver) -> list[str]:
        start.wait()
        return [
            outcome
            for place in range(0, 60, 10)
            for outcome in saver.outcomes(*reversed(deliveries[place : place + 10]))
        ]

    work: list[Callable[[Saver], list[str]]] = [replaying, replaying, replaying, redelivering]
    with ThreadPoolExecutor(4) as pool:
        *replays, redeliveries = [pool.submit(task, make_saver()) for task in work]
        found = [outcome for done in replays for outcome in done.result(60)]
        again = redeliveries.result(60)

    assert set(again) == {"redelivered"}
    assert found.count("stored") == 60
    assert set(found) <= {"stored", "redelivered"}
    assert books(db) == {"message": 60, "duplicate": 0, "rejection": 60}
    assert set(rejections(db)) == {("unknown_tenant", "replayed", 1)}


def test_a_database_that_goes_away_is_an_outage_and_no_empty_list(database_url: str) -> None:
    connection = connect(database_url)
    connection.execute("SELECT 1")
    pid = connection.info.backend_pid
    with connect(database_url) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [pid])

    with pytest.raises(SourceUnavailable):
        QuarantineSource(connection, EVERYTHING).receive(10, 0)


def test_settling_extending_and_releasing_change_nothing(saver: Saver, db: Db) -> None:
    saver.save(a_delivery(b"nonsense"))
    source = QuarantineSource(db, EVERYTHING)
    deliveries = source.receive(10, 0)

    source.settle([])
    source.extend(deliveries)
    source.release(deliveries)

    assert rejections(db) == [("not_json", "open", 0)]
    assert source.receive(10, 0) == []
