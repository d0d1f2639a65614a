"""Tests that each schema follows the draft that it declares, and that unknown drafts are rejected."""

from pathlib import Path
from typing import Any

import pytest

from processor.errors import SettingsError
from processor.schemas.compiling import compile_schema
from processor.schemas.dialects import DIALECTS, DRAFT_4, DRAFT_2020, dialect_named, dialect_of
from processor.schemas.documents.preparing import HowToRead, prepare

IGLU = "iglucentral.com/schemas/com.snowplowanalytics.self-desc/schema/jsonschema/1-0-"
FOUR, SIX, SEVEN, NINETEEN, TWENTY = (dialect.uri for dialect in DIALECTS)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_a_draft_is_recognized_with_http_or_https_and_with_or_without_a_fragment(dialect: Any) -> None:
    bare = dialect.uri.partition("://")[2].removesuffix("#")

    for uri in (f"http://{bare}", f"https://{bare}", f"http://{bare}#", f"https://{bare}#"):
        assert dialect_of({"$schema": uri}) is dialect
        assert compile_schema({"$schema": uri, "type": "string"}).is_valid("a")


@pytest.mark.parametrize(
    "uri", [f"http://{IGLU}0#", f"https://{IGLU}2", f"iglu:{IGLU.split('schemas/')[1]}0"]
)
def test_self_describing_schemas_of_iglu_are_draft_04(uri: str) -> None:
    schema = {"$schema": uri, "self": {"name": "a"}, "minimum": 0, "exclusiveMinimum": True}

    assert dialect_of(schema) is DRAFT_4
    assert not compile_schema(schema).is_valid(0)


@pytest.mark.parametrize(
    ("uri", "schema", "payload", "fits"),
    [
        (FOUR, {"minimum": 0, "exclusiveMinimum": True}, 0, False),
        (SIX, {"exclusiveMinimum": 0}, 0, False),
        (FOUR, {"const": 1}, 2, True),
        (SIX, {"const": 1}, 2, False),
        (SIX, {"if": True, "then": False}, 1, True),
        (SEVEN, {"if": True, "then": False}, 1, False),
        (SEVEN, {"definitions": {"a": {}}, "$ref": "#/definitions/a", "maxLength": 1}, "long", True),
        (NINETEEN, {"$defs": {"a": {}}, "$ref": "#/$defs/a", "maxLength": 1}, "long", False),
        (SEVEN, {"items": [{"type": "integer"}], "additionalItems": False}, [1, 2], False),
        (NINETEEN, {"items": [{"type": "integer"}], "additionalItems": False}, [1, 2], False),
        (TWENTY, {"prefixItems": [{"type": "integer"}], "items": False}, [1, 2], False),
        (SEVEN, {"prefixItems": [{"type": "integer"}]}, ["a"], True),
        (SEVEN, {"dependencies": {"a": ["b"]}}, {"a": 1}, False),
        (SEVEN, {"dependentRequired": {"a": ["b"]}}, {"a": 1}, True),
        (NINETEEN, {"dependentRequired": {"a": ["b"]}}, {"a": 1}, False),
        (NINETEEN, {"$recursiveAnchor": True, "items": {"$recursiveRef": "#"}, "type": "array"}, [1], False),
        (TWENTY, {"$dynamicAnchor": "a", "items": {"$dynamicRef": "#a"}, "type": "array"}, [1], False),
        (FOUR, {"definitions": {"b": {"id": "b.json", "type": "string"}}, "$ref": "b.json"}, 1, False),
        (FOUR, {"definitions": {"b": {"id": "#b", "type": "string"}}, "$ref": "#b"}, 1, False),
        (SEVEN, {"definitions": {"b": {"$id": "#b", "type": "string"}}, "$ref": "#b"}, 1, False),
        (TWENTY, {"$defs": {"b": {"$anchor": "b", "type": "string"}}, "$ref": "#b"}, 1, False),
        (TWENTY, {"$defs": {"b": {"$id": "https://e/b", "type": "string"}}, "$ref": "https://e/b"}, 1, False),
        (SEVEN, {"$ref": SEVEN}, {"type": "nope"}, False),
        (TWENTY, {"$ref": TWENTY}, {"type": "nope"}, False),
    ],
)
def test_each_draft_validates_by_its_own_rules(uri: str, schema: Any, payload: Any, fits: bool) -> None:
    definition = {"$schema": uri} | schema
    assert compile_schema(definition).is_valid(payload) is fits


