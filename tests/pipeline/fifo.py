"""A FIFO queue in memory that hands over, takes back and forgets as SQS does, group by group."""

from collections.abc import Sequence

from msgspec.structs import replace

from processor.model import Delivery, Settlement
from processor.sources.memory import MemorySource, _Received
from tests.builders import a_body


class FifoSource(MemorySource):
    """Of each group it hands over what comes before the first that is in flight.

    Like AWS it takes a receipt for outdated once its visibility timeout has run out. It forgets to extend
    what is of a group in `deaf`.
    """

    def __init__(self, *, visibility_timeout_s: float = 60) -> None:
        super().__init__("events.fifo", visibility_timeout_s=visibility_timeout_s)
        self.groups: dict[str, str] = {}
        self.deaf: set[str] = set()

    def post(self, group: str, size_bytes: int = 0) -> str:
        with self._lock:
            delivery_id = f"{group}-{len(self._messages):04d}"
            self.groups[delivery_id] = group
        body = a_body(id=delivery_id, payload={"total": 1, "note": "x" * size_bytes})
        sent = self.send(body)
        with self._lock:
            held = self._messages.pop(sent)
            held.delivery_id = delivery_id
            self._messages[delivery_id] = held
        return delivery_id

    def _ready(self, now: float) -> list[_Received]:
        ready, blocked = [], set()
        for held in self._messages.values():
            group = self.groups[held.delivery_id]
            if held.visible_at > now:
                blocked.add(group)
            elif group not in blocked:
                ready.append(held)
        return ready

    def _hand_over(self, held: _Received, now: float) -> Delivery:
        return replace(super()._hand_over(held, now), group=self.groups[held.delivery_id])

    def settle(self, settlements: Sequence[Settlement]) -> None:
        with self._lock:
            now = self._clock()
            for delivery in (settlement.delivery for settlement in settlements):
                held = self._messages.get(delivery.delivery_id)
                if held is not None and held.receipt == delivery.receipt and held.visible_at > now:
                    del self._messages[delivery.delivery_id]

    def extend(self, deliveries: Sequence[Delivery]) -> None:
        super().extend([delivery for delivery in deliveries if delivery.group not in self.deaf])
