"""Kafka: one topic of a consumer group, whose offsets pass only what is committed in the database.

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
"""The shortest session that a broker of Kafka takes unless it is told otherwise."""

_COUNT_S_MAX = 3.0
_CLOSE_S = 5.0
"""For how long a group is waited for that is left; what it was not told comes again, and is known."""


class KafkaSource:
    """One topic, read as a member of a consumer group. A delivery's group is its partition.

    A session of `session_s` without a word from us makes the group give our partitions to others. Credentials
    that are refused for long enough raise SourceFault, a topic that is missing for as long SettingsError; all
    else that goes wrong is SourceUnavailable.

    `call_size` is large: of a partition nothing more comes until all that came is settled.
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
        """Take the settings. Nothing is called yet."""
        return cls(
            address,
            buffer_size_max=settings.buffer_size_max,
            buffer_bytes_max=settings.buffer_bytes_max,
            session_s=max(settings.visibility_timeout_s, SESSION_S_MIN),
            forgotten_before=forgotten_before,
            call_size=settings.batch_size_max,
        )

    def receive(self, limit: int, wait_s: float) -> list[Delivery]:
        """Hand over what is buffered; of a partition only once all that was handed over of it is settled.

        An empty list means that Kafka has said since the call began that there is nothing.
        """
        return self._member().assignment.receive(limit, wait_s)

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Let the offsets pass what is done. Of a partition that was lost since, nothing is noted.

        Whoever has that partition now is handed it again, and the database knows it.
        """
        metrics.settled.inc(
            self._member().assignment.settle(settlement.delivery for settlement in settlements)
        )

    def extend(self, deliveries: Sequence[Delivery]) -> None:
        """Do nothing: a partition is ours until the group takes it, and the poll thread answers the group."""

    def hold_for(self, deliveries: Sequence[Delivery], hold_s: int) -> None:
        """Do nothing: Kafka holds a partition for a member of the group, and no single message."""

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Let deliveries be handed over again, in the order of their partition."""
        self._member().assignment.release(deliveries)

    def depth(self) -> dict[str, int]:
        """Count what lies beyond the group's offsets: in_flight is held by us, visible is the rest."""
        lag = queue_depth(self._address)["visible"]
        in_flight = self._member().assignment.in_flight
        return {"visible": max(0, lag - in_flight), "in_flight": in_flight}

    def close(self) -> None:
        """Write what is done and leave the group, so that others get our partitions at once."""
        with self._making:
            self._closed = True
            made = self._made
        if made is not None:
            made.close(_CLOSE_S)

    def _member(self) -> Member:
        """Give the member; the first call joins the group."""
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
    """Count what lies beyond the group's offsets, held or not, as no member of the group."""
    try:
        with an_onlooker(address) as onlooker:
            return {"visible": sum(lag_of(onlooker, address.queue, _COUNT_S_MAX).values()), "in_flight": 0}
    except KafkaException as error:
        metrics.source_errors.labels(operation="count").inc()
        raise SourceUnavailable(f"Kafka can't be asked to count: {name_of(error)}") from error
