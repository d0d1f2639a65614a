"""Share the state of workers with their supervisor in memory: heartbeats and current deliveries.

    worker: heartbeat, slots (one per thread: its current delivery) ─▶ shared memory ─▶ supervisor

No system call is made, so that an update is cheap enough for every message, and the state can be read even if
the worker hangs.
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
"""More than the validating threads of one worker: 64 receivers, 16 writers and the main thread."""

_SLOT_BYTES = 640
_ID_BYTES_MAX = _SLOT_BYTES - 2 * _WORD_BYTES
"""Longer ids are not shared."""

_HEADER_BYTES = 64
_ROW_BYTES = _HEADER_BYTES + _SLOTS * _SLOT_BYTES

# The words of a row's header.
_BEAT, _STATE, _STOP_NOW, _NOTED = range(4)
# The words of a slot; the id follows them.
_THREAD, _TURN = range(2)

_BUSY, _QUIET, _ENDED = range(3)

_write_turn = Struct(f"=Q{_ID_BYTES_MAX}s").pack_into
"""Writes a turn's number and its delivery id, padded with zeros."""


class WaitingJudge(Protocol):
    """Validates deliveries by the registry that was last installed."""

    @property
    def version(self) -> int: ...  # noqa: D102
    def install(self, registry: Registry) -> None: ...  # noqa: D102
    def validate(self, delivery: Delivery, *, may_wait: bool = True) -> Verdict: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class JudgedDelivery:
    """One delivery in one thread. `number` grows with each delivery of the thread."""

    slot: int
    number: int
    thread_id: int


class WorkerStatuses:
    """The status of each worker, in memory shared with processes that are forked later."""

    def __init__(self, workers: int = 1) -> None:
        # Anonymous memory: unused pages cost nothing.
        self._memory = mmap.mmap(-1, workers * _ROW_BYTES)
        self.rows = [WorkerStatus(self, self._memory, place) for place in range(workers)]


class WorkerStatus:
    """The status of one worker. The worker writes it; the supervisor reads and clears it."""

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
        """Count a heartbeat: the interpreter runs."""
        self._words[_BEAT] += 1

    def say_quiet(self, quiet: bool) -> None:
        """Set whether this worker has nothing left to do, as far as it knows."""
        self._words[_STATE] = _QUIET if quiet else _BUSY

    def others_quiet(self) -> bool:
        """Return whether every other worker of this supervisor is quiet or has ended. Alone: True."""
        return all(row.quiet for row in self._statuses.rows if row.place != self.place)

    def say_noted(self) -> None:
        """Mark hung deliveries as stored, so that the next worker need not store them."""
        self._words[_NOTED] = 1

    @property
    def hurried(self) -> bool:
        """Whether a second stop was requested."""
        return bool(self._words[_STOP_NOW])

    def watched(self, validate: Callable[..., Verdict]) -> Callable[..., Verdict]:
        """Wrap the function so that it records the current delivery; for the calling thread only."""
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
            # One call, since it is made for every message.
            _write_turn(memory, turn_at, number, delivery.delivery_id.encode())
            try:
                return validate(delivery, **how)
            finally:
                words[turn_word] = 0

        return watched

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Mark the calling thread as waiting, so that a long wait is not a hang."""
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
        """Clear the status of an earlier worker before the next one is forked."""
        for word in (_BEAT, _STATE, _STOP_NOW, _NOTED):
            self._words[word] = 0
        for slot in range(_SLOTS):
            self._words[self._word_of(slot) + _TURN] = 0

    def end(self) -> None:
        """Record that the worker has ended and is not replaced."""
        self._words[_STATE] = _ENDED

    def hurry(self) -> None:
        """Tell the worker that a second stop was requested."""
        self._words[_STOP_NOW] = 1

    @property
    def quiet(self) -> bool:
        """Whether the worker is quiet or has ended."""
        return self._words[_STATE] != _BUSY

    @property
    def noted(self) -> bool:
        """Whether the worker has stored the hung deliveries."""
        return bool(self._words[_NOTED])

    @property
    def beats(self) -> int:
        """The number of heartbeats; 0 before the first one."""
        return self._words[_BEAT]

    def turns(self) -> list[JudgedDelivery]:
        """Return the deliveries that threads are validating now."""
        words = self._words
        return [
            JudgedDelivery(slot, number, words[self._word_of(slot) + _THREAD])
            for slot in range(_SLOTS)
            if (number := words[self._word_of(slot) + _TURN])
        ]

    def delivery_id(self, slot: int) -> str | None:
        """Return the lasting id of the delivery in a slot, or None if it is too long."""
        start = self._start + (self._word_of(slot) + _TURN + 1) * _WORD_BYTES
        text = self._memory[start : start + _ID_BYTES_MAX]
        return None if text[-1] else base_of(text.rstrip(b"\0").decode())

    def _word_of(self, slot: int) -> int:
        if slot >= _SLOTS:
            raise IndexError(f"more than {_SLOTS} threads judge in one worker")
        return (_HEADER_BYTES + slot * _SLOT_BYTES) // _WORD_BYTES


class ReportingJudge(threading.local):
    """Validates with `judge`, and records the current delivery of each thread in shared memory.

    As a thread-local object it has one `validate` per thread, which needs no search for the slot.
    """

    def __init__(self, judge: WaitingJudge, row: WorkerStatus) -> None:
        self._judge = judge
        self.validate = row.watched(judge.validate)

    @property
    def version(self) -> int:
        """The version of the registry that verdicts are made with."""
        return self._judge.version

    def install(self, registry: Registry) -> None:
        """Use this registry from now on."""
        self._judge.install(registry)
