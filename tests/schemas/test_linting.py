"""Tests the remarks on schemas, their absence on correct ones, and the advice in errors."""

import copy
import json
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from processor.devstack.seed import sample, samples
from processor.errors import SettingsError
from processor.schemas import patterns
from processor.schemas.compiling import compile_schema
from processor.schemas.lint.linting import lint

DRAFT_4 = {"$schema": "http://json-schema.org/draft-04/schema#"}
DRAFT_7 = {"$schema": "http://json-schema.org/draft-07/schema#"}
NULL = {"type": "null"}
DRAFT_2020 = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
CLOSED = {"type": "object", "additionalProperties": False}


def linted(schema: Any) -> list[str]:
    compile_schema(schema)
    return [f"{each.level} {each.pointer} {each.message}" for each in lint(schema)]


WARNED = [
    # Unknown keywords.
    ({"type": "object", "requierd": ["a"]}, "/requierd", 'did you mean "required"?'),
    ({"type": "object", "propertis": {}}, "/propertis", 'did you mean "properties"?'),
    ({"type": "string", "min_length": 3}, "/min_length", 'did you mean "minLength"?'),
    ({"items": {"enumm": [1]}}, "/items/enumm", 'did you mean "enum"?'),
    ({"type": "object", "size": {"type": "integer"}}, "/size", 'under "properties"'),
    ({"items": {"regex": "a"}}, "/items/regex", "prefix it with x-"),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"typ": "string"}}}, "/$defs/a/typ", '"type"'),
    # Keywords of other drafts, and of OpenAPI. Older drafts are likely if no draft is declared.
    (
        {"additionalItems": False, "prefixItems": [{}]},
        "/additionalItems",
        "draft-04 to 2019-09, no effect",
    ),
    (
        {"$ref": "#/definitions/a", "definitions": {"a": {"type": "string"}}},
        "/definitions",
        'or write "$defs"',
    ),
    ({"type": "object", "dependencies": {"a": ["b"]}}, "/dependencies", 'or write "dependentRequired"'),
    ({"type": "object", "id": "https://example.com/a"}, "/id", 'or write "$id"'),
    ({"$recursiveRef": "#", "type": "null"}, "/$recursiveRef", 'or write "$dynamicRef"'),
    (DRAFT_2020 | {"additionalItems": False, "type": "array"}, "/additionalItems", "draft-04 to 2019-09"),
    (DRAFT_7 | {"prefixItems": [{"type": "string"}]}, "/prefixItems", 'a list below "items"'),
    (DRAFT_4 | {"const": 1}, "/const", 'an "enum" of one value'),
    ({"type": "integer", "divisibleBy": 2}, "/divisibleBy", '"multipleOf"'),
    ({"type": "string", "nullable": True}, "/nullable", '"type": ["string","null"]'),
    ({"oneOf": [{"type": "object"}], "discriminator": {}}, "/discriminator", '"const"'),
    # All or nothing.
    (True, "", "any payload is valid"),
    ({"title": "Order", "x-owner": "me"}, "", "any payload is valid"),
    ({"anyOf": [{}, {"type": "string"}]}, "", "any payload is valid"),
    (False, "", "no payload is valid"),
    ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "", "no value is valid"),
    (CLOSED | {"properties": {"a": {"type": "string", "const": 1}}}, "/properties/a", "type and const can't"),
    (CLOSED | {"required": ["a"]}, "", "no value is valid"),
    ({"minimum": 3, "maximum": 2}, "/minimum", "greater than maximum"),
    # Required, but not described.
    ({"properties": {"name": {"type": "string"}}, "required": ["nmae"]}, "/required", 'did you mean "name"?'),
    ({"properties": {"a": {}}, "allOf": [{"required": ["b"]}]}, "/allOf/0/required", '"b" is required'),
    # Keywords without effect.
    ({"type": "integer", "maxLength": 3}, "/maxLength", "to strings only"),
    (
        DRAFT_7 | {"$ref": "#/definitions/a", "minimum": 1, "definitions": {"a": {}}},
        "/minimum",
        "next to $ref",
    ),
    ({"type": "string", "format": "datetime"}, "/format", 'did you mean "date-time"?'),
    (
        CLOSED | {"properties": {"additionalProperties": False}},
        "/properties/additionalProperties",
        "move it out",
    ),
    # Values that their own schema rejects.
    ({"type": "string", "enum": ["a", 1]}, "/enum", "enum contains 1"),
    ({"type": "integer", "examples": ["1"]}, "/examples", 'examples contains "1"'),
    # Patterns.
    ({"type": "string", "pattern": "[a-z]+"}, "/pattern", "no ^ and no $"),
    ({"type": "object", "patternProperties": {"x-": {}}}, "/patternProperties/x-", "no ^ and no $"),
    ({"type": "string", "pattern": "^a|b$"}, "/pattern", "^(?:…|…)$"),
    ({"type": "string", "pattern": "/^a$/"}, "/pattern", "slashes"),
    ({"type": "string", "pattern": "^[[:alpha:]]$"}, "/pattern", "not a supported character class"),
    ({"type": "string", "pattern": r"^\<a$"}, "/pattern", "a word boundary"),
]


