"""Fair shares of a bounded resource: request slots, connections, bytes in memory.

There is no waiting and no reservation: a holder may take while it has at most eight times the free amount.
So a single holder gets at most eight ninths, two get eight seventeenths each, and a new holder always finds
a free part. The rule is the dynamic threshold of shared switch buffers (Choudhury and Hahne, 1998), with a
factor of 8.
"""

from collections.abc import Hashable
from ipaddress import IPv6Address, ip_address

_FACTOR = 8
_PREFIX_BITS = 64
"""A client with one IPv6 address usually has all of its /64."""


class Shares:
    """A bounded amount, shared by holders. Used on one event loop."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.taken = 0
        self._held: dict[Hashable, int] = {}

    def take(self, holder: Hashable, amount: int = 1) -> bool:
        """Take all of the amount or nothing: False if it exceeds the holder's share or the free amount."""
        free = self.total - self.taken
        held = self._held.get(holder, 0) + amount
        if amount > free or held > _FACTOR * free:
            return False
        self._held[holder] = held
        self.taken += amount
        return True

    def give_back(self, holder: Hashable, amount: int = 1) -> None:
        """Return an amount that was taken."""
        self.taken -= amount
        left = self._held[holder] - amount
        if left:
            self._held[holder] = left
        else:
            del self._held[holder]

    def held(self, holder: Hashable) -> int:
        """Return how much a holder has."""
        return self._held.get(holder, 0)


def holder_of(host: str) -> Hashable:
    """Return the holder of connections from a host: its address; of IPv6 the first 64 bits."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return int(address)
    if (mapped := address.ipv4_mapped) is not None:
        return int(mapped)
    return int(address) >> _PREFIX_BITS, _PREFIX_BITS
