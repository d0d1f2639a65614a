"""The formats on the queue: from body and attributes to an envelope, or to the reason why not.

    body, attributes ─▶ 1. attributes tenant_id and event_type: the body is the payload
                        2. CloudEvents 1.0, structured (specversion)
                        3. native (event_type and payload)
                        4. the bare pulse (product_sku and used_amount)
                     ─▶ Envelope | Malformed

Recognised in this order, and once recognised never tried as another.
"""

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from json.encoder import encode_basestring_ascii as _quoted
from typing import Annotated, Any, TypeAlias

from msgspec import Struct
from msgspec.structs import replace
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from processor.errors import Reason
from processor.rfc3339 import moment_of, rest_of
from processor.strict_json import VALUES_MAX, Document, JsonFault, read

Attribute: TypeAlias = str | bytes
"""The value of one message attribute: text (SQS String and Number) or bytes (Binary)."""

PULSE = "pulse"
"""The event type of a bare pulse."""

IDENTIFIER_LENGTH_MAX = 256
"""Characters in a tenant, producer, event type or message id."""

ERRORS_MAX = 50
"""As many faults of one body are listed; the rest is counted."""

ROUTING_FAULT = "routing_fault"
"""The attribute in which a source says why a message can't be taken with its routing key."""

TRACE_NAMES = ("traceparent", "tracestate")
"""Message attributes that go into the context whatever the format (W3C Trace Context)."""

FORMATS = (
    "expected attributes tenant_id and event_type, or CloudEvents 1.0 (specversion), "
    "or native (event_type, payload), or a pulse (tenant_id, product_sku, used_amount, use_unity)"
)


class Claimed(Struct, frozen=True, gc=False):
    """Who a body says it is from, as far as it could be read; None where it says nothing usable."""

    tenant_id: str | None = None
    event_type: str | None = None
    message_id: str | None = None
    producer: str | None = None


class Envelope(Struct, frozen=True, gc=False):
    """What every format comes down to.

    `payload` is its JSON text and `payload_value` the same parsed (numbers as int and Decimal). `message_id`
    None: the message has no id of its own. `occurred_at` is in UTC; None: not named. `schema_version` None:
    the latest. `context` is the JSON text of an object of the envelope's other fields; None: there are none.
    `occurred_at_rest` has the digits of `occurred_at` beyond the microsecond, without idle zeros; None: none.
    """

    tenant_id: str
    event_type: str
    message_id: str | None
    producer: str
    occurred_at: datetime | None
    schema_version: int | None
    payload: str
    payload_value: Any
    context: str | None
    occurred_at_rest: str | None = None


@dataclass(frozen=True, slots=True)
class Malformed:
    """Why a body is no envelope; `detail` is a JSON object in words a producer's developer can act on."""

    reason: Reason
    detail: Mapping[str, Any]
    claimed: Claimed


def derived_id(queue: str, name: str) -> str:
    """Name a message that has no id of its own, by its queue and what tells it there from all others.

    `name` stays the end of it as long as the identifier has room for it behind a digest of the queue's name.
    """
    for identifier in (f"{queue}/{name}", f"{sha256(queue.encode()).hexdigest()[:16]}/{name}"):
        if len(identifier) <= IDENTIFIER_LENGTH_MAX:
            return identifier
    return sha256(f"{queue}/{name}".encode()).hexdigest()


def decode(
    body: bytes,
    attributes: Mapping[str, Attribute],
    *,
    size_bytes_max: int,
    depth_max: int,
    values_max: int = VALUES_MAX,
) -> Envelope | Malformed:
    """Read one message. Never raises, whatever the bytes are."""
    document = read_body(
        body, attributes, size_bytes_max=size_bytes_max, depth_max=depth_max, values_max=values_max
    )
    return document if isinstance(document, Malformed) else _recognise(document, attributes)


def read_body(
    body: bytes, attributes: Mapping[str, Attribute], *, size_bytes_max: int, depth_max: int, values_max: int
) -> Document | Malformed:
    """Read a body as JSON; `attributes` may say who sent it. Never raises."""
    if len(body) > size_bytes_max:
        message = f"the body has {len(body)} bytes; at most {size_bytes_max} are taken (BODY_BYTES_MAX)"
        return Malformed(Reason.TOO_LARGE, {"message": message}, _claimed_of(attributes))
    try:
        return read(body.decode(), depth_max, values_max)
    except UnicodeDecodeError as error:
        message = f"the body is not UTF-8: {error.reason} at byte {error.start}"
        return Malformed(Reason.NOT_UTF8, {"message": message}, _claimed_of(attributes))
    except JsonFault as fault:
        message = f"the body is not JSON as we take it: {fault}"
        return Malformed(Reason.NOT_JSON, {"message": message}, _claimed_of(attributes))


