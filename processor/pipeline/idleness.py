"""When a run may end by itself: its queue answers, and says more than once that nothing is left anywhere.

    receives answer "nothing" ─▶ depth is 0, and is 0 again ─▶ we are quiet ─▶ so are the others ─▶ idle
             ▲                                                    │
             └── a message, an outage, something in flight ◀──────┘

Silence is no answer. What another process holds may come back to us, so it is waited for.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from processor.errors import SourceUnavailable

log = structlog.get_logger(__name__)

_AGREE_S_MAX = 2.0
"""How far apart two counts of nothing are: on AWS counts are approximate, and late."""


class Peers(Protocol):
    """The processes that share a run: none of them ends before all of them are quiet."""

    def say_quiet(self, quiet: bool) -> None:
        """Tell the others whether this process has found the queue empty and holds nothing."""

    def others_quiet(self) -> bool:
        """Say whether every other process is quiet, or has ended because all were."""


class NoPeers:
    """The company of a process that runs by itself."""

    def say_quiet(self, quiet: bool) -> None:
        """Tell nobody."""

    def others_quiet(self) -> bool:
        """There are no others."""
        return True


class IdleDetector:
    """Whether a run is idle, which takes `until_idle_s` of answers without a message. Safe to share.

    `count` asks the queue for what it has, by state. `calm` says whether nothing is held and nothing is away,
    and `calm_since` since when nothing has been away (by time.monotonic).
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
        # Since when the queue's answers have brought nothing (None: it has not answered yet), and the last of
        # these answers. Receivers, settlers and the one who looks share these two.
        self._answers = threading.Lock()
        self._since: float | None = None
        self._until = 0.0
        # The first count of nothing since the last message, and the last count.
        self._empty_since: float | None = None
        self._counted_at = -self._agree_s
        self._agreed = False
        self._seen: object = None
        self.reached = threading.Event()

    def answered(self, *, empty: bool) -> None:
        """Note an answer of the queue to a receive."""
        with self._answers:
            now = self._clock()
            if not empty or self._since is None:
                self._since = now
            if empty:
                self._until = now

    def disturb(self) -> None:
        """Begin anew: what the queue was silent about may have waited for what we have done now."""
        with self._answers:
            if self._since is not None:
                self._since = self._clock()

    def look(self) -> None:
        """Ask what is still to be asked now, and set `reached` once the run is idle. For one thread."""
        with self._answers:
            since, until = self._since, self._until
        quiet_from = None if since is None or not self._calm() else max(since, self._calm_since())
        if quiet_from is None or (self._empty_since is not None and self._empty_since < quiet_from):
            self._empty_since, self._agreed = None, False
        # Up to the last answer, and not up to now.
        quiet_s = 0.0 if quiet_from is None else until - quiet_from
        counted_s = self._clock() - self._counted_at
        if quiet_s >= self._until_idle_s - self._agree_s and counted_s >= self._agree_s:
            self._ask(until)
        quiet = self._agreed and quiet_s >= self._until_idle_s
        self._company.say_quiet(quiet)
        if quiet and self._company.others_quiet():
            self.reached.set()

    def _ask(self, until: float) -> None:
        """Count what the queue has; `until` is its last answer that brought nothing."""
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
            # With a receive in between that has brought nothing, too.
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
