"""Kafka: one topic of a consumer group, whose offsets pass only what is committed in the database.

Member (poll thread) ─▶ buffer, by partition ─▶ receive ─▶ … COMMIT … ─▶ settle ─▶ Member writes offsets
"""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Self

from confluent_kafka import KafkaException

from processor.brokers.kafka import an_onlooker, lag_of, name_of
from processor.brokers.source_url import SourceAddress
from processor.errors import SettingsError, SourceUnavailable
from processor.model import Delivery, Settlement
from processor.runtime import metrics
from processor.settings import PipelineSettings
from processor.sources.kafka.group_member import TICK_S, Member
from processor.sources.kafka.partitions import Partition, Record

SESSION_S_MIN = 6
"""The shortest session that a broker of Kafka takes unless it is told otherwise."""

_ANSWER_S_MAX = 12.0
"""For how long a receive waits for a word of Kafka beyond its own wait: a group takes seconds to form."""


_COUNT_S_MAX = 3.0
_CLOSE_S = 5.0
"""For how long a group is waited for that is left; what it was not told comes again, and is known."""


class KafkaSource:
    """One topic, read as a member of a consumer group. A delivery's group is its partition.

    A session of `session_s` without a word from us makes the group give our partitions to others. Credentials
    that are refused for long enough raise SourceFault, a topic that is missing for as long SettingsError; all
    else that goes wrong is SourceUnavailable.

    Where the group has no offset it begins at a partition's first record, unless that was sent before the
    moment that `forgotten_before` gives then: what was stored before it may have been removed. SettingsError.
    """

    def __init__(
        self,
        address: SourceAddress,
        *,
        buffer_size_max: int = 2000,
        buffer_bytes_max: int = 4 * 1024 * 1024,
        session_s: float = 60,
        forgotten_before: Callable[[], datetime | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = address
        self._topic = address.queue
        self._make: Callable[[], Member] = lambda: Member(
            address,
            buffer_size_max=buffer_size_max,
            buffer_bytes_max=buffer_bytes_max,
            session_s=session_s,
            forgotten_before=forgotten_before,
            clock=clock,
        )
        self._making = threading.Lock()
        self._made: Member | None = None
        self._closed = False

    @classmethod
    def open(
        cls,
        settings: PipelineSettings,
        address: SourceAddress,
        forgotten_before: Callable[[], datetime | None] = lambda: None,
    ) -> Self:
        """Take the settings. Nothing is called yet."""
        return cls(
            address,
            buffer_size_max=settings.buffer_size_max,
            buffer_bytes_max=settings.buffer_bytes_max,
            session_s=max(settings.visibility_timeout_s, SESSION_S_MIN),
            forgotten_before=forgotten_before,
        )

    def receive(self, limit: int, wait_s: float) -> list[Delivery]:
        """Hand over what is buffered; of a partition only once all that was handed over of it is settled.

        An empty list means that Kafka has said since the call began that there is nothing.
        """
        member = self._member()
        began = time.monotonic()
        with member.lock:
            while True:
                _require_alive(member)
                if member.fault:
                    raise SettingsError(member.fault)
                if taken := self._take(member, limit):
                    return taken
                if member.trouble or member.ended:
                    raise member.refusal.error(member.trouble or "Kafka is closed")
                left_s = began + wait_s - time.monotonic()
                if left_s <= 0:
                    if member.heard_at >= began:
                        return []
                    member.asked_at = time.monotonic()
                if left_s <= -_ANSWER_S_MAX:
                    raise SourceUnavailable(self._silence(member))
                member.readable.wait(left_s if left_s > 0 else TICK_S)

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Let the offsets pass what is done. Of a partition that was lost since, nothing is noted.

        Whoever has that partition now is handed it again, and the database knows it.
        """
        member = self._member()
        with member.lock:
            for settlement in settlements:
                partition, offset, _ = _find(member, settlement.delivery)
                if partition is not None and partition.settle(offset):
                    metrics.settled.inc()
            member.readable.notify_all()

    def extend(self, deliveries: Sequence[Delivery]) -> None:
        """Do nothing: a partition is ours until the group takes it, and the poll thread answers the group."""

    def hold_for(self, deliveries: Sequence[Delivery], hold_s: int) -> None:
        """Do nothing: Kafka holds a partition for a member of the group, and no single message."""

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Let deliveries be handed over again, in the order of their partition."""
        member = self._member()
        with member.lock:
            for delivery in deliveries:
                partition, offset, hand_over = _find(member, delivery)
                if partition is not None:
                    partition.release(offset, hand_over)
            member.readable.notify_all()

    def depth(self) -> dict[str, int]:
        """Count what lies beyond the group's offsets: in_flight is held by us, visible is the rest."""
        lag = queue_depth(self._address)["visible"]
        member = self._member()
        with member.lock:
            in_flight = sum(len(partition.handed) for partition in member.partitions.values())
        return {"visible": max(0, lag - in_flight), "in_flight": in_flight}

    def close(self) -> None:
        """Write what is done and leave the group, so that others get our partitions at once."""
        with self._making:
            self._closed = True
            made = self._made
        if made is not None:
            made.close(_CLOSE_S)

    def _member(self) -> Member:
        with self._making:
            if self._made is None:
                if self._closed:
                    raise SourceUnavailable("Kafka is closed")
                self._made = self._make()
            _require_alive(self._made)
            return self._made

    def _take(self, member: Member, limit: int) -> list[Delivery]:
        taken: list[Delivery] = []
        for partition in list(member.partitions.values()):
            if len(taken) >= limit:
                break
            if not partition.ready:
                continue
            now = datetime.now(UTC)
            records = partition.take(limit - len(taken))
            taken += [self._delivery(partition, record, now) for record in records]
            # To the end, so that the others have their turn.
            member.partitions[partition.number] = member.partitions.pop(partition.number)
        if taken:
            member.room.notify_all()
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

    def _silence(self, member: Member) -> str:
        if not member.assigned:
            return (
                f"the group {self._address.group} has not given us partitions of {self._topic} yet; while it "
                "forms, or after a crash, a broker may take a session of VISIBILITY_TIMEOUT_S, or two"
            )
        return f"Kafka gives neither messages of {self._topic} nor its end"


def queue_depth(address: SourceAddress) -> dict[str, int]:
    """Count what lies beyond the group's offsets, held or not, as no member of the group."""
    try:
        with an_onlooker(address) as onlooker:
            return {"visible": sum(lag_of(onlooker, address.queue, _COUNT_S_MAX).values()), "in_flight": 0}
    except KafkaException as error:
        metrics.source_errors.labels(operation="count").inc()
        raise SourceUnavailable(f"Kafka can't be asked to count: {name_of(error)}") from error


def _require_alive(member: Member) -> None:
    if member.dead:
        # No outage, which would be waited for.
        raise RuntimeError("the thread that talks to Kafka has died of a bug")


def _find(member: Member, delivery: Delivery) -> tuple[Partition | None, int, int]:
    """Find what a receipt is of: partition, offset, hand-over; no partition if it was lost since."""
    try:
        generation, number, offset, hand_over = map(int, delivery.receipt.split("/"))
    except ValueError:
        return None, 0, 0
    partition = member.partitions.get(number)
    if partition is None or partition.generation != generation:
        return None, 0, 0
    return partition, offset, hand_over
