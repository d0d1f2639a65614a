"""What workers write for their supervisor to read, in shared memory: that they live, and what they judge.

    worker: beat, slots (one a thread: the delivery that is judged) ─▶ shared memory ─▶ supervisor reads

Nothing here makes a call to the system, so that it is cheap enough for every message, and can be read
whatever state the worker is in.
"""

import mmap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from struct import Struct
from typing import Protocol

from processor.model import Delivery, Registry, Verdict
from processor.wire.hand_overs import base_of

_WORD_BYTES = 8
_SLOTS = 96
"""More than the threads of one worker that may judge: 64 receivers, 16 writers and its main thread."""

_SLOT_BYTES = 640
_ID_BYTES_MAX = _SLOT_BYTES - 2 * _WORD_BYTES
"""An id that is longer is not told."""

_HEADER_BYTES = 64
_ROW_BYTES = _HEADER_BYTES + _SLOTS * _SLOT_BYTES

# The words of a row's header.
_BEAT, _STATE, _STOP_NOW, _NOTED = range(4)
# The words of a slot; the id follows them.
_THREAD, _TURN = range(2)

_BUSY, _QUIET, _ENDED = range(3)

_write_turn = Struct(f"=Q{_ID_BYTES_MAX}s").pack_into
"""A turn's number and its delivery's id, filled up with zeros."""


class WaitingJudge(Protocol):
    """Whoever gives verdicts, by the registry that was last installed."""

    @property
    def version(self) -> int: ...  # noqa: D102
    def install(self, registry: Registry) -> None: ...  # noqa: D102
    def validate(self, delivery: Delivery, *, may_wait: bool = True) -> Verdict: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class JudgedDelivery:
    """One thread at one delivery: `number` grows with each delivery that the thread begins to judge."""

    slot: int
    number: int
    thread_id: int


class WorkerStatuses:
    """The status of each worker, in memory that is shared with processes forked later."""

    def __init__(self, workers: int = 1) -> None:
        # Of no file; pages that nobody writes to take no memory.
        self._memory = mmap.mmap(-1, workers * _ROW_BYTES)
        self.rows = [WorkerStatus(self, self._memory, place) for place in range(workers)]


class WorkerStatus:
    """What one worker says; the worker writes, and the supervisor reads, clears and tells it to hurry."""

    def __init__(self, statuses: WorkerStatuses, memory: mmap.mmap, place: int) -> None:
        self.place = place
        self._statuses = statuses
        self._memory = memory
        self._start = place * _ROW_BYTES
        self._words = memoryview(memory)[self._start : self._start + _ROW_BYTES].cast("Q")
        self._taking = threading.Lock()
        self._slots_taken = 0

    # ── the worker ────────────────────────────────────────────────────────────────────────────────────

    def beat(self) -> None:
        """Say that this worker's interpreter runs."""
        self._words[_BEAT] += 1

    def say_quiet(self, quiet: bool) -> None:
        """Say whether this worker has nothing left to do, as far as it knows."""
        self._words[_STATE] = _QUIET if quiet else _BUSY

    def others_quiet(self) -> bool:
        """Say whether every other worker of this supervisor is quiet, or has ended for good. Alone: True."""
        return all(row.quiet for row in self._statuses.rows if row.place != self.place)

    def say_noted(self) -> None:
        """Say that what hung is written down, and need not be told to the next worker."""
        self._words[_NOTED] = 1

    @property
    def hurried(self) -> bool:
        """Whether a second stop has come."""
        return bool(self._words[_STOP_NOW])

    def watched(self, validate: Callable[..., Verdict]) -> Callable[..., Verdict]:
        """Give the same function, which says what it judges; for the calling thread alone."""
        with self._taking:
            slot = self._slots_taken
            self._slots_taken += 1
        words, turn_word = self._words, self._word_of(slot) + _TURN
        words[self._word_of(slot) + _THREAD] = threading.get_native_id()
        memory, turn_at = self._memory, self._start + turn_word * _WORD_BYTES
        number = 0

        def watched(delivery: Delivery, **how: bool) -> Verdict:
            nonlocal number
            number += 1
            # In one call, since every message pays for it.
            _write_turn(memory, turn_at, number, delivery.delivery_id.encode())
            try:
                return validate(delivery, **how)
            finally:
                words[turn_word] = 0

        return watched

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Say that the calling thread waits, for as long as it may, and does not judge."""
        words, thread_id = self._words, threading.get_native_id()
        turns = [
            self._word_of(slot) + _TURN
            for slot in range(self._slots_taken)
            if words[self._word_of(slot) + _THREAD] == thread_id
        ]
        numbers = [words[turn] for turn in turns]
        for turn in turns:
            words[turn] = 0
        try:
            yield
        finally:
            for turn, number in zip(turns, numbers, strict=True):
                words[turn] = number

    # ── the supervisor ────────────────────────────────────────────────────────────────────────────────

    def clear(self) -> None:
        """Forget what an earlier worker said, before the next one is forked."""
        for word in (_BEAT, _STATE, _STOP_NOW, _NOTED):
            self._words[word] = 0
        for slot in range(_SLOTS):
            self._words[self._word_of(slot) + _TURN] = 0

    def end(self) -> None:
        """Note that its worker has ended, and that none follows it."""
        self._words[_STATE] = _ENDED

    def hurry(self) -> None:
        """Tell the worker that a second stop has come."""
        self._words[_STOP_NOW] = 1

    @property
    def quiet(self) -> bool:
        """Whether the worker says that it is quiet, or has ended for good."""
        return self._words[_STATE] != _BUSY

    @property
    def noted(self) -> bool:
        """Whether the worker has written down what hung before it."""
        return bool(self._words[_NOTED])

    @property
    def beats(self) -> int:
        """How often it has beaten; 0 before the first beat."""
        return self._words[_BEAT]

    def turns(self) -> list[JudgedDelivery]:
        """Give the threads that are judging now."""
        words = self._words
        return [
            JudgedDelivery(slot, number, words[self._word_of(slot) + _THREAD])
            for slot in range(_SLOTS)
            if (number := words[self._word_of(slot) + _TURN])
        ]

    def delivery_id(self, slot: int) -> str | None:
        """Give what all hand-overs of the one in a slot have in common; None: too long to be told."""
        start = self._start + (self._word_of(slot) + _TURN + 1) * _WORD_BYTES
        text = self._memory[start : start + _ID_BYTES_MAX]
        return None if text[-1] else base_of(text.rstrip(b"\0").decode())

    def _word_of(self, slot: int) -> int:
        if slot >= _SLOTS:
            raise IndexError(f"more than {_SLOTS} threads judge in one worker")
        return (_HEADER_BYTES + slot * _SLOT_BYTES) // _WORD_BYTES


class ReportingJudge(threading.local):
    """Judges as `judge` does, and notes in the shared memory which delivery each thread judges.

    It is made anew in each thread that asks, so that `validate` finds the thread's own slot without a search.
    """

    def __init__(self, judge: WaitingJudge, row: WorkerStatus) -> None:
        self._judge = judge
        self.validate = row.watched(judge.validate)

    @property
    def version(self) -> int:
        """The version of the registry that verdicts are made with."""
        return self._judge.version

    def install(self, registry: Registry) -> None:
        """Judge by this registry from now on."""
        self._judge.install(registry)
