"""Fork worker processes, watch them, kill hung ones, restart failed ones, and stop them cleanly.

    supervisor ──fork──▶ worker (one per place)      signals ─▶ supervisor ─▶ workers
        ▲                   │
        └────── board ◀─────┘   current deliveries: a hung worker is killed, and the next one notes the cause

The supervisor has one thread and no connection to a server, so it can fork at any time, and an outage can't
block it.
"""

import ctypes
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

import structlog

from processor.runtime.hangs import HangWatch
from processor.runtime.worker_board import WorkerStatus, WorkerStatuses

log = structlog.get_logger(__name__)

_TICK_S = 0.1
_BEAT_S = 0.2
_GAP_S_MAX = 1.0
"""The longest gap between two checks. After a longer one (SIGSTOP, machine asleep) all ages restart."""

_RESTART_PAUSE_S_MAX = 30.0
_LIVED_LONG_S = 60.0

_END_MARGIN_S = 10.0
"""The time after STOP_TIMEOUT_S in which a worker must end. Then it is killed, which loses no event."""

_USAGE, _UNFINISHED = 2, 4
"""Exit codes for wrong settings, and for an end with work left."""

_STOPS = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG = 1


class StopEvent(Protocol):
    """A threading.Event, as the supervisor uses it."""

    def is_set(self) -> bool: ...  # noqa: D102
    def set(self) -> None: ...  # noqa: D102
    def wait(self, timeout: float | None = None) -> bool: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Worker:
    """The parameters of a worker: its place, its row in shared memory, and deliveries that hung before.

    `hung` are ids of deliveries at which earlier workers hung; a worker that has stored them marks its row.
    `parent` is the supervisor's process id (None: no supervisor).
    """

    place: int
    row: WorkerStatus = field(default_factory=lambda: WorkerStatuses().rows[0])
    hung: tuple[str, ...] = ()
    parent: int | None = None

    def follow(self, stop_gently: StopEvent, stop_now: StopEvent) -> None:
        """Start a heartbeat for the supervisor, and stop when it asks or has died. Alone, do nothing.

        Linux kills workers with their supervisor. On other systems its process id is polled.
        """
        if self.parent is None:
            return

        def beat() -> None:
            while True:
                self.row.beat()
                if self.row.hurried:
                    stop_now.set()
                if os.getppid() != self.parent and not stop_gently.is_set():
                    log.warning("supervisor_gone", consequence="stopping")
                    stop_gently.set()
                time.sleep(_BEAT_S)

        threading.Thread(target=beat, name="beat", daemon=True).start()


def alone() -> Worker:
    """Return a worker without a supervisor, with its process id as its place."""
    return Worker(os.getpid())


@dataclass(slots=True)
class _WorkerProcess:
    row: WorkerStatus
    pid: int | None = None
    watch: HangWatch | None = None
    hung: tuple[str, ...] = ()
    is_hung: bool = False
    is_stopped: bool = False
    started_at: float = 0.0
    falls: int = 0
    start_at: float = 0.0
    done: bool = False


