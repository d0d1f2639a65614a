"""Any JSON as an event: a mapping says of a queue's bodies where in them an envelope's fields stand.

    {"tenant_id": "/client_id", "event_type": "/event_type", "payload": "/message"}
    {"event_type": "login", "client_id": 7, "message": {"n": 1.50}, "host": "a"}
      ─▶ tenant "7", type "login", payload {"n": 1.50}, context {"host": "a"}

Every body of such a queue is read so, and tried as no other format. What the mapping leaves open may stand
beside the body. Texts are cut out of the text that came, so that no number loses a digit.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Context, Decimal
from functools import lru_cache
from typing import Any

from processor import bounds
from processor.beside import NAMES, NOTHING_BESIDE, Attribute, Beside
from processor.envelopes import Envelope, Fields, Form, Malformed, claimed_of, invalid, make, object_text
from processor.errors import Reason, SettingsError
from processor.json_pointer import PLACE, steps
from processor.strict_json import DIGITS_MAX, Document, JsonFault, elements, read
from processor.wire import binary_fault, read_body

_FIELDS = ("tenant_id", "event_type", "id", "producer", "occurred_at", "schema_version")
_PAYLOADS = ("payload", "payload_json")
"""Where the payload stands: as it is, or as a text that is JSON. Without either it is the whole body."""

_POINTER = re.compile(r"(/([^~/]|~[01])*)*", re.DOTALL)
_POINTER_LENGTH_MAX = 256
_MILLISECONDS_FROM = 10**11
"""From here on a number of a time is of milliseconds: as seconds it would be in the year 5138."""

_FORM = Form(Fields, {name: name for name in NAMES} | {"message_id": "id"})

_EXACT = Context(prec=2 * DIGITS_MAX)


def parse(pairs: Iterable[str]) -> dict[str, str]:
    """Read a mapping that is given as `field=/pointer`. Raises SettingsError, in words."""
    mapping: dict[str, str] = {}
    for pair in pairs:
        field, equals, pointer = pair.partition("=")
        if not equals or field not in (*_FIELDS, *_PAYLOADS):
            raise SettingsError(
                f"--map {pair[:64]!r}: expected FIELD=/POINTER, with a field of "
                f"{', '.join((*_FIELDS, *_PAYLOADS))}, such as tenant_id=/client_id"
            )
        if len(pointer) > _POINTER_LENGTH_MAX or not _POINTER.fullmatch(pointer):
            raise SettingsError(
                f"--map {pair[:64]!r}: no JSON pointer; expected / before each name on the way, such as "
                "/data/client_id (~1 for a / in a name, ~0 for a ~), or nothing for the whole body"
            )
        if field in mapping:
            raise SettingsError(f"--map {field}: given twice; expected each field once")
        mapping[field] = pointer
    if mapping.keys() >= set(_PAYLOADS):
        raise SettingsError("--map: both payload and payload_json are given; expected one of them")
    return mapping


def decode_mapped(
    body: bytes,
    attributes: Mapping[str, Attribute],
    mapping: Mapping[str, str],
    *,
    implied: Mapping[str, str],
    size_bytes_max: int,
    depth_max: int,
    values_max: int,
) -> Envelope | Malformed:
    """Read one message by a mapping. Never raises, whatever the bytes are."""
    document = read_body(
        body, attributes, size_bytes_max=size_bytes_max, depth_max=depth_max, values_max=values_max
    )
    if isinstance(document, Malformed):
        return document
    beside = Beside(attributes, implied) if attributes or implied else NOTHING_BESIDE
    paths = _paths(tuple(mapping.items()))
    fields: dict[str, Any] = {}
    for name in _FIELDS:
        found = _find(document, paths[name]) if name in paths else None
        if found is not None and (value := _said(name, *found)) is not None:
            fields[name] = value
    for name in ("tenant_id", "event_type"):
        if name in paths and name not in fields and name not in beside.known:
            return _missing(name, mapping[name], fields, beside)
    name = next((name for name in _PAYLOADS if name in paths), "payload")
    payload = _find(document, paths.get(name, ()))
    if payload is None:
        return _missing(name, mapping[name], fields, beside)
    text, value = payload
    if name == "payload_json" and isinstance(value, str):
        try:
            inner = read(value, depth_max, values_max)
        except JsonFault as fault:
            words = f"payload: the text at {_quoted(mapping[name])} is not JSON as we take it: {fault}"
            return invalid(words, claimed_of(fields, beside))
        text, value = inner.text.strip(" \t\r\n"), inner.value
    rest = _NOTHING if () in paths.values() or name not in paths else _rest(document, [*paths.values()])
    return binary_fault(fields, beside) or make(_FORM, fields, (text, value), rest, beside)


@lru_cache(maxsize=256)
def _paths(mapping: tuple[tuple[str, str], ...]) -> Mapping[str, tuple[str, ...]]:
    return {field: steps(pointer) for field, pointer in mapping}


def _missing(field: str, pointer: str, fields: Mapping[str, Any], beside: Beside) -> Malformed:
    words = f"{field}: nothing at {_quoted(pointer)}, where the queue's mapping has it"
    if field in _FIELDS:
        words += ", and none beside the body"
    detail = {
        "message": words,
        "errors": [{"pointer": pointer, "rule": "missing", "message": words}],
        "error_count": 1,
    }
    return Malformed(Reason.ENVELOPE_INVALID, detail, claimed_of(fields, beside))


def _quoted(pointer: str) -> str:
    return pointer or "the whole body"


# ── what a body says ──────────────────────────────────────────────────────────────────────────────────


def _find(document: Document, path: Sequence[str]) -> tuple[str, Any] | None:
    """Give the text and the value that a path leads to; None: it leads nowhere."""
    text, value = document.text.strip(" \t\r\n"), document.value
    for depth, step in enumerate(path):
        if isinstance(value, dict) and step in value:
            texts = read(text, *_UNLIMITED).member_texts if depth else document.member_texts
            text, value = texts[step], value[step]
        elif isinstance(value, list) and PLACE.fullmatch(step) and int(step) < len(value):
            text, value = elements(text, *_UNLIMITED)[int(step)], value[int(step)]
        else:
            return None
    return text, value


def _said(name: str, text: str, value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Give what a value says of a field, as an envelope's own format has it; None: nothing."""
    if isinstance(value, bool):
        return value
    if name == "occurred_at":
        return _moment_text(text) if isinstance(value, int | float | Decimal) else value
    if name == "schema_version":
        return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value) else value
    return str(value) if isinstance(value, int) else value


