"""The sample messages: a hundred tenants of very different size, four event types, 500 bytes each.

The growing tables and the measured batches draw from the same samples and make ids the same way.
"""

import json
import random
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal, TypeAlias

from processor.model import Delivery

Ids: TypeAlias = Literal["random", "time"]

SAMPLES = 4096
SIZE_BYTES = 500
TENANTS = ("acme", *(f"tenant-{number:03}" for number in range(2, 101)))
"""From loud to quiet: the n-th sends 1/n of what the first sends."""

EVENT_TYPES = {"order.created": 4, "pulse": 4, "payment.captured": 1, "user.signed_up": 1}
"""With their weights."""

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"total": {"type": "number", "minimum": 0}, "note": {"type": "string"}},
    "required": ["note"],
}


@dataclass(frozen=True, slots=True)
class Sample:
    """A message without its id."""

    tenant_id: str
    event_type: str
    producer: str
    payload: str


@cache
def samples() -> tuple[Sample, ...]:
    """Give the samples, always the same ones."""
    chance = random.Random(3)
    tenants = chance.choices(TENANTS, [1 / rank for rank in range(1, len(TENANTS) + 1)], k=SAMPLES)
    types = chance.choices(list(EVENT_TYPES), list(EVENT_TYPES.values()), k=SAMPLES)
    return tuple(_sample(chance, *drawn) for drawn in zip(tenants, types, strict=True))


def _sample(chance: random.Random, tenant_id: str, event_type: str) -> Sample:
    payload: dict[str, Any] = {
        "order_id": f"o-{chance.randrange(10**9)}",
        "total": chance.randrange(10**6) / 100,
    }
    if event_type == "pulse":
        payload = {
            "tenant_id": tenant_id,
            "product_sku": f"sku-{chance.randrange(5)}",
            "used_amount": chance.randrange(10**6) / 1000,
            "use_unity": chance.choice(["GB", "MB", "KB"]),
        }
    empty = Sample(
        tenant_id, event_type, "" if event_type == "pulse" else "shop", json.dumps(payload | {"note": ""})
    )
    # Hexadecimal, so that it does not compress as a row of x would.
    room = SIZE_BYTES - len(_body(empty, str(uuid.UUID(int=0))))
    note = f"{chance.getrandbits(4 * 400):0400x}"[:room]
    return Sample(tenant_id, event_type, empty.producer, json.dumps(payload | {"note": note}))


def deliveries(count: int, ids: Ids, chance: random.Random) -> Iterator[Delivery]:
    """Give new deliveries, each drawn from the samples at random."""
    for sample in chance.choices(samples(), k=count):
        now = datetime.now(UTC)
        yield Delivery(
            queue="events",
            delivery_id=str(uuid.uuid4()),
            body=_body(sample, new_id(ids)).encode(),
            receipt="receipt",
            receive_count=1,
            sent_at=now,
            received_at=now,
        )


def new_id(ids: Ids) -> str:
    """Give a new id: a version 4 UUID, or one that begins with the time as version 7 does."""
    drawn = str(uuid.uuid4())
    if ids == "random":
        return drawn
    stamp = f"{time.time_ns() // 1_000_000:012x}"
    return f"{stamp[:8]}-{stamp[8:]}-7{drawn[15:]}"


def _body(sample: Sample, message_id: str) -> str:
    producer = f'"producer": "{sample.producer}", ' if sample.producer else ""
    occurred_at = '"occurred_at": "2026-11-22T10:00:00Z", ' if sample.event_type != "pulse" else ""
    return (
        f'{{"id": "{message_id}", "tenant_id": "{sample.tenant_id}", "event_type": "{sample.event_type}", '
        f'{producer}{occurred_at}"payload": {sample.payload}}}'
    )
