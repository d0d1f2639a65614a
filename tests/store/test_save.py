"""The rules of save about outcomes, the registry and key order; each fails without its rule.

Content is in test_save_content.py, sessions are in test_save_sessions.py, replay is in test_quarantine.py.
"""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

from processor.errors import StoreFault
from processor.model import Message, Registry, Rejection
from processor.operations import registry
from processor.validation.validator import Schemas
from tests.builders import a_delivery, an_event
from tests.fixtures.database import REGISTRY_WAITS, MakeSaver, Saver, books

Db = psycopg.Connection[Any]


def test_a_valid_event_is_stored_whole(saver: Saver, db: Db) -> None:
    delivery = a_delivery(
        id="o-1", producer="shop", occurred_at="2026-11-22T09:00:00.5+01:00", traceparent="00-abc"
    )

    assert saver.outcomes(delivery) == ["stored"]

    row = db.execute(
        "SELECT tenant_id, message_id, producer, event_type, occurred_at::text, sent_at, payload, context,"
        " queue, delivery_id, receive_count FROM message"
    ).fetchone()
    assert row is not None
    assert row[:4] == ("acme", "o-1", "shop", "order.created")
    assert row[5:] == (
        delivery.sent_at,
        {"total": 12.5},
        {"traceparent": "00-abc"},
        "events",
        delivery.delivery_id,
        1,
    )


@pytest.mark.parametrize("body", [b"\xff", b"nonsense", b'{"a": 1}', b'"\\ud800"'])
def test_a_bad_body_is_kept_as_it_came(saver: Saver, db: Db, body: bytes) -> None:
    [settlement] = saver.save(a_delivery(body))

    assert settlement.outcome == "rejected"
    row = db.execute("SELECT body, status FROM rejection").fetchone()
    assert row == (body, "open")


def test_the_same_message_again_is_a_duplicate_and_counts_nowhere(saver: Saver, db: Db) -> None:
    event = an_event(id="o-1")

    assert saver.outcomes(a_delivery(**event), a_delivery(**event)) == ["stored", "duplicate"]
    assert saver.outcomes(a_delivery(**event)) == ["duplicate"]
    assert books(db) == {"message": 1, "duplicate": 2, "rejection": 0}


def test_the_same_delivery_again_writes_nothing(saver: Saver, db: Db) -> None:
    stored, duplicate, rejected = a_delivery(id="o-1"), a_delivery(id="o-1"), a_delivery(b"nonsense")
    saver.save(stored, duplicate, rejected)

    assert saver.outcomes(stored, duplicate, rejected) == ["redelivered"] * 3
    assert books(db) == {"message": 1, "duplicate": 1, "rejection": 1}


def test_the_same_delivery_twice_in_one_batch_is_stored_once(saver: Saver, db: Db) -> None:
    delivery, bad = a_delivery(id="o-1"), a_delivery(b"nonsense")

    assert saver.outcomes(delivery, bad, delivery, bad) == [
        "stored",
        "not_json",
        "redelivered",
        "redelivered",
    ]
    assert books(db) == {"message": 1, "duplicate": 0, "rejection": 1}


def test_nul_in_a_payload_becomes_unstorable_and_its_neighbours_are_stored(saver: Saver, db: Db) -> None:
    deliveries = [
        a_delivery(payload={"total": 1, "note": "\0" if place == 5 else "x"}) for place in range(12)
    ]

    outcomes = saver.outcomes(*deliveries)

    assert outcomes == ["stored"] * 5 + ["unstorable"] + ["stored"] * 6
    assert books(db) == {"message": 11, "duplicate": 0, "rejection": 1}


# ── rule 1: the first committed outcome of a delivery is final ────────────────────────────────────────


