"""Charges CPU time to the tenant that causes it, and runs expensive work outside the event loop.

    work ─▶ in debt? ─▶ light, and its holder below its quota? ─▶ on the event loop ──────▶ result
              │           └─▶ [lanes by holder] ─▶ [a thread: the holder that used least] ─▶ result
              └──────────────────┴─▶ Refusal: retry when the debt is paid

There is one thread with one task in it, since Python runs one thread at a time. The event loop gets the
interpreter back within half a millisecond, or at the end of a call into C, and then has precedence.
"""

import asyncio
import sys
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from producers.gateway.items import Refusal, Why
from producers.gateway.quotas import Quotas

LIGHT = 8 * 1024
"""Bytes that are read on the event loop: at worst 1 ms of work. A switch of threads costs a tenth of that."""

ITEM, ATTRIBUTE = 160, 32
"""The overhead of one item in a batch, and of one attribute, in bytes of the same cost."""

_THRIFTY = 0.5
_SWITCH_S = 0.0005

T = TypeVar("T")


class Effort:
    """CPU time by holder: each may use `share` of a core, and one second of it at once; None: no limit.

    Used on one event loop.
    """

    def __init__(self, share: float | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._quotas = Quotas(share, clock=clock)
        self._lanes: dict[Hashable, deque[asyncio.Future[None]]] = {}
        self._busy = False
        self._thread: ThreadPoolExecutor | None = None

    def owing(self, holder: Hashable) -> Refusal | None:
        """Return a refusal with the retry delay if the holder has exceeded its quota; else None."""
        retry_after_s = self._quotas.debt_s(holder)
        if retry_after_s is None:
            return None
        words = "reading what the tenant sends takes more CPU time than it may (GATEWAY_TENANT_CPU)"
        return Refusal(Why.OVER_QUOTA, words, retry_after_s=retry_after_s)

    def is_light(self, holder: Hashable, weight: int) -> bool:
        """Tell whether work on so many bytes may run on the event loop (see `here`)."""
        return weight <= LIGHT and self._quotas.has(holder, _THRIFTY)

    def here(self, holder: Hashable, work: Callable[..., T], *arguments: object) -> T:
        """Do work on the event loop, and charge its CPU time."""
        began_at = time.thread_time()
        try:
            return work(*arguments)
        finally:
            self._quotas.charge(holder, time.thread_time() - began_at)

    async def do(self, holder: Hashable, weight: int, work: Callable[[], T]) -> T | Refusal:
        """Do work on so many bytes and return its result; a refusal and no work if the holder is in debt.

        Exceptions of the work are raised here. The work must be safe in another thread.
        """
        if self.is_light(holder, weight):
            return self.here(holder, work)
        await self._turn(holder)
        if refusal := self.owing(holder):
            self._next()
            return refusal
        return await self._beside(holder, work)

    async def finish(self, holder: Hashable, weight: int, work: Callable[[], T]) -> T:
        """Do work that follows from accepted work, even if its holder is in debt."""
        if self.is_light(holder, weight):
            return self.here(holder, work)
        await self._turn(holder)
        return await self._beside(holder, work)

    def close(self) -> None:
        """End the thread. No work may be given after this call."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _turn(self, holder: Hashable) -> None:
        if not self._busy:
            self._busy = True
            return
        turn = asyncio.get_running_loop().create_future()
        self._lanes.setdefault(holder, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._next()
            raise

    def _next(self) -> None:
        """Give the thread to the holder that used least of it lately; equal holders take turns."""
        self._busy = False
        while self._lanes and not self._busy:
            holder = max(self._lanes, key=self._quotas.level)
            lane = self._lanes.pop(holder)
            turn = lane.popleft()
            if lane:
                self._lanes[holder] = lane
            if not turn.done():
                self._busy = True
                turn.set_result(None)

    async def _beside(self, holder: Hashable, work: Callable[[], T]) -> T:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="reading")
            sys.setswitchinterval(_SWITCH_S)
        loop = asyncio.get_running_loop()

        def done(future: Future[tuple[float, T | None, BaseException | None]]) -> None:
            with suppress(RuntimeError):  # the event loop is closed
                loop.call_soon_threadsafe(self._done, holder, future)

        future = self._thread.submit(_timed, work)
        # The caller may be cancelled meanwhile. The work still occupies the thread, and is charged.
        future.add_done_callback(done)
        _, result, error = await asyncio.wrap_future(future)
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # without an error this is the result

    def _done(self, holder: Hashable, future: "Future[tuple[float, T | None, BaseException | None]]") -> None:
        if not future.cancelled():
            self._quotas.charge(holder, future.result()[0])
        self._next()


def _timed(work: Callable[[], T]) -> tuple[float, T | None, BaseException | None]:
    began_at = time.thread_time()
    try:
        result, error = work(), None
    except BaseException as found:  # noqa: BLE001 - raised again on the loop
        result, error = None, found
    return time.thread_time() - began_at, result, error