def _moment_text(number: str) -> str:
    """Write seconds or milliseconds since 1970 as a time, with all their digits."""
    seconds = Decimal(number)
    if seconds >= _MILLISECONDS_FROM:
        seconds = _EXACT.scaleb(seconds, -3)
    moment = bounds.moment_of(int(seconds))
    if moment is None:
        return number
    fraction = f"{_EXACT.remainder(seconds, 1):f}"[1:]
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"


# ── what it says beside that ──────────────────────────────────────────────────────────────────────────

_NOTHING = Document({}, "", {})
_UNLIMITED = (2**31, 2**31)
"""Depth and values of a part: the whole has been held to its limits."""


def _rest(document: Document, paths: Sequence[Sequence[str]]) -> Document:
    """Give the members of a body that no path takes away; a list is one called `body`."""
    if isinstance(document.value, dict):
        left = _left(document, paths)
    else:
        text = _without(document.text, paths)
        left = {} if text is None else {"body": text}
    return Document(left, "", left)


def _left(document: Document, paths: Sequence[Sequence[str]]) -> dict[str, str]:
    found = {
        name: _without(text, [path[1:] for path in paths if path[0] == name])
        for name, text in document.member_texts.items()
    }
    return {name: text for name, text in found.items() if text is not None}


def _without(text: str, paths: Sequence[Sequence[str]]) -> str | None:
    """Give what paths leave of a value; None: nothing. An element that is taken leaves a null."""
    if not paths:
        return text
    if any(not path for path in paths):
        return None
    document = read(text, *_UNLIMITED)
    if isinstance(document.value, dict) and document.value:
        left = _left(document, paths)
        return object_text(left) or "{}"
    if isinstance(document.value, list):
        parts = [
            _without(part, [path[1:] for path in paths if path[0] == str(place)])
            for place, part in enumerate(elements(text, *_UNLIMITED))
        ]
        return f"[{', '.join('null' if part is None else part for part in parts)}]"
    return text
