"""Tests that a JSON array is split into the original texts of its elements."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.wire.strict_json import JsonFault, elements, read
from tests.wire.test_strict_json import DEPTH_MAX, few, separators, text_of, values


def exact(value: Any) -> Any:
    """Each float as a Decimal: alone an element may be read as a float, beside others as a Decimal."""
    match value:
        case float():
            return Decimal(repr(value))
        case list():
            return [exact(one) for one in value]
        case dict():
            return {name: exact(one) for name, one in value.items()}
    return value


@few
@given(st.lists(values, max_size=5), separators)
def test_each_element_parses_as_in_its_array(found: list[Any], between: tuple[str, str]) -> None:
    text = text_of(found, separators=between)

    apart = elements(text, DEPTH_MAX)

    assert exact([read(element, DEPTH_MAX).value for element in apart]) == exact(read(text, DEPTH_MAX).value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", []),
        (" [ \n] ", []),
        ('[{"a":1.10}, 2e0 ,"x"]', ['{"a":1.10}', "2e0", '"x"']),
        ('[{"a" : 100000000000000000000.000000000001}]', ['{"a" : 100000000000000000000.000000000001}']),
        ('["\\ud800", [1,2], ",]"]', ['"\\ud800"', "[1,2]", '",]"']),
    ],
)
def test_every_character_of_an_element_is_kept(text: str, expected: list[str]) -> None:
    assert elements(text, DEPTH_MAX) == expected


@pytest.mark.parametrize("bad", ['{"a":1,"a":2}', "NaN", "1e999", "9" * 400])
def test_an_invalid_element_does_not_affect_the_others(bad: str) -> None:
    [before, middle, after] = elements(f'[{{"a":1}},{bad},{{"b":2}}]', DEPTH_MAX)

    assert (before, after) == ('{"a":1}', '{"b":2}')
    with pytest.raises(JsonFault):
        read(middle, DEPTH_MAX)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "1", "[", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[1]]", "[1] x", "[tru]", '["\n"]', "[1;2]"],
)
def test_a_value_that_is_not_an_array_is_rejected(text: str) -> None:
    with pytest.raises(JsonFault, match=r"\w+ \w+"):
        elements(text, DEPTH_MAX)


def test_the_limits_apply_to_the_whole_array() -> None:
    assert elements("[" * 5 + "]" * 5, 4) == ["[[[[]]]]"]
    with pytest.raises(JsonFault, match="JSON_DEPTH_MAX"):
        elements("[" * 6 + "]" * 6, 4)
    with pytest.raises(JsonFault, match="JSON_VALUES_MAX"):
        elements(json.dumps([0] * 1000), 4, 1000)
    with pytest.raises(JsonFault):
        elements("[1" + "[" * 100_000, DEPTH_MAX, 10)
