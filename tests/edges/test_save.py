"""The nine rules of save, each with a test that fails without it, on real PostgreSQL."""

from typing import Any

import psycopg
import pytest

from tests.builders import a_delivery, an_event
from tests.fix_database import Saver, books

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

    assert saver.outcomes(delivery, bad, delivery, bad) == ["stored", "not_json", "redelivered", "redelivered"]
    assert books(db) == {"message": 1, "duplicate": 0, "rejection": 1}


def test_nul_in_a_payload_becomes_unstorable_and_its_neighbours_are_stored(saver: Saver, db: Db) -> None:
    deliveries = [a_delivery(payload={"total": 1, "note": "\0" if place == 5 else "x"}) for place in range(12)]

    outcomes = saver.outcomes(*deliveries)

    assert outcomes == ["stored"] * 5 + ["unstorable"] + ["stored"] * 6
    assert books(db) == {"message": 11, "duplicate": 0, "rejection": 1}
