"""From a delivery to an envelope, by what its queue is said to carry.

body, attributes ─▶ unwrap ─▶ routing key ─┬▶ wire.decode ───────────┬▶ Envelope | Malformed
                      │                    └▶ mapping.decode_mapped ─┘
                      └─ by the queue's rules: a body never says itself how it is to be read
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from processor.errors import Reason
from processor.mapping import decode_mapped
from processor.model import Delivery, QueueRules
from processor.routing_keys import RoutingKeys
from processor.strict_json import VALUES_MAX
from processor.unwrapping import Unwrapped, Unwrapper, eventbridge, refused, s3, sns
from processor.unwrapping.shapes import NO_TENANT, pointer_words, shape_words
from processor.wire import NOTHING_IMPLIED, Claimed, Envelope, Malformed, decode, read_body

UNWRAPPERS: Mapping[str, Unwrapper] = {
    "sns": sns.unwrap,
    "eventbridge": eventbridge.unwrap,
    "s3": s3.unwrap,
}
"""By what an operator says of a queue."""

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

    def json_of(self, body: bytes) -> Any:  # noqa: ANN401 - any JSON value
        """Give the value of a body as it came; None: it is no JSON within the limits, or null."""
        document = read_body(
            body,
            {},
            size_bytes_max=self.body_bytes_max,
            depth_max=self.json_depth_max,
            values_max=self.json_values_max,
        )
        return None if isinstance(document, Malformed) else document.value

    def _decode(
        self, delivery: Delivery, rules: QueueRules, implied: Mapping[str, str]
    ) -> Envelope | Malformed:
        body, attributes = delivery.body, delivery.attributes
        limits: dict[str, Any] = {
            "size_bytes_max": self.body_bytes_max,
            "depth_max": self.json_depth_max,
            "values_max": self.json_values_max,
        }
        inner = None if rules.unwrap in (None, "none") else _unwrap(delivery, rules, limits)
        if isinstance(inner, Malformed):
            return _explained(inner, body, limits)
        if inner is not None:
            body = inner.body
            attributes, implied = {**attributes, **inner.attributes}, {**implied, **inner.implied}
        # By today's setting, also where it is replayed: what is kept of a rejection is what came.
        key = attributes.get("routing_key") if delivery.queue == self.routed_queue else None
        if self.routing_keys is not None and key is not None:
            routed = self.routing_keys.apply(key, body, attributes)
            if isinstance(routed, Malformed):
                return routed
            body, attributes = routed
        if (pointer := pointer_words(body)) is not None:
            beside = {name: value for name, value in attributes.items() if isinstance(value, str)}
            return refused(pointer, Claimed(beside.get("tenant_id"), beside.get("event_type")))
        if rules.mapping is None:
            envelope = decode(body, attributes, implied=implied, **limits)
        else:
            envelope = decode_mapped(body, attributes, rules.mapping, implied=implied, **limits)
        if isinstance(envelope, Malformed):
            if inner is not None and "tenant_id" not in {**implied, **attributes}:
                envelope = _adding(envelope, NO_TENANT)
            return _explained(envelope, body, limits)
        return envelope if inner is None else _completed(envelope, inner, delivery.sent_at)


def _unwrap(delivery: Delivery, rules: QueueRules, limits: Mapping[str, Any]) -> Unwrapped | Malformed:
    document = read_body(delivery.body, delivery.attributes, **limits)
    if isinstance(document, Malformed):
        return document
    unwrapper = UNWRAPPERS.get(rules.unwrap or "")
    if unwrapper is None:
        return refused(f"nothing is known of unwrap {rules.unwrap!r}; expected {', '.join(UNWRAPPERS)}")
    typed = rules.event_type is not None or "event_type" in (rules.mapping or ())
    found = unwrapper(document, delivery.queue, typed=typed)
    if isinstance(found, Unwrapped):
        for name in found.attributes.keys() & delivery.attributes.keys():
            if found.attributes[name] != delivery.attributes[name]:
                return refused(f"the message attribute {name} stands beside the body and in it, and differs")
    return found


def _completed(envelope: Envelope, inner: Unwrapped, sent_at: datetime) -> Envelope:
    context = envelope.context or inner.context
    if envelope.context is not None and inner.context is not None:
        # Of a name that stands in it twice jsonb keeps the last: the event's own.
        context = f"{inner.context[:-1]}, {envelope.context[1:]}"
    earliest = sent_at if inner.sent_at is None else min(inner.sent_at, sent_at)
    return replace(envelope, context=context, sent_at=earliest)


def _explained(envelope: Malformed, body: bytes, limits: Mapping[str, Any]) -> Malformed:
    """Add what the body looks like, if it is another service's, and the setting that takes it."""
    if envelope.reason is not Reason.ENVELOPE_INVALID:
        return envelope
    # Read once more: only what is rejected pays for it.
    document = read_body(body, {}, **limits)
    words = None if isinstance(document, Malformed) else shape_words(document.value)
    return envelope if words is None else _adding(envelope, words)


def _adding(envelope: Malformed, words: str) -> Malformed:
    """Put words in front, since a rejection cuts long texts at their end."""
    if words in envelope.detail["message"]:
        return envelope
    detail = {**envelope.detail, "message": f"{words}; {envelope.detail['message']}"}
    return Malformed(envelope.reason, detail, envelope.claimed)
