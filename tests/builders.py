"""Ordinary things with an article: a test mentions only what makes its own different."""

import itertools
import json
from datetime import UTC, datetime
from typing import Any

from processor.model import Delivery
from processor.wire.formats import Attribute

QUEUE = "events"
SENT_AT = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
_numbers = itertools.count(1)
# As wide as each other, below: rows are written in the order of their delivery ids, and 10 sorts before 9.

ORDER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"total": {"type": "number", "minimum": 0}, "note": {"type": "string"}},
    "required": ["total"],
}


def an_event(**changes: Any) -> dict[str, Any]:
    """A valid native event of tenant acme with an id of its own; a change to None takes the field away."""
    event = {
        "id": f"order-{next(_numbers)}",
        "tenant_id": "acme",
        "event_type": "order.created",
        "payload": {"total": 12.5},
    } | changes
    return {name: value for name, value in event.items() if value is not None}


def a_body(**changes: Any) -> bytes:
    return json.dumps(an_event(**changes)).encode()


def a_delivery(
    body: bytes | None = None,
    *,
    delivery_id: str | None = None,
    receive_count: int = 1,
    attributes: dict[str, Attribute] | None = None,
    queue: str = QUEUE,
    sent_now: bool = False,
    sender_id: str | None = None,
    **changes: Any,
) -> Delivery:
    """A delivery of a valid event, or of the body given."""
    return Delivery(
        queue=queue,
        delivery_id=delivery_id or f"delivery-{next(_numbers):06d}",
        body=a_body(**changes) if body is None else body,
        receipt="receipt",
        receive_count=receive_count,
        sent_at=datetime.now(UTC) if sent_now else SENT_AT,
        received_at=SENT_AT,
        attributes=attributes or {},
        sender_id=sender_id,
    )
