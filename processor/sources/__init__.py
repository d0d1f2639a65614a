"""Sources of deliveries, all under one protocol: SQS, RabbitMQ, Kafka, memory and stored rejections."""

from collections.abc import Sequence
from typing import Protocol

from processor.model import Delivery, Settlement


class Source(Protocol):
    """A queue that delivers messages, and deletes a message only when it is settled.

    An outage is raised as SourceUnavailable, never returned as an empty list. All methods are thread-safe.
    """

    @property
    def call_size(self) -> int:
        """The number of deliveries in one call to the queue, which is best for receiving and settling."""

    def receive(self, limit: int, wait_s: float) -> list[Delivery]:
        """Receive up to `limit` deliveries, waiting up to `wait_s` seconds for the first.

        They are hidden from other consumers for the visibility timeout.
        """

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Acknowledge deliveries whose outcome is committed. Settling twice is harmless."""

    def extend(self, deliveries: Sequence[Delivery]) -> None:
        """Extend deliveries by another full visibility timeout; skip those that are lost already."""

    def hold_for(self, deliveries: Sequence[Delivery], hold_s: int) -> None:
        """Set the visibility timeout of deliveries to `hold_s` seconds from now."""

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Return deliveries to the queue, for immediate redelivery."""


class RunningSource(Source, Protocol):
    """A source of a long run: its messages can be counted, and it can be closed."""

    def depth(self) -> dict[str, int]:
        """Count the messages of the queue by state: visible and in_flight at least (Kafka: the lag)."""

    def close(self) -> None:
        """Close the connection; unsettled deliveries are redelivered. Safe to call more than once."""
