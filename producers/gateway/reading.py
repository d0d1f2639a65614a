"""Parses a received item into the message that is sent: the event as `writing` writes it, with its trace.

    Item ─▶ wire.decode ─▶ Envelope ─▶ writing ─▶ body + traceparent ─▶ Outgoing
              └─ Malformed ─▶ Refusal ◀─┘

An event that the processor would reject for its form is refused here, before it reaches the queue.
"""

import re
import uuid
from collections.abc import Mapping
from hashlib import sha256
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any

from msgspec import Struct, structs
from msgspec.structs import replace
from pydantic import TypeAdapter, ValidationError

from processor.decoding.unpacking import BEFORE_JSON, unpack
from processor.errors import Reason
from processor.wire.beside import from_outside
from processor.wire.formats import (
    FORMATS,
    NOTHING_IMPLIED,
    TRACE_NAMES,
    Attribute,
    Claimed,
    Envelope,
    Identifier,
    Malformed,
    decode,
)
from processor.wire.strict_json import JsonFault, check_limits, read
from producers.gateway.items import Caller, Item, Refusal, Why
from producers.gateway.writing import NATIVE, native, otherwise
from producers.publishers.outgoing import Outgoing
from producers.publishers.publish import BATCH_BYTES_MAX

_MALFORMED = {Reason.NOT_UTF8: Why.MALFORMED, Reason.NOT_JSON: Why.MALFORMED, Reason.TOO_LARGE: Why.TOO_LARGE}
_IDENTIFIER: TypeAdapter[str] = TypeAdapter(Identifier)

_TRACES = {
    "traceparent": re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{1,200})?"),
    "tracestate": re.compile(r"[ -~]{1,512}"),
}
"""The syntax of W3C Trace Context. Malformed values are ignored, as the standard requires."""


class ReadEvent(Struct, frozen=True, gc=False):
    """One event to send: its message, and the facts for the reply to its sender."""

    outgoing: Outgoing
    size_bytes: int
    tenant_id: str
    message_id: str
    made_id: bool


class EventReader:
    """Parses items, within the same limits as the processor behind the queue."""

    def __init__(self, *, body_bytes_max: int, depth_max: int, values_max: int, fifo: bool) -> None:
        self._body_bytes_max = min(body_bytes_max, BATCH_BYTES_MAX)
        self._depth_max = depth_max
        self._values_max = values_max
        self._fifo = fifo

    def read(self, item: Item, caller: Caller, trace: Mapping[str, str]) -> ReadEvent | Refusal:
        """Parse one item; `trace` is the result of `trace_of` for its caller."""
        found = self._found(item, caller.tenant_id)
        if isinstance(found, Malformed):
            return _refusal(found)
        found = caller.rights.complete(found)
        if refusal := _not_the_keys(found, caller):
            return refusal
        if item.event_type is not None and found.event_type != item.event_type:
            return _another_type(found.event_type, item.event_type)
        message_id, made_id = found.message_id, False
        if (key := item.message_id) is not None:
            if fault := _id_fault(key):
                return fault
            if message_id is None:
                message_id = key
            elif message_id != key:
                found = _with_key(found, key)
        elif message_id is None:
            message_id, made_id = str(uuid.uuid4()), True
        body = native(found, message_id) or self._otherwise(found, message_id)
        if body is None:
            return _name_taken(found)
        return self._event(body, found, message_id, trace, made_id=made_id)

    def _otherwise(self, envelope: Envelope, message_id: str) -> str | None:
        """Write the event in a form other than native, if the processor reads the same event from it."""
        body = otherwise(envelope, message_id)
        if body is None:
            return None
        found = self._decode(body.encode())
        # Compared by parts, as white space may differ. Exceeded limits are reported later.
        return body if isinstance(found, Malformed) or _parts(found) == _parts(envelope) else None

    def _event(
        self, body: str, envelope: Envelope, message_id: str, trace: Mapping[str, str], *, made_id: bool
    ) -> ReadEvent | Refusal:
        outgoing = Outgoing(
            body,
            attributes=trace,
            group=envelope.tenant_id,
            # A digest of the whole body, not of the id: an event with a used id and other content must reach
            # the database, which reports the conflict.
            deduplication_id=sha256(body.encode()).hexdigest() if self._fifo else "",
        )
        size_bytes = outgoing.size_bytes()
        if size_bytes > self._body_bytes_max:
            return Refusal(
                Why.TOO_LARGE,
                f"with its envelope it has {size_bytes} bytes; at most {self._body_bytes_max} are taken",
            )
        try:
            # The envelope adds one level and a few values, which matters to a body at the limits.
            check_limits(body, self._depth_max, self._values_max)
        except JsonFault as fault:
            return Refusal(Why.MALFORMED, f"the body is invalid JSON: {fault}")
        return ReadEvent(outgoing, size_bytes, envelope.tenant_id, message_id, made_id)

    def _found(self, item: Item, tenant_id: str | None) -> Envelope | Malformed:
        """Parse an item; an event that names no tenant belongs to `tenant_id`."""
        body = item.body
        attributes: Mapping[str, Attribute] = item.attributes
        beside_bytes = sum(map(len, attributes)) + sum(map(len, attributes.values()))
        if beside_bytes > self._body_bytes_max:
            words = f"{beside_bytes} bytes stand beside the body; at most {self._body_bytes_max} are taken"
            return Malformed(Reason.TOO_LARGE, {"message": words}, Claimed())
        if attributes or body.startswith(BEFORE_JSON):
            # A sender can't use the names that our sources add: they have a special meaning.
            unpacked = unpack(body, from_outside(attributes), self._body_bytes_max)
            if isinstance(unpacked, Malformed):
                return unpacked
            body, beside = unpacked
            # An empty tenant is a missing tenant: protobuf can't tell the two apart.
            attributes = {
                name: value
                for name, value in beside.items()
                if name != "tenant_id" or value or tenant_id is None
            }
        found = self._decode(body, attributes)
        if tenant_id is None or isinstance(found, Envelope) or found.reason is not Reason.ENVELOPE_INVALID:
            return found
        # Only in a second pass: nearly every event names its tenant, and an implied one doubles the cost.
        return self._decode(body, attributes, {"tenant_id": tenant_id})

    def _decode(
        self,
        body: bytes,
        attributes: Mapping[str, Attribute] = NOTHING_IMPLIED,
        implied: Mapping[str, str] = NOTHING_IMPLIED,
    ) -> Envelope | Malformed:
        return decode(
            body,
            attributes,
            implied=implied,
            size_bytes_max=self._body_bytes_max,
            depth_max=self._depth_max,
            values_max=self._values_max,
        )


