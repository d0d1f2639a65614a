"""A queue in memory that behaves like SQS: visibility timeouts, receive counts, at-least-once delivery."""

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from processor.model import Delivery, Settlement
from processor.wire.beside import from_outside
from processor.wire.formats import Attribute

_STEP_S = 0.01


@dataclass(slots=True)
class _Received:
    delivery_id: str
    body: bytes
    attributes: Mapping[str, Attribute]
    sent_at: datetime
    visible_at: float = 0.0
    receive_count: int = 0
    receipt: str = field(default="")


class MemorySource:
    """Holds messages until they are settled. `clock` returns seconds; tests step it."""

    call_size = 10

    def __init__(
        self,
        queue: str = "memory",
        *,
        visibility_timeout_s: float = 60,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.queue = queue
        self._visibility_timeout_s = visibility_timeout_s
        self._clock = clock
        self._messages: dict[str, _Received] = {}
        self._lock = threading.Lock()

    def send(self, body: bytes, attributes: Mapping[str, Attribute] | None = None) -> str:
        """Put a message on the queue and return its delivery id."""
        delivery_id = str(uuid.uuid4())
        with self._lock:
            self._messages[delivery_id] = _Received(
                delivery_id, body, from_outside(attributes or {}), datetime.now(UTC)
            )
        return delivery_id

    def receive(self, limit: int, wait_s: float) -> list[Delivery]:
        """Receive visible messages, oldest first."""
        give_up_at = time.monotonic() + wait_s
        while True:
            with self._lock:
                now = self._clock()
                deliveries = [self._hand_over(held, now) for held in self._ready(now)[:limit]]
            if deliveries or time.monotonic() >= give_up_at:
                return deliveries
            time.sleep(_STEP_S)

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Delete the messages."""
        with self._lock:
            for settlement in settlements:
                self._messages.pop(settlement.delivery.delivery_id, None)

    def extend(self, deliveries: Sequence[Delivery]) -> None:
        """Restart the visibility timeouts of deliveries whose receipt is still the newest."""
        self._show_at(deliveries, self._clock() + self._visibility_timeout_s)

    def hold_for(self, deliveries: Sequence[Delivery], hold_s: int) -> None:
        """Make messages visible in `hold_s` seconds, if the receipt is still the newest."""
        self._show_at(deliveries, self._clock() + hold_s)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Make messages visible now, if the receipt is still the newest."""
        self._show_at(deliveries, self._clock())

    def depth(self) -> dict[str, int]:
        """Count the messages of the queue by state."""
        with self._lock:
            now = self._clock()
            visible = sum(held.visible_at <= now for held in self._messages.values())
            return {"visible": visible, "in_flight": len(self._messages) - visible, "delayed": 0}

    def close(self) -> None:
        """Do nothing, as there is no connection."""

    def _ready(self, now: float) -> list[_Received]:
        return [held for held in self._messages.values() if held.visible_at <= now]

    def _hand_over(self, held: _Received, now: float) -> Delivery:
        held.receive_count += 1
        held.visible_at = now + self._visibility_timeout_s
        held.receipt = f"{held.delivery_id}#{held.receive_count}"
        return Delivery(
            queue=self.queue,
            delivery_id=held.delivery_id,
            body=held.body,
            receipt=held.receipt,
            receive_count=held.receive_count,
            sent_at=held.sent_at,
            received_at=datetime.now(UTC),
            attributes=held.attributes,
        )

    def _show_at(self, deliveries: Sequence[Delivery], visible_at: float) -> None:
        with self._lock:
            for delivery in deliveries:
                held = self._messages.get(delivery.delivery_id)
                if held is not None and held.receipt == delivery.receipt:
                    held.visible_at = visible_at
