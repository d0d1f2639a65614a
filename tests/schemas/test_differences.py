"""Tests the differences between versions of a schema, and their effect on payloads."""

import sys
from copy import deepcopy
from decimal import Decimal
from typing import Any

import pytest

from processor.schemas.compare import comparing
from processor.schemas.compare.comparing import Version, compare
from processor.schemas.compare.compatibility import Compared, Verdict, takes_all
from processor.schemas.compare.differences import differences
from processor.schemas.dialects import DIALECTS, Dialect
from processor.schemas.schema_text import schema_text, schema_value

D4 = "http://json-schema.org/draft-04/schema#"
D7 = "http://json-schema.org/draft-07/schema#"
D2019 = "https://json-schema.org/draft/2019-09/schema"
UNTOLD = "may narrow or widen"


def a(name: str, schema: Any, **more: Any) -> dict[str, Any]:
    return {"properties": {name: schema}} | more


def closed(**members: Any) -> dict[str, Any]:
    return {"properties": members, "additionalProperties": False}


# old, new, differences from old to new, differences from new to old
CASES: dict[str, tuple[Any, Any, list[str], list[str]]] = {
    "the same": ({"type": "string"}, {"type": ["string"]}, [], []),
    "anything": (True, {}, [], []),
    "required": (
        {},
        {"required": ["total"]},
        ["narrows /total: is now required"],
        ["widens /total: is no longer required"],
    ),
    "a type": (
        a("n", {"type": ["integer", "null"]}),
        a("n", {"type": "number"}),
        ["changes /n: type integer or null → number"],
        ["changes /n: type number → integer or null"],
    ),
    "a maximum of items": (
        {"items": a("price", {"maximum": 100})},
        {"items": a("price", {"maximum": 50})},
        ["narrows /*/price: maximum 100 → 50"],
        ["widens /*/price: maximum 50 → 100"],
    ),
    "every digit": (
        {"maximum": schema_value("0.1234567890123456789")},
        {"maximum": schema_value("0.1234567890123456788")},
        ["narrows (root): maximum 0.1234567890123456789 → 0.1234567890123456788"],
        ["widens (root): maximum 0.1234567890123456788 → 0.1234567890123456789"],
    ),
    "what is asked of another type": (
        closed(a={"type": "number", "maximum": 1, "multipleOf": 2})
        | {"type": "object", "required": ["a"], "minProperties": 1, "dependentRequired": {"a": ["b"]}},
        {
            "type": ["string", "array"],
            **dict.fromkeys(("minLength", "maxLength", "minItems"), 3),
            "pattern": "^a",
            "format": "date",
            "items": {"type": "null"},
            "uniqueItems": True,
        },
        ["changes (root): type object → array or string"],
        ["changes (root): type array or string → object"],
    ),
    "what is asked of a fraction": (
        {"enum": [0.5], "maximum": 1},
        {"enum": [0.5], "maximum": 0, "multipleOf": 1},
        ["narrows (root): maximum 1 → 0", "narrows (root): multipleOf 1 was added"],
        ["widens (root): maximum 0 → 1", "widens (root): multipleOf 1 was removed"],
    ),
    "a number as it is written": (
        {"minimum": 1e-300, "enum": [1e300, 2]},
        {"minimum": schema_value("2E-300"), "enum": [1e300]},
        ["removes (root): the value 2", "narrows (root): minimum 1e-300 → 2E-300"],
        ["adds (root): the value 2", "widens (root): minimum 2E-300 → 1e-300"],
    ),
    "digits beyond a float": (
        {"minimum": 0.1, "maximum": 0.1},
        {
            "minimum": schema_value("0.10000000000000000001"),
            "maximum": schema_value("0.10000000000000000001"),
        },
        [
            "narrows (root): minimum 0.1 → 0.10000000000000000001",
            "widens (root): maximum 0.1 → 0.10000000000000000001",
        ],
        [
            "widens (root): minimum 0.10000000000000000001 → 0.1",
            "narrows (root): maximum 0.10000000000000000001 → 0.1",
        ],
    ),
    "more digits than are computed with": (
        {"maximum": schema_value("0.12345678901234567890123456789012")},
        {"maximum": schema_value("0.12345678901234567890123456789011")},
        ["narrows (root): maximum 0.12345678901234567890123456789012 → 0.12345678901234567890123456789011"],
        ["widens (root): maximum 0.12345678901234567890123456789011 → 0.12345678901234567890123456789012"],
    ),
    "an excluded bound": (
        {"minimum": 0},
        {"exclusiveMinimum": 0},
        ["narrows (root): minimum 0 → 0 (excluded)"],
        ["widens (root): minimum 0 (excluded) → 0"],
    ),
    "values": (
        {"enum": ["a", "b"]},
        {"enum": ["b", "c"]},
        ['removes (root): the value "a"', 'adds (root): the value "c"'],
        ['removes (root): the value "c"', 'adds (root): the value "a"'],
    ),
    "a member of a closed schema": (
        closed(id={}),
        closed(id={}, note={"type": "string"}),
        ["adds /note: is new: string"],
        ["removes /note: is no longer accepted"],
    ),
    "a member of an open schema": (
        a("id", {}),
        {"properties": {"id": {}, "note": {"type": "string"}}},
        ["adds /note: is new: string; any value was accepted before"],
        ["removes /note: is no longer described; any value is now accepted"],
    ),
    "closing": (
        a("id", {}),
        closed(id={}),
        ["narrows (root): undescribed members are no longer accepted (additionalProperties)"],
        ["widens (root): undescribed members are now accepted (additionalProperties)"],
    ),
    "needed beside another": (
        {},
        {"dependentRequired": {"card": ["address"]}},
        ["narrows /address: is now required if /card is present"],
        ["widens /address: is no longer required if /card is present"],
    ),
    "needed beside another, in older words": (
        {"$schema": D7},
        {"$schema": D7, "dependencies": {"card": ["address"]}},
        ["narrows /address: is now required if /card is present"],
        ["widens /address: is no longer required if /card is present"],
    ),
    "a schema needed beside another": (
        {"dependentSchemas": {"card": True}},
        {"dependentSchemas": {"card": {"required": ["address"]}}},
        [f"changes (root): dependentSchemas changed; {UNTOLD}"],
        [f"changes (root): dependentSchemas changed; {UNTOLD}"],
    ),
    "a place in a list": (
        {"prefixItems": [{}, {"type": "number"}]},
        {"prefixItems": [{}, {"type": "integer"}]},
        ["narrows /1: type number → integer"],
        ["widens /1: type integer → number"],
    ),
    "a place in a list, in older words": (
        {"$schema": D2019, "items": [{"type": "number"}], "additionalItems": True},
        {"$schema": D2019, "items": [{"type": "number"}], "additionalItems": False},
        ["removes /*: is no longer accepted"],
        ["adds /*: is now accepted: anything"],
    ),
    "a pattern": (
        {"pattern": "^a"},
        {"pattern": "^b"},
        [f'changes (root): pattern "^a" → "^b"; {UNTOLD}'],
        [f'changes (root): pattern "^b" → "^a"; {UNTOLD}'],
    ),
    "a multiple": (
        {"multipleOf": schema_value("0.01")},
        {"multipleOf": schema_value("0.1")},
        ["narrows (root): multipleOf 0.01 → 0.1"],
        ["widens (root): multipleOf 0.1 → 0.01"],
    ),
    "a branch": (
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
        {"anyOf": [{"type": "null"}, {"type": "string"}, {"type": "boolean"}]},
        ["adds (root): a branch of anyOf: boolean"],
        ["removes (root): a branch of anyOf: boolean"],
    ),
    "within a branch": (
        {"anyOf": [{"type": "string"}, {"maximum": 9}]},
        {"anyOf": [{"type": "string"}, {"maximum": 5}]},
        ["narrows (root): maximum 9 → 5"],
        ["widens (root): maximum 5 → 9"],
    ),
    "several branches": (
        {"anyOf": [{"type": "string"}, {"maximum": 9}]},
        {"anyOf": [{"minimum": 1}, {"maximum": 5}]},
        [f"changes (root): anyOf changed; {UNTOLD}"],
        [f"changes (root): anyOf changed; {UNTOLD}"],
    ),
    "two lists of branches": (
        {"allOf": [{"anyOf": [{"minimum": 1}]}, {"anyOf": [{"maximum": 5}]}]},
        {"allOf": [{"anyOf": [{"minimum": 2}]}, {"anyOf": [{"maximum": 6}]}]},
        [f"changes (root): several anyOf changed; {UNTOLD}"],
        [f"changes (root): several anyOf changed; {UNTOLD}"],
    ),
    "what narrows where it widens": (
        {"not": {"minimum": 5}},
        {"not": {"minimum": 6}},
        [f"changes (root): not changed; {UNTOLD}"],
        [f"changes (root): not changed; {UNTOLD}"],
    ),
    "then": (
        {"if": {"required": ["a"]}, "then": {}},
        {"if": {"required": ["a"]}, "then": {"required": ["b"]}},
        ["narrows /b: is now required"],
        ["widens /b: is no longer required"],
    ),
    "then of nothing": ({"then": {"required": ["b"]}}, {}, [], []),
    "cases that change places": (
        {"allOf": [{"if": a("a", {}), "then": a("b", {})}, {"if": a("c", {}), "then": a("d", {})}]},
        {"allOf": [{"if": a("a", {}), "then": a("d", {})}, {"if": a("c", {}), "then": a("b", {})}]},
        [f"changes (root): if, then or else changed; {UNTOLD}"],
        [f"changes (root): if, then or else changed; {UNTOLD}"],
    ),
    "parts": (
        {"allOf": [{"required": ["a"]}, {"$ref": "#/$defs/b"}], "$defs": {"b": {"required": ["b"]}}},
        {"required": ["b", "a"]},
        [],
        [],
    ),
    "what a name stands for": (
        {"$defs": {"m": {"maxLength": 9}}} | a("x", {"$ref": "#/$defs/m"}),
        {"$defs": {"n": {"$anchor": "m", "maxLength": 8}}} | a("x", {"$ref": "#m"}),
        ["narrows /x: maxLength 9 → 8"],
        ["widens /x: maxLength 8 → 9"],
    ),
    "an embedded schema": (
        {
            "$defs": {
                "m": {"$id": "https://example.com/m", "$ref": "#/$defs/n", "$defs": {"n": {"minimum": 1}}}
            }
        }
        | a("x", {"$ref": "https://example.com/m"}),
        a("x", {"minimum": 2}),
        ["narrows /x: minimum 1 → 2"],
        ["widens /x: minimum 2 → 1"],
    ),
    "what refers to itself": (
        a("x", {"type": "integer"}, additionalProperties={"$ref": "#"}),
        a("x", {"type": "number"}, additionalProperties={"$ref": "#"}),
        ["widens /x: type integer → number", "widens /*/x: type integer → number"],
        ["narrows /x: type number → integer", "narrows /*/x: type number → integer"],
    ),
    "beside a reference": (
        {"$schema": D7, "$ref": "#/definitions/m", "maximum": 3, "definitions": {"m": {}}},
        {"$ref": "#/$defs/m", "maximum": 3, "$defs": {"m": {}}},
        ["narrows (root): maximum none → 3"],
        ["widens (root): maximum 3 → none"],
    ),
    "the same in another draft": (
        {"$schema": D4, "minimum": 0, "exclusiveMinimum": True, "id": "https://example.com/a", "const": 1},
        {"exclusiveMinimum": 0, "$id": "https://example.com/a"},
        [],
        [],
    ),
    "an integer of another draft": (
        {"$schema": D7, "type": "integer"},
        {"$schema": D4, "type": "integer"},
        [f"changes (root): 1.0 is an integer, except in draft-04; {UNTOLD}"],
        [f"changes (root): 1.0 is an integer, except in draft-04; {UNTOLD}"],
    ),
    "the same branches in another draft, under other names": (
        {"$schema": D7, "oneOf": [{"$ref": "#/definitions/m"}], "definitions": {"m": {"items": [{}, False]}}},
        {"oneOf": [{"$ref": "#/$defs/n"}], "$defs": {"n": {"title": "n", "prefixItems": [{}, False]}}},
        [],
        [],
    ),
    "a format that an older draft does not look at": (
        {"$schema": D7, "format": "uuid"},
        {"format": "uuid"},
        ['narrows (root): format "uuid" was added'],
        ['widens (root): format "uuid" was removed'],
    ),
    "notes": (
        a("x", {"title": "one", "maximum": 1}),
        a("x", {"title": "two", "maximum": 1}),
        ["notes /x: title, description or another annotation changed"],
        ["notes /x: title, description or another annotation changed"],
    ),
    "values that look like schemas": (
        {"const": {"$ref": "#/nowhere", "$id": "x y"}, "oneOf": [{"enum": [{"id": "/", "$ref": "nope"}]}]},
        {"const": {"$ref": "#/nowhere", "$id": "x y"}, "oneOf": [{"enum": [{"id": "/", "$ref": "nope"}]}]},
        [],
        [],
    ),
    "odd names": (
        {"required": ["a/b"]},
        {"required": ["c~d"]},
        ["narrows /c~0d: is now required", "widens /a~1b: is no longer required"],
        ["narrows /a~1b: is now required", "widens /c~0d: is no longer required"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_difference_and_its_inverse_are_described(case: str) -> None:
    old, new, forth, back = CASES[case]

    assert [f"{one.kind} {one}" for one in differences(old, new)] == forth
    assert [f"{one.kind} {one}" for one in differences(new, old)] == back


@pytest.mark.parametrize(
    "word", ["unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "oneOf", "contains", "propertyNames"]
)
def test_an_unknown_effect_counts_as_narrowing_and_widening(word: str) -> None:
    value: Any = {"oneOf": [{"type": "string"}], "$dynamicRef": "#a"}.get(word, {"type": "string"})
    anchors = {"$defs": {"a": {"$dynamicAnchor": "a"}}}

    found = differences(anchors, anchors | {word: value})

    assert any(one.narrows for one in found)
    assert any(one.widens for one in found)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_references_to_metaschemas_are_compared(dialect: Dialect) -> None:
    def schema(**members: Any) -> Any:
        return {"$schema": dialect.uri, "properties": {"schema": {"$ref": dialect.uri}, **members}}

    [found] = differences(schema(a={}), schema(a={"type": "null"}))

    assert (found.pointer, found.narrows, found.widens) == ("/a", True, False)
    assert differences(schema(), {"$schema": dialect.uri, "properties": {"schema": {}}})


def test_a_changed_target_of_a_dynamic_reference_is_reported() -> None:
    def schema(maximum: int) -> dict[str, Any]:
        tree = {"$id": "tree", "$dynamicAnchor": "node", **a("x", {"$dynamicRef": "#node"})}
        return {
            "$id": "https://example.com/",
            "$dynamicAnchor": "node",
            "$defs": {"tree": tree},
            "$ref": "tree",
            "maximum": maximum,
        }

    assert any(one.narrows for one in differences(schema(9), schema(8)))


def test_formats_differ_if_they_become_assertions() -> None:
    date = {"format": "date"}

    assert differences(date, date) == []
    assert differences(date, {}, formats=("annotate", "annotate")) == []
    [found] = differences(date, date, formats=("annotate", "assert"))
    assert (found.kind, found.words) == ("narrows", 'format "date" was added')


GOOD = {"required": ["a"], "minimum": 1, "multipleOf": 2}


@pytest.mark.parametrize(
    "bad",
    [
        {"$ref": "#/nowhere"},
        {"properties": 1},
        {"$schema": "x"},
        {"required": 1},
        {"maximum": "x"},
        {"multipleOf": 0},
    ],
)
def test_an_unresolvable_schema_is_a_difference(bad: Any) -> None:
    for pair in ((bad, GOOD), (GOOD, bad)):
        found = differences(*pair)

        assert any(one.narrows for one in found)
        assert any(one.widens for one in found)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"$ref": "other.json"}, "the schema refers to a document that is not given"),
        ({"properties": 1}, "at /properties: "),
        ({"$ref": D7 + "/definitions/nope"}, "at (root): $ref: 'http://json-schema.org/draft-07/schema#/def"),
    ],
)
def test_an_unresolvable_schema_has_the_message_of_publish(bad: Any, words: str) -> None:
    for pair in ((bad, {"required": ["a"]}), ({"required": ["a"]}, bad)):
        [found] = differences(*pair)

        start = "the versions can't be compared keyword by keyword: not a usable JSON Schema 2020-12: "
        assert found.words.startswith(start + words)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize(
    "own", ["common/label.json", "/common/label.json", "label.json", "https://e/a/b.json"]
)
def test_a_schema_equals_itself_with_any_id(dialect: Dialect, own: str) -> None:
    part = {dialect.id_word: "part/one.json", "type": "string"}
    label = {
        "$schema": dialect.uri,
        dialect.id_word: own,
        "properties": {"a": {"oneOf": [{"$ref": "part/one.json"}, {"$ref": "#/definitions/p"}]}},
        "required": ["a", "b"],
        "definitions": {"p": part},
    }
    wider = label | {"required": ["a"]}

    assert differences(label, deepcopy(label)) == []
    assert takes_all(Compared(label), Compared(deepcopy(label))) == Verdict("yes")
    assert takes_all(Compared(wider), Compared(label)) == Verdict("yes")


