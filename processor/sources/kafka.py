"""Kafka: not there yet."""

from collections.abc import Sequence
from typing import Self

from processor.addresses import SourceAddress
from processor.errors import SettingsError
from processor.model import Delivery, Settlement
from processor.settings import Settings


class KafkaSource:
    """One queue of Kafka."""

    @classmethod
    def open(cls, settings: Settings, address: SourceAddress) -> Self:  # noqa: ARG003
        """Take the settings. Nothing is called yet."""
        raise SettingsError("not there yet")

    def receive(self, limit: int, wait_s: float) -> list[Delivery]:
        """Take what has come."""
        raise NotImplementedError

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Acknowledge."""

    def extend(self, deliveries: Sequence[Delivery]) -> None:
        """Nothing ends by itself here."""

    def hold_for(self, deliveries: Sequence[Delivery], hold_s: int) -> None:
        """Nothing ends by itself here."""

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give back."""

    def depth(self) -> dict[str, int]:
        """Count."""
        return {}

    def close(self) -> None:
        """Close."""
