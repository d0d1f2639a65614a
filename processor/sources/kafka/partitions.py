"""Track one partition of a consumer group member: buffered, delivered and settled records.

    buffered ─▶ delivered ─▶ settled ─▶ passed ─▶ committed: an offset with a mark as its metadata
        ▲            │
        └─ released ─┘

Kafka keeps one offset per partition and no receive counts. So the offset advances over a settled prefix only,
and its metadata counts how often the next records were delivered by a consumer that did not end cleanly. This
is the receive count of a message that kills its consumers.
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
"""The largest distance of a window's end from its mark, in offsets, including those of deleted records."""

_WINDOW_SIZE = 500
"""Records of a partition delivered at once. After a crash all of them count as delivered before."""


class Record(Struct):
    """One message as read from Kafka. `hand_overs` counts its deliveries by this process.

    `may_be_known` means that another group, or ours before its offsets were lost or reset, may have read it.
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
    """A committed offset with our metadata: all before `offset` is settled.

    The records up to `until` (None: not recorded) were delivered `attempts` times without a clean end.
    `catches_up` means that the next records may have been read under other offsets: no consumer has reached
    the end of the partition since our offsets began, or since another program wrote or reset them.
    """

    offset: int
    attempts: int
    until: int | None = None
    catches_up: bool = field(default=False, compare=False)

    @property
    def metadata(self) -> str:
        """The mark as metadata of the offset."""
        until = {} if self.until is None else {"until": self.until}
        return json.dumps(
            {"attempts": self.attempts} | until | ({"catches_up": True} if self.catches_up else {})
        )

    @classmethod
    def read(cls, offset: int, metadata: str | None) -> "Mark":
        """Read the metadata of an offset.

        If it is not ours, because the broker drops metadata or another program wrote it, another consumer may
        have the next records: they count as delivered once.
        """
        try:
            said = json.loads((metadata or "")[:_METADATA_LENGTH_MAX])
            attempts, until = said["attempts"], said.get("until")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return cls(offset, 1, catches_up=True)
        if not _is_count(attempts) or not (until is None or _is_count(until)):
            return cls(offset, 1, catches_up=True)
        # We never write a value beyond this bound. A window that is not recorded is made anew.
        near = until is not None and until <= offset + _UNTIL_MAX
        return cls(offset, min(attempts, COUNT_MAX), until if near else None, said.get("catches_up") is True)


class Partition:
    """One assigned partition. Not thread-safe: the assignment holds a lock.

    No record is delivered while others are unsettled, so outcomes are committed in the partition's order for
    any number of receivers and writers.
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
        # Delivered at least once and not passed yet, in the order of the partition; open: and not settled.
        self._order: deque[int] = deque()
        self._open: set[int] = set()
        self._position: int | None = None
        self._attempts = 0
        self._until: int | None = None
        self._written: Mark | None = None
        # The committed offset before our first commit.
        self._found = 0
        # Records before it may have been read under other offsets; None: the end is not known yet.
        self._new_from: int | None = None

    def load(self, mark: Mark | None) -> None:
        """Begin at the committed offset; None: there is none."""
        self.loaded = True
        if mark is not None:
            self._position, self._attempts, self._until = mark.offset, mark.attempts, mark.until
            self._found = mark.offset
            if not mark.catches_up:
                # Earlier records are read again if Kafka has lost the records at the offset.
                self._new_from = mark.offset
            for record in self._waiting:
                record.may_be_known = self._may_be_known(record.offset)

    # ── in and out ────────────────────────────────────────────────────────────────────────────────────

    @property
    def waiting(self) -> Collection[Record]:
        """The buffered records."""
        return self._waiting

    @property
    def quiet(self) -> bool:
        """Whether nothing can be delivered now: at the end of the partition, or with unsettled deliveries."""
        return bool(self.handed) or (self.at_end and not self._waiting)

    @property
    def ready(self) -> bool:
        """Whether records can be delivered now."""
        return self.loaded and bool(self._waiting) and not self.handed and self.announcement() is None

    def add(self, record: Record) -> None:
        """Buffer the next record of the partition."""
        self.at_end = False
        record.may_be_known = self._may_be_known(record.offset)
        self._waiting.append(record)
        self.waiting_bytes += len(record.body)

    def reached_end(self, offset: int) -> None:
        """Record that all records before `offset` were added.

        Offsets that no consumer sees, such as transaction markers, may lie in between.
        """
        self.at_end = True
        if self._new_from is None:
            self._new_from = offset
        if self.loaded and not self._waiting and not self._order:
            self._position = max(self._position or 0, offset)

    def take(self, limit: int) -> list[Record]:
        """Deliver up to `limit` records in order; only one if a record may have killed a process before."""
        taken: list[Record] = []
        # With all earlier records settled, only the first can have been delivered more often.
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
                # The record was released, but had been settled already.
                continue
            record.hand_overs += 1
            self.handed[record.offset] = record
            taken.append(record)
        return taken

    def receive_count(self, record: Record) -> int:
        """Return how often a record was delivered, as far as known."""
        return count_of(record.hand_overs + (self._attempts if self._in_window(record.offset) else 0))

    def settle(self, offset: int) -> bool:
        """Record that a record is settled; return whether it was not settled before."""
        if offset not in self._open:
            return False
        self.handed.pop(offset, None)
        self._open.discard(offset)
        while self._order and self._order[0] not in self._open:
            self._position = self._order.popleft() + 1
            # The other records of the window were delivered no more often than this.
            self._attempts = min(self._attempts, SUSPECT_RECEIVE_COUNT - 1)
        return True

    def release(self, offset: int, hand_over: int) -> None:
        """Return a record to the buffer, unless it is settled or was redelivered since."""
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
        """The time of the first record if there is no committed offset; None: the record may be read."""
        if self.may_begin or not self.loaded or self._position is not None or not self._waiting:
            return None
        return self._waiting[0].sent_at

    # ── offsets ───────────────────────────────────────────────────────────────────────────────────────

    def announcement(self) -> Mark | None:
        """Return the mark to commit before the next delivery, or None if it is committed."""
        if self.handed or not self._waiting or not self.loaded:
            return None
        head = self._waiting[0].offset
        if self._attempts and self._until is None:
            # The end of the window is not recorded. Later records begin a window of their own.
            self._until = head + _WINDOW_SIZE
        if self._until is not None and head >= self._until:
            self._attempts, self._until = 0, None
        if self._attempts:
            wanted = self._mark(self._position_or(head), self._attempts + 1, self._until)
            return None if wanted == self._written else wanted
        known = self._written is not None and self._written.attempts == 1 and self._written.until is None
        return None if known else self._mark(self._position_or(head), 1)

    def progress(self) -> Mark | None:
        """Return the mark for newly settled records, or None if there are none."""
        written = self._found if self._written is None else self._written.offset
        if self._position is None or self._position <= written:
            return None
        if self._attempts and self._until is not None and self._position < self._until:
            # The records in flight count as one more delivery.
            return self._mark(self._position, self._attempts + bool(self.handed), self._until)
        # Without a delivery only the end is recorded. The first delivery is announced as usual.
        return self._mark(self._position, 0 if self._written is None else 1)

    def farewell(self) -> Mark | None:
        """Return the mark of a clean end: records that are not in flight do not count as delivered."""
        if self._position is None or self._written is None:
            return None
        if self._attempts and self._until is not None and self._position < self._until:
            mark = self._mark(self._position, self._attempts + bool(self.handed), self._until)
        else:
            mark = self._mark(self._position, 1 if self.handed else 0)
        return None if mark == self._written else mark

    def wrote(self, mark: Mark) -> None:
        """Record a mark that is committed or being committed."""
        self._position = mark.offset if self._position is None else self._position
        self._written = mark

    def doubt(self) -> None:
        """Record that the last commit may have failed, so that it is repeated."""
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
