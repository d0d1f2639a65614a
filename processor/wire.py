"""The formats on the queue: from body and attributes to an envelope, or to the reason why not.

    body, attributes ─▶ 1. CloudEvents 1.0, structured (specversion)
                        2. native (event_type and payload)
                        3. the bare pulse (product_sku and used_amount)
                        4. attributes tenant_id and event_type: the body is the payload
                     ─▶ Envelope | Malformed

Recognised in this order, and once recognised never tried as another. What stands beside a body that is an
envelope completes it, and must agree with it. What is implied by the way that it came comes last.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from hashlib import sha256
from json.encoder import encode_basestring_ascii as _quoted
from types import MappingProxyType
from typing import Annotated, Any, TypeAlias

from msgspec import Struct
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from processor import beside
from processor.errors import Reason
from processor.rfc3339 import moment_of, rest_of
from processor.strict_json import VALUES_MAX, Document, JsonFault, read

Attribute: TypeAlias = beside.Attribute

PULSE = "pulse"
"""The event type of a bare pulse."""

IDENTIFIER_LENGTH_MAX = 256
"""Characters in a tenant, producer, event type or message id."""

ERRORS_MAX = 50
"""As many faults of one body are listed; the rest is counted."""

TRACE_NAMES = ("traceparent", "tracestate")
"""Message attributes of W3C Trace Context."""

NOTHING_IMPLIED: Mapping[str, str] = MappingProxyType({})

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
    `sent_at` is when a service that brought it to the queue was handed it; None: nothing is known of such.
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
    sent_at: datetime | None = None


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
    implied: Mapping[str, str] = NOTHING_IMPLIED,
    size_bytes_max: int,
    depth_max: int,
    values_max: int = VALUES_MAX,
) -> Envelope | Malformed:
    """Read one message. Never raises, whatever the bytes are.

    `implied` has the tenant_id and the event_type that the way it came says. They fill what body and
    attributes leave open. Another event type is `envelope_invalid`; another tenant is left to the caller.
    """
    document = read_body(
        body, attributes, size_bytes_max=size_bytes_max, depth_max=depth_max, values_max=values_max
    )
    return document if isinstance(document, Malformed) else _recognise(document, attributes, implied)


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


def _recognise(
    document: Document, attributes: Mapping[str, Attribute], implied: Mapping[str, str]
) -> Envelope | Malformed:
    if attributes and (fault := _binary_fault(document.value, attributes)) is not None:
        return fault
    known = {**implied, **attributes} if implied else attributes
    is_payload = "tenant_id" in known and "event_type" in known
    match document.value:
        case {"specversion": _}:
            return _from_cloudevent(document, attributes, implied)
        case {"event_type": _, "payload": _}:
            return _from_native(document, attributes, implied)
        # It does not say its type: with another one beside it, it is that one's payload.
        case {"product_sku": _, "used_amount": _} if not is_payload or known["event_type"] == PULSE:
            return _from_pulse(document, attributes, implied)
    if is_payload:
        payload = document.text.strip(" \t\r\n")
        return _envelope(_BESIDE, {}, (payload, document.value), None, attributes, implied)
    return _invalid(f"the body is in no known format; {FORMATS}", _claimed_of(document.value, known))


def says_its_type(value: object) -> bool:
    """Say whether a body is an envelope by which its event type is known, whatever stands beside it."""
    match value:
        case {"specversion": _} | {"event_type": _, "payload": _} | {"product_sku": _, "used_amount": _}:
            return True
    return False


def compose(
    fields: Mapping[str, Any],
    payload: tuple[str, Any],
    rest: Document,
    attributes: Mapping[str, Attribute],
    implied: Mapping[str, str],
) -> Envelope | Malformed:
    """Make an envelope of fields, named as in the native format, that another reader found in a body.

    `payload` is its text and its value, `rest` has the members that go into the context.
    """
    if attributes and (fault := _binary_fault(fields, attributes)) is not None:
        return fault
    return _envelope(_MAPPED, fields, payload, rest, attributes, implied)


def _binary_fault(raw: object, attributes: Mapping[str, Attribute]) -> Malformed | None:
    name = beside.binary_name(attributes)
    if name is None:
        return None
    words = f"the message attribute {name} is binary; expected text"
    errors = [{"pointer": f"/{name}", "rule": "text", "message": words}]
    detail = {"message": words, "errors": errors, "error_count": 1}
    return Malformed(Reason.ENVELOPE_INVALID, detail, _claimed_of(raw, attributes))


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
    producer: Producer | None = None
    occurred_at: Moment | None = None
    schema_version: SchemaVersion | None = None


class _AttributeFields(_Fields):
    id: Identifier | None = Field(None, validation_alias="message_id")


class _CloudEvent(_Fields):
    tenant_id: Identifier = Field(validation_alias="tenantid")
    event_type: Identifier = Field(validation_alias="type")
    id: Identifier
    producer: Identifier = Field(validation_alias="source")
    occurred_at: Moment | None = Field(None, validation_alias="time")
    schema_version: Annotated[SchemaVersion, BeforeValidator(_number_in_text)] | None = Field(
        None, validation_alias="schemaversion"
    )


@dataclass(frozen=True, slots=True)
class _Form:
    """A format: its model, how it calls what may stand beside it, and which of its members are no context."""

    fields: type[_Fields]
    names: Mapping[str, str]
    known: frozenset[str] = frozenset()


_OWN = {name: name for name in beside.NAMES}
_BESIDE = _Form(_AttributeFields, _OWN)
_NATIVE = _Form(_Fields, _OWN | {"message_id": "id"}, frozenset((*_OWN, "id", "payload")) - {"message_id"})
_MAPPED = _Form(_Fields, _NATIVE.names)
_PULSE = _Form(
    _Fields,
    _NATIVE.names,
    frozenset(("tenant_id", "tenant", "product_sku", "used_amount", "use_unity", "use_unit"))
    | {"id", "producer", "occurred_at"},
)
_CLOUDEVENT = _Form(
    _CloudEvent,
    dict(zip(beside.NAMES, ("tenantid", "type", "id", "source", "time", "schemaversion"), strict=True)),
    frozenset(("specversion", "id", "source", "type", "time", "data", "tenantid", "schemaversion")),
)


def _from_cloudevent(
    document: Document, attributes: Mapping[str, Attribute], implied: Mapping[str, str]
) -> Envelope | Malformed:
    fields = document.value
    if (fault := _cloudevent_fault(fields)) is not None:
        return _invalid(fault, _claimed_of(fields, attributes))
    return _envelope(
        _CLOUDEVENT, fields, (document.member_texts["data"], fields["data"]), document, attributes, implied
    )


def _cloudevent_fault(fields: Mapping[str, Any]) -> str | None:
    """Say what keeps a CloudEvent from being taken; None: nothing."""
    if fields["specversion"] != "1.0":
        return 'specversion: expected "1.0"'
    if fields.get("data_base64") is not None:
        return "data_base64: binary data is not taken; send JSON in data"
    content_type = fields.get("datacontenttype")
    # CloudEvents lets an attribute that is not set be written as null.
    if content_type is None:
        content_type = "application/json"
    if not isinstance(content_type, str) or not re.fullmatch(
        r"[^;]*[/+]json\s*(;.*)?", content_type, re.IGNORECASE | re.DOTALL
    ):
        return "datacontenttype: expected application/json"
    return None if "data" in fields else "data: missing; expected the payload"


def _from_native(
    document: Document, attributes: Mapping[str, Attribute], implied: Mapping[str, str]
) -> Envelope | Malformed:
    fields = document.value
    return _envelope(
        _NATIVE, fields, (document.member_texts["payload"], fields["payload"]), document, attributes, implied
    )


def _from_pulse(
    document: Document, attributes: Mapping[str, Attribute], implied: Mapping[str, str]
) -> Envelope | Malformed:
    fields = document.value
    texts = document.member_texts
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
                return _invalid(
                    f"both {name} and {other_name} are there; send one", _claimed_of(fields, attributes)
                )
            given = other_name
        if given in fields:
            pulse[name] = fields[given]
            members[name] = texts[given]
    tenant_id = attributes.get("tenant_id", implied.get("tenant_id"))
    if pulse.get("tenant_id") is None and isinstance(tenant_id, str):
        # A pulse's payload has the tenant in it, wherever it is named.
        pulse["tenant_id"], members["tenant_id"] = tenant_id, _quoted(tenant_id)
    envelope = {"tenant_id": pulse.get("tenant_id"), "event_type": PULSE}
    envelope |= {name: fields[name] for name in ("id", "producer", "occurred_at") if name in fields}
    return _envelope(_PULSE, envelope, (_object_text(members) or "{}", pulse), document, attributes, implied)


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
    form: _Form,
    fields: Mapping[str, Any],
    payload: tuple[str, Any],
    document: Document | None,
    attributes: Mapping[str, Attribute],
    implied: Mapping[str, str],
) -> Envelope | Malformed:
    """Make an envelope of a body's `fields`; the context is what else `document` has, and what is beside."""
    context = None if document is None else _others(document, form.known)
    completed = fields
    if attributes or implied:
        completed, spoken_for = beside.complete(fields, form.names, attributes, implied)
        context = beside.add_context(
            context, () if document is None else document.value, attributes, spoken_for
        )
    try:
        found = form.fields.model_validate(completed)
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
        return Malformed(Reason.ENVELOPE_INVALID, detail, _claimed_of(completed))
    text, value = payload
    envelope = Envelope(
        tenant_id=found.tenant_id,
        event_type=found.event_type,
        message_id=found.id,
        producer=found.producer or "",
        occurred_at=found.occurred_at,
        schema_version=found.schema_version,
        payload=text,
        payload_value=value,
        context=context,
        occurred_at_rest=rest_of(completed.get(form.names["occurred_at"])),
    )
    same = partial(_same, envelope)
    fault = beside.disagreement(form.names, fields, attributes, same) if attributes else None
    if fault is None and implied.get("event_type", envelope.event_type) != envelope.event_type:
        fault = (
            f"event_type: the message names {envelope.event_type!r} and its queue is said to carry "
            f"{implied['event_type']!r}; send it where its type belongs, or mend what is said of the queue"
        )
    return envelope if fault is None else _invalid(fault, _claimed_of_envelope(envelope))


