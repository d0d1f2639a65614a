"""Decodes a body and its attributes into an envelope, or into the reason of a rejection.

    body, attributes ─▶ 1. CloudEvents 1.0 (specversion in the body or an attribute)
                        2. native (event_type and payload)
                        3. the bare pulse (product_sku and used_amount)
                        4. attributes tenant_id and event_type: the body is the payload
                     ─▶ Envelope | Malformed

Formats are recognized in this order, and a recognized format is final. Attributes complete an envelope in the
body, and must agree with it. Values implied by the origin come last. A null field counts as missing.
"""

from collections.abc import Callable, Mapping
from hashlib import sha256
from json.encoder import encode_basestring_ascii as quoted
from types import MappingProxyType
from typing import Any, TypeAlias

from processor.errors import Reason
from processor.wire import cloudevents
from processor.wire.beside import NAMES, NOTHING_BESIDE, Attribute, Beside, binary_name
from processor.wire.envelope import (
    ERRORS_MAX,
    IDENTIFIER_LENGTH_MAX,
    AttributeFields,
    Claimed,
    Envelope,
    EnvelopeFormat,
    Fields,
    Identifier,
    Malformed,
    claimed_of,
    invalid,
    make,
    object_text,
)
from processor.wire.json_pointer import pointer
from processor.wire.strict_json import VALUES_MAX, Document, JsonFault, read

__all__ = [
    "ERRORS_MAX",
    "FORMATS",
    "IDENTIFIER_LENGTH_MAX",
    "NOTHING_IMPLIED",
    "PULSE",
    "TRACE_NAMES",
    "Attribute",
    "Claimed",
    "Envelope",
    "Identifier",
    "Malformed",
    "binary_fault",
    "decode",
    "derived_id",
    "pointer",
    "read_body",
]

PULSE = "pulse"
"""The event type of a bare pulse."""

TRACE_NAMES = ("traceparent", "tracestate")
"""Message attributes of W3C Trace Context."""

NOTHING_IMPLIED: Mapping[str, str] = MappingProxyType({})

FORMATS = (
    "expected attributes tenant_id and event_type, or CloudEvents 1.0 (specversion), "
    "or native (event_type, payload), or a pulse (tenant_id or tenant, product_sku, used_amount, "
    "use_unity or use_unit)"
)

Foreign: TypeAlias = Callable[[Any, bool], str | None]
"""Returns which service a body belongs to, and the setting for it; true: it would be a payload."""

_WHITESPACE = " \t\r\n"


def derived_id(queue: str, name: str) -> str:
    """Derive an id for a message without one, from its queue and a unique name in that queue.

    `name` stays the end of the id if there is room for it after a digest of the queue's name.
    """
    for identifier in (f"{queue}/{name}", f"{sha256(queue.encode()).hexdigest()[:16]}/{name}"):
        if len(identifier) <= IDENTIFIER_LENGTH_MAX:
            return identifier
    return sha256(f"{queue}/{name}".encode()).hexdigest()


def decode(
    body: bytes,
    attributes: Mapping[str, Attribute],
    *,
    implied: Mapping[str, str] = NOTHING_IMPLIED,
    foreign: Foreign | None = None,
    size_bytes_max: int,
    depth_max: int,
    values_max: int = VALUES_MAX,
) -> Envelope | Malformed:
    """Decode a message. Never raises, whatever the bytes are.

    `implied` has the tenant_id and the event_type of the origin, for missing fields. Another event type is
    `envelope_invalid`; the caller checks the tenant. `foreign` is called for a body in no known format.
    """
    if attributes and not body.strip() and cloudevents.is_binary(attributes):
        document: Document | Malformed = cloudevents.NO_DATA
    else:
        document = read_body(
            body, attributes, size_bytes_max=size_bytes_max, depth_max=depth_max, values_max=values_max
        )
    if isinstance(document, Malformed):
        return document
    if not attributes and not implied:
        return _recognise(document, NOTHING_BESIDE, (depth_max, values_max), foreign)
    beside = Beside(attributes, implied)
    return binary_fault(document.value, beside) or _recognise(
        document, beside, (depth_max, values_max), foreign
    )


def read_body(
    body: bytes, attributes: Mapping[str, Attribute], *, size_bytes_max: int, depth_max: int, values_max: int
) -> Document | Malformed:
    """Parse a body as JSON; `attributes` may name the sender. Never raises."""
    if len(body) > size_bytes_max:
        message = f"the body has {len(body)} bytes; at most {size_bytes_max} are accepted (BODY_BYTES_MAX)"
        return Malformed(Reason.TOO_LARGE, {"message": message}, claimed_of(None, Beside(attributes)))
    try:
        return read(body.decode(), depth_max, values_max)
    except UnicodeDecodeError as error:
        message = f"the body is not UTF-8: {error.reason} at byte {error.start}{_hint(body)}"
        return Malformed(Reason.NOT_UTF8, {"message": message}, claimed_of(None, Beside(attributes)))
    except JsonFault as fault:
        message = f"the body is invalid JSON: {fault}{_hint(body)}"
        return Malformed(Reason.NOT_JSON, {"message": message}, claimed_of(None, Beside(attributes)))


