"""Decodes CloudEvents 1.0, in both modes of the specification.

    body {"specversion": …, "data": …}         structured: attributes must agree with the body
    ce_specversion, ce_id, … as attributes     binary: the attributes are the event's, the body is its data

The data is JSON in both modes; missing data is the payload null. The extensions `tenantid`, and
`schemaversion` if it is a whole number, are ours; any other extension is context, whatever its name.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Container, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, TypeAlias

from processor.wire.beside import (
    NAMES,
    Attribute,
    Beside,
    bare_name,
    content_types,
    differing,
    number_in_text,
    of_an_event,
)
from processor.wire.envelope import (
    CloudEventFields,
    Envelope,
    EnvelopeFormat,
    Malformed,
    claimed_of,
    invalid,
    make,
)
from processor.wire.rfc3339 import moment_of, rest_of
from processor.wire.strict_json import Document, JsonFault
from processor.wire.strict_json import read as read_json

_FORM = EnvelopeFormat(
    CloudEventFields,
    dict(zip(NAMES, ("tenantid", "type", "id", "source", "time", "schemaversion"), strict=True)),
    frozenset(
        ("specversion", "id", "source", "type", "time", "data", "data_base64", "tenantid", "schemaversion")
    ),
)
_PLAIN = EnvelopeFormat(CloudEventFields, _FORM.names, _FORM.known | {"datacontenttype"})
"""For events with the default content type."""

_REQUIRED = ("specversion", "id", "source", "type")
_MEANT = frozenset((*_REQUIRED, "time", "tenantid", "schemaversion", "datacontenttype"))
"""Attributes with a meaning here, for which an incomplete CloudEvent is rejected."""

_OF_AMQP, _EPOCH = "cloudevents", datetime(1970, 1, 1, tzinfo=UTC)
_VERSION = "schemaversion"

_ENVELOPE = "application/cloudevents"
_ONE = re.compile(r"application/cloudevents\+json\s*(;.*)?", re.IGNORECASE | re.DOTALL)
_JSON = re.compile(r"[^;]*[/+]json\s*(;.*)?", re.IGNORECASE | re.DOTALL)
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]+)", re.IGNORECASE)
_UTF8 = ("utf-8", "utf8", "us-ascii", "ascii")

Limits: TypeAlias = tuple[int, int]
"""The limits of depth and of the number of values."""

_Named: TypeAlias = Mapping[str, tuple[str, Attribute]]

NO_DATA = Document(None, "null", {})
"""The document of an absent body."""


class _InvalidEvent(ValueError):
    """An invalid event; `event` has its parsed fields, if they are not the body."""

    def __init__(self, words: str, event: Mapping[str, Any] | None = None) -> None:
        super().__init__(words)
        self.event = event


def is_binary(attributes: Mapping[str, Attribute]) -> bool:
    """Return whether the attributes are a CloudEvent in binary mode, whose body may be missing."""
    return any(bare_name(name) == "specversion" for name in attributes)


def _is_beside(attributes: Mapping[str, Attribute]) -> bool:
    for name, value in attributes.items():
        # Nearly every content type is another one.
        if of_an_event(name) and (bare_name(name) is not None or _is_enveloped(value)):
            return True
    return False


def _is_enveloped(content_type: Attribute) -> bool:
    return str(content_type).lower().startswith(_ENVELOPE)


def read(document: Document, beside: Beside, limits: Limits) -> Envelope | Malformed | None:
    """Decode a CloudEvent; None: neither the body nor the attributes are one."""
    fields = document.value if isinstance(document.value, dict) else {}
    is_event = fields.get("specversion") is not None
    if not is_event and not _is_beside(beside.attributes):
        return None
    try:
        return _read(document, beside, limits, is_event=is_event)
    except _InvalidEvent as fault:
        return invalid(str(fault), claimed_of(fields if fault.event is None else fault.event, beside))


def fill(
    fields: Mapping[str, Any], names: Mapping[str, str], beside: Beside
) -> tuple[dict[str, Any], Beside] | Malformed:
    """Fill the fields of another format with a CloudEvent's attributes.

    The two must agree. `names` maps our names to the fields. The second value has the other attributes.
    """
    filled, sources = dict(fields), {}
    if not _is_beside(beside.attributes):
        return filled, beside
    try:
        named = _named(beside.attributes)
        _refuse_halves(named)
        if "specversion" in named:
            _check(named["specversion"][1], None, fields)
    except _InvalidEvent as fault:
        return invalid(str(fault), claimed_of(fields, beside))
    for ours, field in names.items():
        if (bare := _FORM.names[ours]) not in named:
            continue
        name, value = named[bare]
        own = filled.setdefault(field, number_in_text(value) if ours == "schema_version" else value)
        if not _same(bare, own, value):
            return invalid(differing(name, value, bare, own), claimed_of(fields, beside))
        sources[field] = name
    return filled, Beside(beside.attributes, beside.implied, sources)


def _read(
    document: Document, beside: Beside, limits: Limits, *, is_event: bool
) -> Envelope | Malformed | None:
    named = _named(beside.attributes)
    types = {name: beside.attributes[name] for name in content_types(beside.attributes)}
    enveloped = [value for value in types.values() if _is_enveloped(value)]
    if enveloped and not (is_event and all(_ONE.fullmatch(str(value)) for value in enveloped)):
        raise _InvalidEvent(
            f"content-type: {enveloped[0][:64]!r}, but the body is none; expected one CloudEvent in JSON "
            f"({_ENVELOPE}+json); send each event of a batch as a message of its own"
        )
    if is_event and (
        enveloped
        or "specversion" not in named
        or all(document.value.get(name) is not None for name in _REQUIRED)
    ):
        return _structured(_merged(document, named), _without(beside, named), limits)
    if "specversion" in named:
        return _binary(document, named, types, beside)
    _refuse_halves(named)
    return None


def _refuse_halves(named: _Named) -> None:
    """Raise _InvalidEvent if attributes of CloudEvents come without specversion."""
    halves = sorted(name for bare, (name, _) in named.items() if bare in _MEANT)
    if halves and "specversion" not in named:
        raise _InvalidEvent(
            f"the message attribute {halves[0]} belongs to a CloudEvent in binary mode, but specversion is "
            'missing; send specversion "1.0" as an attribute too, or drop this attribute'
        )


def _named(attributes: Mapping[str, Attribute]) -> _Named:
    """Return the attributes of a CloudEvent by their own names, with their names in the message."""
    named: dict[str, tuple[str, Attribute]] = {}
    for name, value in attributes.items():
        bare = bare_name(name)
        if bare is None:
            continue
        if bare in ("data", "data_base64"):
            raise _InvalidEvent(
                f"the message attribute {name}: data is the body in binary mode; remove the attribute"
            )
        if isinstance(value, bytes) and bare in _MEANT:
            raise _InvalidEvent(f"the message attribute {name} is binary; expected text")
        said = _time_of_amqp(value) if bare == "time" and name.lower().startswith(_OF_AMQP) else value
        other, known = named.setdefault(bare, (name, said))
        if known != said:
            raise _InvalidEvent(f"the message attributes {other} and {name} differ; send one")
    return named


def _time_of_amqp(value: Attribute) -> Attribute:
    """Format an AMQP timestamp (milliseconds since 1970) as RFC 3339."""
    try:
        return (_EPOCH + timedelta(milliseconds=int(value))).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError):
        return value


def _structured(document: Document, beside: Beside, limits: Limits) -> Envelope | Malformed:
    fields = document.value
    content_type, data, packed = fields.get("datacontenttype"), fields.get("data"), fields.get("data_base64")
    _check(fields["specversion"], content_type, fields)
    text = "null" if data is None else document.member_texts["data"]
    if packed is not None:
        if data is not None:
            raise _InvalidEvent("data and data_base64 are both present; send one", fields)
        found = _unpacked(packed, limits, fields)
        text, data = found.text.strip(" \t\r\n"), found.value
    return _made(content_type, fields, (text, data), document, beside)


def _unpacked(packed: object, limits: Limits, fields: Mapping[str, Any]) -> Document:
    """Parse data_base64."""
    try:
        data = b64decode(packed, validate=True) if isinstance(packed, str) else None
    except (binascii.Error, ValueError):
        data = None
    if data is None:
        raise _InvalidEvent("data_base64: expected text in base64", fields)
    try:
        return read_json(data.decode("utf-8-sig"), *limits) if data else NO_DATA
    except UnicodeDecodeError as error:
        words = f"expected JSON in UTF-8: {error.reason} at byte {error.start}"
    except JsonFault as fault:
        words = f"expected JSON: {fault}"
    raise _InvalidEvent(f"data_base64: {words}", fields)


def _binary(
    document: Document, named: _Named, types: Mapping[str, Attribute], beside: Beside
) -> Envelope | Malformed:
    event: dict[str, Any] = {bare: value for bare, (_, value) in named.items()}
    said = {*types.values(), *((event["datacontenttype"],) if "datacontenttype" in event else ())} - {""}
    if len(said) > 1:
        names = sorted({*types, *(name for bare, (name, _) in named.items() if bare == "datacontenttype")})
        raise _InvalidEvent(f"the message attributes {' and '.join(names)} differ; send one", event)
    content_type = next(iter(said), None)
    texts = {bare: _text(value) for bare, value in event.items()}
    if content_type is not None:
        event["datacontenttype"], texts["datacontenttype"] = content_type, _text(content_type)
    _check(event["specversion"], content_type, event)
    payload = (document.text.strip(" \t\r\n"), document.value)
    rest = _without(beside, named, types)
    return _made(content_type, event, payload, Document(event, "", texts), rest)


def _made(
    content_type: object,
    event: Mapping[str, Any],
    payload: tuple[str, Any],
    document: Document,
    beside: Beside,
) -> Envelope | Malformed:
    form = (
        _PLAIN if content_type is None or str(content_type).strip().lower() == "application/json" else _FORM
    )
    version = event.get(_VERSION)
    if isinstance(version, str) and not isinstance(number_in_text(version), int):
        # An extension of others, such as 1.2.0, is not our schema version, and so context.
        event = {name: value for name, value in event.items() if name != _VERSION}
        form = replace(form, known=form.known - {_VERSION})
    return make(form, event, payload, document, beside)


def _merged(document: Document, named: _Named) -> Document:
    """Fill a structured event from CloudEvents attributes, which must agree with it."""
    if not named:
        return document
    fields, texts = dict(document.value), dict(document.member_texts)
    for bare, (name, value) in named.items():
        own = fields.get(bare)
        if own is None:
            fields[bare], texts[bare] = value, _text(value)
        elif not _same(bare, own, value):
            raise _InvalidEvent(differing(name, value, bare, own))
    return Document(fields, document.text, texts)


def _without(beside: Beside, named: _Named, types: Container[str] = ()) -> Beside:
    """Return the attributes that are not the event's own."""
    if not named:
        return beside
    sources = {bare: name for bare, (name, _) in named.items()}
    rest = {
        name: value
        for name, value in beside.attributes.items()
        if bare_name(name) not in sources and name not in types
    }
    return Beside(rest, beside.implied, sources)


def _same(name: str, own: object, said: Attribute) -> bool:
    if name == "time":
        try:
            return (moment_of(own), rest_of(own)) == (moment_of(said), rest_of(said))
        except ValueError:
            return own == said
    if isinstance(own, bool) and isinstance(said, str):
        return str(own).lower() == said.lower()
    return str(own) == said


def _text(value: Attribute) -> str:
    # CloudEvents encodes bytes in base64.
    return quoted(value if isinstance(value, str) else binascii.b2a_base64(value, newline=False).decode())


def _check(version: object, content_type: object, event: Mapping[str, Any]) -> None:
    """Raise _InvalidEvent if the version, or the content type of the data, is not supported."""
    if version != "1.0":
        raise _InvalidEvent('specversion: expected "1.0", the only supported version of CloudEvents', event)
    if content_type is None:
        return
    if not isinstance(content_type, str) or not _JSON.fullmatch(content_type):
        raise _InvalidEvent(
            "datacontenttype: expected application/json, text/json or a type that ends in +json", event
        )
    for charset in _CHARSET.findall(content_type):
        if charset.lower() not in _UTF8:
            raise _InvalidEvent(
                f"datacontenttype: the charset {charset[:64]!r} is not supported; expected utf-8", event
            )
