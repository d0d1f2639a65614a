"""The events that all load tests send: one schema, one template, as many bytes as asked for."""

import json
from typing import Any

EVENT_TYPE = "order.created"
TENANTS = 10
SIZE_BYTES = 500

PULSE = "pulse"
METERED_TENANTS = 3_000
SKUS = 10
UNITS = ("GB", "MB", "KB")

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


PULSE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "product_sku": {"type": "string", "minLength": 1, "maxLength": 64},
        "used_amount": {"type": "number", "minimum": 0},
        "use_unity": {"type": "string"},
        "note": {"type": "string"},
    },
    "required": ["tenant_id", "product_sku", "used_amount", "use_unity"],
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


def pulses(size_bytes: int = SIZE_BYTES, *, hot: bool = False) -> str:
    """Give a pulse of about `size_bytes`: of any tenant, SKU and unit, or `hot`, all of one of each."""
    any_of_each = ("busy-%(any_tenant)d", "sku-%(any_sku)d", "%(any_unit)s")
    tenant, sku, unit = ("busy-1", "sku-0", UNITS[0]) if hot else any_of_each
    event = {
        "id": "pulse-%(number)09d",
        "tenant_id": tenant,
        "event_type": PULSE,
        "payload": {
            "tenant_id": tenant,
            "product_sku": sku,
            "used_amount": "%(number)d.125",
            "use_unity": unit,
            "note": "",
        },
    }
    text = json.dumps(event).replace('"%(number)d.125"', "%(number)d.125")
    return text.replace('"note": ""', f'"note": "{"x" * max(0, size_bytes - len(body(10_000, text)))}"')


def body(number: int, text: str, tenants: int = TENANTS) -> str:
    """Fill one event in."""
    # Scattered, and the same in each run: what neighbours in a batch have in common is left to chance.
    drawn = number * 2_654_435_761 % 2**32 // 7
    return text % {
        "number": number,
        "tenant": number % tenants,
        "any_tenant": drawn % METERED_TENANTS + 1,
        "any_sku": drawn // METERED_TENANTS % SKUS,
        "any_unit": UNITS[drawn // METERED_TENANTS // SKUS % len(UNITS)],
    }