def binary_fault(raw: object, beside: Beside) -> Malformed | None:
    """Reject a binary attribute that names a field; None: there is none."""
    name = binary_name(beside.attributes)
    if name is None:
        return None
    words = f"the message attribute {name} is binary; expected text"
    errors = [{"pointer": f"/{name}", "rule": "text", "message": words}]
    detail = {"message": words, "errors": errors, "error_count": 1}
    return Malformed(Reason.ENVELOPE_INVALID, detail, claimed_of(raw, beside))


def _hint(body: bytes) -> str:
    """Return a hint about a body that is not JSON."""
    if body.startswith((b"\x1f\x8b", b"H4sI")):
        return "; it looks like gzip; set the attribute content-encoding to gzip"
    if body.startswith((b"x\x01", b"x\x5e", b"x\x9c", b"x\xda")):
        return "; it looks like zlib; set the attribute content-encoding to deflate"
    if body.startswith(b"\0"):
        return "; it begins with the prefix of a schema registry; only JSON is accepted after it"
    return ""


def _recognise(
    document: Document, beside: Beside, limits: cloudevents.Limits, foreign: Foreign | None
) -> Envelope | Malformed:
    value = document.value
    if beside is NOTHING_BESIDE:
        known, is_payload = beside.attributes, False
    else:
        known = beside.known
        is_payload = "tenant_id" in known and "event_type" in known
    if (beside is not NOTHING_BESIDE or (isinstance(value, dict) and "specversion" in value)) and (
        event := cloudevents.read(document, beside, limits)
    ) is not None:
        return event
    match value:
        case {"event_type": _, "payload": _}:
            return _from_native(document, beside)
        # Without a type of its own: an attribute with another type makes the body that event's payload.
        case {"product_sku": _, "used_amount": _} if not is_payload or known["event_type"] == PULSE:
            return _from_pulse(document, beside)
        # An event with a tenant or an id, whose type comes from elsewhere.
        case {"tenant_id": _, "payload": _} | {"id": _, "payload": _} if "event_type" in known:
            return _from_native(document, beside)
    words = None if foreign is None else foreign(value, is_payload)
    if is_payload and words is None:
        return make(_BESIDE, {}, (document.text.strip(_WHITESPACE), value), None, beside)
    return invalid(words or f"the body has no known format; {FORMATS}", claimed_of(value, beside))


def says_its_type(value: object) -> bool:
    """Return whether a body is an envelope with a known event type, whatever its attributes."""
    match value:
        case {"specversion": _} | {"event_type": _, "payload": _} | {"product_sku": _, "used_amount": _}:
            return True
    return False


_OWN = {name: name for name in NAMES}
_BESIDE = EnvelopeFormat(AttributeFields, _OWN)
_NATIVE = EnvelopeFormat(
    Fields, _OWN | {"message_id": "id"}, frozenset((*_OWN, "id", "payload")) - {"message_id"}
)
_BESIDES = ("id", "producer", "occurred_at", "schema_version")
"""Optional fields of a pulse, in the names of the native format."""

_PULSE = EnvelopeFormat(
    Fields,
    _NATIVE.names,
    frozenset(("tenant_id", "tenant", "product_sku", "used_amount", "use_unity", "use_unit"))
    | {"event_type", *_BESIDES},
)
_QUOTED_MAX = 64


def _from_native(document: Document, beside: Beside) -> Envelope | Malformed:
    fields = document.value
    return make(_NATIVE, fields, (document.member_texts["payload"], fields["payload"]), document, beside)


def _from_pulse(document: Document, beside: Beside) -> Envelope | Malformed:
    fields = document.value
    texts = document.member_texts
    if fields.get("event_type") not in (None, PULSE):
        return invalid(
            f"the body is a pulse by product_sku and used_amount, and names the event_type "
            f"{str(fields['event_type'])[:_QUOTED_MAX]!r}, which is not {PULSE!r}; leave event_type out, or "
            "send the event with a payload",
            claimed_of(fields, beside),
        )
    pulse, members = {}, {}
    for name, other_name in (
        ("tenant_id", "tenant"),
        ("product_sku", ""),
        ("used_amount", ""),
        ("use_unity", "use_unit"),
    ):
        given = name
        if other_name in fields and (fields[other_name] is not None or name not in fields):
            if fields.get(name) is not None:
                return invalid(
                    f"both {name} and {other_name} are there; send one", claimed_of(fields, beside)
                )
            given = other_name
        if given in fields:
            pulse[name] = fields[given]
            members[name] = texts[given]
    if pulse.get("tenant_id") is None and isinstance(tenant_id := beside.known.get("tenant_id"), str):
        # The payload of a pulse includes the tenant, wherever it is named.
        pulse["tenant_id"], members["tenant_id"] = tenant_id, quoted(tenant_id)
    envelope = {"tenant_id": pulse.get("tenant_id"), "event_type": PULSE}
    envelope |= {name: fields[name] for name in _BESIDES if name in fields}
    return make(_PULSE, envelope, (object_text(members) or "{}", pulse), document, beside)