def test_a_delivery_rejected_for_its_tenant_stays_rejected_when_it_comes_again_after_the_tenant_was_added(
    saver: Saver, db: Db
) -> None:
    delivery = a_delivery(tenant_id="newcomer")
    assert saver.outcomes(delivery) == ["unknown_tenant"]

    registry.add_tenant(db, "newcomer")

    assert saver.outcomes(delivery) == ["redelivered"]
    assert books(db) == {"message": 0, "duplicate": 0, "rejection": 1}


def test_a_delivery_stored_stays_stored_when_it_comes_again_after_its_tenant_was_suspended(
    saver: Saver, db: Db
) -> None:
    with_id, without_id = a_delivery(id="o-1"), a_delivery(id=None)
    assert saver.outcomes(with_id, without_id) == ["stored", "stored"]

    registry.set_tenant_status(db, "acme", "suspended")

    assert saver.outcomes(with_id, without_id) == ["redelivered", "redelivered"]
    assert books(db) == {"message": 2, "duplicate": 0, "rejection": 0}


def test_a_duplicate_stays_a_duplicate_when_it_comes_again_after_its_tenant_was_suspended(
    saver: Saver, db: Db
) -> None:
    repeated = a_delivery(id="o-1")
    saver.save(a_delivery(id="o-1"), repeated)

    registry.set_tenant_status(db, "acme", "suspended")

    assert saver.outcomes(repeated) == ["redelivered"]
    assert books(db) == {"message": 1, "duplicate": 1, "rejection": 0}


def test_a_delivery_stored_stays_stored_when_it_comes_again_to_a_process_that_takes_less(
    saver: Saver, db: Db
) -> None:
    delivery, other = a_delivery(id="o-1"), a_delivery(b"nonsense", receive_count=2)
    assert saver.outcomes(delivery) == ["stored"]
    stricter = Schemas(body_bytes_max=10, json_depth_max=64)
    version = saver.schemas.validate(delivery).registry_version
    stricter.install(Registry(version, {}, ()))

    again = replace(delivery, receive_count=2)
    settlements = saver.store.save([stricter.validate(again), saver.schemas.validate(other)])

    assert [settlement.outcome for settlement in settlements] == ["redelivered", "rejected"]
    assert books(db) == {"message": 1, "duplicate": 0, "rejection": 1}


# ── rule 2: verdicts hold against the registry of the same transaction ────────────────────────────────


def test_a_tenant_added_after_the_verdict_and_before_the_save_is_known(saver: Saver, db: Db) -> None:
    verdict = saver.schemas.validate(a_delivery(tenant_id="newcomer"))
    assert isinstance(verdict, Rejection)

    registry.add_tenant(db, "newcomer")

    [settlement] = saver.store.save([verdict])
    assert settlement.outcome == "stored"


def test_a_tenant_suspended_after_the_verdict_and_before_the_save_is_refused(saver: Saver, db: Db) -> None:
    verdict = saver.schemas.validate(a_delivery())
    assert isinstance(verdict, Message)

    db.execute("UPDATE tenant SET status = 'suspended'")

    [settlement] = saver.store.save([verdict])
    assert settlement.reason == "tenant_suspended"


def test_a_schema_published_by_psql_holds_for_the_next_save(saver: Saver, db: Db) -> None:
    verdict = saver.schemas.validate(a_delivery())

    db.execute(
        "INSERT INTO event_schema (event_type, tenant_id, version, definition)"
        """ VALUES ('order.created', 'acme', 1, '{"required": ["purchase_order"]}')"""
    )

    [settlement] = saver.store.save([verdict])
    assert settlement.reason == "schema_violation"


def test_a_change_of_the_registry_waits_for_the_save_that_is_under_way(
    saver: Saver, database_url: str
) -> None:
    held = psycopg.connect(database_url)
    held.execute("SELECT registry_version_held()")
    changed = threading.Event()

    def suspend() -> None:
        with psycopg.connect(database_url, autocommit=True) as other:
            registry.set_tenant_status(other, "acme", "suspended")
        changed.set()

    changer = threading.Thread(target=suspend)
    changer.start()
    with psycopg.connect(database_url, autocommit=True) as watcher:
        _until(watcher, f"SELECT EXISTS ({REGISTRY_WAITS})")

        assert not changed.is_set()
        held.close()
    changer.join(10)

    assert changed.is_set()
    assert saver.outcomes(a_delivery()) == ["tenant_suspended"]


