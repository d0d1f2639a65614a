"""Who has come: connections by address, requests and their bytes by tenant; nobody takes all places.

connection ─▶ Visitors ── none free ─▶ the longest idle of whoever holds most go
    request ─▶ Stay ───── none free ─▶ 429, for this tenant
"""

import heapq
from collections.abc import Hashable, MutableMapping
from typing import Any, Protocol

from producers.gateway.http.problems import RETRY_AFTER_S, refused
from producers.gateway.quotas import Quotas
from producers.gateway.shares import Shares

CONNECTION = "connection"
"""Where in the state of a request its connection stands."""

_AT_ONCE = 128
"""Room is made for this part of all connections at once, as to look who holds most takes time."""

_KEYLESS_PER_S, _KEYLESS_AT_ONCE = 500, 100
"""Requests without a key from one address, each of which costs about 0.1 ms: a twentieth of a core."""

_PROBES = ("/livez", "/readyz")
_WAITS_S, _PROBE_WAITS_S = 5.0, 0.5
"""Nobody waits longer: behind a proxy all come from one address, and a probe is given up after a second."""


class Visitor(Protocol):
    """A connection."""

    holder: Hashable

    def evict(self) -> None:
        """End, at once."""

    async def waits(self, seconds: float) -> None:
        """Hear that its request has no key: it may be evicted, its body is nobody's, and it waits so long."""


class Visitors:
    """The connections that are open. One that has a request is never evicted."""

    def __init__(self, connections_max: int) -> None:
        self._places = Shares(connections_max)
        self._at_once = max(1, connections_max // _AT_ONCE)
        self._present: set[Visitor] = set()
        # By holder, and each in the order in which they became idle.
        self._idle: dict[Hashable, dict[Visitor, None]] = {}

    def enter(self, visitor: Visitor) -> bool:
        """Let in one more, which is idle; False: there is no place for it, and nobody idle holds as many."""
        while not self._places.take(visitor.holder):
            if not self._make_room(self._places.held(visitor.holder)):
                return False
        self._present.add(visitor)
        self.rests(visitor)
        return True

    def leave(self, visitor: Visitor) -> None:
        """Give its place back, if it has one."""
        if visitor in self._present:
            self.works(visitor)
            self._present.discard(visitor)
            self._places.give_back(visitor.holder)

    def works(self, visitor: Visitor) -> None:
        """Note that it is not idle."""
        idle = self._idle.get(visitor.holder)
        if idle is not None:
            idle.pop(visitor, None)
            if not idle:
                del self._idle[visitor.holder]

    def rests(self, visitor: Visitor) -> None:
        """Note that it is idle from now on."""
        if visitor in self._present:
            idle = self._idle.setdefault(visitor.holder, {})
            idle.pop(visitor, None)
            idle[visitor] = None

    def _make_room(self, held: int) -> bool:
        """Evict a few of the longest idle, each of whoever holds most then, and `held` at least."""
        made = False
        sizes = ((-self._places.held(holder), place, holder) for place, holder in enumerate(self._idle))
        largest = heapq.nsmallest(self._at_once, sizes)
        for _ in range(self._at_once):
            if not largest or -largest[0][0] < held:
                break
            made = True
            size, place, holder = largest[0]
            visitor = next(iter(self._idle[holder]))
            self.leave(visitor)
            visitor.evict()
            if holder in self._idle:
                heapq.heapreplace(largest, (size + 1, place, holder))
            else:
                heapq.heappop(largest)
        return made


class Stay:
    """What one request holds of the places and of the bytes of bodies, until its end."""

    __slots__ = ("_bytes", "_holder", "_is_in", "_places", "_room")

    def __init__(self, places: Shares, room: Shares) -> None:
        self._places = places
        self._room = room
        self._holder: Hashable = None
        self._is_in = False
        self._bytes = 0

    def begin(self, holder: Hashable) -> None:
        """Take a place. Raises Refused if this holder has so many that others need the rest."""
        if not self._places.take(holder):
            detail = "the tenant has too many requests in progress; retry later"
            raise refused("over_quota", detail, retry_after_s=RETRY_AFTER_S)
        self._holder, self._is_in = holder, True

    def add(self, size_bytes: int) -> None:
        """Hold so many bytes more. Raises Refused if there is no room."""
        if size_bytes and not self._room.take(self._holder, size_bytes):
            detail = "the gateway's memory for request bodies is full; retry later"
            raise refused("over_quota", detail, retry_after_s=RETRY_AFTER_S)
        self._bytes += size_bytes

    def end(self) -> None:
        """Give all back."""
        if self._is_in:
            self._places.give_back(self._holder)
        if self._bytes:
            self._room.give_back(self._holder, self._bytes)
        self._is_in, self._bytes = False, 0


class Pace:
    """How fast one address may ask without a key: who asks faster waits for the answer, be it what it may."""

    def __init__(self) -> None:
        self._quotas = Quotas(_KEYLESS_PER_S, burst=_KEYLESS_AT_ONCE)

    async def wait(self, scope: MutableMapping[str, Any]) -> None:
        """Charge one request to where it comes from, and wait until that is paid, though not for ever."""
        if (visitor := visitor_of(scope)) is not None:
            is_probe = scope["path"] in _PROBES
            most_s = _PROBE_WAITS_S if is_probe else _WAITS_S
            await visitor.waits(self._quotas.wait_s((visitor.holder, is_probe), most_s))


def visitor_of(scope: MutableMapping[str, Any]) -> Visitor | None:
    """Give the connection of a request; None: it came by no connection of ours."""
    found: Visitor | None = scope.get("state", {}).get(CONNECTION)
    return found


def holder_of(scope: MutableMapping[str, Any]) -> Hashable:
    """Give whom a request without a key counts for: where its connection comes from."""
    visitor = visitor_of(scope)
    return None if visitor is None else visitor.holder
