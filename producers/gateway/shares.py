"""Shares of what there is only so much of: places of requests, connections, bytes that are held.

Nobody waits and nothing is set aside: a holder may take as long as it has at most eight times of what is
free. So one alone comes to eight ninths, two to eight seventeenths each, and whoever holds nothing finds
something left. The rule is the dynamic threshold of shared switch buffers (Choudhury and Hahne, 1998), with
a factor of 8.
"""

from collections.abc import Hashable
from ipaddress import IPv6Address, ip_address

_FACTOR = 8
_PREFIX_BITS = 64
"""Who has one address of IPv6 has as a rule all of its /64."""


class Shares:
    """So much of one thing, among holders that come and go. Used on one event loop."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.taken = 0
        self._held: dict[Hashable, int] = {}

    def take(self, holder: Hashable, amount: int = 1) -> bool:
        """Take so much, or nothing: False if that is more than this holder may have, or than there is."""
        free = self.total - self.taken
        held = self._held.get(holder, 0) + amount
        if amount > free or held > _FACTOR * free:
            return False
        self._held[holder] = held
        self.taken += amount
        return True

    def give_back(self, holder: Hashable, amount: int = 1) -> None:
        """Give back what was taken."""
        self.taken -= amount
        left = self._held[holder] - amount
        if left:
            self._held[holder] = left
        else:
            del self._held[holder]

    def held(self, holder: Hashable) -> int:
        """Say how much a holder has."""
        return self._held.get(holder, 0)


def holder_of(host: str) -> Hashable:
    """Give whom the connections from a host's address count for: the address, of IPv6 its first 64 bits."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return int(address)
    if (mapped := address.ipv4_mapped) is not None:
        return int(mapped)
    return int(address) >> _PREFIX_BITS, _PREFIX_BITS
