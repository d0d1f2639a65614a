"""Detect from outside whether a worker hangs, and at which deliveries.

    board ─▶ same turn as before? ─▶ its age without the wait for a CPU ─▶ above the limit: the worker hangs

A worker hangs when the validation of one delivery takes longer than the limit, or when its interpreter has
not run for that long. The supervisor sends no request to the worker, which could not answer.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from processor.runtime.worker_board import JudgedDelivery, WorkerStatus


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """The time for which a thread ran on a CPU and waited for one; both 0 if unknown."""

    run_s: float = 0.0
    wait_s: float = 0.0


def cpu_times(pid: int, thread_id: int) -> CpuTimes:
    """Return the CPU times of a thread from Linux; zeros on other systems."""
    try:
        descriptor = os.open(f"/proc/{pid}/task/{thread_id}/schedstat", os.O_RDONLY)
    except OSError:
        return CpuTimes()
    try:
        run, wait = os.read(descriptor, 100).split()[:2]
        return CpuTimes(int(run) / 1e9, int(wait) / 1e9)
    except (OSError, ValueError):
        return CpuTimes()
    finally:
        os.close(descriptor)


def threads_of(pid: int) -> list[int]:
    """Return the thread ids of a process; an empty list if unknown."""
    try:
        return [int(folder.name) for folder in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []


@dataclass(frozen=True, slots=True)
class _Observed:
    """The first observation of a turn, and the CPU times of its thread at that time."""

    turn: JudgedDelivery
    at: float
    times: CpuTimes


@dataclass(frozen=True, slots=True)
class _Age:
    turn: JudgedDelivery
    age_s: float
    run_s: float


class HangWatch:
    """Watches one worker's row. Ages count from the first observation, so that no clock is shared."""

    def __init__(
        self,
        row: WorkerStatus,
        pid: int,
        *,
        limit_s: float,
        clock: Callable[[], float] = time.monotonic,
        times: Callable[[int, int], CpuTimes] = cpu_times,
        threads: Callable[[int], list[int]] = threads_of,
    ) -> None:
        self._row = row
        self._pid = pid
        self._limit_s = limit_s
        self._clock = clock
        self._times = times
        self._threads = threads
        self._seen: dict[int, _Observed] = {}
        self._beat: int | None = None
        self._beat_at = 0.0
        self._beat_waits: dict[int, float] = {}

    def begin_anew(self) -> None:
        """Restart all ages, because the worker or the supervisor was paused."""
        self._seen.clear()
        self._beat = None

    def look(self) -> list[str] | None:
        """Return the ids of the deliveries at which the worker hangs, or None if it does not hang."""
        now = self._clock()
        ages, held_s = self._ages(now), self._held_s(now)
        if all(age.age_s <= self._limit_s for age in ages) and held_s <= self._limit_s:
            return None
        half_s = self._limit_s / 2
        if held_s > half_s:
            # One thread holds the interpreter and the others wait: the cause is the thread that ran.
            at_fault = [age for age in ages if age.age_s > half_s]
            at_fault = [age for age in at_fault if age.run_s > half_s] or at_fault
        else:
            at_fault = [age for age in ages if age.age_s > self._limit_s]
        found = [self._row.delivery_id(age.turn.slot) for age in at_fault]
        return [delivery_id for delivery_id in found if delivery_id is not None]

    def _ages(self, now: float) -> list[_Age]:
        """Return the age of each turn, without the time in which its thread waited for a CPU."""
        seen: dict[int, _Observed] = {}
        ages = []
        for turn in self._row.turns():
            times = self._times(self._pid, turn.thread_id)
            before = self._seen.get(turn.slot)
            if before is None or before.turn != turn:
                before = _Observed(turn, now, times)
            seen[turn.slot] = before
            waited_s = times.wait_s - before.times.wait_s
            ages.append(_Age(turn, now - before.at - waited_s, times.run_s - before.times.run_s))
        self._seen = seen
        return ages

    def _held_s(self, now: float) -> float:
        """Return the seconds for which the heartbeat thread has not run; 0 before the first heartbeat.

        That thread waits for the interpreter, and the thread that holds it may wait for a CPU. The longest
        wait for a CPU is subtracted.
        """
        beat = self._row.beats
        if not beat or beat != self._beat:
            self._beat, self._beat_at, self._beat_waits = beat, now, {}
            return 0.0
        missed_s = now - self._beat_at
        if missed_s <= self._limit_s / 4:
            return missed_s
        waits = {thread: self._times(self._pid, thread).wait_s for thread in self._threads(self._pid)}
        self._beat_waits = self._beat_waits or waits
        waited = [wait_s - self._beat_waits.get(thread, wait_s) for thread, wait_s in waits.items()]
        return missed_s - max(waited, default=0.0)
