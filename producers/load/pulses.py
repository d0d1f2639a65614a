"""Which pulse is due when, and what is in it: the timetables of the load, and its bodies.

A pulse depends on the seed, its tenant and its number alone, not on when it is sent. So the same seed sends
the same pulses under the same ids, however fast the other side is.
"""

import random
from dataclasses import dataclass, field
from hashlib import sha256
from heapq import heappop, heappush
from typing import Protocol

PAUSE_S_MIN, PAUSE_S_MAX = 0.5, 1.0
"""How long a tenant waits from one pulse to its next."""

_UNITS = ("GB", "KB", "MB/sec", "count")


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What to send: pulses of `tenants` tenants and `skus` SKUs for `duration_s` seconds.

    With `rate_per_s` so many a second whatever becomes of them; without, each tenant sends its next one
    500 to 1,000 ms after the last was due, and not before that one was answered.
    """

    duration_s: float
    seed: int
    tenants: int = 3000
    skus: int = 10
    rate_per_s: float | None = None


@dataclass(slots=True)
class LoadPulse:
    """One pulse: when it is due (seconds after the start), whose it is, its id and its JSON."""

    due_s: float
    tenant: int
    tenant_id: str
    message_id: str
    body: bytes
    tries: int = 0

    def digest(self) -> str:
        """Give what the manifest says of the payload: the body is written in its normal spelling already."""
        return sha256(self.body).hexdigest()


class Timetable(Protocol):
    """Says what is due; `take` is asked in the order of time, `done` told of each pulse when it has ended."""

    def next_s(self) -> float | None:
        """Give the moment of the next pulse that may be taken; None: none, until another one is done."""

    def take(self) -> LoadPulse:
        """Take that pulse."""

    def done(self, pulse: LoadPulse) -> None:
        """Hear that a pulse was answered, or will never be."""


@dataclass(slots=True)
class Steady:
    """So many pulses a second, evenly: a slow answer holds none of them up."""

    plan: LoadPlan
    rate_per_s: float
    _next: int = 0

    def next_s(self) -> float | None:
        """Give the moment of the next pulse; None: all were taken."""
        due_s = self._next / self.rate_per_s
        return due_s if due_s < self.plan.duration_s else None

    def take(self) -> LoadPulse:
        """Take it: of the tenants in turn."""
        number, self._next = self._next, self._next + 1
        turn, tenant = divmod(number, self.plan.tenants)
        return pulse(self.plan, number / self.rate_per_s, tenant, turn)

    def done(self, pulse: LoadPulse) -> None:
        """Nothing waits for it."""


@dataclass(slots=True)
class EachInTurn:
    """Every tenant sends, waits for the answer and for its pause, and sends again."""

    plan: LoadPlan
    _due: list[tuple[float, int]] = field(default_factory=list)
    _numbers: list[int] = field(default_factory=list)
    _chance: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._chance.seed(self.plan.seed)
        self._numbers = [0] * self.plan.tenants
        # The first ones spread over the longest pause: they don't come all at once.
        self._due = sorted(
            (self._chance.uniform(0, PAUSE_S_MAX), tenant) for tenant in range(self.plan.tenants)
        )

    def next_s(self) -> float | None:
        """Give when the next tenant is to send; None: nobody is, or the time is over."""
        return self._due[0][0] if self._due and self._due[0][0] < self.plan.duration_s else None

    def take(self) -> LoadPulse:
        """Take that one's pulse; it sends no other until this one is done."""
        due_s, tenant = heappop(self._due)
        number = self._numbers[tenant]
        self._numbers[tenant] += 1
        return pulse(self.plan, due_s, tenant, number)

    def done(self, pulse: LoadPulse) -> None:
        """Let its tenant send the next one."""
        # From when it was due, not from its answer: a slow server must not slow down what is asked of it.
        heappush(self._due, (pulse.due_s + self._chance.uniform(PAUSE_S_MIN, PAUSE_S_MAX), pulse.tenant))


def timetable(plan: LoadPlan) -> Timetable:
    """Give the timetable that the plan asks for."""
    return EachInTurn(plan) if plan.rate_per_s is None else Steady(plan, plan.rate_per_s)


def pulse(plan: LoadPlan, due_s: float, tenant: int, number: int) -> LoadPulse:
    """Make the pulse of this number of a tenant. Its JSON is sorted and compact, its numbers shortest."""
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