def _recognise(document: Document, attributes: Mapping[str, Attribute]) -> Envelope | Malformed:
    if ROUTING_FAULT in attributes:
        return _invalid(str(attributes[ROUTING_FAULT]), _claimed_of(document.value))
    if "tenant_id" in attributes and "event_type" in attributes:
        return _from_attributes(document, attributes)
    match document.value:
        case {"specversion": _}:
            envelope = _from_cloudevent(document)
        case {"event_type": _, "payload": _}:
            envelope = _from_native(document)
        case {"product_sku": _, "used_amount": _}:
            envelope = _from_pulse(document)
        case _:
            return _invalid(f"the body is in no known format; {FORMATS}", _claimed_of(document.value))
    if not attributes or not isinstance(envelope, Envelope):
        return envelope
    named = attributes.get("tenant_id")
    if named is not None and named != envelope.tenant_id:
        return _invalid(
            "the message attribute tenant_id differs from the tenant that the body names; "
            "send both alike, or only one",
            _claimed_of_envelope(envelope),
        )
    return _with_trace(envelope, document, attributes)


def _with_trace(envelope: Envelope, document: Document, attributes: Mapping[str, Attribute]) -> Envelope:
    """Add to the context what W3C Trace Context sends beside a body; the body's own word goes first."""
    found = {
        name: value
        for name in TRACE_NAMES
        if isinstance(value := attributes.get(name), str) and name not in document.value
    }
    if not found:
        return envelope
    added = ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in found.items())
    own = "" if envelope.context is None else ", " + envelope.context[1:-1]
    return replace(envelope, context=f"{{{added}{own}}}")


# ── the envelope, field by field ──────────────────────────────────────────────────────────────────────


def _without_controls(value: str) -> str:
    # ASCII without a control character is nearly every id, and isprintable answers that without a loop.
    if not value.isprintable() and any(
        unicodedata.category(character) in ("Cc", "Cs") for character in value
    ):
        raise ValueError("has control characters or lone surrogates")
    return value


def _number_in_text(value: object) -> object:
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value) else value


Identifier = Annotated[
    str, Field(strict=True, min_length=1, max_length=IDENTIFIER_LENGTH_MAX), AfterValidator(_without_controls)
]
Producer = Annotated[
    str, Field(strict=True, max_length=IDENTIFIER_LENGTH_MAX), AfterValidator(_without_controls)
]
Moment = Annotated[datetime, BeforeValidator(moment_of)]
SchemaVersion = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]