@pytest.mark.parametrize(("schema", "pointer", "words"), WARNED)
def test_a_likely_mistake_gives_a_warning(schema: Any, pointer: str, words: str) -> None:
    found = [each for each in linted(schema) if each.startswith(f"warning {pointer} ") and words in each]

    assert len(found) == 1, linted(schema)


NOTED = [
    ({"type": "object", "properties": {"a": {"type": "string"}}}, "", '"additionalProperties": false'),
    ({"type": "object"}, "", "any object is valid"),
    ({"properties": {"a": {"type": "string"}}}, "", 'add "type": "object"'),
    ({"type": "string", "pattern": "^https://"}, "/pattern", "not anchored at both ends"),
    ({"type": "string", "format": "int64"}, "/format", "not checked"),
    (DRAFT_7 | {"type": "string", "format": "uuid"}, "/format", "later drafts define it"),
    ({"type": "string", "enum": ["a", "a"]}, "/enum", "duplicate"),
    ({"type": "string", "default": 1}, "/default", "default contains 1"),
    ({"type": "string", "$defs": {"a": {}}}, "/$defs/a", 'nothing refers to "a"'),
    (DRAFT_2020 | {"type": "object", "dependencies": {"a": ["b"]}}, "/dependencies", "still accepted"),
    ({"type": "string", "x-a": 1, "tsType": "A"}, "/x-a", '"x-a", "tsType"'),
    (DRAFT_4 | {"type": "string", "self": {"vendor": "acme"}}, "/self", '"self"'),
    (CLOSED | {"name": "Order"}, "/name", '"name"'),
]


@pytest.mark.parametrize(("schema", "pointer", "words"), NOTED)
def test_a_possible_mistake_gives_a_note(schema: Any, pointer: str, words: str) -> None:
    found = linted(schema)

    assert [each for each in found if each.startswith(f"note {pointer} ") and words in each], found
    assert not [each for each in found if each.startswith("warning")], found


FINE = [
    # A member may have any name, and a value may look like a schema.
    CLOSED | {"properties": {"requierd": {"type": "string"}, "nullable": {"type": "boolean"}}},
    CLOSED | {"properties": {"a": {"const": {"requierd": 1}}, "b": {"enum": [{"typ": 1}]}}},
    CLOSED | {"dependentRequired": {"requierd": ["a"]}, "properties": {"requierd": NULL, "a": NULL}},
    # A required member may be described by another schema for the same value.
    CLOSED | {"properties": {"a": NULL}, "anyOf": [{"required": ["a"]}]},
    {"$ref": "#/$defs/a", "required": ["a"], "$defs": {"a": CLOSED | {"properties": {"a": NULL}}}},
    {"type": "object", "additionalProperties": {"type": "string"}, "required": ["a"]},
    CLOSED | {"patternProperties": {"^a$": NULL}, "required": ["a"]},
    CLOSED | {"properties": {"a": NULL}, "not": {"required": ["b"]}},
    # Patterns that are anchored at both ends, or open on purpose.
    *({"type": "string", "pattern": each} for each in ("^a$", "^(?:a|b)$", "(^a$)|(^b$)")),
    *({"type": "string", "pattern": each} for each in ("^a.*", ".+", "(?i)^a$")),
    {"type": "string", "not": {"pattern": "secret"}},
    # Rejected on purpose.
    CLOSED | {"properties": {"a": {"not": {}}, "b": False}},
    # Draft by draft.
    DRAFT_4 | {"type": "number", "minimum": 0, "exclusiveMinimum": True},
    DRAFT_7 | {"type": "array", "items": [{"type": "string"}], "additionalItems": False},
    {"type": "array", "prefixItems": [{"type": "string"}], "items": False},
    {"type": ["string", "null"], "minLength": 1, "maxLength": 1},
    DRAFT_2020 | {"$ref": "#/definitions/a", "definitions": {"a": {"type": "string"}}},
]  # fmt: skip


