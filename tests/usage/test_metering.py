"""What a save adds to the totals: by what was really inserted, once, to the last digit."""

import json
import threading
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from tests.builders import a_delivery
from tests.fixtures.database import MakeSaver, Saver

PULSE_SCHEMA = '{"type": "object"}'

Row = tuple[Any, ...]


@pytest.fixture
def metered(db: psycopg.Connection[Any]) -> None:
    """A meter of pulses as the seeded one, shared, and the event types that it is about."""
    for event_type in ("pulse", "void"):
        db.execute("INSERT INTO event_type (event_type) VALUES (%s)", (event_type,))
        db.execute(
            "INSERT INTO event_schema (event_type, version, definition) VALUES (%s, 1, %s::jsonb)",
            (event_type, PULSE_SCHEMA),
        )
    db.execute(
        "INSERT INTO meter (meter, event_type, aggregation, value_pointer, group_names, group_pointers)"
        " VALUES ('pulse', 'pulse', 'sum', '/used_amount',"
        " '{product_sku,use_unity}', '{/product_sku,/use_unity}')"
    )


def a_pulse(amount: str | int, sku: str = "disk", unit: str = "GB", **changes: Any) -> Any:
    payload = {"tenant_id": "acme", "product_sku": sku, "used_amount": "AMOUNT", "use_unity": unit}
    event = {"id": None, "tenant_id": "acme", "event_type": "pulse", "payload": payload} | changes
    body = json.dumps({name: value for name, value in event.items() if value is not None})
    return a_delivery(body.replace('"AMOUNT"', str(amount)).encode(), sent_now=True)


def totals(db: psycopg.Connection[Any]) -> list[Row]:
    return db.execute(
        "SELECT tenant_id, group_by ->> 'product_sku', value, messages FROM usage ORDER BY 1, 2"
    ).fetchall()


@pytest.mark.usefixtures("metered")
def test_what_is_stored_is_added_to_the_last_digit(saver: Saver, db: psycopg.Connection[Any]) -> None:
    thirty_digits = "123456789012345678901234567.891"

    saver.save(a_pulse("0.1"), a_pulse("0.2"), a_pulse(thirty_digits, "cpu"))

    assert totals(db) == [
        ("acme", "cpu", Decimal(thirty_digits), 1),
        ("acme", "disk", Decimal("0.3"), 2),
    ]


@pytest.mark.usefixtures("metered")
def test_a_duplicate_and_a_redelivery_add_nothing(saver: Saver, db: psycopg.Connection[Any]) -> None:
    pulse = a_pulse(1, id="pulse-1")

    outcomes = saver.outcomes(pulse, pulse, a_pulse(1, id="pulse-1"))
    again = saver.outcomes(pulse, a_pulse(1, id="pulse-1"), a_pulse(2, id="pulse-2"))

    assert outcomes == ["stored", "redelivered", "duplicate"]
    assert again == ["redelivered", "duplicate", "stored"]
    assert totals(db) == [("acme", "disk", Decimal(3), 2)]


def a_void(message_id: str) -> Any:
    payload = {"message_id": message_id, "producer": ""}
    return a_delivery(tenant_id="acme", event_type="void", payload=payload, sent_now=True)


@pytest.mark.usefixtures("metered")
@pytest.mark.parametrize("order", ["after", "before", "together"])
def test_a_void_takes_away_what_its_message_added_whichever_comes_first(
    saver: Saver, db: psycopg.Connection[Any], order: str
) -> None:
    pulse, void = a_pulse(5, id="pulse-1"), a_void("pulse-1")
    saver.save(a_pulse(2))

    batches = {"after": [[pulse], [void]], "before": [[void], [pulse]], "together": [[pulse, void]]}[order]
    for batch in [*batches, [a_void("pulse-1")]]:
        assert set(saver.outcomes(*batch)) == {"stored"}

    assert totals(db) == [("acme", "disk", Decimal(2), 1)]


@pytest.mark.usefixtures("metered")
def test_a_meter_that_is_added_meanwhile_counts_every_message_after_it_and_none_before(
    make_saver: MakeSaver, db: psycopg.Connection[Any]
) -> None:
    saver = make_saver()
    saver.save(a_pulse(1))

    db.execute("INSERT INTO meter (meter, event_type, aggregation) VALUES ('pulses', 'pulse', 'count')")
    saver.save(a_pulse(1), a_pulse(1))

    assert db.execute("SELECT value FROM usage WHERE meter = 'pulses'").fetchall() == [(Decimal(2),)]


@pytest.mark.usefixtures("metered")
def test_a_hot_total_is_spread_over_slots_and_several_writers_agree(
    make_saver: MakeSaver, db: psycopg.Connection[Any]
) -> None:
    savers = [make_saver() for _ in range(4)]

    def work(saver: Saver) -> None:
        for _ in range(5):
            saver.save(*(a_pulse("0.1") for _ in range(40)), *(a_pulse(1, f"sku-{n % 7}") for n in range(21)))

    threads = [threading.Thread(target=work, args=(saver,)) for saver in savers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert ("acme", "disk", Decimal("80.0"), 800) in totals(db)
    assert ("acme", "sku-3", Decimal(60), 60) in totals(db)
    assert db.execute("SELECT count(*) > 1 FROM total WHERE group_key LIKE '%disk%'").fetchone() == (True,)


@pytest.mark.usefixtures("metered")
@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"product_sku": "a", "use_unity": "GB"}, "value_missing"),
        ({"product_sku": "a", "use_unity": "GB", "used_amount": "12"}, "value_not_a_number"),
        ({"product_sku": "a", "use_unity": "GB", "used_amount": None}, "value_not_a_number"),
        ({"product_sku": "a", "used_amount": 1}, "group_missing"),
        ({"product_sku": None, "use_unity": "GB", "used_amount": 1}, "group_missing"),
        ({"product_sku": ["a"], "use_unity": "GB", "used_amount": 1}, "group_not_a_scalar"),
        ({"product_sku": "a" * 1025, "use_unity": "GB", "used_amount": 1}, "group_too_long"),
    ],
)
def test_what_a_meter_can_not_count_is_stored_and_shown(
    saver: Saver, db: psycopg.Connection[Any], payload: dict[str, Any], reason: str
) -> None:
    delivery = a_delivery(event_type="pulse", payload=payload, sent_now=True)

    outcomes = saver.outcomes(delivery)

    assert outcomes == ["stored"]
    assert totals(db) == []
    assert db.execute("SELECT reason, messages FROM meter_miss").fetchall() == [(reason, 1)]