TREE = {"properties": {"next": {"$ref": "#/$defs/tree"}, "money": {"$ref": "#/$defs/money"}}}
PARTS: dict[str, Any] = {"money": {"type": "number"}, "text": {"type": "string"}, "tree": TREE}
SAME: list[dict[str, Any]] = [
    {"text": {"$ref": "#/$defs/text"}, "money": {"$ref": "#/$defs/money"}, "tree": {"$ref": "#/$defs/tree"}},
    {"tree": {"$ref": "#/$defs/t"}, "money": {"$ref": "#/$defs/a"}, "text": {"$ref": "#/$defs/b"}},
    {"money": {"type": "number"}, "text": {"$ref": "https://e/text"}, "tree": {"$ref": "#/$defs/unrolled"}},
]
DEFINITIONS: list[dict[str, Any]] = [
    PARTS,
    {
        "a": {"$ref": "#/$defs/money"},
        "money": {"type": "number"},
        "b": {"type": "string"},
        "t": {"properties": {"money": {"$ref": "#/$defs/a"}, "next": {"$ref": "#/$defs/t"}}},
    },
    {
        **PARTS,
        "text": {"$id": "https://e/text", "type": "string"},
        "unrolled": {"properties": {"next": {"$ref": "#/$defs/tree"}, "money": {"type": "number"}}},
    },
]