@pytest.mark.parametrize("schema", FINE)
def test_a_correct_schema_gives_no_remarks(schema: Any) -> None:
    assert linted(schema) == []


@pytest.mark.parametrize("name", samples())
def test_our_samples_have_no_warnings(name: str) -> None:
    assert [each for each in lint(sample(name)) if each.level == "warning"] == []


def test_a_contradiction_is_reported_only_at_its_own_place() -> None:
    inner = CLOSED | {"properties": {"b": {"type": "string", "const": 1}}, "required": ["b"]}
    schema = CLOSED | {"properties": {"a": inner}}

    found = [each.pointer for each in lint(schema) if each.kind == "allows nothing"]

    assert found == ["/properties/a/properties/b"]


def test_a_remark_on_many_places_is_reported_once() -> None:
    schema = {"type": "array", "prefixItems": [{"type": "integer", "maxLength": 1}] * 100}

    [remark] = [each for each in lint(schema) if each.level == "warning"]

    assert (remark.pointer, remark.places) == ("/prefixItems/0/maxLength", 100)


# ── refusals ──────────────────────────────────────────────────────────────────────────────────────────

REFUSED = [
    ({"type": "strng"}, 'at /type: "strng" is not a type; write "string"'),
    ({"type": ["string", "nul"]}, 'write "null"'),
    ({"type": "datetime"}, 'write "string", "format": "date-time"'),
    ({"type": "any"}, 'omit "type"'),
    (
        {"properties": {"type": {"type": {"a": 1}}}},
        "at /properties/type/type: expected a type, found a schema",
    ),
    ({"properties": {"a": {"required": True}}}, '"required": ["a"]'),
    ({"properties": {"required": ["a"]}}, 'inside "properties"; move it out'),
    ({"exclusiveMinimum": True}, "a boolean is the form of draft-04"),
    (DRAFT_4 | {"exclusiveMinimum": 3, "minimum": 3}, 'write "minimum": 3, "exclusiveMinimum": true'),
    (DRAFT_4 | {"properties": {"a": True}}, "draft-04 does not allow true as a schema; write {}"),
    ({"items": [{}]}, 'write "prefixItems"'),
    ({"properties": {"a": "strng"}}, '{"type": "string"}'),
    (
        {"$ref": "#/$defs/moeny", "$defs": {"money": {}}},
        "does not resolve to a schema; did you mean /$defs/money?",
    ),
    ({"$ref": "#/$defs/a"}, "correct it, or add the schema"),
    ({"required": ["a", "a"]}, "a duplicate value"),
    ({"allOf": []}, "at least one entry"),
    ({"minLength": "3"}, 'at /minLength: expected integer, found "3"'),
    ({"enum": "x" * 10_000}, "expected array, found"),
    ({"pattern": "(?=.*a).+"}, "(?= at character 1"),
    ({"pattern": r"^(?=.*\d).+$"}, r'write instead "allOf": [{"pattern": "^.*\\d"}, {"pattern": "^.+$"}]'),
    ({"pattern": "^(?!x)a"}, 'write instead "pattern": "^a", "not": {"pattern": "^x"}'),
    ({"patternProperties": {"^(?!x-)": {}}}, '"propertyNames": {"not": {"pattern": "^x-"}}'),
    ({"pattern": r"(a)\1"}, "back-reference"),
    ({"pattern": "a{99999}"}, "too large"),
    ({"pattern": r"a\Z"}, "write $"),
    ({"pattern": r"[\w-.]"}, r"move the - to the end"),
    ({"pattern": r"\uD83D\uDE00"}, r"such as \u{1F600}"),
    ({"pattern": "a{,3}"}, r"write \{"),
    ({"pattern": "(a"}, "missing ), unterminated subpattern at position 0"),
    ({"pattern": r"\i"}, r"write the character without \\"[:-1]),
]


