"""From a delivery to an envelope, by what its queue is said to carry.

body, attributes ─▶ unpack ─▶ unwrap (sns) ─▶ unpack ─▶ routing key ─▶ wire.decode ─▶ Envelope | Malformed
                                 └─ by the queue's rules: a body never says itself how it is to be read
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from processor.beside import ROUTING_KEY, from_outside
from processor.errors import Reason
from processor.model import Delivery, QueueRules
from processor.routing_keys import RoutingKeys
from processor.sns import unwrap
from processor.strict_json import VALUES_MAX
from processor.unpacking import BEFORE_JSON, unpack
from processor.wire import NOTHING_IMPLIED, Claimed, Envelope, Malformed, decode, derived_id

NO_RULES = QueueRules()
"""Of a queue of which nothing is said."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """Reads deliveries within limits. What comes from `routed_queue` is read with `routing_keys`."""

    body_bytes_max: int
    json_depth_max: int
    json_values_max: int = VALUES_MAX
    routing_keys: RoutingKeys | None = None
    routed_queue: str | None = None

    def read(
        self, delivery: Delivery, rules: QueueRules, tenant_id: str | None = None
    ) -> Envelope | Malformed:
        """Read one delivery by the rules of its queue. Never raises for its content.

        `tenant_id` is the one that it can be from by the way it came, where it names none; None: there are
        more, or none.
        """
        implied = NOTHING_IMPLIED
        if tenant_id is not None or rules.event_type is not None:
            named = (("tenant_id", tenant_id), ("event_type", rules.event_type))
            implied = {name: value for name, value in named if value is not None}
        found = self._decode(delivery, rules, implied)
        if delivery.fault is None:
            return found
        # What could not be read may have named the event, or is its context: nothing is stored without it.
        detail = {"message": delivery.fault, "fault": delivery.fault}
        claimed = (
            found.claimed
            if isinstance(found, Malformed)
            else Claimed(found.tenant_id, found.event_type, found.message_id, found.producer)
        )
        return Malformed(Reason.ENVELOPE_INVALID, detail, claimed)

    def _decode(
        self, delivery: Delivery, rules: QueueRules, implied: Mapping[str, str]
    ) -> Envelope | Malformed:
        body, attributes, wrapped_id = delivery.body, delivery.attributes, None
        if attributes or body.startswith(BEFORE_JSON):
            unpacked = unpack(body, attributes, self.body_bytes_max)
            if isinstance(unpacked, Malformed):
                return unpacked
            body, attributes = unpacked
        limits: dict[str, Any] = {
            "size_bytes_max": self.body_bytes_max,
            "depth_max": self.json_depth_max,
            "values_max": self.json_values_max,
        }
        if rules.unwrap == "sns":
            notification = unwrap(body, **limits)
            if isinstance(notification, Malformed):
                return notification
            wrapped_id = notification.message_id
            unpacked = unpack(notification.body, from_outside(notification.attributes), self.body_bytes_max)
            if isinstance(unpacked, Malformed):
                return unpacked
            body, attributes = unpacked
        # By today's setting, also where it is replayed: what is kept of a rejection is what came.
        key = delivery.attributes.get(ROUTING_KEY) if delivery.queue == self.routed_queue else None
        if self.routing_keys is not None and key is not None:
            routed = self.routing_keys.apply(key, body, attributes)
            if isinstance(routed, Malformed):
                return routed
            body, attributes = routed
        envelope = decode(body, attributes, implied=implied, **limits)
        if wrapped_id is None or isinstance(envelope, Malformed) or envelope.message_id is not None:
            return envelope
        # SNS may put one message on the queue twice, under two delivery ids; its own stays the same.
        return replace(envelope, message_id=derived_id(delivery.queue, wrapped_id))
