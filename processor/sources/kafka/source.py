"""Consume one Kafka topic in a consumer group; offsets are committed only after the database has committed.

Member (poll thread) ─▶ Assignment ─▶ receive ─▶ … COMMIT … ─▶ settle ─▶ Member writes offsets
"""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Self

from confluent_kafka import KafkaException

from processor.brokers.kafka import an_onlooker, lag_of, name_of
from processor.brokers.source_url import SourceAddress
from processor.errors import SourceUnavailable
from processor.model import Delivery, Settlement
from processor.runtime import metrics
from processor.settings import PipelineSettings
from processor.sources.kafka.assignment import Assignment
from processor.sources.kafka.group_member import Member

SESSION_S_MIN = 6
"""The shortest session timeout that a Kafka broker accepts by default."""

_COUNT_S_MAX = 3.0
_CLOSE_S = 5.0
"""The time limit for leaving the group. Records with uncommitted offsets are redelivered and known then."""


class KafkaSource:
    """One topic, read as a member of a consumer group. A delivery's group is its partition.

    After `session_s` seconds without a heartbeat the group gives our partitions to other members. Credentials
    refused for long enough raise SourceFault, a topic missing for that long SettingsError; all other errors
    are SourceUnavailable.

    `call_size` is large, because a partition delivers nothing more until all its deliveries are settled.
    Without a committed offset, a partition is read from its first record. If that record was sent before the
    time that `forgotten_before` returns, its message may have been stored and deleted: SettingsError.
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
        call_size: int = 500,
    ) -> None:
        self.call_size = call_size
        self._address = address
        self._make: Callable[[], Member] = lambda: Member(
            address,
            Assignment(address, size_max=buffer_size_max, bytes_max=buffer_bytes_max, clock=clock),
            buffer_bytes_max=buffer_bytes_max,
            session_s=session_s,
            forgotten_before=forgotten_before,
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
        """Make a source from the settings. No call is made yet."""
        return cls(
            address,
            buffer_size_max=settings.buffer_size_max,
            buffer_bytes_max=settings.buffer_bytes_max,
            session_s=max(settings.visibility_timeout_s, SESSION_S_MIN),
            forgotten_before=forgotten_before,
            call_size=settings.batch_size_max,
        )

    def receive(self, limit: int, wait_s: float) -> list[Delivery]:
        """Return buffered records; a partition delivers again only when its last deliveries are settled.

        An empty list means that Kafka has reported the end of all partitions since the call began.
        """
        return self._member().assignment.receive(limit, wait_s)

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Advance the offsets past settled records. Records of lost partitions are ignored.

        The new owner of a lost partition receives them again and finds their outcome in the database.
        """
        metrics.settled.inc(
            self._member().assignment.settle(settlement.delivery for settlement in settlements)
        )

    def extend(self, deliveries: Sequence[Delivery]) -> None:
        """Do nothing: the poll thread keeps the group membership, and with it the partitions."""

    def hold_for(self, deliveries: Sequence[Delivery], hold_s: int) -> None:
        """Do nothing: Kafka assigns whole partitions and has no timeout of single messages."""

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Return deliveries to the buffer, in the order of their partition."""
        self._member().assignment.release(deliveries)

    def depth(self) -> dict[str, int]:
        """Count the lag of the group: in_flight are our deliveries, visible is the rest."""
        lag = queue_depth(self._address)["visible"]
        in_flight = self._member().assignment.in_flight
        return {"visible": max(0, lag - in_flight), "in_flight": in_flight}

    def close(self) -> None:
        """Commit offsets and leave the group, so that other members get our partitions at once."""
        with self._making:
            self._closed = True
            made = self._made
        if made is not None:
            made.close(_CLOSE_S)

    def _member(self) -> Member:
        """Return the member. The first call joins the group."""
        with self._making:
            if self._made is None:
                if self._closed:
                    raise SourceUnavailable("Kafka is closed")
                member = self._make()
                member.start()
                self._made = member
            self._made.assignment.require_alive()
            return self._made


def queue_depth(address: SourceAddress) -> dict[str, int]:
    """Return the lag of the group without joining it. Raises SourceUnavailable."""
    try:
        with an_onlooker(address) as onlooker:
            return {"visible": sum(lag_of(onlooker, address.queue, _COUNT_S_MAX).values()), "in_flight": 0}
    except KafkaException as error:
        metrics.source_errors.labels(operation="count").inc()
        raise SourceUnavailable(f"Kafka can't be asked to count: {name_of(error)}") from error
