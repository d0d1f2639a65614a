"""A schema that passes is validated in bounded time, whatever the payload; another is refused."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processor.errors import Reason, SettingsError
from processor.model import EventSchema, Registry, Rejection
from processor.schemas import Schemas
from processor.validation.budget import NANOSECONDS_MAX, budget_trouble
from processor.validation.compiling import compile_schema
from tests.builders import a_delivery

Schema = dict[str, Any]
SELF = {"$ref": "#"}


def a_doubling(word: str, levels: int = 40) -> Schema:
    """Each definition asks for the one before it twice."""
    defs: Schema = {"a0": {"type": "string"}}
    for level in range(1, levels + 1):
        defs[f"a{level}"] = {word: [{"$ref": f"#/$defs/a{level - 1}"}] * 2}
        if level % 4 == 0:
            # By way of a child, lest the number of steps for one value be what refuses it.
            defs[f"a{level}"] = {"properties": {"c": defs[f"a{level}"]}}
    return {"$defs": defs, "$ref": f"#/$defs/a{levels}"}


REFUSED: dict[str, tuple[Any, str]] = {
    "doubles by anyOf": (a_doubling("anyOf"), "longer than 2 s"),
    "doubles by allOf": (a_doubling("allOf"), "longer than 2 s"),
    "refers to itself": ({"$ref": "#"}, "to itself"),
    "refers to itself by two": (
        {"allOf": [{"$ref": "#/$defs/x"}], "$defs": {"x": {"not": SELF}}},
        "to itself",
    ),
    "refers to itself dynamically": ({"$dynamicAnchor": "x", "$dynamicRef": "#x"}, "to itself"),
    "one child twice": ({"allOf": [{"properties": {"c": SELF}}] * 2}, "longer than 2 s"),
    "one item twice": ({"items": SELF, "contains": SELF}, "longer than 2 s"),
    "by name and by pattern": (
        {"properties": {"c": SELF}, "patternProperties": {"^c": SELF}},
        "longer than 2 s",
    ),
    "by rest, and once more for what was left": (
        {"anyOf": [{"additionalProperties": SELF}], "unevaluatedProperties": False},
        "longer than 2 s",
    ),
    "by a dynamic reference": (
        {"$dynamicAnchor": "x", "items": {"allOf": [{"$dynamicRef": "#x"}] * 2}},
        "longer than 2 s",
    ),
    "many choices for each item": (
        {"items": {"oneOf": [{"const": i} for i in range(100)]}},
        "longer than 2 s",
    ),
    "many objects in an enum": ({"items": {"enum": [{"a": i} for i in range(1000)]}}, "longer than 2 s"),
    "multiples of next to nothing": ({"items": {"multipleOf": 1e-300}}, "longer than 2 s"),
    "many bytes": ({"description": "x" * 200_000}, "bytes"),
    "many subschemas": ({"anyOf": [{}] * 5000}, "subschemas"),
    "many references": (
        {"$defs": {"a": {}}, "properties": {f"p{i}": {"$ref": "#/$defs/a"} for i in range(1001)}},
        "references",
    ),
    "a long way for one value": (
        {
            "$defs": {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(30)} | {"a30": {}},
            "$ref": "#/$defs/a0",
        },
        "steps",
    ),
    "a pattern with many steps": ({"pattern": "[01]*1[01]{500}2"}, "500"),
    "a pattern of repetitions": ({"patternProperties": {"(?:x{1,40}){1,40}": True}}, "1600 steps"),
    "an id below": (
        {"$defs": {"a": {"$id": "https://x.example/a"}}, "items": {"$ref": "https://x.example/a"}},
        "id",
    ),
    "another dialect below": ({"items": {"$schema": "https://x.example/meta"}}, "schema"),
    "a reference to the web": ({"$ref": "https://x.example/a"}, "somewhere else"),
    "a dynamic reference to the web": ({"$dynamicRef": "https://x.example/a#b"}, "somewhere else"),
    "a reference to a file": ({"$ref": "file:///etc/passwd"}, "somewhere else"),
    "a relative reference": ({"$id": "https://x.example/a", "$ref": "b.json"}, "somewhere else"),
    "the schema of schemas": ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, "somewhere else"),
    "a reference to nothing": ({"$ref": "#/$defs/a"}, "no schema"),
}

TAKEN: dict[str, Any] = {
    "a tree": {
        "properties": {"left": SELF, "right": SELF, "v": {"type": "integer"}},
        "additionalProperties": False,
    },
    "a nested list": {"type": ["array", "string"], "items": SELF},
    "a choice that repeats": {"anyOf": [{"type": "string"}, {"type": "array", "items": SELF}]},
    "two that call each other": {
        "$defs": {
            "a": {"properties": {"x": {"$ref": "#/$defs/b"}, "y": {"$ref": "#/$defs/a"}}},
            "b": {"properties": {"x": {"$ref": "#b"}, "y": {"$ref": "#/$defs/a"}}, "$anchor": "b"},
        },
        "$ref": "#/$defs/a",
    },
    "its own id": {
        "$id": "https://x.example/a",
        "items": {"$ref": "https://x.example/a#/$defs/b"},
        "$defs": {"b": {}},
    },
    "a name that looks like a word": {"properties": {"$id": {"type": "string"}, "$ref": {"type": "string"}}},
    "many wide kinds": {
        "oneOf": [
            {
                "properties": {"kind": {"const": kind}}
                | {f"p{i}": {"type": "number", "minimum": 0} for i in range(20)}
            }
            for kind in ("a", "b", "c", "d", "e", "f", "g", "h")
        ]
    },
    "wide items": {"items": {"properties": {f"p{i}": {"type": "string", "maxLength": 9} for i in range(50)}}},
    "a list of countries": {"items": {"enum": [f"C{i}" for i in range(250)]}},
    "cents": {"items": {"properties": {"price": {"multipleOf": 0.01, "minimum": 0}}}},
    "closed by what is left": {
        "allOf": [{"properties": {"a": {"type": "string"}}}, {"properties": {"b": {"type": "string"}}}],
        "unevaluatedProperties": False,
    },
    "a long bounded pattern": {"pattern": "^[a-z]{1,255}$"},
    "a pattern of a mail address": {"pattern": r"^[^@\s]+@[a-z0-9-]{1,63}(\.[a-z]{2,})+$"},
    "nothing": False,
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_schema_that_could_take_too_long_is_refused_quickly_with_its_path(name: str) -> None:
    definition, words = REFUSED[name]
    began = time.process_time()

    with pytest.raises(SettingsError, match=words):
        compile_schema(definition)

    assert time.process_time() - began < 2


@pytest.mark.parametrize("name", TAKEN)
def test_a_schema_as_people_write_them_is_taken(name: str) -> None:
    compile_schema(TAKEN[name])


def test_the_samples_cost_a_fraction_of_the_budget() -> None:
    samples = Path(__file__).parents[2] / "processor" / "devstack" / "samples"

    for path in samples.rglob("*.schema.json"):
        assert budget_trouble(json.loads(path.read_text(encoding="utf-8"))) is None


def test_a_trouble_says_which_path_breaks_which_bound() -> None:
    assert budget_trouble(REFUSED["one child twice"][0]) == (
        "at #/allOf/1/properties/c: a payload could take longer than 2 s to validate; it leads to "
        "#/allOf/1/properties/c 524288 times for the same value; ask less of each item, or refer to a "
        "schema once for each value"
    )


def test_a_schema_that_came_past_the_budget_makes_rejections_and_no_crash() -> None:
    """Whoever has psql may write any definition into the table."""
    judge = Schemas(body_bytes_max=1024 * 1024, json_depth_max=64)
    definition = json.dumps(REFUSED["one child twice"][0])
    judge.install(Registry(1, {"acme": False}, (EventSchema(1, "order.created", None, 1, definition),)))
    payload: Any = "end"
    for _ in range(50):
        payload = {"c": payload}

    verdict = judge.validate(a_delivery(payload=payload))

    assert isinstance(verdict, Rejection)
    assert verdict.reason is Reason.SCHEMA_VIOLATION
    assert "can't be used" in verdict.detail["message"]


def test_a_long_and_deep_payload_is_not_searched_for_its_error() -> None:
    judge = Schemas(body_bytes_max=1024 * 1024, json_depth_max=64)
    definition = json.dumps(TAKEN["a choice that repeats"])
    judge.install(Registry(1, {"acme": False}, (EventSchema(1, "order.created", None, 1, definition),)))
    payload: Any = [*["a"] * 90_000, 1]
    for _ in range(55):
        payload = [payload]
    began = time.process_time()

    verdict = judge.validate(a_delivery(payload=payload))

    assert isinstance(verdict, Rejection)
    assert verdict.reason is Reason.SCHEMA_VIOLATION
    assert (verdict.detail["errors"], verdict.detail["error_count"]) == ([], None)
    assert time.process_time() - began < 1


# ── whatever schema passes ────────────────────────────────────────────────────────────────────────────

refs = st.sampled_from([{"$ref": f"#/$defs/{name}"} for name in "abc"])
schemas: st.SearchStrategy[Any] = st.recursive(
    refs | st.sampled_from([True, {"type": "string"}]),
    lambda inner: st.one_of(
        st.fixed_dictionaries({}, optional={"allOf": st.lists(inner, min_size=1, max_size=2), "not": inner}),
        st.fixed_dictionaries(
            {},
            optional={
                "properties": st.dictionaries(st.sampled_from("cd"), inner, max_size=2),
                "patternProperties": st.dictionaries(st.sampled_from(["^c", "."]), inner, max_size=2),
                "additionalProperties": inner,
                "unevaluatedProperties": inner,
                "anyOf": st.lists(inner, min_size=1, max_size=2),
            },
        ),
        st.fixed_dictionaries(
            {},
            optional={
                "items": inner,
                "prefixItems": st.lists(inner, min_size=1, max_size=1),
                "contains": inner,
            },
        ),
    ),
    max_leaves=4,
)


def count_of(root: Schema, schema: Any, value: Any, seen: dict[tuple[int, int], int]) -> int:
    """How many subschemas are asked in all, if nobody stops early: the plain rules, and no bound."""
    if not isinstance(schema, dict):
        return 1
    key = (id(schema), id(value))
    if key not in seen:
        same = [*schema.get("allOf", ()), *schema.get("anyOf", ())] + [
            schema[w] for w in ("not",) if w in schema
        ]
        if "$ref" in schema:
            same.append(root["$defs"][schema["$ref"][-1]] if schema["$ref"] != "#" else root)
        twice = 2 if "unevaluatedProperties" in schema else 1
        total = 1 + twice * sum(count_of(root, part, value, seen) for part in same)
        for part, child in children_of(schema, value):
            total += count_of(root, part, child, seen)
        seen[key] = total
    return seen[key]


def children_of(schema: Schema, value: Any) -> list[tuple[Any, Any]]:
    found = []
    if isinstance(value, dict):
        for name, child in value.items():
            parts = [part for each, part in schema.get("properties", {}).items() if each == name]
            parts += [
                part for each, part in schema.get("patternProperties", {}).items() if re.search(each, name)
            ]
            if not parts:
                parts = [schema[w] for w in ("additionalProperties", "unevaluatedProperties") if w in schema][
                    :1
                ]
            found += [(part, child) for part in parts]
    if isinstance(value, list):
        first = schema.get("prefixItems", [])
        rest = [schema["items"]] if "items" in schema else []
        for index, child in enumerate(value):
            parts = [first[index]] if index < len(first) else rest
            found += [
                (part, child) for part in [*parts, *([schema["contains"]] if "contains" in schema else [])]
            ]
    return found


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    definition=st.fixed_dictionaries(
        {
            "$defs": st.fixed_dictionaries({"a": schemas, "b": schemas, "c": schemas}),
            "$ref": st.just("#/$defs/a"),
        }
    ),
    way=st.lists(st.sampled_from(["c", "d", 0, 1]), min_size=1, max_size=4),
)
def test_what_passes_is_never_asked_more_than_the_budget_says(
    definition: Schema, way: list[str | int]
) -> None:
    value: Any = "end"
    for step in range(56):
        at = way[step % len(way)]
        value = {at: value} if isinstance(at, str) else ["x"] * at + [value]

    if budget_trouble(definition) is None:
        assert count_of(definition, definition, value, {}) * 2 <= NANOSECONDS_MAX
        began = time.process_time()
        compile_schema(definition).is_valid(value)
        assert time.process_time() - began < 2
