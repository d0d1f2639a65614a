"""Defines the envelope, the common result of all formats, and validates its fields.

a body's fields ─▶ completed ─▶ validated ─▶ compared with the attributes ─▶ Envelope
                                   └──────────┴─▶ Malformed, with a message about the fault
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from json.encoder import encode_basestring_ascii as quoted
from typing import Annotated, Any

from msgspec import Struct
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from processor.errors import Reason
from processor.wire.beside import (
    AMQP_MESSAGE_ID,
    NOTHING_BESIDE,
    Beside,
    add_context,
    bare_name,
    complete,
    disagreement,
    from_outside,
    no_identifier,
    number_in_text,
)
from processor.wire.json_pointer import pointer
from processor.wire.rfc3339 import moment_of, rest_of
from processor.wire.strict_json import Document

IDENTIFIER_LENGTH_MAX = 256
"""Maximum characters in a tenant, producer, event type or message id."""

ERRORS_MAX = 50
"""Maximum listed faults of one body; further ones are counted."""


class Claimed(Struct, frozen=True, gc=False):
    """The origin that a body claims; None: missing or unusable."""

    tenant_id: str | None = None
    event_type: str | None = None
    message_id: str | None = None
    producer: str | None = None


class Envelope(Struct, frozen=True, gc=False):
    """The common result of all formats.

    `payload` is JSON text and `payload_value` the same parsed (numbers as int and Decimal). `message_id`
    None: the message has no id of its own. `occurred_at` is in UTC; None: missing. `schema_version` None: the
    latest. `context` is a JSON object of the envelope's other fields; None: none. `occurred_at_rest` has the
    digits of `occurred_at` beyond the microsecond, without trailing zeros; None: none. `sent_at` is the time
    when an upstream service received the event; None: unknown.
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
    """Why a body is not an envelope; `detail` is a JSON object with a message for developers of producers."""

    reason: Reason
    detail: Mapping[str, Any]
    claimed: Claimed


def _without_controls(value: str) -> str:
    if no_identifier(value):
        raise ValueError("has control characters or lone surrogates")
    return value


Identifier = Annotated[
    str, Field(strict=True, min_length=1, max_length=IDENTIFIER_LENGTH_MAX), AfterValidator(_without_controls)
]
Producer = Annotated[
    str, Field(strict=True, max_length=IDENTIFIER_LENGTH_MAX), AfterValidator(_without_controls)
]
Moment = Annotated[datetime, BeforeValidator(moment_of)]
SchemaVersion = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]


class Fields(BaseModel):
    """The fields of an envelope with their native names."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    tenant_id: Identifier
    event_type: Identifier
    id: Identifier | None = None
    producer: Producer | None = None
    occurred_at: Moment | None = None
    schema_version: SchemaVersion | None = None


class AttributeFields(Fields):
    """The same fields with the names of attributes."""

    id: Identifier | None = Field(None, validation_alias="message_id")


class CloudEventFields(Fields):
    """The same fields with the names of CloudEvents, which requires an id and a source."""

    tenant_id: Identifier = Field(validation_alias="tenantid")
    event_type: Identifier = Field(validation_alias="type")
    id: Identifier
    producer: Identifier = Field(validation_alias="source")
    occurred_at: Moment | None = Field(None, validation_alias="time")
    schema_version: Annotated[SchemaVersion, BeforeValidator(number_in_text)] | None = Field(
        None, validation_alias="schemaversion"
    )


@dataclass(frozen=True, slots=True)
class EnvelopeFormat:
    """A format: its model, its names for attributes, and its members that are not context."""

    fields: type[Fields]
    names: Mapping[str, str]
    known: frozenset[str] = frozenset()


def make(
    form: EnvelopeFormat,
    fields: Mapping[str, Any],
    payload: tuple[str, Any],
    document: Document | None,
    beside: Beside,
) -> Envelope | Malformed:
    """Build an envelope; the context has the other members of `document`, and other attributes."""
    context = None if document is None else _others(document, form.known, beside)
    completed, sources = fields, beside.sources
    if beside is not NOTHING_BESIDE:
        completed, sources = complete(fields, form.names, beside)
        own = {} if document is None else document.value
        context = add_context(context, own, form.known, beside.attributes, sources)
    try:
        found = form.fields.model_validate(completed)
    except ValidationError as error:
        return _refused(error, form, completed, sources)
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
    if beside is NOTHING_BESIDE:
        return envelope
    fault = disagreement(form.names, fields, beside, partial(_same, envelope), envelope.event_type)
    return envelope if fault is None else invalid(fault, _claimed_of_envelope(envelope))


_WORDS = {
    "string_type": "expected text",
    "string_too_short": f"is empty; expected 1 to {IDENTIFIER_LENGTH_MAX} characters",
    "string_too_long": f"is too long; expected at most {IDENTIFIER_LENGTH_MAX} characters",
    **dict.fromkeys(
        ("int_type", "greater_than_equal", "less_than_equal"), "expected a whole number from 1 to 2147483647"
    ),
}
"""Our messages for pydantic's error types."""


