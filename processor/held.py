"""What this process has received and not yet settled: it bounds the buffer, and stays hidden from others."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from processor.model import Delivery


@dataclass(slots=True)
class _Holding:
    delivery: Delivery
    received_at: float
    extended_at: float


class Held:
    """The deliveries between receive and settle, by identity: the same message may be held twice.

    Safe to share between threads. Times are seconds of `time.monotonic`.
    """

    def __init__(self, *, size_max: int, bytes_max: int) -> None:
        self._size_max = size_max
        self._bytes_max = bytes_max
        self._holdings: dict[int, _Holding] = {}
        self._bytes = 0
        self._changed = threading.Condition()

    @property
    def size(self) -> int:
        """How many deliveries are held."""
        return len(self._holdings)

    @property
    def size_bytes(self) -> int:
        """The size of their bodies together."""
        return self._bytes

    @property
    def ratio(self) -> float:
        """How full the buffer is, by number or by bytes, whichever is more; from 1 on nothing is received."""
        return max(len(self._holdings) / self._size_max, self._bytes / self._bytes_max)

    def oldest_s(self) -> float:
        """Give the age of the delivery that has been held longest; 0 when none is."""
        with self._changed:
            first = next(iter(self._holdings.values()), None)
            return 0.0 if first is None else time.monotonic() - first.received_at

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait until more may be received, and say whether it may."""
        with self._changed:
            return self._changed.wait_for(lambda: self.ratio < 1, timeout_s)

    def add(self, deliveries: Sequence[Delivery]) -> None:
        """Note deliveries as held, from now on."""
        now = time.monotonic()
        with self._changed:
            for delivery in deliveries:
                self._holdings[id(delivery)] = _Holding(delivery, now, now)
                self._bytes += len(delivery.body)

    def drop(self, deliveries: Sequence[Delivery]) -> None:
        """Note deliveries as no longer held."""
        with self._changed:
            for delivery in deliveries:
                if self._holdings.pop(id(delivery), None) is not None:
                    self._bytes -= len(delivery.body)
            self._changed.notify_all()

    def due(self, *, every_s: float, hold_s_max: float) -> list[Delivery]:
        """Give the deliveries last extended `every_s` ago or longer, and note them as extended.

        Those held for longer than `hold_s_max` are left to the queue, which ends every hold at 12 hours.
        """
        now = time.monotonic()
        with self._changed:
            due = [
                holding
                for holding in self._holdings.values()
                if now - holding.extended_at >= every_s and now - holding.received_at < hold_s_max
            ]
            for holding in due:
                holding.extended_at = now
            return [holding.delivery for holding in due]

    def all(self) -> list[Delivery]:
        """Give everything that is held."""
        with self._changed:
            return [holding.delivery for holding in self._holdings.values()]
