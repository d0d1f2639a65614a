"""Parses and serializes schemas without losing a digit, as strictly as payloads.

bytes ─▶ text ─▶ JSON, or else YAML ─▶ value
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec

from processor.errors import SettingsError
from processor.wire import strict_json
from processor.wire.json_pointer import pointer

FILE_BYTES_MAX = 32 * 1024 * 1024
"""API descriptions can have 10 MiB; only one schema of them is stored."""

DEPTH_MAX = 64
VALUES_MAX = 1_000_000
_BYTE_ORDER_MARK = "\ufeff"
_OTHER_ENCODINGS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_JSON, _YAML = (".json",), (".yaml", ".yml")
_CHARACTER = re.compile(r"at character (\d+)")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_SETTING = re.compile(r" \(JSON_\w+\)")
_Path: TypeAlias = tuple[str | int, ...]
_encode = msgspec.json.Encoder(decimal_format="number").encode


def file_value(data: bytes, name: str = "") -> Any:  # noqa: ANN401 - any JSON value
    """Parse a file in JSON or YAML. The extension of `name` decides the format, else the content.

    Raises SettingsError with the fault and its place.
    """
    text = file_text(data, FILE_BYTES_MAX, "a JSON Schema, in JSON or YAML")
    value = _file_value(text, name.lower())
    require_texts(text, value)
    return value


def _file_value(text: str, name: str) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return schema_value(text)
    except SettingsError as fault:
        if not name.endswith(_YAML) and (name.endswith(_JSON) or text.lstrip()[:1] in ("{", "[")):
            raise
        # Imported here, because nearly no process reads YAML.
        from processor.schemas.yaml_text import YamlFault, yaml_value  # noqa: PLC0415

        try:
            value = yaml_value(text, DEPTH_MAX, VALUES_MAX)
        except YamlFault as yaml_fault:
            raise SettingsError(f"invalid YAML: {yaml_fault}") from None
        if not name.endswith(_YAML) and not isinstance(value, dict | list):
            # Nearly any text is a YAML string.
            raise fault from None
        return value


def require_texts(text: str, value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Raise SettingsError if a parsed value has a string that PostgreSQL can't store."""
    pending: list[tuple[_Path, Any]] = [((), value)] if "\\" in text else []
    while pending:
        path, found = pending.pop()
        texts = found if isinstance(found, dict) else (found,)
        if any(isinstance(one, str) and _UNSTORABLE.search(one) for one in texts):
            raise SettingsError(f"at {pointer(path) or '(root)'}: a string with U+0000 or a lone surrogate")
        match found:
            case dict():
                pending += [((*path, name), member) for name, member in found.items()]
            case list():
                pending += [((*path, place), element) for place, element in enumerate(found)]


def schema_value(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """Parse a schema from JSON; numbers are those of `strict_json.read`.

    Raises SettingsError for invalid JSON, a duplicate key, or a number with too many digits.
    """
    text = text.removeprefix(_BYTE_ORDER_MARK)
    try:
        return strict_json.read(text, DEPTH_MAX, VALUES_MAX).value
    except strict_json.JsonFault as fault:
        raise SettingsError(f"invalid JSON: {_placed(text, without_settings(fault))}") from None


def schema_text(definition: Any) -> str:  # noqa: ANN401 - any JSON value
    """Serialize a schema as JSON, with every digit. Raises SettingsError for a lone surrogate."""
    try:
        return _encode(definition).decode()
    except UnicodeEncodeError as error:
        raise SettingsError(f"not a usable JSON Schema: invalid Unicode: {error}") from None


def file_text(data: bytes, bytes_max: int, expected: str) -> str:
    """Decode a file, without its byte order mark. Raises SettingsError."""
    if len(data) > bytes_max:
        raise SettingsError(f"more than {bytes_max} bytes; expected {expected}")
    if data.startswith(_OTHER_ENCODINGS) or b"\0" in data[:4]:
        raise SettingsError("not UTF-8, but UTF-16 or UTF-32 by its first bytes; save it as UTF-8")
    try:
        text = data.decode().removeprefix(_BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        raise SettingsError(f"not UTF-8: {error.reason} at byte {error.start}; save it as UTF-8") from None
    if not text.strip():
        raise SettingsError(f"empty; expected {expected}")
    return text


def without_settings(fault: strict_json.JsonFault) -> str:
    """Return the fault's message without setting names: the limits of files are not settings."""
    return _SETTING.sub("", str(fault))


def _placed(text: str, words: str) -> str:
    if found := _CHARACTER.search(words):
        before = text[: int(found[1])]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        return _CHARACTER.sub(f"at line {line}, column {column}", words)
    path = _first_fault(text)
    return words if path is None else f"at {pointer(path) or '(root)'}: {words}"


class _RefusedValue:
    """Marks a rejected value."""


class _Pairs(list[tuple[str, Any]]):
    """The members of an object, with duplicates."""


def _first_fault(text: str) -> _Path | None:
    """Find the path of the first rejected value, because the parser does not report it."""
    decoder = json.JSONDecoder(
        object_pairs_hook=_Pairs,
        parse_int=_checked,
        parse_float=_checked,
        parse_constant=lambda _: _RefusedValue(),
    )
    try:
        return next(_faults((), decoder.decode(text)), None)
    except (ValueError, RecursionError):
        return None


def _checked(digits: str) -> _RefusedValue | None:
    try:
        strict_json.read(digits, 1)
    except strict_json.JsonFault:
        return _RefusedValue()
    return None


def _faults(path: _Path, value: Any) -> Iterator[_Path]:  # noqa: ANN401 - any JSON value
    match value:
        case _RefusedValue():
            yield path
        case _Pairs():
            seen: set[str] = set()
            for name, member in value:
                if name in seen:
                    yield path
                seen.add(name)
                yield from _faults((*path, name), member)
        case list():
            for place, element in enumerate(value):
                yield from _faults((*path, place), element)
