"""A fair queue of pending events: one lane for each holder, served in turn."""

from collections import deque
from collections.abc import Hashable, Iterable
from typing import Generic, Protocol, TypeVar


class LaneEntry(Protocol):
    """An entry with a holder, which may be finished before its turn."""

    @property
    def holder(self) -> Hashable: ...  # noqa: D102

    @property
    def over(self) -> bool: ...  # noqa: D102


T = TypeVar("T", bound=LaneEntry)


class Lanes(Generic[T]):
    """A queue in which a holder with one entry never waits for all entries of a holder with a thousand.

    The order of one holder's entries is kept.
    """

    def __init__(self) -> None:
        self._first: deque[T] = deque()
        self._lanes: dict[Hashable, deque[T]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, entry: T) -> None:
        """Put an entry at the end of its holder's lane."""
        self._size += 1
        self._lanes.setdefault(entry.holder, deque()).append(entry)

    def put_first(self, entries: Iterable[T]) -> None:
        """Put entries before all others, in this order."""
        before = len(self._first)
        self._first.extendleft(reversed([*entries]))
        self._size += len(self._first) - before

    def head(self) -> T:
        """Return the next entry without removing it. Raises IndexError if there is none."""
        if self._first:
            return self._first[0]
        for lane in self._lanes.values():
            return lane[0]
        raise IndexError("nothing waits")

    def pop(self) -> T:
        """Remove and return the next entry; its holder then goes to the end of the turn."""
        self._size -= 1
        if self._first:
            return self._first.popleft()
        holder = next(iter(self._lanes))
        lane = self._lanes.pop(holder)
        entry = lane.popleft()
        if lane:
            self._lanes[holder] = lane
        return entry

    def drop_over(self, holder: Hashable) -> int:
        """Remove the finished entries at the head of a holder's lane; return their number."""
        lane, before = self._lanes.get(holder), self._size
        while lane and lane[0].over:
            lane.popleft()
            self._size -= 1
        if lane is not None and not lane:
            del self._lanes[holder]
        return before - self._size