def _same(envelope: Envelope, name: str, said: str) -> bool:
    own: object = getattr(envelope, name)
    if name == "occurred_at":
        try:
            return (moment_of(said), rest_of(said)) == (own, envelope.occurred_at_rest)
        except ValueError:
            return False
    return own == (_number_in_text(said) if name == "schema_version" else said)


def pointer(path: "list[str | int] | tuple[str | int, ...]") -> str:
    """Write a path into a JSON value as RFC 6901 does; the empty path, the whole value, is ''."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _invalid(message: str, claimed: Claimed) -> Malformed:
    return Malformed(Reason.ENVELOPE_INVALID, {"message": message}, claimed)


# ── who it claims to be from, as far as can be told ───────────────────────────────────────────────────


def _claimed_of(raw: object, attributes: Mapping[str, Attribute] = MappingProxyType({})) -> Claimed:
    """Read claims; what the body does not say is taken from beside it."""
    own = raw if isinstance(raw, Mapping) else {}
    return Claimed(
        tenant_id=_first_text(own, "tenant_id", "tenantid", "tenant") or _first_text(attributes, "tenant_id"),
        event_type=_first_text(own, "event_type", "type") or _first_text(attributes, "event_type"),
        message_id=_first_text(own, "message_id", "id")
        or _first_text(attributes, "message_id", beside.AMQP_MESSAGE_ID),
        producer=_first_text(own, "producer", "source") or _first_text(attributes, "producer"),
    )


def _first_text(raw: Mapping[str, Any], *names: str) -> str | None:
    return next((raw[name] for name in names if isinstance(raw.get(name), str)), None)


def _claimed_of_envelope(envelope: Envelope) -> Claimed:
    return Claimed(envelope.tenant_id, envelope.event_type, envelope.message_id, envelope.producer)
