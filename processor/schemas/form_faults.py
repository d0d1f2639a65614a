"""Explains why a schema is invalid in its draft, and how to correct it."""

from collections.abc import Sequence
from typing import Any

import jsonschema_rs

from processor.schemas import patterns
from processor.schemas.dialects import DRAFT_4, Dialect
from processor.schemas.schema_text import schema_text
from processor.schemas.wording import nearest, shortened, shown

TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")
_OTHER_NAMES = {
    "string": "str text char varchar uuid date datetime date-time timestamp time email uri url bytes enum",
    "number": "float double decimal numeric real money",
    "integer": "int long short bigint int32 int64",
    "boolean": "bool",
    "object": "dict map struct record hash",
    "array": "list tuple set",
    "null": "none nil undefined void",
}
_FORMATS = ("uuid", "date", "time", "date-time", "email", "uri")
_MESSAGE_LENGTH_MAX = 200


def form_fault(error: jsonschema_rs.ValidationError, dialect: Dialect) -> str:
    """Return a message for the library's error about a schema that is invalid in its draft."""
    path = error.instance_path
    word = str(path[-1]) if path else ""
    inside = str(path[-2]) if len(path) > 1 else ""
    value = error.instance
    kind = type(error.kind).__name__
    if kind == "Format" and isinstance(value, str) and word != "$ref":
        return patterns.refusal(value, of_names=inside == "patternProperties")
    if word == "type" or inside == "type":
        return _type_fault(value)
    if kind in ("Type", "AnyOf") and (words := _shape_fault(path, word, inside, value, dialect)):
        return words
    return _library_fault(error, kind, word)


def _type_fault(value: Any) -> str:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        return 'expected a type, found a schema; put a member of this name under "properties"'
    if isinstance(value, list) and len({str(each) for each in value}) < len(value):
        return f"{shown(value)} contains a duplicate type"
    for name in value if isinstance(value, list) and value else [value]:
        if name in TYPES:
            continue
        if name == "any":
            return '"any" is not a type; omit "type" to accept any value'
        if not isinstance(name, str):
            return f"{shown(name)} is not a type; expected one of {', '.join(TYPES)}, or a list of them"
        meant = next((each for each, others in _OTHER_NAMES.items() if name.lower() in others.split()), None)
        meant = meant or nearest(name, TYPES)
        named = name.lower().replace("datetime", "date-time")
        more = f', "format": "{named}"' if named in _FORMATS else ""
        said = f'; write "{meant}"{more}' if meant else f"; expected one of {', '.join(TYPES)}"
        return f"{shown(name)} is not a type{said}"
    return f"{shown(value)} is not a type; expected one of {', '.join(TYPES)}, or a list of them"


def _shape_fault(  # noqa: PLR0911 - a table of faults
    path: Sequence[str | int],
    word: str,
    inside: str,
    value: Any,  # noqa: ANN401 - any JSON value
    dialect: Dialect,
) -> str | None:
    other_draft = "or declare the draft with $schema or --draft"
    if inside == "properties" and word in ("required", "enum", "type", "properties"):
        return f'"{word}" is inside "properties"; move it out, next to "properties"'
    if word == "required" and isinstance(value, bool):
        return (
            'a boolean is the form of draft-03; list the members next to "properties": '
            f'"required": [{shown(path[-2]) if inside and path[-3:-2] == ["properties"] else "…"}]'
        )
    if word in ("exclusiveMinimum", "exclusiveMaximum"):
        bound = word.removeprefix("exclusive").lower()
        if isinstance(value, bool):
            said = f'write "{word}": NUMBER instead of "{bound}"'
            return f"a boolean is the form of draft-04; {said}, {other_draft} (4)"
        if dialect is DRAFT_4:
            said = f'write "{bound}": {shown(value)}, "{word}": true'
            return f'draft-04 expects a boolean here, next to "{bound}"; {said}'
    if word == "items" and isinstance(value, list):
        return f'a list of schemas is the form of draft-04 to 2019-09; write "prefixItems", {other_draft} (7)'
    if isinstance(value, bool) and dialect is DRAFT_4:
        plain = "{}" if value else '{"not": {}}'
        return f"draft-04 does not allow {shown(value)} as a schema; write {plain}, {other_draft} (7)"
    if isinstance(value, str) and (inside in ("properties", "$defs", "definitions") or word == "items"):
        meant = nearest(value, TYPES)
        return f'expected a schema, found {shown(value)}; write {{"type": "{meant}"}}' if meant else None
    return None


def _library_fault(error: jsonschema_rs.ValidationError, kind: str, word: str) -> str:
    value = error.instance
    if kind == "Type":
        types = error.kind.as_dict().get("types") or ["another type"]
        if sorted(types) == ["boolean", "object"]:
            types = ["a schema, which is an object or true or false"]
        return f"expected {' or '.join(types)}, found {shown(value)}"
    if kind == "UniqueItems":
        return f"{shown(value)} contains a duplicate value; remove it"
    if kind == "MinItems":
        return f"expected at least one entry; omit {shown(word)} if there is none"
    text = error.message.replace(schema_text(value), shown(value))
    return shortened(text, _MESSAGE_LENGTH_MAX)
