"""The events that all load tests send: one schema, one template, as many bytes as asked for."""

import json
from typing import Any

EVENT_TYPE = "order.created"
TENANTS = 10
SIZE_BYTES = 500

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "order_id": {"type": "string", "minLength": 1},
        "total": {"type": "number", "minimum": 0},
        "currency": {"enum": ["EUR", "USD"]},
        "items": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "required": ["sku", "quantity"]},
        },
        "note": {"type": "string"},
    },
    "required": ["order_id", "total", "currency", "items"],
}


def template(size_bytes: int = SIZE_BYTES, tenant: str = "tenant-%(tenant)d") -> str:
    """Give a native event of about `size_bytes`, with gaps for `number` and `tenant` (Python's %)."""
    event = {
        "id": "order-%(number)09d",
        "tenant_id": tenant,
        "event_type": EVENT_TYPE,
        "producer": "shop",
        "occurred_at": "2026-11-22T10:00:00Z",
        "payload": {
            "order_id": "o-%(number)09d",
            "total": "%(number)d.25",
            "currency": "EUR",
            "items": [{"sku": f"sku-{place}", "quantity": place + 1} for place in range(5)],
            "note": "",
        },
    }
    text = json.dumps(event).replace('"%(number)d.25"', "%(number)d.25")
    length = len(text % {"number": 10_000, "tenant": 1})
    return text.replace('"note": ""', f'"note": "{"x" * max(0, size_bytes - length)}"')


def body(number: int, text: str, tenants: int = TENANTS) -> str:
    """Fill one event in."""
    return text % {"number": number, "tenant": number % tenants}
