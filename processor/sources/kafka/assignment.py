"""What a group has given to one member: its partitions, what waits of them, and whether Kafka answers.

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
"""For how long a receive waits for a word of Kafka beyond its own wait: a group takes seconds to form."""

_generations = itertools.count(1)
"""Of partitions that were ever ours: a receipt of an earlier one is of no use."""

Marks: TypeAlias = Sequence[tuple[int, Mark]]
"""Lines for the group's books, by partition."""


class Assignment:
    """The partitions that are ours now. Safe to share between threads; nothing else changes its state.

    It holds `size_max` records and `bytes_max` of their bodies, or one call of the poll thread more.
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
        # Notified when there may be something to hand over, or a trouble; and when the buffer is smaller.
        self._readable = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._partitions: dict[int, Partition] = {}
        self._assigned = False
        self._trouble = self._fault = ""
        self._refusal = SourceRefusal(clock)
        # When somebody last asked whether there is nothing more, and when Kafka last said that there is not.
        self._asked_at = self._heard_at = 0.0
        self._ended = self._dead = False

    # ── for any thread ────────────────────────────────────────────────────────────────────────────────

    def receive(self, limit: int, wait_s: float) -> list[Delivery]:
        """Hand over what is buffered; of a partition only once all that was handed over of it is settled.

        An empty list means that Kafka has said since the call began that there is nothing. Raises
        SourceUnavailable in an outage, SettingsError where nothing must be read as this group, RuntimeError
        where a bug has ended the poll thread.
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
        """Let the offsets pass what is done; gives how many that was news of.

        Of a partition that was lost since, nothing is noted.
        """
        news = 0
        with self._lock:
            for delivery in deliveries:
                partition, offset, _ = self._find(delivery)
                news += partition is not None and partition.settle(offset)
            self._readable.notify_all()
        return news

    def release(self, deliveries: Iterable[Delivery]) -> None:
        """Let deliveries be handed over again, in the order of their partition."""
        with self._lock:
            for delivery in deliveries:
                partition, offset, hand_over = self._find(delivery)
                if partition is not None:
                    partition.release(offset, hand_over)
            self._readable.notify_all()

    @property
    def in_flight(self) -> int:
        """How many records are handed over and not settled."""
        with self._lock:
            return sum(len(partition.handed) for partition in self._partitions.values())

    def require_alive(self) -> None:
        """Raise RuntimeError where a bug has ended the poll thread."""
        with self._lock:
            self._require_alive()

    def _require_alive(self) -> None:
        if self._dead:
            # No outage, which would be waited for.
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
            # To the end, so that the others have their turn.
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
        """Find what a receipt is of: partition, offset, hand-over; no partition if it was lost since."""
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
        """Take these partitions, of which nothing is known yet."""
        with self._lock:
            self._assigned = True
            for number in numbers:
                self._partitions[number] = Partition(number, next(_generations))
            self._readable.notify_all()

    def drop(self, numbers: Iterable[int], *, lost: bool = False) -> Marks:
        """Forget partitions; gives the marks of a clean end. `lost`: the group has thrown us out.

        What of them is under way may still be saved: whoever has them next knows.
        """
        with self._lock:
            # Who has lost all is no member of the group: it knows of nothing, until it is one again.
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
        """The partitions that are ours."""
        with self._lock:
            return list(self._partitions)

    def add(self, came: Iterable[tuple[int, Record | int]]) -> None:
        """Buffer what was read, by partition and in its order; a number is the offset where it ends now."""
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
        """Say whether the buffer has this share of what it may hold, by number or by bytes."""
        with self._lock:
            return self._is_full(share)

    def await_room(self, wait_s: float) -> None:
        """Wait while the buffer is full, but no longer than that."""
        with self._lock:
            self._room.wait_for(lambda: self._ended or not self._is_full(1.0), wait_s)

    def _is_full(self, share: float) -> bool:
        partitions = self._partitions.values()
        return (
            sum(len(partition.waiting) for partition in partitions) >= self._size_max * share
            or sum(partition.waiting_bytes for partition in partitions) >= self._bytes_max * share
        )

    # ── for the poll thread: the group's books ────────────────────────────────────────────────────────

    @property
    def unread(self) -> list[int]:
        """The partitions of which the books have not been read yet."""
        with self._lock:
            return [number for number, partition in self._partitions.items() if not partition.loaded]

    def load(self, marks: Mapping[int, Mark | None]) -> None:
        """Begin partitions with what the books say of them; None: nothing."""
        with self._lock:
            for number, mark in marks.items():
                if (partition := self._partitions.get(number)) is not None:
                    partition.load(mark)

    @property
    def beginnings(self) -> list[tuple[int, datetime]]:
        """The moments of first records that nobody has allowed to be read yet, by partition."""
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
        """What has to stand in the books before more is handed over."""
        with self._lock:
            return [
                (number, mark)
                for number, partition in self._partitions.items()
                if (mark := partition.announcement()) is not None
            ]

    def take_progress(self) -> Marks:
        """Give what the books lack of what is done; it counts as written from now on."""
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
        """Note what stands in the books."""
        with self._lock:
            for number, mark in marks:
                if (partition := self._partitions.get(number)) is not None:
                    partition.wrote(mark)
            self._readable.notify_all()

    def doubt(self, numbers: Iterable[int]) -> None:
        """Note that what was on its way to the books may not have arrived."""
        with self._lock:
            for number in numbers:
                if (partition := self._partitions.get(number)) is not None:
                    partition.doubt()

    # ── for the poll thread: how it goes ──────────────────────────────────────────────────────────────

    @property
    def in_trouble(self) -> bool:
        """Whether an outage stands."""
        with self._lock:
            return bool(self._trouble)

    @property
    def wants_word(self) -> bool:
        """Whether Kafka is to be asked: somebody waits to hear that there is nothing, or an outage stands."""
        with self._lock:
            return bool(self._trouble) or self._asked_at > self._heard_at

    def ask(self) -> None:
        """Have Kafka asked, whether or not somebody waits."""
        with self._lock:
            self._asked_at = time.monotonic()

    def answered(self, asked_at: float) -> None:
        """Note that Kafka works: it has answered what it was asked then."""
        with self._lock:
            self._trouble = ""
            self._refusal.over()
            if self._assigned and all(partition.quiet for partition in self._partitions.values()):
                self._heard_at = asked_at
            self._readable.notify_all()

    def worry(self, words: str, *, credentials: str = "", missing: str = "") -> None:
        """Note an outage. `credentials` or `missing`, if Kafka refuses us or lacks the topic, say what to do.

        Being refused says more than not being able to connect, which follows from it.
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
        """Say why nothing must be read as this group."""
        with self._lock:
            self._fault = words
            self._readable.notify_all()

    def end(self, *, dead: bool = False) -> None:
        """Note that nothing more will come; `dead`: a bug has ended the thread that polls."""
        with self._lock:
            self._ended, self._dead = True, self._dead or dead
            self._readable.notify_all()
            self._room.notify_all()
