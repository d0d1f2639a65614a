"""Retry during an outage with exponential backoff and jitter, until it is over or the process stops.

works ── an attempt fails ─▶ outage ── an attempt that began later succeeds ─▶ outage_over
"""

import threading
import time
from collections.abc import Callable
from itertools import chain, repeat
from typing import TypeVar

import structlog
from tenacity import (
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_random_exponential,
)

from processor.errors import Stopped, Unavailable

log = structlog.get_logger(__name__)
T = TypeVar("T")

_TELL_EVERY_S = 60.0
"""The interval of log lines about a continuing outage, unless its cause changes."""


class OutageRetry:
    """The retries of one dependency. All its calls go through this object; `working` tells other threads.

    `stop` ends the retries with Stopped. None: an outage is not retried and its error is raised. Thread-safe.
    """

    def __init__(self, dependency: str, *, stop: threading.Event | None, wait_s_max: float = 1.0) -> None:
        self.dependency = dependency
        self.working = threading.Event()
        self.working.set()
        self.recovered_at = time.monotonic()
        self.answered_at: float | None = None
        self.trouble = ""
        self._wait_s_max = wait_s_max
        self._waits = stop is not None
        self._stop = stop or threading.Event()
        self._failed_at = self._told_at = 0.0
        self._changing = threading.Lock()

    def __call__(self, attempt: Callable[[], T]) -> T:
        """Call `attempt` until it raises no Unavailable, or only once without `stop`.

        Raises Stopped, and all other exceptions of `attempt`.
        """
        try:
            # The usual case, at no cost beside the attempt.
            return self._try(attempt)
        except Unavailable as error:
            if not self._waits:
                raise
            return self._wait_out(attempt, error)

    def pause(self, wait_s: float) -> None:
        """Wait before a retry. Raises Stopped as soon as `stop` is set."""
        if self._stop.wait(wait_s):
            raise Stopped(f"told to stop before another try at the {self.dependency}")

    def probe(self, attempt: Callable[[], object]) -> None:
        """Call `attempt` once and record the result. Raises all exceptions except Unavailable."""
        try:
            self._try(attempt)
        except Unavailable:
            return

    def _try(self, attempt: Callable[[], T]) -> T:
        asked_at = time.monotonic()
        try:
            result = attempt()
        except Unavailable as error:
            self._failed(str(error))
            raise
        self.answered_at = time.monotonic()
        if not self.working.is_set():
            self._answered(asked_at)
        return result

    def _wait_out(self, attempt: Callable[[], T], first: Unavailable) -> T:
        outcomes = chain([first], repeat(None))

        def again() -> T:
            if (known := next(outcomes)) is not None:
                raise known
            return self._try(attempt)

        try:
            return self._retrying()(again)
        except Unavailable as error:
            raise Stopped(f"told to stop while waiting for the {self.dependency}: {error}") from error

    def wait_until_working(self, timeout_s: float) -> bool:
        """Wait for the end of an outage, `timeout_s` seconds at most; return whether it is over."""
        return self.working.wait(timeout_s)

    def _retrying(self) -> Retrying:
        return Retrying(
            retry=retry_if_exception_type(Unavailable),
            wait=wait_random_exponential(multiplier=0.1, max=self._wait_s_max),
            stop=stop_when_event_set(self._stop),
            sleep=sleep_using_event(self._stop),
            reraise=True,
        )

    def _failed(self, trouble: str) -> None:
        now = time.monotonic()
        with self._changing:
            begins, changed = self.working.is_set(), trouble != self.trouble
            self._failed_at, self.trouble = now, trouble
            self.working.clear()
            called_off = not self._waits or self._stop.is_set()
            if called_off or (not begins and not changed and now - self._told_at < _TELL_EVERY_S):
                # Without a retry, the caller reports the error.
                return
            self._told_at = now
        event = "outage" if begins else "outage_goes_on"
        log.warning(event, dependency=self.dependency, trouble=trouble)

    def _answered(self, asked_at: float) -> None:
        """End the outage, unless the successful attempt began before the last failure."""
        with self._changing:
            if self.working.is_set() or asked_at < self._failed_at:
                return
            self.trouble = ""
            self.recovered_at = time.monotonic()
            self.working.set()
        log.info("outage_over", dependency=self.dependency)