def trace_of(caller: Caller) -> dict[str, str]:
    """Return the caller's trace headers that are well formed."""
    found = {}
    for name in TRACE_NAMES:
        value = caller.trace.get(name)
        if value is not None and _TRACES[name].fullmatch(value):
            found[name] = value
    return found


def _with_key(envelope: Envelope, key: str) -> Envelope:
    """Put an idempotency key that differs from the event's id into the context, unless the name is taken."""
    named = f'{{"idempotency_key": {_quoted(key)}'
    if envelope.context is None:
        return replace(envelope, context=named + "}")
    if "idempotency_key" in _members(envelope):
        return envelope
    return replace(envelope, context=f"{named}, {envelope.context[1:]}")


def _parts(envelope: Envelope) -> tuple[Any, ...]:
    return (structs.asdict(replace(envelope, message_id=None, payload="", context=None)), _members(envelope))


# The configured limits were applied to these texts when they were received.
_CONTEXT_DEPTH_MAX = 1000
_CONTEXT_VALUES_MAX = 2 * BATCH_BYTES_MAX


def _members(envelope: Envelope) -> Mapping[str, Any]:
    found: Mapping[str, Any] = read(envelope.context or "{}", _CONTEXT_DEPTH_MAX, _CONTEXT_VALUES_MAX).value
    return found


def _not_the_keys(envelope: Envelope, caller: Caller) -> Refusal | None:
    """Refuse an event that the caller's key may not send. Checked last, on the final event."""
    if caller.tenant_id is not None and envelope.tenant_id != caller.tenant_id:
        return Refusal(
            Why.FORBIDDEN, "the event names another tenant than the key's; a key sends only as its own"
        )
    denied = caller.rights.denial(envelope, caller.ground)
    if denied is None:
        return None
    words = (
        f"{denied.message}; a key stays what it is, so ask for another: "
        f"processor key add {envelope.tenant_id} {denied.option}"
    )
    error = {"pointer": denied.pointer, "rule": denied.right, "message": words}
    return Refusal(Why.FORBIDDEN, words, (error,))


def _another_type(event_type: str, expected: str) -> Refusal:
    words = (
        f"event_type: expected {expected!r}, as this path takes no other; saw {event_type[:64]!r}; "
        "send it to /v1/events"
    )
    return Refusal(Why.INVALID, words, ({"pointer": "/event_type", "rule": "event_type", "message": words},))


def _name_taken(envelope: Envelope) -> Refusal:
    names = sorted(NATIVE & _members(envelope).keys())
    message = "a name that means something else in a native event, which is what the gateway passes on"
    errors = tuple({"pointer": f"/{name}", "rule": "name_taken", "message": message} for name in names)
    return Refusal(
        Why.INVALID, f"{', '.join(names)}: {message}; give it another name, or name the producer", errors
    )


def _id_fault(message_id: str) -> Refusal | None:
    try:
        _IDENTIFIER.validate_python(message_id)
    except ValidationError as error:
        message = error.errors(include_url=False, include_context=False, include_input=False)[0]["msg"]
        words = f"the idempotency key is not a valid message id: {message.removeprefix('Value error, ')}"
        return Refusal(Why.INVALID, words, ({"pointer": "", "rule": "idempotency_key", "message": words},))
    return None


def _refusal(fault: Malformed) -> Refusal:
    words = str(fault.detail["message"])
    why = _MALFORMED.get(fault.reason)
    if why is None and words.endswith(FORMATS):
        why = Why.MALFORMED
    if why is not None:
        return Refusal(why, words)
    errors = fault.detail.get("errors")
    if errors is None:
        field = re.match(r"(\w+): ", words)
        errors = [{"pointer": f"/{field[1]}" if field else "", "rule": "format", "message": words}]
    return Refusal(Why.INVALID, words, tuple(errors))
