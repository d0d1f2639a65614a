"""Keep the state of one group member: assigned partitions, buffered records, and outages of Kafka.

poll thread ─▶ assign, add, worry, … ─▶ [Assignment, under one lock] ◀─ receive, settle, release ◀─ any thread
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

from processor.brokers.source_refusal import SourceRefusal
from processor.brokers.source_url import SourceAddress
from processor.errors import SettingsError, SourceUnavailable
from processor.model import Delivery
from processor.runtime import metrics
from processor.sources.kafka.partitions import Mark, Partition, Record

TICK_S = 0.05

_ANSWER_S_MAX = 12.0
"""How long a receive waits for an answer of Kafka beyond its own wait; a group takes seconds to form."""

_generations = itertools.count(1)
"""One number per assignment of a partition, so that receipts of an earlier assignment are recognised."""

Marks: TypeAlias = Sequence[tuple[int, Mark]]
"""Marks to commit, by partition."""


class Assignment:
    """The partitions assigned to this member. Thread-safe.

    The buffer has up to `size_max` records and `bytes_max` bytes of bodies, and up to one poll more.
    """

    def __init__(
        self,
        address: SourceAddress,
        *,
        size_max: int,
        bytes_max: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topic = address.queue
        self._group = address.group
        self._size_max = size_max
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        # Notified when there may be something to deliver or an outage; and when the buffer shrinks.
        self._readable = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._partitions: dict[int, Partition] = {}
        self._assigned = False
        self._trouble = self._fault = ""
        self._refusal = SourceRefusal(clock)
        # When a receiver last asked for the end, and when Kafka last reported it.
        self._asked_at = self._heard_at = 0.0
        self._ended = self._dead = False

    # ── for any thread ────────────────────────────────────────────────────────────────────────────────

    def receive(self, limit: int, wait_s: float) -> list[Delivery]:
        """Return buffered records; a partition delivers again only when its last deliveries are settled.

        An empty list means that Kafka has reported the end of all partitions since the call began. Raises
        SourceUnavailable in an outage, SettingsError if this group must not read, and RuntimeError if a bug
        has ended the poll thread.
        """
        began = time.monotonic()
        with self._lock:
            while True:
                self._require_alive()
                if self._fault:
                    raise SettingsError(self._fault)
                if taken := self._take(limit):
                    return taken
                if self._trouble or self._ended:
                    raise self._refusal.error(self._trouble or "Kafka is closed")
                left_s = began + wait_s - time.monotonic()
                if left_s <= 0:
                    if self._heard_at >= began:
                        return []
                    self._asked_at = time.monotonic()
                if left_s <= -_ANSWER_S_MAX:
                    raise SourceUnavailable(self._silence())
                self._readable.wait(left_s if left_s > 0 else TICK_S)

    def settle(self, deliveries: Iterable[Delivery]) -> int:
        """Mark records as settled, and return how many were not settled before.

        Records of lost partitions are ignored.
        """
        news = 0
        with self._lock:
            for delivery in deliveries:
                partition, offset, _ = self._find(delivery)
                news += partition is not None and partition.settle(offset)
            self._readable.notify_all()
        return news

    def release(self, deliveries: Iterable[Delivery]) -> None:
        """Return deliveries to the buffer, in the order of their partition."""
        with self._lock:
            for delivery in deliveries:
                partition, offset, hand_over = self._find(delivery)
                if partition is not None:
                    partition.release(offset, hand_over)
            self._readable.notify_all()

    @property
    def in_flight(self) -> int:
        """The number of records that are delivered and not settled."""
        with self._lock:
            return sum(len(partition.handed) for partition in self._partitions.values())

    def require_alive(self) -> None:
        """Raise RuntimeError if a bug has ended the poll thread."""
        with self._lock:
            self._require_alive()

    def _require_alive(self) -> None:
        if self._dead:
            # Not an outage, which would be retried.
            raise RuntimeError("the thread that talks to Kafka has died of a bug")

    def _take(self, limit: int) -> list[Delivery]:
        taken: list[Delivery] = []
        for partition in list(self._partitions.values()):
            if len(taken) >= limit:
                break
            if not partition.ready:
                continue
            now = datetime.now(UTC)
            records = partition.take(limit - len(taken))
            taken += [self._delivery(partition, record, now) for record in records]
            # Moved to the end, so that partitions take turns.
            self._partitions[partition.number] = self._partitions.pop(partition.number)
        if taken:
            self._room.notify_all()
        return taken

    def _delivery(self, partition: Partition, record: Record, now: datetime) -> Delivery:
        return Delivery(
            queue=self._topic,
            delivery_id=record.delivery_id,
            body=record.body,
            receipt=f"{partition.generation}/{partition.number}/{record.offset}/{record.hand_overs}",
            receive_count=partition.receive_count(record),
            sent_at=record.sent_at,
            received_at=now,
            attributes=record.attributes,
            fault=record.fault,
            group=str(partition.number),
            may_be_known=record.may_be_known,
        )

    def _find(self, delivery: Delivery) -> tuple[Partition | None, int, int]:
        """Return partition, offset and delivery number of a receipt; no partition if it was lost."""
        try:
            generation, number, offset, hand_over = map(int, delivery.receipt.split("/"))
        except ValueError:
            return None, 0, 0
        partition = self._partitions.get(number)
        if partition is None or partition.generation != generation:
            return None, 0, 0
        return partition, offset, hand_over

    def _silence(self) -> str:
        if not self._assigned:
            return (
                f"the group {self._group} has not given us partitions of {self._topic} yet; while it "
                "forms, or after a crash, a broker may take a session of VISIBILITY_TIMEOUT_S, or two"
            )
        return f"Kafka gives neither messages of {self._topic} nor its end"

    # ── for the poll thread: partitions and records ───────────────────────────────────────────────────

    def assign(self, numbers: Iterable[int]) -> None:
        """Add newly assigned partitions, whose offsets are not loaded yet."""
        with self._lock:
            self._assigned = True
            for number in numbers:
                self._partitions[number] = Partition(number, next(_generations))
            self._readable.notify_all()

    def drop(self, numbers: Iterable[int], *, lost: bool = False) -> Marks:
        """Remove partitions and return their marks of a clean end. `lost`: the group has expelled us.

        Deliveries of them may still be saved; the next owner finds their outcomes.
        """
        with self._lock:
            # An expelled member knows nothing of the topic until it has joined again.
            self._assigned = self._assigned and not lost
            dropped = [partition for number in numbers if (partition := self._partitions.pop(number, None))]
            self._readable.notify_all()
            return [
                (partition.number, mark)
                for partition in dropped
                if (mark := partition.farewell()) is not None
            ]

    @property
    def numbers(self) -> list[int]:
        """The assigned partitions."""
        with self._lock:
            return list(self._partitions)

    def add(self, came: Iterable[tuple[int, Record | int]]) -> None:
        """Buffer records by partition, in order. A number instead of a record is the end of the partition."""
        with self._lock:
            for number, what in came:
                partition = self._partitions.get(number)
                if partition is None:
                    continue
                if isinstance(what, Record):
                    partition.add(what)
                else:
                    partition.reached_end(what)
            self._readable.notify_all()

    def is_full(self, share: float) -> bool:
        """Return whether the buffer is filled to this share of its limits, by number or by bytes."""
        with self._lock:
            return self._is_full(share)

    def await_room(self, wait_s: float) -> None:
        """Wait while the buffer is full, for `wait_s` seconds at most."""
        with self._lock:
            self._room.wait_for(lambda: self._ended or not self._is_full(1.0), wait_s)

    def _is_full(self, share: float) -> bool:
        partitions = self._partitions.values()
        return (
            sum(len(partition.waiting) for partition in partitions) >= self._size_max * share
            or sum(partition.waiting_bytes for partition in partitions) >= self._bytes_max * share
        )

    # ── for the poll thread: offsets ──────────────────────────────────────────────────────────────────

    @property
    def unread(self) -> list[int]:
        """The partitions whose committed offsets have not been read yet."""
        with self._lock:
            return [number for number, partition in self._partitions.items() if not partition.loaded]

    def load(self, marks: Mapping[int, Mark | None]) -> None:
        """Begin partitions at their committed offsets; None: there is none."""
        with self._lock:
            for number, mark in marks.items():
                if (partition := self._partitions.get(number)) is not None:
                    partition.load(mark)

    @property
    def beginnings(self) -> list[tuple[int, datetime]]:
        """The times of first records that are not allowed to be read yet, by partition."""
        with self._lock:
            return [
                (number, sent_at)
                for number, partition in self._partitions.items()
                if (sent_at := partition.begins_at) is not None
            ]

    def let_begin(self, number: int) -> None:
        """Allow a partition to be read from its first record on."""
        with self._lock:
            if (partition := self._partitions.get(number)) is not None:
                partition.may_begin = True

    @property
    def announcements(self) -> Marks:
        """The marks to commit before the next deliveries."""
        with self._lock:
            return [
                (number, mark)
                for number, partition in self._partitions.items()
                if (mark := partition.announcement()) is not None
            ]

    def take_progress(self) -> Marks:
        """Return the marks for newly settled records; they count as committed from now on."""
        with self._lock:
            marks = [
                (number, mark)
                for number, partition in self._partitions.items()
                if (mark := partition.progress()) is not None
            ]
            for number, mark in marks:
                self._partitions[number].wrote(mark)
            return marks

    def wrote(self, marks: Marks) -> None:
        """Record committed marks."""
        with self._lock:
            for number, mark in marks:
                if (partition := self._partitions.get(number)) is not None:
                    partition.wrote(mark)
            self._readable.notify_all()

    def doubt(self, numbers: Iterable[int]) -> None:
        """Record that the last commits of these partitions may have failed."""
        with self._lock:
            for number in numbers:
                if (partition := self._partitions.get(number)) is not None:
                    partition.doubt()

    # ── for the poll thread: outages ──────────────────────────────────────────────────────────────────

    @property
    def in_trouble(self) -> bool:
        """Whether there is an outage."""
        with self._lock:
            return bool(self._trouble)

    @property
    def wants_word(self) -> bool:
        """Whether to probe Kafka: a receiver waits for an answer, or there is an outage."""
        with self._lock:
            return bool(self._trouble) or self._asked_at > self._heard_at

    def ask(self) -> None:
        """Request a probe of Kafka, even if no receiver waits."""
        with self._lock:
            self._asked_at = time.monotonic()

    def answered(self, asked_at: float) -> None:
        """Record that Kafka has answered a probe that was sent at `asked_at`."""
        with self._lock:
            self._trouble = ""
            self._refusal.over()
            if self._assigned and all(partition.quiet for partition in self._partitions.values()):
                self._heard_at = asked_at
            self._readable.notify_all()

    def worry(self, words: str, *, credentials: str = "", missing: str = "") -> None:
        """Record an outage. `credentials` and `missing` are advice on refused logins and missing topics.

        A refusal is kept as the reason, since failing connections are its consequence.
        """
        metrics.source_errors.labels(operation="receive").inc()
        with self._lock:
            if credentials:
                self._refusal.credentials(credentials)
            if missing:
                self._refusal.missing(missing)
            if credentials or missing or not self._refusal.standing:
                self._trouble = words
            self._readable.notify_all()

    def forbid(self, words: str) -> None:
        """Record why this group must not read."""
        with self._lock:
            self._fault = words
            self._readable.notify_all()

    def end(self, *, dead: bool = False) -> None:
        """Record the end of the poll thread; `dead`: a bug has ended it."""
        with self._lock:
            self._ended, self._dead = True, self._dead or dead
            self._readable.notify_all()
            self._room.notify_all()
