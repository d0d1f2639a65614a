"""The books as they must be, told without a database: one delivery after the other, in the order of a batch.

It knows nothing of transactions, retries or keys of tables. Where the real thing may choose, because two
processes met or one of them died, it takes what the tables say if the promise allows it (`adopt`).
"""

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

from processor.model import Delivery

Place = tuple[str, str]
"""A delivery's id, and where it is: a table, with status and reason for a rejection."""

GARBAGE = "not_json"
POISON = "unstorable"
SIZE_MAX = 1000
"""Bytes of a body that the process which takes little takes."""


@dataclass(frozen=True)
class Event:
    """What is sent; `message_id` None: it has no id of its own. `fault` is what no registry mends.

    `voids` is the message that a void cancels; None: it is none. `is_long` is not read by who takes little.
    """

    tenant_id: str = "acme"
    event_type: str = "order.created"
    message_id: str | None = None
    total: Decimal = Decimal(1)
    sku: str = "disk"
    voids: str | None = None
    fault: str | None = None
    is_long: bool = False

    @property
    def body(self) -> bytes:
        if self.fault == GARBAGE:
            return b"Hello World" * (1 + self.is_long * SIZE_MAX)
        payload = {"message_id": self.voids} if self.voids else {"total": "TOTAL", "sku": self.sku}
        event: dict[str, Any] = {
            "tenant_id": self.tenant_id,
            "event_type": self.event_type,
            "payload": payload,
        }
        if self.message_id is not None:
            event["id"] = self.message_id
        if self.fault == POISON:
            event["note"] = "\0"
        if self.is_long:
            event["padding"] = "x" * SIZE_MAX
        return json.dumps(event).replace('"TOTAL"', str(self.total)).encode()

    @property
    def content(self) -> tuple[str, Decimal, str, str | None]:
        return self.event_type, self.total, self.sku, self.voids


@dataclass(frozen=True)
class Meter:
    """What is counted; `tenant_id` None: for all. `adds`: the totals, else one for each message."""

    event_type: str
    tenant_id: str | None
    adds: bool

    def of(self, event: Event) -> Decimal | None:
        """What it counts of an event; None: nothing."""
        if self.event_type != event.event_type or self.tenant_id not in (None, event.tenant_id):
            return None
        return event.total if self.adds else Decimal(1)


Key = tuple[str, str]
Counted = tuple[str, str, str, Decimal]
"""What one meter counted of one message: the meter's name, tenant, SKU, and how much."""


