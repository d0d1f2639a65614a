"""Pulses, voids and the meters that count them, and what these came to."""

import json
from decimal import Decimal
from typing import Any

import psycopg

from processor.model import Delivery
from tests.builders import a_delivery

Db = psycopg.Connection[Any]
Row = tuple[Any, ...]


def a_pulse(amount: str | int | Decimal, sku: str = "disk", unit: str = "GB", **changes: Any) -> Delivery:
    """A pulse of acme, sent now; the amount as it is to be written."""
    tenant_id = changes.get("tenant_id", "acme")
    payload = {"tenant_id": tenant_id, "product_sku": sku, "used_amount": "AMOUNT", "use_unity": unit}
    return a_delivery(
        _body("pulse", payload, changes).replace(b'"AMOUNT"', str(amount).encode()), sent_now=True
    )


def a_void(message_id: str, producer: str = "", **changes: Any) -> Delivery:
    """A void of acme, sent now, that cancels a message."""
    return a_delivery(_body("void", {"message_id": message_id, "producer": producer}, changes), sent_now=True)


def _body(event_type: str, payload: dict[str, Any], changes: dict[str, Any]) -> bytes:
    event = {"tenant_id": "acme", "event_type": event_type, "payload": payload} | changes
    return json.dumps(event).encode()


def add_meter(db: Db, meter: str = "pulse", **columns: Any) -> None:
    """The seeded meter of pulses, or one with other columns."""
    row = {
        "event_type": "pulse",
        "aggregation": "sum",
        "value_pointer": "/used_amount",
        "group_names": ["product_sku", "use_unity"],
        "group_pointers": ["/product_sku", "/use_unity"],
    } | columns
    db.execute(
        f"INSERT INTO meter (meter, {', '.join(row)}) VALUES (%s{', %s' * len(row)})", [meter, *row.values()]
    )


def totals(db: Db) -> list[Row]:
    """Tenant, SKU, value and messages of each total."""
    return db.execute(
        "SELECT tenant_id, group_by ->> 'product_sku', value, messages FROM usage ORDER BY 1, 2"
    ).fetchall()


_DIFFERENCES = """
    WITH counted AS (
      SELECT tenant_id, metered.meter_id, window_start, group_key, metered.value, 1 AS messages
      FROM message CROSS JOIN LATERAL metered(
        tenant_id, message_id, producer, event_type, payload, coalesce(occurred_at, sent_at), stored_at)
      WHERE miss IS NULL
      UNION ALL
      SELECT tenant_id, meter_id, window_start, group_key, value, messages FROM usage_removal
      UNION ALL
      SELECT tenant_id, meter_id, window_start, group_key, -value, -messages FROM total
    )
    SELECT tenant_id, meter_id, window_start, group_key, sum(value), sum(messages)
    FROM counted
    GROUP BY 1, 2, 3, 4
    HAVING sum(value) <> 0 OR sum(messages) <> 0
"""


def differences(db: Db) -> list[Row]:
    """Where the totals are not what the messages say, with what retention removed; it must be nowhere."""
    return db.execute(_DIFFERENCES.encode()).fetchall()
