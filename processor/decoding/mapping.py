"""Decodes any JSON by a mapping: JSON pointers to an envelope's fields, set for a queue.

    {"tenant_id": "/client_id", "event_type": "/event_type", "payload": "/message"}
    {"event_type": "login", "client_id": 7, "message": {"n": 1.50}, "host": "a"}
      ─▶ tenant "7", type "login", payload {"n": 1.50}, context {"host": "a"}

Every body of the queue is decoded by the mapping only. Attributes, also those of a CloudEvent, fill the
fields that the mapping leaves open. Values are cut out of the original text, so that no number loses a digit.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Context, Decimal
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

from processor.errors import Reason, SettingsError
from processor.wire import bounds, cloudevents
from processor.wire.beside import NAMES, NOTHING_BESIDE, Attribute, Beside, complete, number_in_text
from processor.wire.envelope import (
    Claimed,
    Envelope,
    EnvelopeFormat,
    Fields,
    Malformed,
    claimed_of,
    invalid,
    make,
    object_text,
)
from processor.wire.formats import binary_fault, read_body
from processor.wire.json_pointer import pointer, steps
from processor.wire.rfc3339 import moment_of
from processor.wire.strict_json import DIGITS_MAX, Document, JsonFault, elements, read

_FIELDS = ("tenant_id", "event_type", "id", "producer", "occurred_at", "schema_version")
_PAYLOADS = ("payload", "payload_json")
"""The place of the payload: as JSON, or as a string that contains JSON. Default: the whole body."""

_NEEDED = ("tenant_id", "event_type", "id")
"""Required if the mapping has a place for them: an event without its id would count each time."""

_POINTER = re.compile(r"(/([^~/]|~[01])*)*", re.DOTALL)
_POINTER_LENGTH_MAX = 256
_MILLISECONDS_FROM = 10**11
"""Numbers from here on are milliseconds: as seconds they would be in the year 5138."""

_FORM = EnvelopeFormat(Fields, {name: name for name in NAMES} | {"message_id": "id"})

_EXACT = Context(prec=2 * DIGITS_MAX)

_SEEN_MAX = 40
"""Quoted characters of a value."""


def parse(pairs: Iterable[str]) -> dict[str, str]:
    """Parse a mapping of `field=/pointer` pairs. Raises SettingsError."""
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
                f"--map {pair[:64]!r}: not a JSON pointer; expected / before each name, such as "
                "/data/client_id (~1 for a / in a name, ~0 for a ~), or an empty pointer for the whole body"
            )
        if field in mapping:
            raise SettingsError(f"--map {field}: given twice; give each field once")
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
    """Decode a message by a mapping. Never raises, whatever the bytes are."""
    document = read_body(
        body, attributes, size_bytes_max=size_bytes_max, depth_max=depth_max, values_max=values_max
    )
    if isinstance(document, Malformed):
        return document
    beside = Beside(attributes, implied) if attributes or implied else NOTHING_BESIDE
    body_part = _Part(document.text.strip(" \t\r\n"), document.value, document.member_texts)
    paths = _paths(tuple(mapping.items()))
    fields, faults = _fields(body_part, paths)
    if attributes:
        filled = cloudevents.fill(fields, _FORM.names, beside)
        if isinstance(filled, Malformed):
            return filled
        fields, beside = filled
    unsaid = [name for name in _NEEDED if name in paths and name not in fields and name not in faults]
    known = complete(fields, _FORM.names, beside)[0] if unsaid else fields
    for name in unsaid:
        if known.get(name) is None:
            faults[name] = "missing", f"{_missing(mapping[name])}, and no message attribute has it"
    name = next((name for name in _PAYLOADS if name in paths), "payload")
    payload = body_part.at(paths.get(name, ()))
    if payload is None:
        faults[name] = "missing", _missing(mapping[name])
    if faults or payload is None:
        return _refused(faults, mapping, claimed_of(fields, beside))
    text, value = payload.text, payload.value
    if name == "payload_json" and isinstance(value, str):
        try:
            inner = read(value, depth_max, values_max)
        except JsonFault as fault:
            words = f"payload: the text at {_quoted(mapping[name])} is invalid JSON: {fault}"
            return invalid(words, claimed_of(fields, beside))
        text, value = inner.text.strip(" \t\r\n"), inner.value
    rest = _NOTHING if () in paths.values() or name not in paths else _rest(body_part, [*paths.values()])
    return binary_fault(fields, beside) or make(_FORM, fields, (text, value), rest, beside)


@lru_cache(maxsize=256)
def _paths(mapping: tuple[tuple[str, str], ...]) -> Mapping[str, tuple[str, ...]]:
    return {field: steps(pointer) for field, pointer in mapping}


_Faults: TypeAlias = dict[str, tuple[str, str]]
"""The faults by field: the violated rule, and the message."""


def _fields(body: "_Part", paths: Mapping[str, tuple[str, ...]]) -> tuple[dict[str, Any], _Faults]:
    """Return the fields of a body in the types of the native format; null counts as missing."""
    fields: dict[str, Any] = {}
    faults: _Faults = {}
    for name in _FIELDS:
        part = body.at(paths[name]) if name in paths else None
        if part is None or part.value is None:
            continue
        try:
            fields[name] = _READERS.get(name, _identifier)(part)
        except ValueError as error:
            seen = part.text if len(part.text) <= _SEEN_MAX else f"{part.text[:_SEEN_MAX]}..."
            faults[name] = "mapped", f"{seen} at {_quoted(pointer(paths[name]))}; {error}"
    return fields, faults


def _missing(at: str) -> str:
    return f"no value at {_quoted(at)}, where the mapping of the queue expects one"


def _refused(faults: _Faults, mapping: Mapping[str, str], claimed: Claimed) -> Malformed:
    errors = [
        {"pointer": mapping[name], "rule": rule, "message": words} for name, (rule, words) in faults.items()
    ]
    message = "; ".join(f"{name}: {words}" for name, (_, words) in faults.items())
    detail = {"message": message, "errors": errors, "error_count": len(errors)}
    return Malformed(Reason.ENVELOPE_INVALID, detail, claimed)


def _quoted(at: str) -> str:
    return at or "the whole body"


# ── what a body says ──────────────────────────────────────────────────────────────────────────────────

_UNLIMITED = (2**31, 2**31)
"""Limits of a part: the whole body is within the limits already."""


class _Part:
    """A value of a body and its exact text. The texts of its members are split once."""

    def __init__(self, text: str, value: Any, texts: Mapping[str, str] | None = None) -> None:  # noqa: ANN401 - any JSON value
        self.text, self.value = text, value
        self._members = texts if isinstance(value, dict) else None
        self._inner: dict[str, _Part] = {}

    @cached_property
    def texts(self) -> Mapping[str, str]:
        """The texts of its members or elements, by step."""
        if isinstance(self.value, dict):
            return read(self.text, *_UNLIMITED).member_texts if self._members is None else self._members
        if isinstance(self.value, list):
            return {str(place): text for place, text in enumerate(elements(self.text, *_UNLIMITED))}
        return {}

    def inner(self, step: str) -> "_Part":
        """Return an existing member or element."""
        if step not in self._inner:
            value = self.value[step] if isinstance(self.value, dict) else self.value[int(step)]
            self._inner[step] = _Part(self.texts[step], value)
        return self._inner[step]

    def at(self, path: Sequence[str]) -> "_Part | None":
        """Return the part at a path; None: no such part."""
        part = self
        for step in path:
            if step not in part.texts:
                return None
            part = part.inner(step)
        return part


def _identifier(part: _Part) -> str:
    if isinstance(part.value, bool) or not isinstance(part.value, str | int):
        raise ValueError("expected text or a whole number")  # noqa: TRY004 - bad content
    return str(part.value)


def _schema_version(part: _Part) -> object:
    number = number_in_text(part.value)
    if isinstance(number, bool) or not isinstance(number, int):
        raise ValueError("expected a whole number")  # noqa: TRY004 - bad content
    return number


def _moment(part: _Part) -> str:
    """Return a time as text: as received, or from a Unix time in seconds or milliseconds, with all digits."""
    number = isinstance(part.value, int | float | Decimal) and not isinstance(part.value, bool)
    named = _moment_text(part.text) if number else part.value
    try:
        moment_of(named)
    except ValueError as error:
        words = str(error)
        if words.startswith("expected"):
            words += ", or a number (not text) of seconds or milliseconds since 1970"
        raise ValueError(words) from None
    return str(named)


_READERS: Mapping[str, Callable[[_Part], object]] = {
    "occurred_at": _moment,
    "schema_version": _schema_version,
}


def _moment_text(number: str) -> str:
    """Format a Unix time in seconds or milliseconds, with all digits."""
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


def _rest(body: _Part, paths: Sequence[Sequence[str]]) -> Document:
    """Return the members of a body that no path takes; a list becomes the member `body`."""
    if isinstance(body.value, dict):
        texts = _left(body, paths)
        return Document({name: body.value[name] for name in texts}, "", texts)
    text = _without(body, paths)
    return _NOTHING if text is None else Document({"body": body.value}, "", {"body": text})


def _left(part: _Part, paths: Sequence[Sequence[str]]) -> dict[str, str]:
    """Return the remaining texts of members or elements. A taken element becomes null."""
    found = dict(part.texts)
    for step in {path[0] for path in paths} & found.keys():
        text = _without(part.inner(step), [path[1:] for path in paths if path[0] == step])
        if text is not None:
            found[step] = text
        elif isinstance(part.value, list):
            found[step] = "null"
        else:
            del found[step]
    return found


def _without(part: _Part, paths: Sequence[Sequence[str]]) -> str | None:
    """Return the remaining text of a value; None: nothing remains."""
    if any(not path for path in paths):
        return None
    if not any(path[0] in part.texts for path in paths):
        return part.text
    left = _left(part, paths)
    return f"[{', '.join(left.values())}]" if isinstance(part.value, list) else object_text(left) or "{}"
