"""Detect when a run may end by itself: the queue has answered several times that it is empty.

    receives return nothing ─▶ depth is 0 twice ─▶ this process is quiet ─▶ its peers are quiet ─▶ idle
             ▲                                                    │
             └── a message, an outage, a delivery in flight ◀─────┘

A queue that does not answer is not empty. Deliveries of other processes may return, so a run waits for them.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from processor.errors import SourceUnavailable

log = structlog.get_logger(__name__)

_AGREE_S_MAX = 2.0
"""Two counts of zero are this far apart, or half of `until_idle_s`. On AWS counts are late."""


class Peers(Protocol):
    """The processes of one run. Each ends only when all are quiet."""

    def say_quiet(self, quiet: bool) -> None:
        """Tell the peers whether this process sees an empty queue and has nothing in flight."""

    def others_quiet(self) -> bool:
        """Return whether every other process is quiet, or ended because all were."""


class NoPeers:
    """The peers of a single process."""

    def say_quiet(self, quiet: bool) -> None:
        """Do nothing."""

    def others_quiet(self) -> bool:
        """Return True, as there are no others."""
        return True


class IdleDetector:
    """Detects an idle run: `until_idle_s` seconds of empty answers. Thread-safe.

    `count` counts the messages of the queue by state. `calm` returns whether nothing is in flight and nothing
    is unavailable; `calm_since` returns the end of the last outage (time.monotonic).
    """

    def __init__(
        self,
        until_idle_s: float,
        count: Callable[[], Mapping[str, int]],
        *,
        calm: Callable[[], bool],
        calm_since: Callable[[], float],
        company: Peers,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._until_idle_s = until_idle_s
        self._agree_s = min(_AGREE_S_MAX, until_idle_s / 2)
        self._count = count
        self._calm = calm
        self._calm_since = calm_since
        self._company = company
        self._clock = clock
        # The first and the last of the empty answers in a row (None: no answer yet). Receivers, settlers and
        # the idleness thread share both.
        self._answers = threading.Lock()
        self._since: float | None = None
        self._until = 0.0
        # The first count of zero since the last message, and the last count.
        self._empty_since: float | None = None
        self._counted_at = -self._agree_s
        self._agreed = False
        self._seen: object = None
        self.reached = threading.Event()

    def answered(self, *, empty: bool) -> None:
        """Record an answer of the queue to a receive call."""
        with self._answers:
            now = self._clock()
            if not empty or self._since is None:
                self._since = now
            if empty:
                self._until = now

    def disturb(self) -> None:
        """Restart the idle time, because a settlement may have released withheld messages."""
        with self._answers:
            if self._since is not None:
                self._since = self._clock()

    def look(self) -> None:
        """Count the queue if needed, and set `reached` once the run is idle. Only one thread may call it."""
        with self._answers:
            since, until = self._since, self._until
        quiet_from = None if since is None or not self._calm() else max(since, self._calm_since())
        if quiet_from is None or (self._empty_since is not None and self._empty_since < quiet_from):
            self._empty_since, self._agreed = None, False
        # Measured to the last answer, not to now: a silent queue is not idle.
        quiet_s = 0.0 if quiet_from is None else until - quiet_from
        counted_s = self._clock() - self._counted_at
        if quiet_s >= self._until_idle_s - self._agree_s and counted_s >= self._agree_s:
            self._ask(until)
        quiet = self._agreed and quiet_s >= self._until_idle_s
        self._company.say_quiet(quiet)
        if quiet and self._company.others_quiet():
            self.reached.set()

    def _ask(self, until: float) -> None:
        """Count the messages of the queue. `until` is the time of its last empty answer."""
        asked_at = self._clock()
        try:
            left = {state: count for state, count in self._count().items() if count}
        except SourceUnavailable as error:
            left, trouble = {}, str(error)
        else:
            trouble = ""
        self._counted_at = self._clock()
        if left or trouble:
            self._empty_since, self._agreed = None, False
        elif self._empty_since is None:
            self._empty_since = asked_at
        else:
            # Two counts agree only with an empty receive between them.
            self._agreed = until >= self._empty_since
        self._tell(left, trouble)

    def _tell(self, left: Mapping[str, int], trouble: str) -> None:
        seen = (left, trouble)
        if seen == self._seen:
            return
        self._seen = seen
        if trouble:
            log.warning("not_idle", trouble=trouble, consequence="waiting until the queue can be counted")
        elif left:
            log.info("not_idle", **left, consequence="waiting: what others hold may come back")