@dataclass
class Ledger:
    """Every delivery that was sent, the registry of the moment, and what is in which table."""

    suspended: dict[str, bool] = field(default_factory=lambda: {"acme": False, "globex": False})
    event_types: set[str] = field(default_factory=lambda: {"order.created", "void"})
    total_max: dict[str, Decimal] = field(default_factory=dict)
    sent: dict[str, Event] = field(default_factory=dict)
    messages: dict[Key, str] = field(default_factory=dict)
    duplicates: set[str] = field(default_factory=set)
    rejections: dict[str, tuple[str, str]] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    meters: dict[str, Meter] = field(default_factory=dict)
    meters_ever: list[str] = field(default_factory=list)
    voided: set[Key] = field(default_factory=set)
    counted: dict[Key, list[Counted]] = field(default_factory=dict)
    counted_of_removed: list[Counted] = field(default_factory=list)

    # ── what must become of deliveries ────────────────────────────────────────────────────────────────

    def save(self, deliveries: Sequence[Delivery], *, takes_little: bool) -> list[str]:
        """Give the outcome, or reason to reject, of each; redelivered ones come later, and suspects last."""
        outcomes = {}
        for place, delivery in sorted(
            enumerate(deliveries), key=lambda item: (item[1].suspect, item[1].redelivered)
        ):
            outcomes[place] = self._save(delivery, takes_little=takes_little)
        return [outcomes[place] for place in range(len(deliveries))]

    def _save(self, delivery: Delivery, *, takes_little: bool) -> str:
        delivery_id, replayed = delivery.delivery_id, delivery.rejection_id is not None
        if self.has_outcome(delivery_id) if not replayed else self.rejections[delivery_id][0] != "open":
            return "redelivered"
        event = self.sent[delivery_id]
        reason = "too_large" if takes_little and event.is_long else self.reason_of(event)
        key = self.key_of(delivery_id)
        if reason is None and key in self.messages:
            first = self.sent[self.messages[key]]
            reason = None if first.content == event.content else "id_conflict"
        if reason is not None:
            self.rejections[delivery_id] = ("open", reason)
            return reason
        if replayed:
            self.rejections[delivery_id] = ("replayed", self.rejections[delivery_id][1])
        if key in self.messages:
            self.duplicates.add(delivery_id)
            return "duplicate"
        self._store(key, delivery_id)
        return "stored"

    def _store(self, key: Key, delivery_id: str) -> None:
        """A message is counted by the meters of the moment, unless it is void: before or after."""
        self.messages[key] = delivery_id
        event = self.sent[delivery_id]
        if event.voids is not None:
            target = event.tenant_id, event.voids
            self.voided.add(target)
            self.counted.pop(target, None)
        if key not in self.voided:
            values = {name: meter.of(event) for name, meter in self.meters.items()}
            self.counted[key] = [
                (name, event.tenant_id, event.sku, value)
                for name, value in values.items()
                if value is not None
            ]

    def has_outcome(self, delivery_id: str) -> bool:
        return (
            delivery_id in self.duplicates
            or delivery_id in self.rejections
            or delivery_id in self.removed
            or delivery_id in self.messages.values()
        )

    def reason_of(self, event: Event) -> str | None:
        """Why the registry of the moment rejects an event."""
        if event.fault == GARBAGE:
            return GARBAGE
        if event.tenant_id not in self.suspended:
            return "unknown_tenant"
        if self.suspended[event.tenant_id]:
            return "tenant_suspended"
        if event.event_type not in self.event_types:
            return "unknown_event_type"
        if event.event_type == "order.created" and event.total > self.total_max.get(
            event.tenant_id, event.total
        ):
            return "schema_violation"
        return event.fault

    def key_of(self, delivery_id: str) -> Key:
        event = self.sent[delivery_id]
        return event.tenant_id, event.message_id or f"memory/{delivery_id}"

    # ── what is in the tables ─────────────────────────────────────────────────────────────────────────

    def places(self) -> list[Place]:
        return sorted(
            [(delivery_id, "message") for delivery_id in self.messages.values()]
            + [(delivery_id, "duplicate") for delivery_id in self.duplicates]
            + [
                (delivery_id, f"rejection {status} {reason}")
                for delivery_id, (status, reason) in self.rejections.items()
            ]
        )

    def total(self) -> Fraction:
        """The sum over all messages, to the last digit."""
        events = [self.sent[delivery_id] for delivery_id in self.messages.values()]
        return sum((Fraction(event.total) for event in events if event.voids is None), Fraction())

    def usage(self) -> list[tuple[str, str, str, Decimal, int]]:
        """What each meter has counted, by tenant and SKU: the sum to the last digit, and of how many."""
        found: dict[tuple[str, str, str], list[Decimal]] = {}
        for *group, value in [*self.counted_of_removed, *itertools.chain(*self.counted.values())]:
            found.setdefault((group[0], group[1], group[2]), []).append(value)
        with localcontext(prec=1000):
            return sorted((*group, sum(values, Decimal()), len(values)) for group, values in found.items())

    def remove_messages(self) -> None:
        """What they had added stays, and no void takes it away any more."""
        self.removed |= {*self.messages.values()}
        self.messages.clear()
        self.counted_of_removed += itertools.chain(*self.counted.values())
        self.counted.clear()

    def adopt(self, places: Iterable[Place]) -> None:
        """Take over what became of deliveries where nobody can foretell it; fails where it is wrong."""
        # Messages first, since what becomes of the others hangs on them; rejections last, which those close.
        order = ("message", "duplicate", "rejection")
        new = set(places) - set(self.places())
        for delivery_id, place in sorted(new, key=lambda place: order.index(place[1].split(" ")[0])):
            event, key = self.sent[delivery_id], self.key_of(delivery_id)
            table, *words = place.split(" ")
            status, _ = self.rejections.get(delivery_id, ("open", ""))
            assert status == "open", f"{delivery_id} had its outcome: {status}"
            if table == "rejection":
                self._adopt_rejection(delivery_id, *words)
                continue
            assert self.reason_of(event) is None
            assert delivery_id in self.rejections or not self.has_outcome(delivery_id)
            if table == "message":
                assert key not in self.messages, f"{key} is stored twice"
                self._store(key, delivery_id)
            else:
                assert self.sent[self.messages[key]].content == event.content
                self.duplicates.add(delivery_id)

    def _adopt_rejection(self, delivery_id: str, status: str, reason: str) -> None:
        event = self.sent[delivery_id]
        if status == "open" and reason == "id_conflict":
            assert self.reason_of(event) is None
            assert self.sent[self.messages[self.key_of(delivery_id)]].content != event.content
        elif status == "open":
            assert reason == self.reason_of(event) or (reason == "too_large" and event.is_long)
        else:
            assert status == "replayed"
            assert delivery_id in self.duplicates or delivery_id in self.messages.values()
        assert delivery_id in self.rejections or not self.has_outcome(delivery_id)
        self.rejections[delivery_id] = (status, reason)
