"""Lints a usable schema: finds what may accept or reject payloads against the author's intent.

places ─▶ keywords of each place, their effects, and all constraints on one value
       ─▶ remarks; equal ones are merged
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import product
from typing import Any

import jsonschema_rs
from jsonschema_rs.canonical import MultiTypeView, UnsatisfiableReason, find_unsatisfiable

from processor.schemas import patterns
from processor.schemas.dialects import KEYWORDS, asks, dialect_of
from processor.schemas.form_faults import TYPES
from processor.schemas.lint.same_value import SameValue
from processor.schemas.lint.unknown_words import Level, Oddity, UnknownWords
from processor.schemas.references import SchemaDocument
from processor.schemas.schema_text import schema_text
from processor.schemas.subschemas import Subschema
from processor.schemas.wording import nearest, shown
from processor.wire.json_pointer import pointer

_BRANCHES_MAX = 16
_CANONICAL_BYTES_MAX = 16 * 1024
"""A larger schema, or one with more branches of oneOf, if and so on, is not searched for contradictions.

The library takes seconds for it: 10 s for a public schema of 31 KB with 30 branches.
"""
_OWN_BYTES_MAX = 64 * 1024

_NAMES_MAX = 5
_VALUES_MAX = 1000


@dataclass(frozen=True, slots=True)
class Remark:
    """A remark, the first place that it applies to, and the count of places."""

    level: Level
    kind: str
    pointer: str
    message: str
    places: int = 1


def lint(definition: Any) -> list[Remark]:  # noqa: ANN401 - any JSON value
    """Return the remarks on a schema that `compile_schema` accepts, warnings first."""
    remarks: dict[tuple[str, str, str], Remark] = {}
    for level, kind, at, message in _found(SchemaDocument(definition, dialect_of(definition)), definition):
        known = remarks.get((level, kind, message), Remark(level, kind, at, message, places=0))
        remarks[level, kind, message] = replace(known, places=known.places + 1)
    return sorted(remarks.values(), key=lambda remark: remark.level != "warning")


def _found(document: SchemaDocument, definition: Any) -> Iterator[Oddity]:  # noqa: ANN401 - any JSON value
    same_value = SameValue(document)
    places = [(place, place.schema) for place in document.places() if isinstance(place.schema, dict)]
    branches = sum(
        re.search(r"/(?:(?:any|one)Of/[0-9]+|if|not)$", place.at) is not None for place, _ in places
    )
    yield from _whole_oddities(definition, branches)
    words = UnknownWords(names_draft=isinstance(definition, dict) and "$schema" in definition)
    for place, schema in places:
        yield from words.remarks(place, same_value.within)
        yield from _place_oddities(place, schema)
    yield from words.of_tools()
    yield from same_value.remarks()


def _whole_oddities(definition: Any, branches: int) -> Iterator[Oddity]:  # noqa: ANN401 - any JSON value
    is_small = branches <= _BRANCHES_MAX and len(schema_text(definition)) <= _CANONICAL_BYTES_MAX
    kind, little = _kind(definition, is_small=is_small)
    if kind == "true":
        yield "warning", "forbids nothing", "", "any payload is valid; declare at least a type"
    elif little:
        yield "note", "forbids little", "", "any object is valid, whatever its members"
    if definition is False:
        yield "warning", "allows nothing", "", "no payload is valid"
    elif is_small:
        for at, why in _impossible(definition):
            yield "warning", "allows nothing", at, why


def _kind(definition: Any, *, is_small: bool) -> tuple[str, bool]:  # noqa: ANN401 - any JSON value
    """Return "true" if any payload is valid, and whether any object is valid."""
    if isinstance(definition, dict) and not any(asks(word) for word in definition):
        return "true", False
    if not is_small:
        return "", False
    try:
        canonical = jsonschema_rs.canonicalize(definition)
    except (ValueError, jsonschema_rs.ReferencingError):
        return "", False
    view = canonical.view()
    return canonical.kind.value, isinstance(view, MultiTypeView) and "object" in view.types


def _impossible(definition: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - any JSON value
    try:
        found = find_unsatisfiable(definition, pattern_options=jsonschema_rs.RegexOptions(), offline=True)
    except (ValueError, jsonschema_rs.ReferencingError):
        return
    for at, reason in found.items():
        if at and any(each.startswith(f"{at}/") for each in found):
            # Only because of a subschema, which is reported itself.
            continue
        if isinstance(reason, UnsatisfiableReason.Conflict):
            causes = reason.causes
        elif isinstance(reason, UnsatisfiableReason.Empty):
            causes = [reason.cause]
        else:
            continue
        words = [word for cause in causes for word in cause.keywords]
        if words != ["not"]:
            yield (
                at,
                f"no value is valid: {' and '.join(words[:_NAMES_MAX]) or 'the constraints'} can't be met",
            )


_BOUNDS = (
    *product(("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")),
    *((f"min{what}", f"max{what}") for what in ("Length", "Items", "Properties", "Contains")),
)
_ASKED_OF = {
    "string": "minLength maxLength pattern",
    "number": "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf",
    "array": "items prefixItems additionalItems unevaluatedItems minItems maxItems uniqueItems contains",
    "object": "properties patternProperties additionalProperties unevaluatedProperties required "
    "minProperties maxProperties propertyNames dependentRequired dependentSchemas",
}
_TYPE_OF = {word: type_ for type_, words in _ASKED_OF.items() for word in words.split()}
_LOCAL = {"type", "enum", "const", "format"} | {word for word in _TYPE_OF if KEYWORDS[word].kind is None}
_FORMATS = """
    date date-time time duration email idn-email hostname idn-hostname ipv4 ipv6 uri uri-reference iri
    iri-reference uri-template uuid json-pointer relative-json-pointer regex
