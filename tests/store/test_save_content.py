"""The rules of save about content: what is the same, what can't be stored, what is durable."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from processor.database.connection import connect
from processor.errors import Stopped
from processor.operations import registry
from processor.runtime.outages import OutageRetry
from processor.store.store import Store
from processor.validation.validator import Schemas
from processor.wire.formats import Attribute
from tests.builders import a_delivery, an_event
from tests.fixtures.database import MakeSaver, Saver, books

Db = psycopg.Connection[Any]


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
        {"occurred_at": "2026-11-22T10:00:00.0000000001Z"},
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


def test_a_time_is_content_to_its_last_digit_and_zeros_at_its_end_are_none(saver: Saver, db: Db) -> None:
    times = ["10:00:00.1234567890Z", "11:00:00.123456789+01:00", "10:00:00.1234567891Z", "10:00:00.123456Z"]
    events = [an_event(id="o-1", occurred_at=f"2026-11-22T{time}") for time in times]
    cloud = {"specversion": "1.0", "id": "o-1", "source": "shop", "type": "order.created", "tenantid": "acme"}
    clouds = [cloud | {"data": {"total": 1}, "time": f"2026-11-22T{time}"} for time in times]

    for sent in (events, clouds):
        outcomes = saver.outcomes(*[a_delivery(json.dumps(event).encode()) for event in sent])
        assert outcomes == ["stored", "duplicate", "id_conflict", "id_conflict"]

    assert set(db.execute("SELECT occurred_at_rest FROM message").fetchall()) == {("789",)}


def test_two_tenants_or_two_producers_may_use_the_same_id(saver: Saver) -> None:
    deliveries = [
        a_delivery(id="o-1"),
        a_delivery(id="o-1", tenant_id="globex"),
        a_delivery(id="o-1", producer="shop"),
    ]

    assert saver.outcomes(*deliveries) == ["stored"] * 3


def test_a_payload_of_null_is_content_like_any_other(saver: Saver, db: Db) -> None:
    """jsonb has a null of its own, which is not SQL's: the column is NOT NULL and takes it."""
    registry.publish_schema(db, "anything", {})
    body = b'{"id":"o-1","tenant_id":"acme","event_type":"anything","payload":%b}'

    outcomes = saver.outcomes(*[a_delivery(body % payload) for payload in (b"null", b" null ", b"0")])

    assert outcomes == ["stored", "duplicate", "id_conflict"]
    assert db.execute("SELECT payload::text FROM message").fetchall() == [("null",)]


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


@pytest.fixture
def hasty(database_url: str) -> Iterator[Saver]:
    """A saver whose statements may take a second, and that waits no outage out."""
    stop = threading.Event()
    stop.set()
    schemas = Schemas(body_bytes_max=1024, json_depth_max=64)
    retry = OutageRetry("database", wait_s_max=0.2, stop=stop)
    store = Store(lambda: connect(database_url, timeout_s=1), schemas, retry, timeout_s=1)
    store.load_registry()
    yield Saver(schemas, store)
    store.close()


SLOW_MESSAGE = """
    CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$;
    CREATE TRIGGER slow BEFORE INSERT ON message
      FOR EACH ROW WHEN (NEW.message_id = 'slow') EXECUTE FUNCTION be_slow()
"""


def test_what_takes_too_long_alone_is_put_aside_and_its_neighbours_are_stored(hasty: Saver, db: Db) -> None:
    db.execute(SLOW_MESSAGE)

    outcomes = hasty.outcomes(a_delivery(), a_delivery(id="slow"), a_delivery())

    assert outcomes == ["stored", "unstorable", "stored"]
    [(detail, message_id)] = db.execute("SELECT detail, message_id FROM rejection").fetchall()
    assert "took longer than it may over this delivery alone" in detail["message"]
    assert (detail["error"], message_id) == ("57014", "slow")


def test_a_search_that_takes_too_long_puts_its_delivery_aside(hasty: Saver, db: Db) -> None:
    sql = dict(hasty.store._sql)
    sql["find_outcomes"] = "SELECT '', '' FROM pg_sleep(CASE WHEN true = ANY (%(again)b) THEN 60 ELSE 0 END)"
    hasty.store._sql = sql

    outcomes = hasty.outcomes(a_delivery(b"?", receive_count=2), a_delivery(receive_count=2))

    assert outcomes == ["unstorable", "stored"]
    [(today,)] = db.execute("SELECT detail #>> '{verdict_today,reason}' FROM rejection").fetchall()
    assert today == "not_json"


def test_a_database_that_commits_nothing_at_all_is_an_outage_and_puts_nothing_aside(
    hasty: Saver, db: Db
) -> None:
    db.execute(SLOW_MESSAGE)
    hasty.store._sql = dict(hasty.store._sql) | {"make_commit_wait": "SELECT pg_sleep(60)"}

    with pytest.raises(Stopped, match="57014"):
        hasty.save(a_delivery(id="slow"))

    assert books(db) == {"message": 0, "duplicate": 0, "rejection": 0}


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


def _transactions(db: Db) -> int:
    row = db.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
    assert row is not None
    return int(row[0])
