"""Decodes bodies for tests, and builds bodies of each format."""

import json
from typing import Any

from processor.wire.formats import Attribute, Envelope, Malformed, decode

LIMIT = 1024 * 1024

BY_ATTRIBUTES: dict[str, Attribute] = {"tenant_id": "acme", "event_type": "order.created"}


def decoded(
    body: Any, attributes: dict[str, Attribute] | None = None, implied: dict[str, str] | None = None
) -> Envelope | Malformed:
    """Decode bytes as they are, and other values as their JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return decode(raw, attributes or {}, implied=implied or {}, size_bytes_max=LIMIT, depth_max=64)


def envelope(
    body: Any, attributes: dict[str, Attribute] | None = None, implied: dict[str, str] | None = None
) -> Envelope:
    result = decoded(body, attributes, implied)
    assert isinstance(result, Envelope), result
    return result


def malformed(
    body: Any, attributes: dict[str, Attribute] | None = None, implied: dict[str, str] | None = None
) -> Malformed:
    result = decoded(body, attributes, implied)
    assert isinstance(result, Malformed), result
    return result


def pointers(result: Malformed) -> list[str]:
    return [error["pointer"] for error in result.detail["errors"]]


def a_cloudevent(**changes: Any) -> dict[str, Any]:
    event = {
        "specversion": "1.0",
        "id": "e-1",
        "source": "/shop",
        "type": "order.created",
        "tenantid": "acme",
        "data": {"total": 1},
    } | changes
    return {name: value for name, value in event.items() if value is not ...}


def a_pulse(**changes: Any) -> dict[str, Any]:
    pulse = {"tenant_id": "acme", "product_sku": "cpu", "used_amount": 3, "use_unity": "KB"} | changes
    return {name: value for name, value in pulse.items() if value is not ...}
