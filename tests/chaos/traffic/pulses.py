"""The expected totals of the pulses of a load, by tenant, SKU, unit and hour; and voids for some of them.

fake events ─▶ with_voids: a void some events after its pulse, or before it ─▶ the queue
                                accepted ─▶ Pulses.note ─▶ rows ─▶ differences ◀─ the view usage
"""

import heapq
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from typing import Any, TypeAlias

import psycopg

from processor.usage.verify import verify
from producers.fake.events import EventForm, FakeEvent, encode
from producers.publishers.outgoing import Outgoing

Key: TypeAlias = tuple[str | None, str | None]
"""Tenant and message id; the producer of every pulse is the same."""
Row: TypeAlias = tuple[str, datetime, str, str, Decimal, int]
"""Tenant, beginning of the hour, SKU and unit; what is added, and of how many messages."""
Cell: TypeAlias = tuple[str, datetime, str, str]

DIGITS = 1000
"""More than any sum has: Python would round to 28."""

VOIDED = 0.05
"""The share of pulses that are voided, some of them before they are sent."""
_BEFORE = 0.4
_LATER_MAX = 300
_VOID = "void"
_BEFORE_NOW = timedelta(days=10)

# Which of two rivals was stored, only the table knows.
_RIVALS = """
SELECT tenant_id, date_trunc('hour', occurred_at, 'UTC'), payload ->> 'product_sku', payload ->> 'use_unity',
  (payload ->> 'used_amount')::numeric, 1
FROM message
WHERE event_type = 'pulse' AND (tenant_id, message_id) IN (
  SELECT * FROM unnest(%(tenants)s::text[], %(messages)s::text[]))
"""

_COUNTED = """
SELECT tenant_id, window_start, group_by ->> 'product_sku', group_by ->> 'use_unity', value, messages
FROM usage
WHERE meter = 'pulse' AND (messages <> 0 OR value <> 0)
"""


def differences(connection: psycopg.Connection[Any], sent: Iterable[Row], rivals: Sequence[Key]) -> list[str]:
    """Say where the totals differ from what was sent, and what `usage verify` finds; empty: nothing.

    `sent` leaves out the rivals, of which one or the other was stored.
    """
    keys = {"tenants": [tenant for tenant, _ in rivals], "messages": [message for _, message in rivals]}
    expected = add_up([*sent, *connection.execute(_RIVALS, keys).fetchall()])
    counted = add_up(connection.execute(_COUNTED).fetchall())
    wrong = [
        f"{' '.join(map(str, cell))}: sent {expected.get(cell)}, counted {counted.get(cell)}"
        for cell in sorted(expected.keys() | counted.keys())
        if expected.get(cell) != counted.get(cell)
    ]
    report = verify(connection)
    return wrong if report.holds else [*wrong, report.text()]


def add_up(rows: Iterable[Row]) -> dict[Cell, tuple[Decimal, int]]:
    """Sum up by tenant, hour, SKU and unit, to the last digit."""
    sums: dict[Cell, tuple[Decimal, int]] = {}
    with localcontext(prec=DIGITS):
        for tenant_id, hour, sku, unit, amount, count in rows:
            cell = (tenant_id, hour, sku, unit)
            before = sums.get(cell, (Decimal(0), 0))
            sums[cell] = (before[0] + amount, before[1] + count)
    return sums


@dataclass(slots=True)
class Pulses:
    """The pulses that the queue accepted, those that have a rival under the same id, and what was voided."""

    sent: dict[Key, Row] = field(default_factory=dict)
    rivals: set[Key] = field(default_factory=set)
    voided: set[Key] = field(default_factory=set)

    def note(self, message: Outgoing) -> None:
        """Note what was accepted, whatever it is."""
        key = (message.tenant_id, message.message_id)
        match message.kind:
            case "void":
                self.voided.add((message.tenant_id, _read(message)["payload"]["message_id"]))
            case "id_conflict":
                self.rivals.add(key)
            case "valid" if (row := _pulse_in(message)) is not None:
                self.sent[key] = row

    def rows(self) -> list[Row]:
        """Give what counts whatever came first."""
        left_out = self.voided | self.rivals
        return [row for key, row in self.sent.items() if key not in left_out]

    def open_rivals(self) -> list[Key]:
        """Give the keys of which one of two counts."""
        return [key for key in self.rivals - self.voided if key in self.sent]


# ── what is sent ──────────────────────────────────────────────────────────────────────────────────────


def load_since() -> datetime:
    """Give the moment at which the tale of a load begins: long over, and not too old for any meter."""
    return datetime.now(UTC) - _BEFORE_NOW


def with_voids(chance: random.Random, messages: Iterable[Outgoing]) -> Iterator[Outgoing]:
    """Pass messages on, and void some pulses: some events later, or before the pulse itself."""
    waiting: list[tuple[int, str, Outgoing]] = []
    for number, message in enumerate(messages):
        void = None
        if message.kind == "valid" and (read := _read(message))["event_type"] == "pulse":
            void = a_void_of(message, read) if chance.random() < VOIDED else None
        if void is not None and chance.random() < _BEFORE:
            yield void
        elif void is not None:
            heapq.heappush(waiting, (number + chance.randint(1, _LATER_MAX), void.label, void))
        yield message
        while waiting and waiting[0][0] <= number:
            yield heapq.heappop(waiting)[2]


def a_void_of(pulse: Outgoing, read: Mapping[str, Any]) -> Outgoing:
    """Make up what cancels a pulse."""
    assert pulse.tenant_id is not None
    void = FakeEvent(
        tenant_id=pulse.tenant_id,
        event_type="void",
        message_id=f"void-{pulse.message_id}",
        producer="billing",
        occurred_at=read["occurred_at"],
        payload={"message_id": pulse.message_id, "producer": read["producer"]},
    )
    return encode(void, EventForm.NATIVE, kind=_VOID)


def _pulse_in(message: Outgoing) -> Row | None:
    read = _read(message)
    if read["event_type"] != "pulse":
        return None
    payload, at = read["payload"], datetime.fromisoformat(read["occurred_at"]).astimezone(UTC)
    hour = at.replace(minute=0, second=0, microsecond=0)
    return (
        str(message.tenant_id),
        hour,
        payload["product_sku"],
        payload["use_unity"],
        payload["used_amount"],
        1,
    )


def _read(message: Outgoing) -> dict[str, Any]:
    """Read an event of our producers in whatever format it is, numbers to their last digit."""
    body: Any = json.loads(message.body, parse_float=Decimal, parse_int=Decimal)
    if message.attributes:
        return {**message.attributes, "payload": body}
    if "specversion" in body:
        return {
            "event_type": body["type"],
            "producer": body["source"],
            "occurred_at": body["time"],
            "payload": body["data"],
        }
    return dict(body)
