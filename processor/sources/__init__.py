"""Sources of deliveries, all under one protocol: SQS, RabbitMQ, Kafka, memory and stored rejections."""

from collections.abc import Sequence
from typing import Protocol

from processor.model import Delivery, Settlement


class Source(Protocol):
    """A queue that hands messages over, and forgets one only when told that its outcome is committed.

    An outage is raised as SourceUnavailable, never shown as an empty list. All methods may be called from
    several threads at once.
    """

    @property
    def call_size(self) -> int:
        """How many deliveries one call to the queue takes: as many are best received and settled together."""

    def receive(self, limit: int, wait_s: float) -> list[Delivery]:
        """Take up to `limit` deliveries, waiting up to `wait_s` for the first. They are ours for a while."""

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Make the queue forget deliveries whose outcome is committed. Settling twice is harmless."""

    def extend(self, deliveries: Sequence[Delivery]) -> None:
        """Keep deliveries ours for another full visibility timeout; skip those that are lost already."""

    def hold_for(self, deliveries: Sequence[Delivery], hold_s: int) -> None:
        """Keep deliveries ours for `hold_s` from now on and no longer, unless they are extended."""

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give deliveries back, to be handed over again at once."""


class RunningSource(Source, Protocol):
    """A source that the processor runs on all day: it can say how deep it is, and be closed at the end."""

    def depth(self) -> dict[str, int]:
        """Count what the queue still has, by state: visible and in_flight at least (Kafka: the lag)."""

    def close(self) -> None:
        """Let go of the broker; what was not settled is handed over again. Safe to call more than once."""
