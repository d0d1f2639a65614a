"""Rate limits by tenant: one token bucket for each tenant that was active lately."""

import math
import time
from collections.abc import Callable, Hashable, Mapping

BUCKETS_MAX = 100_000
"""Buckets that are kept. Beyond this number the oldest bucket is dropped, and its tenant starts anew."""

_BURST_S = 2.0
_SWEEP_EVERY_S = 1.0


class Quotas:
    """A rate per second by tenant, of events or another unit; None: no limit. Used on one event loop.

    `rates` has exceptions by tenant. `burst` is the size of a bucket; None: two seconds of the rate.
    """

    def __init__(
        self,
        rate: float | None,
        *,
        burst: int | None = None,
        rates: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._rates: dict[Hashable, float] = dict((rates or {}).items())
        self._clock = clock
        self._unbounded = rate is None and not self._rates
        # Tokens at a moment. Full buckets are not kept, so that quiet tenants take no memory.
        self._buckets: dict[Hashable, tuple[float, float]] = {}
        self._swept_at = clock()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, tenant_id: Hashable) -> int | None:
        """Take one token of a tenant; if there is none, return the seconds until there is."""
        if self._unbounded:
            return None
        rate = self._rates.get(tenant_id, self._rate)
        if rate is None:
            return None
        now = self._clock()
        tokens = self._tokens(tenant_id, rate, now)
        if tokens < 1:
            return max(1, math.ceil((1 - tokens) / rate))
        self._put(tenant_id, tokens - 1, now)
        return None

    def charge(self, tenant_id: Hashable, amount: float) -> None:
        """Take off an amount that was used, even beyond the bucket's content."""
        rate = self._rates.get(tenant_id, self._rate)
        if rate is None:
            return
        now = self._clock()
        known = self._buckets.get(tenant_id)
        if known is None or now - self._swept_at >= _SWEEP_EVERY_S:
            self._put(tenant_id, self._tokens(tenant_id, rate, now) - amount, now)
            return
        # Same code as above, without a call: each request comes here several times.
        tokens, room = known[0] + (now - known[1]) * rate, self._room(rate)
        self._buckets[tenant_id] = (min(room, tokens) - amount, now)

    def wait_s(self, tenant_id: Hashable, most_s: float) -> float:
        """Charge one token, and return the seconds until it is paid; the debt never exceeds `most_s`."""
        rate = self._rates.get(tenant_id, self._rate)
        if rate is None:
            return 0.0
        now = self._clock()
        tokens = max(self._tokens(tenant_id, rate, now) - 1, -most_s * rate)
        self._put(tenant_id, tokens, now)
        return max(0.0, -tokens / rate)

    def has(self, tenant_id: Hashable, part: float) -> bool:
        """Tell whether a tenant's bucket is filled to at least this part."""
        known = self._buckets.get(tenant_id)
        if known is None:
            return True
        rate = self._rates.get(tenant_id, self._rate)
        # The bucket may be fuller by now, but not emptier.
        return rate is None or known[0] >= part * self._room(rate) or self.level(tenant_id) >= part

    def level(self, tenant_id: Hashable) -> float:
        """Return how full a tenant's bucket is, from 0 to 1; below 0 if the tenant is in debt."""
        rate = self._rates.get(tenant_id, self._rate)
        if rate is None or tenant_id not in self._buckets:
            return 1.0
        return self._tokens(tenant_id, rate, self._clock()) / self._room(rate)

    def debt_s(self, tenant_id: Hashable) -> int | None:
        """Return the seconds until a tenant's debt is paid; None: there is no debt."""
        known = self._buckets.get(tenant_id)
        if known is None or known[0] >= 0:
            return None
        rate = self._rates.get(tenant_id, self._rate) or 0.0
        tokens = self._tokens(tenant_id, rate, self._clock())
        return max(1, math.ceil(-tokens / rate)) if tokens < 0 else None

    def _put(self, tenant_id: Hashable, tokens: float, now: float) -> None:
        if now - self._swept_at >= _SWEEP_EVERY_S:
            self._sweep(now)
        if tenant_id not in self._buckets and len(self._buckets) >= BUCKETS_MAX:
            del self._buckets[next(iter(self._buckets))]
        self._buckets[tenant_id] = (tokens, now)

    def _room(self, rate: float) -> float:
        return float(self._burst) if self._burst is not None else max(1.0, rate * _BURST_S)

    def _tokens(self, tenant_id: Hashable, rate: float, now: float) -> float:
        room = self._room(rate)
        known = self._buckets.get(tenant_id)
        return room if known is None else min(room, known[0] + (now - known[1]) * rate)

    def _sweep(self, now: float) -> None:
        """Drop the buckets that are full again."""
        self._swept_at = now
        full = []
        for tenant_id in self._buckets:
            rate = self._rates.get(tenant_id, self._rate) or 0.0
            if self._tokens(tenant_id, rate, now) >= self._room(rate):
                full.append(tenant_id)
        for tenant_id in full:
            del self._buckets[tenant_id]
