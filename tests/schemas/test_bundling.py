"""Tests that a bundle is complete, keeps every digit, and validates like its separate documents."""

import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processor.errors import SettingsError
from processor.schemas.compiling import compile_schema
from processor.schemas.dialects import DIALECTS, Dialect
from processor.schemas.documents.preparing import HowToRead, prepare
from processor.schemas.schema_text import schema_text, schema_value


def put(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def bundle(root: Path, *others: Path) -> Any:
    """The stored text of a file, parsed again as in a processor."""
    stored = prepare(root.read_bytes(), HowToRead(others=others), str(root))
    return schema_value(schema_text(stored))


def valid(schema: Any, payload: Any) -> bool:
    return compile_schema(schema).is_valid(payload)


def test_a_document_is_found_by_its_id_and_comes_with_every_digit(tmp_path: Path) -> None:
    money = put(tmp_path / "money.json", '{"$id": "https://e/money", "maximum": 99999999999999999.99}')
    root = put(tmp_path / "a" / "order.json", {"properties": {"total": {"$ref": "https://e/money"}}})

    whole = bundle(root, money)

    assert valid(whole, {"total": Decimal("99999999999999999.99")})
    assert not valid(whole, {"total": 100000000000000000})


def test_a_document_is_found_by_its_path_and_no_local_path_is_stored(tmp_path: Path) -> None:
    put(tmp_path / "common" / "money.json", {"definitions": {"amount": {"type": "number"}}})
    ref = {"$ref": "../common/money.json#/definitions/amount"}
    root = put(tmp_path / "orders" / "order.json", {"properties": {"total": ref}})

    whole = bundle(root, tmp_path / "common")

    assert (valid(whole, {"total": 1}), valid(whole, {"total": "1"})) == (True, False)
    assert str(tmp_path) not in schema_text(whole)


def test_a_pipe_in_a_directory_is_skipped(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    put(tmp_path / "money.json", {"type": "number"})
    root = put(tmp_path / "order.json", {"$ref": "money.json"})

    assert "number" in schema_text(bundle(root, tmp_path))


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_documents_may_have_cyclic_references(tmp_path: Path, dialect: Dialect) -> None:
    put(tmp_path / "line.json", {"type": "object", "properties": {"parent": {"$ref": "order.json"}}})
    schema = {"$schema": dialect.uri, "type": "object", "properties": {"line": {"$ref": "line.json"}}}
    root = put(tmp_path / "order.json", schema)

    whole = bundle(root, tmp_path)

    assert valid(whole, {"line": {"parent": {"line": {}}}})
    assert not valid(whole, {"line": {"parent": {"line": 1}}})


@pytest.mark.parametrize("inner", DIALECTS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("outer", DIALECTS, ids=lambda dialect: dialect.name)
def test_each_document_is_validated_by_its_own_draft(tmp_path: Path, outer: Dialect, inner: Dialect) -> None:
    is_old = inner.name != "2020-12"
    first = {"items": [{"type": "string"}]} if is_old else {"prefixItems": [{"type": "string"}]}
    put(tmp_path / "b.json", {"$schema": inner.uri, inner.id_word: "https://e/b"} | first)
    root = put(tmp_path / "a.json", {"$schema": outer.uri, "properties": {"x": {"$ref": "https://e/b"}}})

    whole = bundle(root, tmp_path / "b.json")

    assert (valid(whole, {"x": ["a", 1]}), valid(whole, {"x": [1]})) == (True, False)


def test_a_document_that_is_a_reference_itself_can_be_referred_to_in_older_drafts(tmp_path: Path) -> None:
    seven = "http://json-schema.org/draft-07/schema#"
    named = {"$schema": seven, "$ref": "#/definitions/a", "definitions": {"a": {"type": "string"}}}
    put(tmp_path / "b.json", named | {"minLength": 5})
    root = put(tmp_path / "a.json", {"$schema": seven, "properties": {"x": {"$ref": "b.json"}}})

    whole = bundle(root, tmp_path)

    assert (valid(whole, {"x": "a"}), valid(whole, {"x": 1})) == (True, False)


def test_all_missing_documents_are_named_with_the_option_to_give_them(tmp_path: Path) -> None:
    put(tmp_path / "b.json", {"items": {"$ref": "https://e/third"}})
    refs = [{"$ref": "b.json"}, {"$ref": "https://e/first"}, {"$ref": "second.json"}]
    root = put(tmp_path / "a.json", {"allOf": refs})

    with pytest.raises(SettingsError) as caught:
        bundle(root, tmp_path / "b.json")

    for words in ("not a usable JSON Schema 2020-12: ", "3 documents", "e/first", "second.json", "e/third"):
        assert words in str(caught.value)
    assert "--with FILE" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"type": "string"', "line 1"),
        ('{"$schema": "nope"}', "'nope'"),
        ('"text"', "expected a JSON Schema"),
        ('{"$id": "https://e/a#b"}', "has a fragment"),
    ],
)
def test_an_unusable_document_of_a_directory_is_named(tmp_path: Path, text: str, words: str) -> None:
    broken = put(tmp_path / "broken.json", text)
    between = put(tmp_path / "between.json", {"items": {"$ref": "broken.json"}})
    for name, holder in (("root.json", ""), ("far.json", str(between))):
        ref = "between.json" if holder else "broken.json"
        root = put(tmp_path / name, {"items": {"$ref": ref}})

        with pytest.raises(SettingsError, match=words) as refused:
            bundle(root, tmp_path)

        assert f"{holder}: at /items: $ref" in f": {refused.value}".replace(": :", ":")
        assert f"refers to {broken}, which can't be used: " in str(refused.value)


def test_two_different_documents_with_one_id_are_rejected(tmp_path: Path) -> None:
    for place, kind in (("a", "string"), ("b", "integer")):
        put(tmp_path / place / "m.json", {"$id": "https://e/m", "type": kind})
    root = put(tmp_path / "root.json", {"$ref": "https://e/m"})

    with pytest.raises(SettingsError, match="documents that differ"):
        bundle(root, tmp_path)

    put(tmp_path / "b" / "m.json", {"$id": "https://e/m", "type": "string"})
    assert not valid(bundle(root, tmp_path), 1)


def test_an_unreferenced_document_stays_out(tmp_path: Path) -> None:
    put(tmp_path / "broken.json", "{")
    put(tmp_path / "other.json", {"$schema": "https://e/unknown", "$id": "https://e/other"})
    root = put(tmp_path / "root.json", {"type": "string"})

    assert bundle(root, tmp_path) == {"type": "string"}
    with pytest.raises(SettingsError, match=r"broken\.json"):
        bundle(root, tmp_path / "broken.json")


def test_a_pointer_selects_a_schema_in_any_document(tmp_path: Path) -> None:
    put(
        tmp_path / "parts.json",
        {"amount": {"$ref": "#/number"}, "number": {"type": "number"}, "bad": {"items": 5}},
    )
    root = put(tmp_path / "root.json", {"properties": {"x": {"$ref": "parts.json#/amount"}}})

    assert not valid(bundle(root, tmp_path), {"x": "1"})

    put(root, {"properties": {"x": {"$ref": "parts.json#/bad"}}})
    with pytest.raises(SettingsError, match="at /bad/items"):
        bundle(root, tmp_path)


_KINDS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{"type": "string"}, {"type": "integer"}, {"minimum": 2}, {"required": ["a"]}]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(data=st.data())
def test_a_bundle_validates_like_its_separate_documents(tmp_path: Path, data: st.DataObject) -> None:
    uris = [f"https://e/{name}" for name in "abcd"]
    documents: dict[str, Any] = {}
    for uri in uris:
        refs = data.draw(
            st.lists(st.sampled_from([*uris[uris.index(uri) + 1 :], f"{uri}#/$defs/k"]), max_size=2)
        )
        part = {
            "$defs": {"k": data.draw(_KINDS)},
            "properties": {"a": {"allOf": [{"$ref": r} for r in refs]}},
        }
        documents[uri] = data.draw(_KINDS) | {"$id": uri} | (part if refs else {"$defs": part["$defs"]})
        put(tmp_path / f"{uri[-1]}.json", documents[uri])
    root = put(tmp_path / "root.json", {"$ref": "https://e/a"})
    beside = jsonschema_rs.validator_for(
        {"$ref": "https://e/a"}, registry=jsonschema_rs.Registry([*documents.items()])
    )
    whole = compile_schema(bundle(root, tmp_path))

    for payload in ("s", 1, 3, {}, {"a": 1}, {"a": "s"}, {"a": {"a": 3}}, {"a": {"a": "s"}}):
        assert whole.is_valid(payload) is beside.is_valid(payload)
