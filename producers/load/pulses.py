"""The timetables of the load, and the bodies of its pulses.

A pulse depends only on the seed, its tenant and its number, not on its time. So the same seed sends the same
pulses with the same ids, at any speed of the server.
"""

import random
from dataclasses import dataclass, field
from hashlib import sha256
from heapq import heappop, heappush
from typing import Protocol

PAUSE_S_MIN, PAUSE_S_MAX = 0.5, 1.0
"""The time between two pulses of a tenant."""

_UNITS = ("GB", "KB", "MB/sec", "count")


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """The load: pulses of `tenants` tenants and `skus` SKUs for `duration_s` seconds.

    With `rate_per_s` the rate is constant, whatever the responses. Without, each tenant sends its next pulse
    500 to 1,000 ms after the last was due, and not before its response.
    """

    duration_s: float
    seed: int
    tenants: int = 3000
    skus: int = 10
    rate_per_s: float | None = None


@dataclass(slots=True)
class LoadPulse:
    """One pulse: its due time (seconds after the start), tenant, id and JSON."""

    due_s: float
    tenant: int
    tenant_id: str
    message_id: str
    body: bytes
    tries: int = 0

    def digest(self) -> str:
        """Return the payload's digest for the manifest; the body is in the canonical spelling already."""
        return sha256(self.body).hexdigest()


class Timetable(Protocol):
    """Yields pulses in the order of their due times; `done` is called for each pulse when it has ended."""

    def next_s(self) -> float | None:
        """Return the due time of the next pulse; None: there is none until another one is done."""

    def take(self) -> LoadPulse:
        """Return that pulse."""

    def done(self, pulse: LoadPulse) -> None:
        """Note that a pulse was answered or abandoned."""


@dataclass(slots=True)
class Steady:
    """A constant rate: slow responses delay no pulse."""

    plan: LoadPlan
    rate_per_s: float
    _next: int = 0

    def next_s(self) -> float | None:
        """Return the due time of the next pulse; None: all were taken."""
        due_s = self._next / self.rate_per_s
        return due_s if due_s < self.plan.duration_s else None

    def take(self) -> LoadPulse:
        """Return it; tenants take turns."""
        number, self._next = self._next, self._next + 1
        turn, tenant = divmod(number, self.plan.tenants)
        return pulse(self.plan, number / self.rate_per_s, tenant, turn)

    def done(self, pulse: LoadPulse) -> None:
        """Do nothing: no pulse depends on it."""


@dataclass(slots=True)
class EachInTurn:
    """Every tenant sends, waits for the response and for its pause, and sends again."""

    plan: LoadPlan
    _due: list[tuple[float, int]] = field(default_factory=list)
    _numbers: list[int] = field(default_factory=list)
    _chance: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._chance.seed(self.plan.seed)
        self._numbers = [0] * self.plan.tenants
        # The first pulses are spread over the longest pause, so that they are not all sent at once.
        self._due = sorted(
            (self._chance.uniform(0, PAUSE_S_MAX), tenant) for tenant in range(self.plan.tenants)
        )

    def next_s(self) -> float | None:
        """Return the due time of the next tenant; None: all tenants wait, or the time is over."""
        return self._due[0][0] if self._due and self._due[0][0] < self.plan.duration_s else None

    def take(self) -> LoadPulse:
        """Return that tenant's pulse; the tenant sends no other until this one is done."""
        due_s, tenant = heappop(self._due)
        number = self._numbers[tenant]
        self._numbers[tenant] += 1
        return pulse(self.plan, due_s, tenant, number)

    def done(self, pulse: LoadPulse) -> None:
        """Schedule the tenant's next pulse."""
        # Counted from the due time, not from the response: a slow server must not reduce its own load.
        heappush(self._due, (pulse.due_s + self._chance.uniform(PAUSE_S_MIN, PAUSE_S_MAX), pulse.tenant))


def timetable(plan: LoadPlan) -> Timetable:
    """Return the timetable of the plan."""
    return EachInTurn(plan) if plan.rate_per_s is None else Steady(plan, plan.rate_per_s)


def pulse(plan: LoadPlan, due_s: float, tenant: int, number: int) -> LoadPulse:
    """Make a tenant's pulse by number. Its JSON is sorted and compact, with the shortest numbers."""
    drawn = (plan.seed * 1_000_003 + tenant * 2_654_435_761 + number * 2_246_822_519) % 2**61
    drawn = drawn * 0x9E3779B97F4A7C15 % 2**64 >> 16
    sku, fraction = drawn % plan.skus, drawn // plan.skus % 1000
    whole = drawn // plan.skus // 1000 % 10_000
    amount = f"{whole}.{fraction:03d}".rstrip("0").rstrip(".")
    tenant_id = f"tenant-{tenant + 1:04d}"
    body = (
        f'{{"product_sku":"sku-{sku + 1}","tenant_id":"{tenant_id}",'
        f'"use_unity":"{_UNITS[sku % len(_UNITS)]}","used_amount":{amount}}}'
    )
    return LoadPulse(due_s, tenant, tenant_id, f"pulse-{plan.seed}-{plan.skus}-{number}", body.encode())
