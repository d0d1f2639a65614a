"""What one member of a consumer group knows of a partition: what waits, what is handed over, what is done.

    buffered ─▶ handed over ─▶ done ─▶ passed ─▶ written: an offset in the group's books, and a mark
        ▲            │
        └─ released ─┘

Kafka keeps one offset per partition and no receive counts. So the offset only ever passes what is done from
the front on, and the books carry, as metadata of the offset, how often what comes next was handed over by
somebody who did not end cleanly: that is the receive count of a message which kills its readers.
"""

import itertools
import json
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from msgspec import Struct

from processor.model import SUSPECT_RECEIVE_COUNT
from processor.wire.bounds import COUNT_MAX, count_of
from processor.wire.formats import Attribute

_METADATA_LENGTH_MAX = 200

_UNTIL_MAX = 1_000_000
"""Offsets that a window may reach beyond its mark: those of what was removed from the topic count, too."""

_WINDOW_SIZE = 500
"""As many records of a partition are handed over at once: they count as handed over before after a crash."""


class Record(Struct):
    """One message as it was read; `hand_overs` counts those of this process.

    `may_be_known` says that another group, or ours before its offsets were lost or reset, may have read it.
    """

    offset: int
    delivery_id: str
    body: bytes
    sent_at: datetime
    attributes: Mapping[str, Attribute]
    fault: str | None = None
    hand_overs: int = 0
    may_be_known: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A line in the group's books: all before `offset` is done, and what comes was handed over before.

    It was handed over `attempts` times without a clean end; `until` is the offset up to which that holds,
    None where nobody has noted it. With `catches_up` what comes may have been read under other books: nobody
    has reached the end of the partition since these began, or since another program wrote or reset them.
    """

    offset: int
    attempts: int
    until: int | None = None
    catches_up: bool = field(default=False, compare=False)

    @property
    def metadata(self) -> str:
        """The mark as it is written beside the offset."""
        until = {} if self.until is None else {"until": self.until}
        return json.dumps(
            {"attempts": self.attempts} | until | ({"catches_up": True} if self.catches_up else {})
        )

    @classmethod
    def read(cls, offset: int, metadata: str | None) -> "Mark":
        """Read what stands beside an offset.

        Where that is nothing of ours, because the broker drops metadata or another program wrote it, somebody
        may hold what comes: it counts as handed over once.
        """
        try:
            said = json.loads((metadata or "")[:_METADATA_LENGTH_MAX])
            attempts, until = said["attempts"], said.get("until")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return cls(offset, 1, catches_up=True)
        if not _is_count(attempts) or not (until is None or _is_count(until)):
            return cls(offset, 1, catches_up=True)
        # Beyond what we write, it was not written by us; a window that nobody has noted is made anew.
        near = until is not None and until <= offset + _UNTIL_MAX
        return cls(offset, min(attempts, COUNT_MAX), until if near else None, said.get("catches_up") is True)


class Partition:
    """One partition for as long as it is ours. Not safe to share between threads: the source locks.

    Nothing more is handed over while something is: so outcomes are committed in the partition's order,
    however many receivers and writers there are.
    """

    def __init__(self, number: int, generation: int) -> None:
        self.number = number
        self.generation = generation
        self.at_end = False
        self.loaded = False
        self.may_begin = False
        self.handed: dict[int, Record] = {}
        self.waiting_bytes = 0
        self._waiting: deque[Record] = deque()
        # Handed over once at least and not passed yet, in the order of the partition; open: and not done.
        self._order: deque[int] = deque()
        self._open: set[int] = set()
        self._position: int | None = None
        self._attempts = 0
        self._until: int | None = None
        self._written: Mark | None = None
        # The offset that stood in the books before we wrote there.
        self._found = 0
        # What lies before it may have been read under other books than these; None: the end is not known yet.
        self._new_from: int | None = None

    def load(self, mark: Mark | None) -> None:
        """Begin with what the books say; None: they say nothing."""
        self.loaded = True
        if mark is not None:
            self._position, self._attempts, self._until = mark.offset, mark.attempts, mark.until
            self._found = mark.offset
            if not mark.catches_up:
                # What lies before is read again where Kafka has lost what the books point to.
                self._new_from = mark.offset
            for record in self._waiting:
                record.may_be_known = self._may_be_known(record.offset)

    # ── in and out ────────────────────────────────────────────────────────────────────────────────────

    @property
    def waiting(self) -> Collection[Record]:
        """The records that are buffered."""
        return self._waiting

    @property
    def quiet(self) -> bool:
        """Whether Kafka has nothing for us now: it said so, or what it has must wait for what is held."""
        return bool(self.handed) or (self.at_end and not self._waiting)

    @property
    def ready(self) -> bool:
        """Whether records can be handed over now."""
        return self.loaded and bool(self._waiting) and not self.handed and self.announcement() is None

    def add(self, record: Record) -> None:
        """Buffer a record that was read behind all others."""
        self.at_end = False
        record.may_be_known = self._may_be_known(record.offset)
        self._waiting.append(record)
        self.waiting_bytes += len(record.body)

    def reached_end(self, offset: int) -> None:
        """Note that there is nothing before `offset` any more but what was added.

        What is not handed over to anybody, such as the marks of transactions, lies in between.
        """
        self.at_end = True
        if self._new_from is None:
            self._new_from = offset
        if self.loaded and not self._waiting and not self._order:
            self._position = max(self._position or 0, offset)

    def take(self, limit: int) -> list[Record]:
        """Hand over up to `limit` records in their order; where one of them may be what kills us, one."""
        taken: list[Record] = []
        # With the ones before it done for sure, only the first can have been handed over more often.
        most = 1 if self._is_careful() else min(limit, _WINDOW_SIZE)
        while self._waiting and len(taken) < most:
            if taken and self._in_window(taken[-1].offset) != self._in_window(self._waiting[0].offset):
                break
            record = self._waiting.popleft()
            self.waiting_bytes -= len(record.body)
            if record.hand_overs == 0:
                self._order.append(record.offset)
                self._open.add(record.offset)
            elif record.offset not in self._open:
                # It was released, and turned out to be done.
                continue
            record.hand_overs += 1
            self.handed[record.offset] = record
            taken.append(record)
        return taken

    def receive_count(self, record: Record) -> int:
        """How often it was handed over, as far as anybody knows."""
        return count_of(record.hand_overs + (self._attempts if self._in_window(record.offset) else 0))

    def settle(self, offset: int) -> bool:
        """Note that the outcome of a record is committed; tell whether that was news."""
        if offset not in self._open:
            return False
        self.handed.pop(offset, None)
        self._open.discard(offset)
        while self._order and self._order[0] not in self._open:
            self._position = self._order.popleft() + 1
            # The others of the window were handed over no more often than that.
            self._attempts = min(self._attempts, SUSPECT_RECEIVE_COUNT - 1)
        return True

    def release(self, offset: int, hand_over: int) -> None:
        """Let a record be handed over again, unless it is done, or was handed over anew since."""
        record = self.handed.get(offset)
        if record is None or record.hand_overs != hand_over:
            return
        del self.handed[offset]
        self.waiting_bytes += len(record.body)
        behind = any(waiting.offset < offset for waiting in itertools.islice(self._waiting, 1))
        self._waiting.appendleft(record)
        if behind:
            self._waiting = deque(sorted(self._waiting, key=lambda waiting: waiting.offset))

    @property
    def begins_at(self) -> datetime | None:
        """The moment of the first record, where the books name no place to begin at; None: it may be read."""
        if self.may_begin or not self.loaded or self._position is not None or not self._waiting:
            return None
        return self._waiting[0].sent_at

    # ── the books ─────────────────────────────────────────────────────────────────────────────────────

    def announcement(self) -> Mark | None:
        """Give what has to stand in the books before anything is handed over; None: it does."""
        if self.handed or not self._waiting or not self.loaded:
            return None
        head = self._waiting[0].offset
        if self._attempts and self._until is None:
            # Nobody has noted how much was handed over; what lies behind would begin a window of its own.
            self._until = head + _WINDOW_SIZE
        if self._until is not None and head >= self._until:
            self._attempts, self._until = 0, None
        if self._attempts:
            wanted = self._mark(self._position_or(head), self._attempts + 1, self._until)
            return None if wanted == self._written else wanted
        known = self._written is not None and self._written.attempts == 1 and self._written.until is None
        return None if known else self._mark(self._position_or(head), 1)

    def progress(self) -> Mark | None:
        """Give what the books lack of what is done; None: nothing."""
        written = self._found if self._written is None else self._written.offset
        if self._position is None or self._position <= written:
            return None
        if self._attempts and self._until is not None and self._position < self._until:
            # Those that are handed over now are so once more.
            return self._mark(self._position, self._attempts + bool(self.handed), self._until)
        # Of what was never handed over only the end is noted; the first hand-over is announced as ever.
        return self._mark(self._position, 0 if self._written is None else 1)

    def farewell(self) -> Mark | None:
        """Give the mark of a clean end: what is not handed over now does not count as handed over."""
        if self._position is None or self._written is None:
            return None
        if self._attempts and self._until is not None and self._position < self._until:
            mark = self._mark(self._position, self._attempts + bool(self.handed), self._until)
        else:
            mark = self._mark(self._position, 1 if self.handed else 0)
        return None if mark == self._written else mark

    def wrote(self, mark: Mark) -> None:
        """Note what stands in the books, or is on its way there."""
        self._position = mark.offset if self._position is None else self._position
        self._written = mark

    def doubt(self) -> None:
        """Note that what was on its way may not have arrived: it is to be written again."""
        if self._written is not None:
            self._written = Mark(-1, 0)

    def _mark(self, offset: int, attempts: int, until: int | None = None) -> Mark:
        return Mark(offset, attempts, until, self._may_be_known(offset))

    def _may_be_known(self, offset: int) -> bool:
        return self._new_from is None or offset < self._new_from

    def _position_or(self, head: int) -> int:
        return head if self._position is None else self._position

    def _in_window(self, offset: int) -> bool:
        return self._attempts > 0 and (self._until is None or offset < self._until)

    def _is_careful(self) -> bool:
        head = self._waiting[0].offset if self._waiting else 0
        return self._attempts >= SUSPECT_RECEIVE_COUNT - 1 and self._in_window(head)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