"""


def _place_oddities(place: Subschema, schema: dict[str, Any]) -> Iterator[Oddity]:
    at = place.at
    for least, most in _BOUNDS:
        if _is_number(schema.get(least)) and _is_number(schema.get(most)) and schema[least] > schema[most]:
            message = f"{least} is greater than {most}: no value is valid"
            yield "warning", "contradiction", f"{at}/{least}", message
    yield from _type_oddities(at, schema)
    if "$ref" in schema and not place.dialect.is_modern:
        for word in schema:
            if asks(word) and word != "$ref":
                message = f'{word} next to $ref has no effect in {place.dialect.name}: put both under "allOf"'
                yield "warning", "beside $ref", f"{at}/{word}", message
    yield from _pattern_oddities(at, schema)
    yield from _value_oddities(place, schema)
    members = schema.get("properties")
    for word in ("additionalProperties", "unevaluatedProperties"):
        if isinstance(members, dict) and isinstance(members.get(word), bool):
            message = f'{word} is inside "properties", as a member; move it out, next to "properties"'
            yield "warning", "misplaced", f"{at}/properties/{word}", message


def _type_oddities(at: str, schema: dict[str, Any]) -> Iterator[Oddity]:
    types = schema.get("type")
    named = {types} if isinstance(types, str) else set(types) if isinstance(types, list) else set(TYPES)
    named |= {"number"} if "integer" in named else set()
    for word in schema.keys() & _TYPE_OF.keys():
        if _TYPE_OF[word] not in named:
            message = f"{word} has no effect on {shown(types)}: the keyword applies to {_TYPE_OF[word]}s only"
            yield "warning", "no effect", f"{at}/{word}", message


def _pattern_oddities(at: str, schema: dict[str, Any]) -> Iterator[Oddity]:
    if at.endswith("/not"):
        # A pattern below `not` is unanchored on purpose.
        return
    found = [(f"{at}/pattern", schema.get("pattern"))]
    if isinstance(schema.get("patternProperties"), dict):
        found += [(at + pointer(["patternProperties", each]), each) for each in schema["patternProperties"]]
    for where, pattern in found:
        if isinstance(pattern, str):
            for level, message in patterns.remarks(pattern):
                yield level, "pattern", where, message


def _value_oddities(place: Subschema, schema: dict[str, Any]) -> Iterator[Oddity]:
    at = place.at
    enum = schema.get("enum")
    if isinstance(enum, list):
        texts = [schema_text(value) for value in enum]
        if len(set(texts)) < len(texts):
            yield "note", "enum", f"{at}/enum", "enum contains a duplicate value"
    name = schema.get("format")
    if isinstance(name, str) and not place.dialect.knows_format(name):
        near = nearest(name, _FORMATS.split(), 0.85)
        level: Level = "warning" if near and near != name else "note"
        said = (
            f'; did you mean "{near}"?' if level == "warning" else "; later drafts define it" if near else ""
        )
        message = f"the format {shown(name)} is unknown in {place.dialect.name} and not checked{said}"
        yield level, "format", f"{at}/format", message
    yield from _own_value_oddities(place, schema)


def _own_value_oddities(place: Subschema, schema: dict[str, Any]) -> Iterator[Oddity]:
    own: list[tuple[Level, str, Any]] = [("warning", "enum", value) for value in _listed(schema.get("enum"))]
    own += [("warning", "const", schema["const"])] if "const" in schema else []
    own += [("warning", "examples", value) for value in _listed(schema.get("examples"))]
    own += [("note", "default", schema["default"])] if "default" in schema else []
    if not own or not schema.keys() & (_LOCAL - {"enum", "const"}):
        return
    validator = _own_validator(place, schema)
    for level, word, value in own:
        if validator and not validator.is_valid(value):
            message = f"{word} contains {shown(value)}, which the keywords next to it reject"
            yield level, "own value", f"{place.at}/{word}", message


def _own_validator(place: Subschema, schema: dict[str, Any]) -> jsonschema_rs.Validator | None:
    text = schema_text(schema)
    if 'Ref"' in text or '$ref"' in text or len(text) > _OWN_BYTES_MAX:
        schema = {word: schema[word] for word in schema.keys() & _LOCAL}
    try:
        return place.dialect.validator(
            schema | {"$schema": place.dialect.uri},
            offline=True,
            validate_formats=True,
            pattern_options=jsonschema_rs.RegexOptions(),
        )
    except (ValueError, jsonschema_rs.ReferencingError):
        return None


def _listed(value: Any) -> list[Any]:  # noqa: ANN401 - any JSON value
    return value[:_VALUES_MAX] if isinstance(value, list) else []


def _is_number(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)
