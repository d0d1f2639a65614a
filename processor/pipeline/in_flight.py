"""What this process has received and not yet settled: it bounds the buffer, and stays hidden from others."""

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
"""What is left of the expected size of a body after a receive that brought small ones."""


@dataclass(slots=True)
class _ReceivedDelivery:
    delivery: Delivery
    received_at: float
    extend_at: float


class InFlight:
    """The deliveries between receive and settle, by identity: the same message may be held twice.

    Each is to be extended `extend_after_s` after it was received, and after each time it was, with as many
    others as one call to the queue takes (`call_size`).
    Safe to share between threads. Times are seconds of `time.monotonic`.
    """

    def __init__(self, *, size_max: int, bytes_max: int, extend_after_s: float, call_size: int) -> None:
        self._size_max = size_max
        self._bytes_max = bytes_max
        self._extend_after_s = extend_after_s
        self._call_size = call_size
        self._holdings: dict[int, _ReceivedDelivery] = {}
        self._bytes = 0
        self._asked = 0
        # What a body is expected to have: the mean of the last receives, slow to forget large ones.
        self._body_bytes = 0.0
        # Whether extensions come so late that what is held may be handed over again.
        self._behind = False
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

    @contextmanager
    def room(self, limit: int, timeout_s: float) -> Iterator[int]:
        """Wait until more may be received, and say how many, up to `limit`; 0: there is no room.

        The room is kept for whoever asked until the block ends, by when what came must have been added. There
        is none while extensions come late: whatever else were received would make them later, until all that
        is held is handed over again and again.
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
            # However large bodies are, one may come when there is nothing else.
            left = min(left, left_by_bytes if self._holdings or self._asked else max(1, left_by_bytes))
        return left

    def add(self, deliveries: Sequence[Delivery]) -> None:
        """Note deliveries as held, from now on."""
        now = time.monotonic()
        with self._changed:
            for delivery in deliveries:
                self._holdings[id(delivery)] = _ReceivedDelivery(delivery, now, now + self._extend_after_s)
                self._bytes += len(delivery.body)
            came = sum(len(delivery.body) for delivery in deliveries)
            self._body_bytes = max(came / len(deliveries), self._body_bytes * _LARGE_BODIES_REMEMBERED)

    def drop(self, deliveries: Sequence[Delivery]) -> None:
        """Note deliveries as no longer held."""
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
        """Extend what was received or extended `extend_after_s` ago or longer, until `stop` is set.

        Those held for longer than `hold_s_max` are left to the queue, which ends every hold at 12 hours.
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
                # Not waited out: what comes after it must not wait, and there is time for another try or two.
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
        """Release what is held, call by call, until it is done, a call fails or `within_s` has passed.

        Of a group the latest come first: wherever this breaks off, nothing was given back before what comes
        later in its group. What is left comes back when its visibility timeout ends.
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
        """Let a delivery be extended `wait_s` from now, if it is held by then."""
        self._extend_at(time.monotonic() + wait_s, [delivery])

    def all(self) -> list[Delivery]:
        """Give everything that is held."""
        with self._changed:
            return [holding.delivery for holding in self._holdings.values()]

    def _due(self, hold_s_max: float) -> tuple[list[Delivery], float]:
        """Find what is to be extended now, and since when the first of it has been; now if there is none."""
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
        # Due after a third of the visibility timeout, this is after two: one is left to catch up in.
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
