"""Track deliveries in flight: limit their number and bytes, and extend their visibility timeouts."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from processor.errors import SourceUnavailable
from processor.model import Delivery

log = structlog.get_logger(__name__)

_LARGE_BODIES_REMEMBERED = 0.9
"""The factor by which the expected body size shrinks after a receive of small bodies."""


@dataclass(slots=True)
class _ReceivedDelivery:
    delivery: Delivery
    received_at: float
    extend_at: float


class InFlight:
    """The deliveries between receive and settle, by identity, since one message may be in flight twice.

    Each is extended `extend_after_s` after its receive and after each extension, in calls of `call_size`
    deliveries. Thread-safe. Times are seconds of `time.monotonic`.
    """

    def __init__(self, *, size_max: int, bytes_max: int, extend_after_s: float, call_size: int) -> None:
        self._size_max = size_max
        self._bytes_max = bytes_max
        self._extend_after_s = extend_after_s
        self._call_size = call_size
        self._holdings: dict[int, _ReceivedDelivery] = {}
        self._bytes = 0
        self._asked = 0
        # The expected size of a body: the mean of the last receives, slow to forget large ones.
        self._body_bytes = 0.0
        # Whether extensions are so late that deliveries in flight may be redelivered.
        self._behind = False
        self._changed = threading.Condition()

    @property
    def size(self) -> int:
        """The number of deliveries in flight."""
        return len(self._holdings)

    @property
    def size_bytes(self) -> int:
        """The sum of their body sizes."""
        return self._bytes

    @property
    def ratio(self) -> float:
        """The fill ratio of the buffer by number or bytes, whichever is higher. At 1 receiving pauses."""
        return max(len(self._holdings) / self._size_max, self._bytes / self._bytes_max)

    def oldest_s(self) -> float:
        """Return the age in seconds of the oldest delivery in flight; 0 if there is none."""
        with self._changed:
            first = next(iter(self._holdings.values()), None)
            return 0.0 if first is None else time.monotonic() - first.received_at

    @contextmanager
    def room(self, limit: int, timeout_s: float) -> Iterator[int]:
        """Wait until there is room for deliveries, and yield for how many, up to `limit`; 0 on timeout.

        The room is reserved until the block ends; received deliveries must be added by then. There is no room
        while extensions are late, because more deliveries would delay them further, until all deliveries in
        flight are redelivered again and again.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._room() >= 1, timeout_s)
            granted = max(0, min(limit, self._room()))
            self._asked += granted
        try:
            yield granted
        finally:
            with self._changed:
                self._asked -= granted
                self._changed.notify_all()

    def _room(self) -> int:
        if self.ratio >= 1 or self._behind:
            return 0
        left = self._size_max - len(self._holdings) - self._asked
        if self._body_bytes:
            left_by_bytes = int((self._bytes_max - self._bytes) / self._body_bytes) - self._asked
            # An empty buffer accepts one delivery of any size.
            left = min(left, left_by_bytes if self._holdings or self._asked else max(1, left_by_bytes))
        return left

    def add(self, deliveries: Sequence[Delivery]) -> None:
        """Add received deliveries."""
        now = time.monotonic()
        with self._changed:
            for delivery in deliveries:
                self._holdings[id(delivery)] = _ReceivedDelivery(delivery, now, now + self._extend_after_s)
                self._bytes += len(delivery.body)
            came = sum(len(delivery.body) for delivery in deliveries)
            self._body_bytes = max(came / len(deliveries), self._body_bytes * _LARGE_BODIES_REMEMBERED)

    def drop(self, deliveries: Sequence[Delivery]) -> None:
        """Remove deliveries. Deliveries that are not in flight are ignored."""
        with self._changed:
            for delivery in deliveries:
                if self._holdings.pop(id(delivery), None) is not None:
                    self._bytes -= len(delivery.body)
            self._changed.notify_all()

    def keep(
        self,
        extend: Callable[[Sequence[Delivery]], None],
        *,
        hold_s_max: float,
        stop: threading.Event,
    ) -> None:
        """Extend every delivery whose extension is due, until `stop` is set.

        Deliveries older than `hold_s_max` are not extended; SQS ends every visibility timeout at 12 hours.
        """
        due, due_at = self._due(hold_s_max)
        failed, trouble = 0, ""
        for start in range(0, len(due), self._call_size):
            if stop.is_set():
                return
            chunk = self._still(due[start : start + self._call_size])
            asked_at = time.monotonic()
            try:
                extend(chunk)
            except SourceUnavailable as error:
                # No retry here: the next call must not wait, and time is left for one or two later attempts.
                failed, trouble = failed + len(chunk), str(error)
                self._extend_at(time.monotonic() + self._extend_after_s / 4, chunk)
            else:
                self._extend_at(asked_at + self._extend_after_s, chunk)
            if self._is_late(due_at):
                self._set_behind(behind=True)
        self._set_behind(behind=self._is_late(due_at))
        if failed:
            log.warning("extend_failed", count=failed, trouble=trouble)

    def give_back(self, release: Callable[[Sequence[Delivery]], None], *, within_s: float) -> None:
        """Release all deliveries, call by call, until done, a call fails or `within_s` seconds have passed.

        The latest deliveries of a group are released first, so that an early end keeps its order.
        Remaining deliveries return when their visibility timeout ends.
        """
        give_up_at = time.monotonic() + within_s
        left = self.all()
        if left and left[0].group is not None:
            left.reverse()
        for start in range(0, len(left), self._call_size):
            if time.monotonic() >= give_up_at:
                log.warning("release_given_up", left=len(left) - start)
                return
            try:
                release(left[start : start + self._call_size])
            except SourceUnavailable as error:
                log.warning("release_failed", left=len(left) - start, trouble=str(error))
                return

    def extend_in(self, wait_s: float, delivery: Delivery) -> None:
        """Schedule the next extension of a delivery in `wait_s` seconds."""
        self._extend_at(time.monotonic() + wait_s, [delivery])

    def all(self) -> list[Delivery]:
        """Return all deliveries in flight, oldest first."""
        with self._changed:
            return [holding.delivery for holding in self._holdings.values()]

    def _due(self, hold_s_max: float) -> tuple[list[Delivery], float]:
        """Return the deliveries due for extension, and since when the first is due (now if none is)."""
        now = time.monotonic()
        with self._changed:
            due = [
                holding
                for holding in self._holdings.values()
                if holding.extend_at <= now < holding.received_at + hold_s_max
            ]
        due_at = min((holding.extend_at for holding in due), default=now)
        return [holding.delivery for holding in due], due_at

    def _is_late(self, due_at: float) -> bool:
        # Extensions are due after a third of the visibility timeout and late after two thirds.
        return time.monotonic() - due_at > self._extend_after_s

    def _set_behind(self, *, behind: bool) -> None:
        if behind == self._behind:
            return
        with self._changed:
            self._behind = behind
            self._changed.notify_all()
        if behind:
            log.warning("extensions_late", held=self.size, consequence="receiving waits")
        else:
            log.info("extensions_in_time", held=self.size)

    def _extend_at(self, moment: float, deliveries: Sequence[Delivery]) -> None:
        with self._changed:
            for delivery in deliveries:
                if holding := self._holdings.get(id(delivery)):
                    holding.extend_at = moment

    def _still(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        with self._changed:
            return [delivery for delivery in deliveries if id(delivery) in self._holdings]
