"""The nine rules of save, each with a test that fails without it, on real PostgreSQL."""

import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from processor import registry
from processor.model import Message, Registry, Rejection
from processor.schemas import Schemas
from processor.wire import Attribute
from tests.builders import a_delivery, an_event
from tests.fix_database import MakeSaver, Saver, books

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
        _until(watcher, "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")

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


# ── rule 5: what content is ───────────────────────────────────────────────────────────────────────────


def test_key_order_white_space_and_trailing_zeros_are_no_other_content(saver: Saver) -> None:
    body = b'{"id":"o-1","tenant_id":"acme","event_type":"order.created","payload":%b}'
    first, second = b'{"total": 1, "note": "x"}', b'{ "note":"x", "total":1.0 }'

    assert saver.outcomes(a_delivery(body % first), a_delivery(body % second)) == ["stored", "duplicate"]


@pytest.mark.parametrize(
    "change",
    [
        {"payload": {"total": 2}},
        {"event_type": "order.changed"},
        {"occurred_at": "2026-11-22T10:00:01Z"},
        {"occurred_at": None},
    ],
)
def test_other_content_under_the_same_key_is_an_id_conflict(
    saver: Saver, db: Db, change: dict[str, Any]
) -> None:
    registry.publish_schema(db, "order.changed", {})
    event = an_event(id="o-1", payload={"total": 1}, occurred_at="2026-11-22T10:00:00Z")

    outcomes = saver.outcomes(a_delivery(**event), a_delivery(**(event | change)))

    assert outcomes == ["stored", "id_conflict"]
    assert books(db) == {"message": 1, "duplicate": 0, "rejection": 1}


def test_two_tenants_or_two_producers_may_use_the_same_id(saver: Saver) -> None:
    deliveries = [
        a_delivery(id="o-1"),
        a_delivery(id="o-1", tenant_id="globex"),
        a_delivery(id="o-1", producer="shop"),
    ]

    assert saver.outcomes(*deliveries) == ["stored"] * 3


# ── rule 6: a rejection can't fail for its content ────────────────────────────────────────────────────


def test_claims_and_detail_that_no_table_takes_are_made_storable_and_cut(saver: Saver, db: Db) -> None:
    body = json.dumps(
        {"id": 7, "tenant_id": "a\0b\ud800" + "x" * 300, "event_type": "t\0", "producer": "p", "payload": 1}
    ).encode()
    attributes: dict[str, Attribute] = {"trace": b"\xff\x00", "note": "a\0b"}

    assert saver.outcomes(a_delivery(body, attributes=attributes)) == ["envelope_invalid"]

    row = db.execute("SELECT tenant_id, event_type, body, attributes FROM rejection").fetchone()
    assert row is not None
    assert row[0].startswith("a\ufffdb\ufffdxxx")
    assert len(row[0]) == 256
    assert row[1:] == ("t\ufffd", body, {"trace": {"base64": "/wA="}, "note": "a\ufffdb"})


def test_of_many_errors_the_first_fifty_and_their_count_are_kept(saver: Saver, db: Db) -> None:
    registry.publish_schema(db, "list", {"type": "array", "items": {"type": "string"}})

    assert saver.outcomes(a_delivery(event_type="list", payload=[1] * 70)) == ["schema_violation"]

    row = db.execute("SELECT detail FROM rejection").fetchone()
    assert row is not None
    assert len(row[0]["errors"]) == 50
    assert row[0]["error_count"] == 70
    assert row[0]["errors"][0] == {
        "pointer": "/0",
        "rule": "/items/type",
        "message": '1 is not of type "string"',
    }


# ── rule 7: poison alone ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("place", [0, 31, 63])
def test_poison_is_found_wherever_it_stands_and_found_in_few_transactions(
    saver: Saver, db: Db, place: int
) -> None:
    deliveries = [a_delivery() for _ in range(64)]
    deliveries[place] = a_delivery(payload={"total": 1, "note": "\0"})
    before = _transactions(db)

    outcomes = saver.outcomes(*deliveries)

    assert outcomes[place] == "unstorable"
    assert Counter(outcomes) == {"stored": 63, "unstorable": 1}
    assert _transactions(db) - before < 30


def test_a_delivery_on_its_third_receive_is_saved_in_a_transaction_of_its_own(saver: Saver, db: Db) -> None:
    suspects = [a_delivery(id=f"s-{place}", receive_count=3 + place) for place in range(2)]

    saver.save(a_delivery(id="a"), suspects[0], a_delivery(id="b"), suspects[1])

    rows = dict(db.execute("SELECT message_id, xmin::text FROM message").fetchall())
    assert rows["a"] == rows["b"]
    assert len(set(rows.values())) == 3
    assert min(rows, key=lambda name: int(rows[name])) in ("a", "b"), "the suspects come last"


# ── rule 8: durable means durable ─────────────────────────────────────────────────────────────────────


def test_a_role_with_asynchronous_commits_saves_synchronously_all_the_same(
    make_saver: MakeSaver, db: Db
) -> None:
    db.execute(f"ALTER DATABASE {db.info.dbname} SET synchronous_commit = off")
    saver = make_saver()

    connection = saver.store._open()

    row = connection.execute("SHOW synchronous_commit").fetchone()
    assert row == ("on",)


# ── the settlements ───────────────────────────────────────────────────────────────────────────────────


def test_settlements_come_in_the_order_of_the_verdicts(saver: Saver) -> None:
    deliveries = [
        a_delivery(b"nonsense"),
        a_delivery(id="z", receive_count=5),
        a_delivery(id="b"),
        a_delivery(id="a"),
        a_delivery(id="b"),
    ]

    settlements = saver.save(*deliveries)

    assert [settlement.delivery for settlement in settlements] == deliveries


def test_numbers_keep_every_digit(saver: Saver, db: Db) -> None:
    number = "123456789012345678901234567890.123456789012345678901234567890"
    body = b'{"id":"o-1","tenant_id":"acme","event_type":"order.created","payload":{"total":%b}}'

    saver.save(a_delivery(body % number.encode()))

    assert db.execute("SELECT payload ->> 'total' FROM message").fetchone() == (number,)


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


def _transactions(db: Db) -> int:
    row = db.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
    assert row is not None
    return int(row[0])
