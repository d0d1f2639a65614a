"""Tests that an inferred schema accepts each sample, and has their common properties."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.errors import SettingsError
from processor.schemas.compiling import compile_schema
from processor.schemas.inferring import Inferring
from processor.schemas.sample_files import sample, samples_of

TEXTS = st.text(max_size=5) | st.sampled_from(
    ["2026-01-01T00:00:00Z", "2026-01-01", "6f1b1d4e-7d0b-4d6c-9a4e-3d6f2f7f0a11", "2026-13-01", "$ref", ""]
)
SCALARS = (
    st.none().map(json.dumps)
    | st.booleans().map(json.dumps)
    | st.integers().map(str)
    | st.sampled_from(["1.0", "0.1000", "1e300", "-0.0", "1e-300", "9" * 300, "0." + "1" * 40])
    | TEXTS.filter(lambda text: text.isprintable()).map(json.dumps)
)
SAMPLES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: f"[{','.join(parts)}]")
        | st.dictionaries(
            TEXTS | st.sampled_from(["a", "b", "$id", "$schema", "type"]), inner, max_size=3
        ).map(
            lambda members: (
                "{" + ",".join(f"{json.dumps(name)}:{part}" for name, part in members.items()) + "}"
            )
        )
    ),
    max_leaves=10,
)


def inferred(*texts: str) -> dict[str, Any]:
    found = Inferring()
    for text in texts:
        found.add(sample(text))
    return found.schema()


@given(st.lists(SAMPLES, min_size=1, max_size=5))
def test_every_sample_is_valid(texts: list[str]) -> None:
    validator = compile_schema(inferred(*texts))

    for text in texts:
        assert validator.is_valid(sample(text)), text


@pytest.mark.parametrize(
    ("texts", "schema"),
    [
        (["1", "2"], {"type": "integer"}),
        (["1", "1.5"], {"type": "number"}),
        (["1", "1.0000000000000000000000001"], {"type": "number"}),
        (["12345678901234567890123"], {"type": "integer"}),
        (["null", "1", '"a"'], {"type": ["integer", "null", "string"]}),
        (["[]"], {"type": "array"}),
        (['[1, "a"]'], {"type": "array", "items": {"type": ["integer", "string"]}}),
        (
            ['{"a": 1, "b": 1}', '{"b": 2}'],
            {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "required": ["b"],
            },
        ),
        (['"2026-01-01T00:00:00Z"'] * 2, {"type": "string", "format": "date-time"}),
        (['"2026-01-01"'], {"type": "string", "format": "date"}),
        (['"6f1b1d4e-7d0b-4d6c-9a4e-3d6f2f7f0a11"'], {"type": "string", "format": "uuid"}),
        (['"2026-01-01"', '"soon"'], {"type": "string"}),
        (['"2026-01-01"', '"2026-01-01T00:00:00Z"'], {"type": "string"}),
        (["true", "{}"], {"type": ["boolean", "object"]}),
    ],
)
def test_common_properties_of_samples_are_inferred(texts: list[str], schema: dict[str, Any]) -> None:
    assert inferred(*texts) == {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema


def test_no_schema_is_inferred_without_samples() -> None:
    with pytest.raises(SettingsError, match="no samples"):
        inferred()


def test_a_sample_of_maximum_depth_is_accepted() -> None:
    assert inferred("[" * 128 + "]" * 128)["type"] == "array"


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ('{"a": 1}\n\n{"a": 2}\r\n', ["line 1", "line 3"]),
        ('[{"a": 1}, {"a": 2}]', ["element 0", "element 1"]),
        ('\ufeff[{"a": 1},\n {"a": 2}]\n', ["element 0", "element 1"]),
        ('{\n "a": 1\n}', ["document"]),
        ("[1]\n[2]", ["line 1", "line 2"]),
        ('{"a": "\u2028"}\n1', ["line 1", "line 2"]),
        ("[]", []),
    ],
)
def test_samples_are_lines_elements_or_the_whole_file(text: str, places: list[str]) -> None:
    assert [place for place, _ in samples_of(text.encode())] == places


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty; expected JSON samples"),
        (b'{"a": 1}\n{"a": 1, "a": 2}\n', "line 2: invalid JSON: duplicate key 'a'"),
        (b'{"a": 1}\nhello\n', "line 2: invalid JSON"),
        (b'{"a": 1}\n{"a": NaN}\n', "line 2: invalid JSON: NaN is not a JSON number"),
        (b'[{"a": 1},', "line 1: invalid JSON"),
        (b"[1, 1e999]", "element 1: invalid JSON: the number 1e999 is out of range"),
        (b'"\xff"', "not UTF-8"),
        (rb'{"a": "\ud800"}', "line 1: at /a: a string with U+0000 or a lone surrogate"),
        ("1".encode("utf-16"), "not UTF-8, but UTF-16"),
        (b"[" * 200 + b"]" * 200, "nested deeper than 128 levels"),
    ],
)
def test_an_invalid_sample_is_rejected_with_its_place(data: bytes, words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        list(samples_of(data))

    assert words in str(refused.value)
    assert "JSON_" not in str(refused.value)