# ── rules 3 and 4: key order, and a later statement to classify ───────────────────────────────────────


def test_two_writers_with_the_same_messages_in_opposite_order_do_not_deadlock(
    make_saver: MakeSaver, db: Db, database_url: str
) -> None:
    """A third holds the middle row until both wait: unsorted, each then holds what the other needs."""
    make_saver().save(a_delivery(id="some-row"))
    third = psycopg.connect(database_url)
    _copy_row(third, "m")
    events = [an_event(id=name) for name in ("a", "m", "z")]
    before = _deadlocks(db)

    with ThreadPoolExecutor(2) as pool:
        batches = [[a_delivery(**event) for event in order] for order in (events, events[::-1])]
        waiting = [pool.submit(make_saver().outcomes, *batch) for batch in batches]
        _until(db, "SELECT count(*) = 2 FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted")
        third.rollback()
        outcomes = Counter(outcome for done in waiting for outcome in done.result(20))
    third.close()

    assert outcomes == {"stored": 3, "duplicate": 3}
    assert _deadlocks(db) == before


def test_a_message_committed_by_another_process_while_we_waited_for_it_is_a_duplicate(
    saver: Saver, make_saver: MakeSaver, db: Db, database_url: str
) -> None:
    other = psycopg.connect(database_url)
    saver.save(a_delivery(id="schema-known"))
    _copy_row(other, "o-1")

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(saver.outcomes, a_delivery(id="o-1"))
        _until(db, "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted")
        other.commit()

        assert waiting.result(10) == ["duplicate"]
    other.close()


def test_the_same_deliveries_in_several_processes_end_in_one_row_each(make_saver: MakeSaver, db: Db) -> None:
    deliveries = [a_delivery(id=f"o-{number % 60}") for number in range(90)]
    deliveries += [a_delivery(b"nonsense") for _ in range(30)]
    savers = [make_saver() for _ in range(4)]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda saver: saver.outcomes(*deliveries), savers))

    outcomes = Counter(outcome for result in results for outcome in result)
    assert outcomes == {"stored": 60, "duplicate": 30, "not_json": 30, "redelivered": 3 * 120}
    assert books(db) == {"message": 60, "duplicate": 30, "rejection": 30}


def test_an_outcome_that_no_code_knows_is_a_fault_at_once(saver: Saver, db: Db) -> None:
    """A slip in the SQL is not a key that retention removed meanwhile: the same again would not mend it."""
    sql = dict(saver.store._sql)
    sql["classify_messages"] = sql["classify_messages"].replace("'duplicate'", "'duplicat'")
    saver.store._sql = sql
    event = an_event(id="o-1")

    with pytest.raises(StoreFault, match="'duplicat', which is no outcome"):
        saver.save(a_delivery(**event), a_delivery(**event))

    assert books(db) == {"message": 0, "duplicate": 0, "rejection": 0}


def _copy_row(connection: Db, message_id: str) -> None:
    """Store a message as another process would, and leave the transaction open."""
    connection.execute(
        "INSERT INTO message SELECT tenant_id, %s, producer, event_type, schema_id, occurred_at, sent_at,"
        " stored_at, payload, context, queue, 'another-delivery', 1 FROM message LIMIT 1",
        [message_id],
    )


def _until(db: Db, condition: str) -> None:
    """Wait until a query says true."""
    give_up_at = time.monotonic() + 10
    while db.execute(condition).fetchone() != (True,):
        assert time.monotonic() < give_up_at, condition
        time.sleep(0.01)


def _deadlocks(db: Db) -> int:
    db.execute("SELECT pg_stat_force_next_flush()")
    row = db.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert row is not None
    return int(row[0])