@pytest.mark.parametrize("uri", [SIX, SEVEN, NINETEEN, TWENTY, None])
@pytest.mark.parametrize("own", ["#/properties/x", "#root/x", "http://e/r.json#/properties/x"])
def test_ids_that_only_repeat_their_place_are_ignored(uri: str | None, own: str) -> None:
    schema = {"$id": "http://e/r.json", "definitions": {"s": {"type": "string"}}} | (
        {"$schema": uri} if uri else {}
    )
    schema["properties"] = {"x": {"$id": own, "items": {"$ref": "#/definitions/s"}}}

    validator = compile_schema(schema)

    assert (validator.is_valid({"x": ["a"]}), validator.is_valid({"x": [1]})) == (True, False)


def test_such_ids_are_ignored_next_to_dynamic_references() -> None:
    schema = {"$dynamicAnchor": "a", "type": "array", "items": {"$id": "#/items", "$dynamicRef": "#a"}}

    assert not compile_schema(schema).is_valid([1])


@pytest.mark.parametrize("name", ["A<B>", "My Type", "a|b", "a[]", "Tür", "100%", "a%3Cb"])
def test_references_may_contain_characters_that_are_invalid_in_a_uri(name: str) -> None:
    written = name.replace("a%3Cb", "a<b")
    schema = {"$defs": {written: {"type": "string"}}, "properties": {"x": {"$ref": f"#/$defs/{name}"}}}

    assert not compile_schema(schema).is_valid({"x": 1})


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ({"$schema": "https://e/own"}, "unknown draft 'https://e/own'; expected one of"),
        ({"items": {"$schema": "https://e/own"}}, "at /items: $schema: unknown draft 'https://e/own'"),
        ({"$id": "http://[bad"}, "at (root): $id: 'http://[bad' is not a valid URI"),
        ({"$defs": {"a": {"$id": "https://e/a#b"}}}, "at /$defs/a: $id: 'https://e/a#b' has a fragment"),
        ({"$ref": "#/x/a", "x": {"a": {"items": [{}]}}}, "at /x/a/items: "),
        ({"$ref": "#/x/a", "x": {"a": {"$ref": "#/x/b"}, "b": {"items": 5}}}, "at /x/b/items: "),
        ({"$ref": "#/x", "x": 5}, "does not resolve to a schema"),
        ({"$ref": "#nowhere"}, "does not resolve to a schema"),
        ({"allOf": [{"$ref": "a.json"}, {"$ref": "https://e/b"}]}, "2 documents that are not given"),
        (
            {"$defs": {"a": {"$id": "u:a", "type": "null"}, "b": {"$id": "u:a"}}, "$ref": "u:a"},
            "is ambiguous: /$defs/a and /$defs/b have this name",
        ),
        (
            {"$defs": {"a": {"$anchor": "c", "type": "null"}, "b": {"$anchor": "c"}}, "$ref": "#c"},
            "is ambiguous: /$defs/a and /$defs/b have this name",
        ),
    ],
)
def test_an_unusable_schema_is_rejected_in_one_line_with_the_place(definition: Any, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        compile_schema(definition)

    assert words in str(caught.value)
    assert str(caught.value).startswith("not a usable JSON Schema")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("4", "draft-04"),
        ("06", "draft-06"),
        ("7", "draft-07"),
        ("draft-07", "draft-07"),
        ("draft7", "draft-07"),
        ("2019-09", "2019-09"),
        ("2019", "2019-09"),
        ("Draft 2020-12", "2020-12"),
    ],
)
def test_a_draft_has_several_names(said: str, name: str) -> None:
    known = dialect_named(said)

    assert known is not None
    assert known.name == name


@pytest.mark.parametrize("said", ["", "5", "3", "draft", "12", "latest", "-"])
def test_an_unknown_draft_has_no_name(said: str) -> None:
    assert dialect_named(said) is None


def test_a_given_draft_is_written_into_the_schema_and_must_agree_with_it(tmp_path: Path) -> None:
    how = HowToRead(draft=dialect_named("7"))

    assert prepare(b'{"type":"object"}', how, "a.json") == {"$schema": SEVEN, "type": "object"}
    assert prepare(f'{{"$schema":"{SEVEN[:-1]}"}}'.encode(), how, "a.json") == {"$schema": SEVEN[:-1]}
    with pytest.raises(SettingsError, match=r"\$schema says draft-04, but --draft says draft-07"):
        prepare(f'{{"$schema":"{FOUR}"}}'.encode(), how, "a.json")


def test_a_schema_without_a_draft_is_2020_12() -> None:
    assert dialect_of({}) is dialect_of(True) is DRAFT_2020  # noqa: FBT003 - a schema