def _refused(
    error: ValidationError, form: EnvelopeFormat, completed: Mapping[str, Any], sources: Mapping[str, str]
) -> Malformed:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    errors, words = [], []
    for fault in faults[:ERRORS_MAX]:
        field, rule, message = str(fault["loc"][0]), fault["type"], fault["msg"].removeprefix("Value error, ")
        if completed.get(field) is None:
            name = next(name for name, other in form.names.items() if other == field)
            rule, message = "missing", f"missing; set it in the event or as the message attribute {name}"
        message = _WORDS.get(rule, message)
        errors.append({"pointer": pointer(fault["loc"]), "rule": rule, "message": message})
        where = f" (from the message attribute {sources[field]})" if field in sources else ""
        words.append(f"{field}{where}: {message}")
    detail = {"message": "; ".join(words), "errors": errors, "error_count": len(faults)}
    return Malformed(Reason.ENVELOPE_INVALID, detail, claimed_of(completed))


def _same(envelope: Envelope, name: str, said: str) -> bool:
    own: object = getattr(envelope, name)
    if name == "occurred_at":
        try:
            return (moment_of(said), rest_of(said)) == (own, envelope.occurred_at_rest)
        except ValueError:
            return False
    return own == (number_in_text(said) if name == "schema_version" else said)


def _others(document: Document, known: frozenset[str], beside: Beside) -> str | None:
    if document.value.keys() <= known:
        return None
    others = {name: text for name, text in document.member_texts.items() if name not in known}
    return object_text(from_outside(others, beside.attributes))


def object_text(member_texts: Mapping[str, str]) -> str | None:
    """Serialize an object of member texts; None: no members."""
    # From the original texts, not from values: JSON writers lose digits, and reject lone surrogates, which
    # PostgreSQL must reject.
    if not member_texts:
        return None
    return "{" + ", ".join(f"{quoted(name)}: {text}" for name, text in member_texts.items()) + "}"


def invalid(message: str, claimed: Claimed) -> Malformed:
    """Reject a body for its envelope."""
    return Malformed(Reason.ENVELOPE_INVALID, {"message": message}, claimed)


# ── who it claims to be from, as far as can be told ───────────────────────────────────────────────────

_CLAIMS = (
    ("tenant_id", "tenantid", "tenant"),
    ("event_type", "type"),
    ("message_id", "id"),
    ("producer", "source"),
)

_ID = 2


def claimed_of(raw: object, beside: Beside = NOTHING_BESIDE) -> Claimed:
    """Read the claimed origin; attributes fill missing fields."""
    own = raw if isinstance(raw, Mapping) else {}
    # An extension of a CloudEvent has our names only by coincidence.
    turn = -1 if own.get("specversion") is not None else 1
    outside = beside.known
    events = {bare: value for name, value in outside.items() if (bare := bare_name(name)) is not None}
    found = [
        _first_text(own, *names[::turn]) or _first_text(outside, names[0]) or _first_text(events, names[1])
        for names in _CLAIMS
    ]
    found[_ID] = found[_ID] or _first_text(outside, AMQP_MESSAGE_ID)
    return Claimed(*found)


def _first_text(raw: Mapping[str, Any], *names: str) -> str | None:
    return next((raw[name] for name in names if isinstance(raw.get(name), str)), None)


def _claimed_of_envelope(envelope: Envelope) -> Claimed:
    return Claimed(envelope.tenant_id, envelope.event_type, envelope.message_id, envelope.producer)
