"""Tests that a schema of many resources is compiled as one.

The library compiles a target in another resource once for each path to it. For a bundle of 150 documents with
cyclic references that exceeds any memory.
"""

import json
from typing import Any

import pytest

from processor.schemas.compiling import compile_schema
from processor.schemas.dialects import DRAFT_4, DRAFT_7, DRAFT_2020, Dialect
from processor.schemas.references import SchemaDocument

DOCUMENTS = 40


def a_bundle(dialect: Dialect, count: int = DOCUMENTS, **first: Any) -> dict[str, Any]:
    """Documents each of which refers to all others: as object members, and by an anchor."""

    def document(number: int) -> dict[str, Any]:
        members: dict[str, Any] = {
            f"p{other}": {"$ref": f"p{other}%20x#/definitions/it"} for other in range(count)
        }
        return {
            "$schema": dialect.uri,
            dialect.id_word: f"https://example.com/p{number}%20x",
            "definitions": {"it": {"type": "object", "properties": members, "required": ["n"]}},
        }

    definitions = {f"p {number}": document(number) for number in range(count)}
    definitions["p 0"]["definitions"] |= first
    return {
        "$schema": dialect.uri,
        dialect.defs_word: definitions,
        "allOf": [{"$ref": "https://example.com/p0%20x#/definitions/it"}],
    }


def _compiled_definition(definition: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    document = SchemaDocument(definition, dialect)
    assert not document.foreign()
    document.flatten()
    assert isinstance(document.definition, dict)
    return document.definition


@pytest.mark.parametrize("dialect", [DRAFT_4, DRAFT_7, DRAFT_2020])
def test_documents_that_refer_to_each_other_become_one_resource(dialect: Dialect) -> None:
    flat = _compiled_definition(a_bundle(dialect), dialect)

    assert "example.com" not in json.dumps(flat)
    assert flat["allOf"] == [{"$ref": f"#/{dialect.defs_word}/p%200/definitions/it"}]


@pytest.mark.parametrize("dialect", [DRAFT_4, DRAFT_7, DRAFT_2020])
def test_flattened_documents_compile_and_validate_as_before(dialect: Dialect) -> None:
    validator = compile_schema(a_bundle(dialect))

    assert validator.is_valid({"n": 1, "p7": {"n": 1, "p9": {"n": 2}}})
    assert not validator.is_valid({"n": 1, "p7": {"n": 1, "p9": {}}})
    assert not validator.is_valid({"p7": {"n": 1}})


def test_an_anchor_resolves_in_its_own_document() -> None:
    def document(kind: str) -> dict[str, Any]:
        return {
            "$id": f"https://example.com/{kind}",
            "properties": {"a": {"$ref": "#it"}},
            "$defs": {"it": {"$anchor": "it", "type": kind}},
        }

    validator = compile_schema(
        {
            "properties": {kind: {"$ref": f"https://example.com/{kind}"} for kind in ("string", "integer")},
            "$defs": {kind: document(kind) for kind in ("string", "integer")},
        }
    )

    assert validator.is_valid({"string": {"a": ""}, "integer": {"a": 1}})
    assert not validator.is_valid({"string": {"a": 1}})
    assert not validator.is_valid({"integer": {"a": ""}})


def test_parts_of_another_draft_stay_separate() -> None:
    bundle = a_bundle(DRAFT_2020, 2)
    bundle["$defs"]["p 1"] |= {"$schema": DRAFT_7.uri, "definitions": {"it": {"items": [{"type": "string"}]}}}

    assert _compiled_definition(bundle, DRAFT_2020)["$defs"]["p 1"]["$id"] == "https://example.com/p1%20x"
    assert not compile_schema(bundle).is_valid({"n": 1, "p1": [1]})


def test_dynamic_references_stay_unchanged() -> None:
    bundle = a_bundle(DRAFT_2020, 2, tree={"$dynamicAnchor": "node", "items": {"$dynamicRef": "#node"}})

    assert _compiled_definition(bundle, DRAFT_2020)["$defs"]["p 1"]["$id"] == "https://example.com/p1%20x"