@pytest.mark.parametrize(("schema", "words"), REFUSED)
def test_an_error_says_what_to_write(schema: Any, words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        compile_schema(schema)

    assert words in str(refused.value)
    assert len(str(refused.value)) < 800


def test_the_replacement_for_look_around_matches_the_same_strings() -> None:
    chance = random.Random(7)
    texts = ["".join(chance.choices("ab1", k=chance.randrange(5))) for _ in range(300)]
    offered = 0
    for _ in range(500):
        pattern = "^" + "".join(
            chance.choices(["(?=.*a)", "(?!b)", "(?!a|1)", "(?=a|b)"], k=chance.randrange(3))
        )
        pattern += chance.choice(["", ".*", "[a-z]+", "a?b?1?", "(?:a|b)*", "a?(?!b).?"])
        pattern += chance.choice(["", "$", "(?<!a)$", "(?<=b|1)$", ".*$"])
        pattern += chance.choice(["", "", "", "|b"])
        words = patterns.refusal(pattern).partition("write instead ")[2]
        if not words:
            continue
        offered += 1
        asked = jsonschema_rs.Draft202012Validator(
            {"pattern": pattern}, pattern_options=jsonschema_rs.FancyRegexOptions()
        )
        instead = compile_schema(json.loads("{" + words + "}"))
        assert [asked.is_valid(text) for text in texts] == [instead.is_valid(text) for text in texts], pattern

    assert offered > 100


# ── anything ──────────────────────────────────────────────────────────────────────────────────────────


def _real() -> Iterator[Any]:
    yield from (sample(name) for name in samples())
    packages = Path(sysconfig.get_path("purelib"))
    rooms = ("check_jsonschema/builtin_schemas", "jsonschema_specifications")
    vendored = [file for room in rooms for file in packages.glob(f"{room}/**/*.json")]
    assert len(vendored) > 20
    for file in sorted(vendored):
        if file.stat().st_size < 100_000:
            yield json.loads(file.read_text(encoding="utf-8"))
    yield from (each for each, *_ in WARNED + NOTED + REFUSED)
    yield from FINE


def _mutated(schema: Any, chance: random.Random) -> Any:
    schema = copy.deepcopy(schema)
    places = [schema]
    for place in places:
        places += [
            each
            for each in (place.values() if isinstance(place, dict) else place)
            if isinstance(each, dict | list)
        ]
        if len(places) > 3000:
            break
    words = sorted({word for place in places if isinstance(place, dict) for word in place})
    odd = [
        None,
        True,
        -1,
        1e300,
        "",
        "a",
        "#",
        "#/nowhere",
        [],
        {},
        ["a", 1],
        {"$ref": "#"},
        {"type": "strng"},
    ]
    for _ in range(chance.randrange(1, 4)):
        place = chance.choice(places)
        value = chance.choice([*odd, chance.choice(places)])
        if isinstance(place, dict) and words:
            place[chance.choice(words)] = copy.deepcopy(value)
        elif isinstance(place, list):
            place.append(copy.deepcopy(value))
    return schema


def test_no_usable_schema_crashes_the_linter() -> None:
    chance = random.Random(11)
    taken = 0
    for schema in _real():
        if not isinstance(schema, dict):
            continue
        for mutant in [schema, *(_mutated(schema, chance) for _ in range(8))]:
            try:
                compile_schema(mutant)
            except SettingsError:
                continue
            taken += 1
            assert all(len(each.message) < 1000 for each in lint(mutant))

    assert taken > 200
