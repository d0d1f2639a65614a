"""Fair limits: connections by address, requests and their bytes by tenant.

connection ─▶ Visitors ── none free ─▶ evict the longest idle of the largest holder
    request ─▶ Stay ───── none free ─▶ 429, for this tenant
"""

import heapq
from collections.abc import Hashable, MutableMapping
from typing import Any, Protocol

from producers.gateway.http.problems import RETRY_AFTER_S, refused
from producers.gateway.quotas import Quotas
from producers.gateway.shares import Shares

CONNECTION = "connection"
"""The key of the connection in the state of a request."""

_AT_ONCE = 128
"""The part of all connections that one eviction frees, as finding the largest holder takes time."""

_KEYLESS_PER_S, _KEYLESS_AT_ONCE = 500, 100
"""The rate limit of one address without a key. Each request costs about 0.1 ms: 5 % of a core."""

_PROBES = ("/livez", "/readyz")
_WAITS_S, _PROBE_WAITS_S = 5.0, 0.5
"""The longest delay: behind a proxy all clients share an address, and probes time out after a second."""


class Visitor(Protocol):
    """A connection."""

    holder: Hashable

    def evict(self) -> None:
        """Close at once."""

    async def waits(self, seconds: float) -> None:
        """Note a request without a key: it waits so long, may be evicted, and its body is discarded."""


class Visitors:
    """The open connections. A connection with a request is never evicted."""

    def __init__(self, connections_max: int) -> None:
        self._places = Shares(connections_max)
        self._at_once = max(1, connections_max // _AT_ONCE)
        self._present: set[Visitor] = set()
        # By holder, in the order in which the connections became idle.
        self._idle: dict[Hashable, dict[Visitor, None]] = {}

    def enter(self, visitor: Visitor) -> bool:
        """Add an idle connection; False: all places are taken, and no larger holder has an idle one."""
        while not self._places.take(visitor.holder):
            if not self._make_room(self._places.held(visitor.holder)):
                return False
        self._present.add(visitor)
        self.rests(visitor)
        return True

    def leave(self, visitor: Visitor) -> None:
        """Free its place, if it has one."""
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
        """Evict some connections: each the longest idle of the largest holder, with at least `held`."""
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
    """The slot and the bytes of memory that one request holds until its end."""

    __slots__ = ("_bytes", "_holder", "_is_in", "_places", "_room")

    def __init__(self, places: Shares, room: Shares) -> None:
        self._places = places
        self._room = room
        self._holder: Hashable = None
        self._is_in = False
        self._bytes = 0

    def begin(self, holder: Hashable) -> None:
        """Take a slot. Raises RequestRefused if the holder has its full share."""
        if not self._places.take(holder):
            detail = "the tenant has too many requests in progress; retry later"
            raise refused("over_quota", detail, retry_after_s=RETRY_AFTER_S)
        self._holder, self._is_in = holder, True

    def add(self, size_bytes: int) -> None:
        """Hold more bytes. Raises RequestRefused if there is no room."""
        if size_bytes and not self._room.take(self._holder, size_bytes):
            detail = "the gateway's memory for request bodies is full; retry later"
            raise refused("over_quota", detail, retry_after_s=RETRY_AFTER_S)
        self._bytes += size_bytes

    def end(self) -> None:
        """Release the slot and all bytes."""
        if self._is_in:
            self._places.give_back(self._holder)
        if self._bytes:
            self._room.give_back(self._holder, self._bytes)
        self._is_in, self._bytes = False, 0


class Pace:
    """The rate limit of requests without a key from one address: faster requests are delayed."""

    def __init__(self) -> None:
        self._quotas = Quotas(_KEYLESS_PER_S, burst=_KEYLESS_AT_ONCE)

    async def wait(self, scope: MutableMapping[str, Any]) -> None:
        """Charge one request to its address, and wait until it is paid, up to the longest delay."""
        if (visitor := visitor_of(scope)) is not None:
            is_probe = scope["path"] in _PROBES
            most_s = _PROBE_WAITS_S if is_probe else _WAITS_S
            await visitor.waits(self._quotas.wait_s((visitor.holder, is_probe), most_s))


def visitor_of(scope: MutableMapping[str, Any]) -> Visitor | None:
    """Return the connection of a request; None: another server runs the application."""
    found: Visitor | None = scope.get("state", {}).get(CONNECTION)
    return found


def holder_of(scope: MutableMapping[str, Any]) -> Hashable:
    """Return the holder of a request without a key: the address of its connection."""
    visitor = visitor_of(scope)
    return None if visitor is None else visitor.holder
