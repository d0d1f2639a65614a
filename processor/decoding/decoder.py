"""Decodes a delivery into an envelope, by the rules of its queue.

body, attributes ─▶ unpack ─▶ unwrap ─▶ routing key ─┬▶ wire.decode ───────────┬▶ Envelope | Malformed
                                  │                   └▶ mapping.decode_mapped ─┘
                                  └─ by the queue's rules: a body never decides how it is decoded
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypeAlias

from msgspec.structs import replace

from processor.decoding.mapping import decode_mapped
from processor.decoding.unpacking import BEFORE_JSON, unpack
from processor.decoding.unwrapping import Unwrapped, Unwrapper, eventbridge, refused, s3, sns
from processor.decoding.unwrapping.shapes import NO_TENANT, pointer_words, shape_words
from processor.errors import Reason
from processor.model import Delivery, QueueRules
from processor.wire.beside import ROUTING_KEY, Attribute, Beside, free_name
from processor.wire.envelope import claimed_of, object_text
from processor.wire.formats import NOTHING_IMPLIED, Claimed, Envelope, Foreign, Malformed, decode, read_body
from processor.wire.strict_json import VALUES_MAX, read

UNWRAPPERS: Mapping[str, Unwrapper] = {
    "sns": sns.unwrap,
    "eventbridge": eventbridge.unwrap,
    "s3": s3.unwrap,
}
"""The unwrappers, by their name in the rules."""

_FOREIGN: Mapping[str | None, Foreign] = {None: shape_words, "sns": partial(shape_words, around="sns")}
"""The check for bodies in no known format, by the wrapper that was removed."""

_Opened: TypeAlias = tuple[bytes, Mapping[str, Attribute], Unwrapped | None]

NO_RULES = QueueRules()
"""The rules of a queue without rules."""


class RoutingKeyReader(Protocol):
    """Completes events by a broker's routing keys."""

    def apply(
        self, key: Attribute, body: bytes, attributes: Mapping[str, Attribute]
    ) -> tuple[bytes, Mapping[str, Attribute]] | Malformed:
        """Return the body and the attributes, completed by the routing key."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """Decodes deliveries within limits. `routing_keys` apply to deliveries of `routed_queue`."""

    body_bytes_max: int
    json_depth_max: int
    json_values_max: int = VALUES_MAX
    routing_keys: RoutingKeyReader | None = None
    routed_queue: str | None = None

    def read(
        self, delivery: Delivery, rules: QueueRules, tenant_id: str | None = None
    ) -> Envelope | Malformed:
        """Decode a delivery by the rules of its queue. Never raises for its content.

        `tenant_id` is the tenant that its origin proves, used if the delivery names none; None: several, or
        none.
        """
        implied = NOTHING_IMPLIED
        if tenant_id is not None or rules.event_type is not None:
            named = (("tenant_id", tenant_id), ("event_type", rules.event_type))
            implied = {name: value for name, value in named if value is not None}
        found = self._decode(delivery, rules, implied)
        if delivery.fault is None:
            return found
        # The unreadable part may name the event, or be its context: the event is not stored without it.
        detail = {"message": delivery.fault, "fault": delivery.fault}
        claimed = (
            found.claimed
            if isinstance(found, Malformed)
            else Claimed(found.tenant_id, found.event_type, found.message_id, found.producer)
        )
        return Malformed(Reason.ENVELOPE_INVALID, detail, claimed)

    def json_of(self, body: bytes) -> Any:  # noqa: ANN401 - any JSON value
        """Parse a body as received; None: invalid JSON, beyond the limits, or null."""
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
        opened = self._open(delivery, rules)
        if isinstance(opened, Malformed):
            return opened
        body, attributes, inner = opened
        if inner is not None:
            implied = {**implied, **inner.implied}
        if rules.mapping is None:
            envelope = decode(
                body,
                attributes,
                implied=implied,
                foreign=_FOREIGN.get(rules.unwrap),
                size_bytes_max=self.body_bytes_max,
                depth_max=self.json_depth_max,
                values_max=self.json_values_max,
            )
        else:
            envelope = decode_mapped(body, attributes, rules.mapping, implied=implied, **self._limits)
        if inner is None:
            return envelope
        if isinstance(envelope, Malformed):
            # SNS publishers may name the tenant as an attribute; the other services have no such place.
            return envelope if rules.unwrap == "sns" else _without_tenant(envelope, {**implied, **attributes})
        return _completed(envelope, inner, delivery.sent_at)

    @property
    def _limits(self) -> dict[str, Any]:
        return {
            "size_bytes_max": self.body_bytes_max,
            "depth_max": self.json_depth_max,
            "values_max": self.json_values_max,
        }

    def _open(self, delivery: Delivery, rules: QueueRules) -> _Opened | Malformed:
        """Return the body of the event, its attributes, and what their wrappers said."""
        body, attributes, inner = delivery.body, delivery.attributes, None
        if attributes or body.startswith(BEFORE_JSON):
            unpacked = unpack(body, attributes, self.body_bytes_max)
            if isinstance(unpacked, Malformed):
                return unpacked
            body, attributes = unpacked
        for name in () if rules.unwrap is None or rules.unwrap == "none" else rules.unwrap.split(","):
            wrapped = _unwrap(body, attributes, delivery.queue, name, rules, self._limits)
            if isinstance(wrapped, Malformed):
                return wrapped
            inner = wrapped if inner is None else _merged(inner, wrapped)
            unpacked = unpack(wrapped.body, wrapped.attributes, self.body_bytes_max)
            if isinstance(unpacked, Malformed):
                return unpacked
            body, attributes = unpacked[0], {**attributes, **unpacked[1]}
        # By the current setting, also in a replay: a rejection keeps the delivery as received.
        if (
            self.routing_keys is not None
            and delivery.queue == self.routed_queue
            and (key := delivery.attributes.get(ROUTING_KEY)) is not None
        ):
            routed = self.routing_keys.apply(key, body, attributes)
            if isinstance(routed, Malformed):
                return routed
            body, attributes = routed
        if (words := pointer_words(body)) is not None:
            return refused(words, claimed_of(None, Beside(attributes)))
        return body, attributes, inner


def _unwrap(
    body: bytes,
    attributes: Mapping[str, Attribute],
    queue: str,
    name: str,
    rules: QueueRules,
    limits: Mapping[str, Any],
) -> Unwrapped | Malformed:
    document = read_body(body, attributes, **limits)
    if isinstance(document, Malformed):
        return document
    unwrapper = UNWRAPPERS.get(name)
    if unwrapper is None:
        return refused(f"unknown value of unwrap: {name!r}; expected {', '.join(UNWRAPPERS)}")
    typed = rules.event_type is not None or "event_type" in (rules.mapping or ())
    found = unwrapper(document, queue, typed=typed)
    if isinstance(found, Malformed):
        words = shape_words(document.value)
        if words is None or f"UNWRAP={name} " in words or words in found.detail["message"]:
            return found
        # The detected format says more than the missing one.
        return _with_message(found, f"{words}; {found.detail['message']}")
    for each in found.attributes.keys() & attributes.keys():
        if found.attributes[each] != attributes[each]:
            return refused(f"the message attribute {each} differs from the one in the body")
    return found


def _merged(outer: Unwrapped, inner: Unwrapped) -> Unwrapped:
    """Merge the values of an outer wrapper into those of an inner one, which take precedence."""
    return replace(
        inner,
        implied={**outer.implied, **inner.implied},
        context=inner.context or outer.context,
        sent_at=inner.sent_at or outer.sent_at,
    )


def _completed(envelope: Envelope, inner: Unwrapped, sent_at: datetime) -> Envelope:
    earliest = sent_at if inner.sent_at is None else min(inner.sent_at, sent_at)
    return replace(envelope, context=_merged_contexts(envelope.context, inner.context), sent_at=earliest)


def _merged_contexts(own: str | None, around: str | None) -> str | None:
    """Merge the contexts of an event and its wrapper; if two values of a name differ, both stay."""
    if own is None or around is None:
        return own or around
    # Both were within the limits of a body.
    texts, others = (dict(read(text, len(text), len(text)).member_texts) for text in (own, around))
    for name, text in others.items():
        if texts.setdefault(name, text) != text:
            texts[free_name(name, texts.keys() | others.keys())] = text
    return object_text(texts)


def _without_tenant(envelope: Malformed, known: Mapping[str, object]) -> Malformed:
    """Put the missing tenant first in the message, if that is the fault."""
    if envelope.reason is not Reason.ENVELOPE_INVALID or envelope.claimed.tenant_id or "tenant_id" in known:
        return envelope
    # First, because a rejection cuts long messages at the end.
    return _with_message(envelope, f"{NO_TENANT}; {envelope.detail['message']}")


def _with_message(fault: Malformed, message: str) -> Malformed:
    return Malformed(fault.reason, {**fault.detail, "message": message}, fault.claimed)