@pytest.mark.parametrize("word", ["oneOf", "not", "contains", "anyOf", "propertyNames", "if"])
@pytest.mark.parametrize("old", range(3))
@pytest.mark.parametrize("new", range(3))
def test_names_and_places_of_subschemas_make_no_difference(old: int, new: int, word: str) -> None:
    def schema(which: int, definitions: dict[str, Any]) -> dict[str, Any]:
        part = {"properties": SAME[which]}
        return {word: [part] if word.endswith("Of") else part, "then": False, "$defs": definitions}

    other = deepcopy(DEFINITIONS[new])
    changed = next(iter(part for part in other.values() if "properties" in part))
    changed["properties"]["next"] = {"type": "null"}

    assert differences(schema(old, DEFINITIONS[old]), schema(new, DEFINITIONS[new])) == []
    assert differences(schema(old, DEFINITIONS[old]), schema(new, other)) != []


def test_many_differences_are_listed_up_to_a_limit_and_counted() -> None:
    found = differences({}, {"required": [f"m{number}" for number in range(1000)]})

    assert len(found) == 201
    assert (found[-1].words, found[-1].narrows, found[-1].widens) == ("and 800 more differences", True, False)


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ({"type": "string"}, {"type": "string", "pattern": "^a"}, Verdict("no", '""')),
        (a("n", {"maximum": 100}), a("n", {"maximum": 50}), Verdict("no", '{"n":99}')),
        ({"type": "object"}, closed(), Verdict("no", '{"other":{}}')),
        ({"pattern": "^ab"}, {"pattern": "^a"}, Verdict("unknown")),
        ({"maximum": 1}, {"maximum": 2}, Verdict("yes")),
        # 1000.0 is an integer, except in draft-04.
        (
            {"$schema": D4, "type": "number", "multipleOf": 3, "maximum": Decimal("1000.0")},
            {"$schema": D4, "type": "integer", "multipleOf": 3, "maximum": Decimal("1000.0")},
            Verdict("no", "999.0"),
        ),
        ({"type": "number"}, {"type": "number", "multipleOf": 0.01}, Verdict("no", "0.005")),
        (
            {"type": "number", "minimum": 10},
            {"type": "number", "minimum": 10, "multipleOf": 0.5},
            Verdict("no", "10.25"),
        ),
        (
            {"patternProperties": {"^a": {}}, "additionalProperties": False, "type": "object"},
            {"patternProperties": {"^ab": {}}, "additionalProperties": False, "type": "object"},
            Verdict("no", '{"a":1}'),
        ),
        # An unusable schema rejects everything.
        ({"type": "nope"}, {}, Verdict("yes")),
        ({}, {"type": "nope"}, Verdict("no")),
    ],
)
def test_a_payload_shows_what_is_no_longer_valid(old: Any, new: Any, verdict: Verdict) -> None:
    assert takes_all(Compared(new), Compared(old)) == verdict


def version(definition: Any) -> Version:
    return Version("it", schema_text(definition), "assert")


def test_a_killed_comparison_reports_its_partial_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a stack overflow in the library: the process is dead, and its earlier output is there."""
    dies = "import os, sys; sys.stdout.write('[]\\n'); sys.stdout.flush(); os.abort()"
    monkeypatch.setattr(comparing, "COMMAND", [sys.executable, "-c", dies])
    found = compare(version({}), version({}))
    assert (found.backward, found.forward) == (Verdict("yes"), Verdict("yes"))

    monkeypatch.setattr(comparing, "COMMAND", [sys.executable, "-c", "import os; os.abort()"])
    found = compare(version({}), version({}))
    assert (found.backward, found.forward) == (Verdict("unknown"), Verdict("unknown"))
    assert "can't be compared" in found.differences[0].words


def test_a_comparison_stays_within_its_cpu_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    endless = (
        f"import {comparing.__name__} as process; process.CPU_S = 1; "
        "process.differences = lambda *_, **__: [0 for _ in iter(int, 1)]; process.main()"
    )
    monkeypatch.setattr(comparing, "COMMAND", [sys.executable, "-c", endless])

    assert compare(version({}), version({})).backward == Verdict("unknown")