class Supervisor:
    """Runs workers until it is stopped, or until all have ended.

    Each worker calls `work` in a process of its own, which returns the exit code. A worker that hangs for
    longer than `judge_timeout_s` is killed and replaced at once. One of several workers that fails is
    restarted with backoff; a single worker ends the run. At a stop, a worker that takes longer than
    `stop_timeout_s` and a margin is killed.
    """

    def __init__(
        self,
        workers: int,
        work: Callable[[Worker], int],
        *,
        judge_timeout_s: float,
        stop_timeout_s: float,
        stop_gently: StopEvent,
        stop_now: StopEvent,
    ) -> None:
        self._work = work
        self._judge_timeout_s = judge_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._stop_gently = stop_gently
        self._stop_now = stop_now
        self._children = [_WorkerProcess(row) for row in WorkerStatuses(workers).rows]
        self._restarts = workers > 1
        self._looked_at = time.monotonic()
        self._code = 0
        # Hung deliveries that are not stored yet.
        self.hung: tuple[str, ...] = ()

    def run(self) -> int:
        """Return the exit code: 0, that of a single worker, or 2 for an error that no restart corrects.

        At a stop it is that of the first worker that did not end with 0, or 4 if one had to be killed. For a
        single worker that died of a signal it is the negative number. Only the supervisor process returns.
        """
        while not self._stop_gently.is_set() and not all(child.done for child in self._children):
            self._look()
            for child in self._children:
                if child.pid is None and not child.done and time.monotonic() >= child.start_at:
                    self._fork(child)
            if self._code:
                break
            # Not a wait for the event: a signal handler that sets it during the wait could deadlock.
            time.sleep(_TICK_S)
        self._end()
        return self._code

    # ── one check of all workers ──────────────────────────────────────────────────────────────────────

    def _look(self) -> None:
        """Reap ended workers, and kill hung ones."""
        now = time.monotonic()
        slept, self._looked_at = now - self._looked_at > _GAP_S_MAX, now
        for child in self._alive():
            self._reap(child)
            if child.pid is None or child.watch is None:
                continue
            if slept or child.is_stopped:
                child.watch.begin_anew()
            elif not child.is_hung and (hung := child.watch.look()) is not None:
                log.critical(
                    "worker_hung",
                    place=child.row.place,
                    pid=child.pid,
                    limit_s=self._judge_timeout_s,
                    deliveries=len(hung),
                    consequence="killed and replaced; what it held is delivered again",
                )
                child.is_hung = True
                self.hung += tuple(hung)
                os.kill(child.pid, signal.SIGKILL)

    def _alive(self) -> list[_WorkerProcess]:
        return [child for child in self._children if child.pid is not None]

    def _reap(self, child: _WorkerProcess) -> None:
        assert child.pid is not None  # noqa: S101 - of those that are alive
        pid, status = os.waitpid(child.pid, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
        if not pid:
            return
        if os.WIFSTOPPED(status) or os.WIFCONTINUED(status):
            child.is_stopped = os.WIFSTOPPED(status)
            return
        if not child.row.noted:
            self.hung += child.hung
        child.pid, child.hung = None, ()
        self._ended(child, os.waitstatus_to_exitcode(status))

    def _ended(self, child: _WorkerProcess, code: int) -> None:
        if self._stop_gently.is_set() and (child.is_hung or (code < 0 and self._restarts)):
            # No new worker will finish its deliveries.
            code = _UNFINISHED
        elif child.is_hung:
            return
        if code in (0, _USAGE) or not self._restarts or self._stop_gently.is_set():
            child.done = True
            child.row.end()
            self._code = self._code or code
            return
        now = time.monotonic()
        child.falls = 1 if now - child.started_at > _LIVED_LONG_S else child.falls + 1
        pause_s = min(_RESTART_PAUSE_S_MAX, 0.5 * 2**child.falls) * random.uniform(0.5, 1)  # noqa: S311 - jitter
        child.start_at = now + pause_s
        log.error("process_fell", place=child.row.place, exit_code=code, restart_in_s=round(pause_s, 1))

    # ── the stop ──────────────────────────────────────────────────────────────────────────────────────

    def _end(self) -> None:
        """Stop all workers within the time limit."""
        self._signal(signal.SIGTERM)
        kill_at = time.monotonic() + self._stop_timeout_s + _END_MARGIN_S
        hurried = False
        while self._alive():
            if self._stop_now.is_set() and not hurried:
                hurried = True
                kill_at = min(kill_at, time.monotonic() + _END_MARGIN_S)
                for child in self._alive():
                    child.row.hurry()
            if time.monotonic() >= kill_at:
                for child in self._alive():
                    log.error("process_killed", pid=child.pid, consequence="what it held is delivered again")
                    child.is_hung = True
                self._signal(signal.SIGKILL)
                kill_at = float("inf")
            time.sleep(_TICK_S / 2)
            self._look()

    def _signal(self, number: signal.Signals) -> None:
        for child in self._alive():
            assert child.pid is not None  # noqa: S101 - of those that are alive
            os.kill(child.pid, number)

    # ── the start of a worker ─────────────────────────────────────────────────────────────────────────

    def _fork(self, child: _WorkerProcess) -> None:
        # With blocked signals, a stop comes either before the fork, or after it and reaches the worker.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        try:
            if self._stop_gently.is_set():
                return
            child.row.clear()
            child.hung, self.hung = self.hung, ()
            child.is_hung = child.is_stopped = False
            worker = Worker(child.row.place, child.row, child.hung, os.getpid())
            child.started_at = time.monotonic()
            child.pid = os.fork()
            if not child.pid:
                self._be(worker, before)
            child.watch = HangWatch(child.row, child.pid, limit_s=self._judge_timeout_s)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _be(self, worker: Worker, mask: Iterable[int]) -> NoReturn:
        """Run the worker in the forked process, and exit."""
        code: object = 1
        try:
            _end_with_parent(worker)
            for number in _STOPS:
                # A repeated signal has no more effect: a process group may get it beside the supervisor's.
                signal.signal(number, lambda *_: self._stop_gently.set())
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            code = self._work(worker)
        except SystemExit as end:
            code = end.code or 0
        finally:
            kind, error, trace = sys.exc_info()
            if kind is not None and error is not None:
                sys.excepthook(kind, error, trace)
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            # Exit at once, since the remaining code belongs to the supervisor.
            os._exit(code if isinstance(code, int) else 1)


def _end_with_parent(worker: Worker) -> None:
    """Let Linux kill the worker when its supervisor dies, so that `kill -9` ends both."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    # The supervisor may have died before the line above.
    if os.getppid() != worker.parent:
        os._exit(1)


def die_of(number: int) -> NoReturn:
    """End this process by the signal that ended its worker, so that the parent sees the same."""
    with suppress(OSError):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)