class _Fields(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    tenant_id: Identifier
    event_type: Identifier
    id: Identifier | None = None
    producer: Producer = ""
    occurred_at: Moment | None = None
    schema_version: SchemaVersion | None = None


class _AttributeFields(_Fields):
    id: Identifier | None = Field(None, validation_alias="message_id")
    schema_version: Annotated[SchemaVersion, BeforeValidator(_number_in_text)] | None = None


class _CloudEvent(_Fields):
    tenant_id: Identifier = Field(validation_alias="tenantid")
    event_type: Identifier = Field(validation_alias="type")
    id: Identifier
    producer: Identifier = Field(validation_alias="source")
    occurred_at: Moment | None = Field(None, validation_alias="time")
    schema_version: Annotated[SchemaVersion, BeforeValidator(_number_in_text)] | None = Field(
        None, validation_alias="schemaversion"
    )


_ATTRIBUTE_NAMES = frozenset(
    ("tenant_id", "event_type", "message_id", "producer", "occurred_at", "schema_version")
)
_CLOUDEVENT_NAMES = frozenset(
    ("specversion", "id", "source", "type", "time", "data", "tenantid", "schemaversion")
)
_NATIVE_NAMES = frozenset(
    ("id", "tenant_id", "event_type", "payload", "producer", "occurred_at", "schema_version")
)
_PULSE_NAMES = frozenset(("tenant_id", "tenant", "product_sku", "used_amount", "use_unity", "use_unit"))


def _from_attributes(document: Document, attributes: Mapping[str, Attribute]) -> Envelope | Malformed:
    others = {
        name: json.dumps(value)
        for name, value in attributes.items()
        if name not in _ATTRIBUTE_NAMES and isinstance(value, str)
    }
    payload = document.text.strip(" \t\r\n")
    return _envelope(_AttributeFields, attributes, payload, document.value, _object_text(others))


def _from_cloudevent(document: Document) -> Envelope | Malformed:
    fields = document.value
    if fields["specversion"] != "1.0":
        return _invalid('specversion: expected "1.0"', _claimed_of(fields))
    if fields.get("data_base64") is not None:
        return _invalid("data_base64: binary data is not taken; send JSON in data", _claimed_of(fields))
    content_type = fields.get("datacontenttype")
    # CloudEvents lets an attribute that is not set be written as null.
    if content_type is None:
        content_type = "application/json"
    if not isinstance(content_type, str) or not re.fullmatch(
        r"[^;]*[/+]json\s*(;.*)?", content_type, re.IGNORECASE | re.DOTALL
    ):
        return _invalid("datacontenttype: expected application/json", _claimed_of(fields))
    if "data" not in fields:
        return _invalid("data: missing; expected the payload", _claimed_of(fields))
    return _envelope(
        _CloudEvent,
        fields,
        document.member_texts["data"],
        fields["data"],
        _others(document, _CLOUDEVENT_NAMES),
    )


def _from_native(document: Document) -> Envelope | Malformed:
    fields = document.value
    return _envelope(
        _Fields, fields, document.member_texts["payload"], fields["payload"], _others(document, _NATIVE_NAMES)
    )


def _from_pulse(document: Document) -> Envelope | Malformed:
    fields = document.value
    texts = document.member_texts
    pulse, members = {}, {}
    for name, other_name in (
        ("tenant_id", "tenant"),
        ("product_sku", None),
        ("used_amount", None),
        ("use_unity", "use_unit"),
    ):
        if name in fields and other_name in fields:
            return _invalid(f"both {name} and {other_name} are there; send one", _claimed_of(fields))
        given = name if name in fields else other_name
        if given is not None and given in fields:
            pulse[name] = fields[given]
            members[name] = texts[given]
    envelope = {"tenant_id": pulse.get("tenant_id"), "event_type": PULSE}
    envelope |= {name: fields[name] for name in ("id", "producer", "occurred_at") if name in fields}
    others = _others(document, _PULSE_NAMES | {"id", "producer", "occurred_at"})
    return _envelope(_Fields, envelope, _object_text(members) or "{}", pulse, others)


def _others(document: Document, known: frozenset[str]) -> str | None:
    if document.value.keys() <= known:
        return None
    return _object_text({name: text for name, text in document.member_texts.items() if name not in known})


def _object_text(member_texts: Mapping[str, str]) -> str | None:
    # From the texts as they came, not from values: no writer of JSON keeps every digit, or takes half of a
    # surrogate pair, which must come as far as PostgreSQL to be refused there.
    if not member_texts:
        return None
    return "{" + ", ".join(f"{_quoted(name)}: {text}" for name, text in member_texts.items()) + "}"


def _envelope(
    fields_type: type[_Fields],
    raw: Mapping[str, Any],
    payload: str,
    payload_value: Any,  # noqa: ANN401 - any JSON value
    context: str | None,
) -> Envelope | Malformed:
    try:
        fields = fields_type.model_validate(raw)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        errors = [
            {
                "pointer": pointer(fault["loc"]),
                "rule": fault["type"],
                "message": fault["msg"].removeprefix("Value error, "),
            }
            for fault in faults[:ERRORS_MAX]
        ]
        words = "; ".join(f"{fault['pointer'][1:]}: {fault['message']}" for fault in errors)
        detail = {"message": words, "errors": errors, "error_count": len(faults)}
        return Malformed(Reason.ENVELOPE_INVALID, detail, _claimed_of(raw))
    return Envelope(
        tenant_id=fields.tenant_id,
        event_type=fields.event_type,
        message_id=fields.id,
        producer=fields.producer,
        occurred_at=fields.occurred_at,
        schema_version=fields.schema_version,
        payload=payload,
        payload_value=payload_value,
        context=context,
        occurred_at_rest=rest_of(raw.get("time" if fields_type is _CloudEvent else "occurred_at")),
    )


def pointer(path: "list[str | int] | tuple[str | int, ...]") -> str:
    """Write a path into a JSON value as RFC 6901 does; the empty path, the whole value, is ''."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _invalid(message: str, claimed: Claimed) -> Malformed:
    return Malformed(Reason.ENVELOPE_INVALID, {"message": message}, claimed)


# ── who it claims to be from, as far as can be told ───────────────────────────────────────────────────


def _claimed_of(raw: object) -> Claimed:
    if not isinstance(raw, Mapping):
        return Claimed()
    return Claimed(
        tenant_id=_first_text(raw, "tenant_id", "tenantid", "tenant"),
        event_type=_first_text(raw, "event_type", "type"),
        message_id=_first_text(raw, "message_id", "id"),
        producer=_first_text(raw, "producer", "source"),
    )


def _first_text(raw: Mapping[str, Any], *names: str) -> str | None:
    return next((raw[name] for name in names if isinstance(raw.get(name), str)), None)


def _claimed_of_envelope(envelope: Envelope) -> Claimed:
    return Claimed(envelope.tenant_id, envelope.event_type, envelope.message_id, envelope.producer)
