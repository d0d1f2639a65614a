"""Tests that accepted JSON has one meaning for every parser, and that other JSON is rejected."""

import json
import time
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.wire.strict_json import JsonFault, _read_exactly, _read_plain, read

DEPTH_MAX = 64

# Few examples per run: these tests take seconds, and each run draws others.
few = settings(max_examples=25, deadline=None)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False, places=6)
    | st.text(st.characters(codec=None))
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=15,
)
separators = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r\n ")])


def text_of(value: Any, *, separators: tuple[str, str] = (", ", ": "), ensure_ascii: bool = True) -> str:
    """Serialize a value as json does, with each Decimal in its own digits."""
    marks: dict[str, str] = {}

    def mark(number: Any) -> str:
        name = f"\x01decimal-{len(marks)}\x02"
        marks[json.dumps(name, ensure_ascii=ensure_ascii)] = str(number)
        return name

    text = json.dumps(value, default=mark, separators=separators, ensure_ascii=ensure_ascii)
    for name, digits in marks.items():
        text = text.replace(name, digits)
    return text


def fault_of(text: str) -> str:
    with pytest.raises(JsonFault) as caught:
        read(text, DEPTH_MAX)
    return str(caught.value)


def with_decimals(value: Any) -> Any:
    """Return the value with each float as the decimal of its JSON."""
    match value:
        case float():
            return Decimal(orjson.dumps(value).decode())
        case dict():
            return {name: with_decimals(member) for name, member in value.items()}
        case list():
            return [with_decimals(member) for member in value]
        case _:
            return value


@few
@given(value=values, separators=separators)
def test_a_json_value_parses_as_in_python(value: Any, separators: tuple[str, str]) -> None:
    text = text_of(value, separators=separators)

    document = read(f" \n{text}\t", DEPTH_MAX)

    assert with_decimals(document.value) == json.loads(text, parse_float=Decimal)


@few
@given(members=st.dictionaries(st.text(st.characters(codec=None)), values, max_size=6), separators=separators)
def test_the_text_of_each_member_is_that_member(members: dict[str, Any], separators: tuple[str, str]) -> None:
    document = read(text_of(members, separators=separators), DEPTH_MAX)

    assert document.member_texts.keys() == members.keys()
    for name, text in document.member_texts.items():
        assert text == text.strip()
        assert with_decimals(read(text, DEPTH_MAX).value) == with_decimals(document.value[name])


@few
@given(text=st.text() | st.text('{}[]",:\\u0dD8eE+-. \n/tfn', max_size=40))
def test_any_text_is_accepted_or_rejected_like_json(text: str) -> None:
    try:
        document = read(text, DEPTH_MAX)
    except JsonFault:
        return

    assert with_decimals(document.value) == json.loads(text, parse_float=Decimal)


# Strings of one kind, so that keys and numbers repeat.
NUMBERS = (
    "1 1.5 1.50 -0 -0.0 1e5 1E5 1e16 1e-3 1e-310 1.1e-308 5e-324 1e400 18446744073709551616 0.1 100.0 "
    "12345678901234567.5"
)
near_json = st.recursive(
    st.sampled_from([*NUMBERS.split(), '"a"', '"a: b, c"', '"\\u0041"', '"é"']),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: "[" + ", ".join(items) + "]")
        | st.lists(st.tuples(st.sampled_from(["a", "b", "a ", "a: 1, "]), inner), max_size=4).map(
            lambda pairs: "{" + ", ".join(f'"{name}": {value}' for name, value in pairs) + "}"
        )
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(text=near_json | near_json.map(lambda text: text.replace(" ", "")))
def test_the_fast_and_the_exact_parser_agree(text: str) -> None:
    plain = _read_plain(text)

    if plain is not None:
        exact = _read_exactly(text)
        assert with_decimals(plain.value) == exact.value
        assert [*plain.member_texts] == [*exact.member_texts]
        for name, member in exact.member_texts.items():
            assert plain.member_texts[name].replace(" ", "") == member.replace(" ", "")


@pytest.mark.parametrize(
    "text", ['{"a": 1, "b": [1.5, "x: y, z"]}', '{"a":1}', '{\n\t"a": 1\n}', "[]", "12.5", '"a"', "null"]
)
def test_an_ordinary_text_takes_the_fast_parser(text: str) -> None:
    assert _read_plain(text) is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 2}', "duplicate key 'a'"),
        ('{"a": {"b": 1, "c": 2, "b": 1}}', "duplicate key 'b'"),
        ('{"a": 1, "\\u0061": 2}', "duplicate key 'a'"),
        ('[{"": 1, "": 1}]', "duplicate key ''"),
        ('{"\\ud800": 1, "\\ud800": 1}', "duplicate key '\\ud800'"),
        ("NaN", "NaN is not a JSON number"),
        ('{"a": Infinity}', "Infinity is not a JSON number"),
        ("[-Infinity]", "-Infinity is not a JSON number"),
        ("", "expected a JSON value at character 0"),
        ("  ", "expected a JSON value at character 2"),
        ("\ufeff{}", "expected a JSON value at character 0"),
        ("{", "expected a member's name"),
        ('{"a"', "expected ':' at character 4"),
        ('{"a":', "expected a JSON value at character 5"),
        ('{"a":1', "expected ',' or '}' at character 6"),
        ('{"a":1,}', "expected a member's name in double quotes at character 7"),
        ("{'a':1}", "expected a member's name in double quotes at character 1"),
        ("{} {}", "more text after the JSON value, at character 3"),
        ("{}]", "more text after the JSON value, at character 2"),
        ("[1,]", "at character"),
        ("01", "more text after"),
        ("+1", "expected a JSON value"),
        (".5", "expected a JSON value"),
        ("1.", "more text after"),
        ("'a'", "expected a JSON value"),
        ('"a\nb"', "Invalid control character at"),
        ('"\\x"', "Invalid \\escape"),
        ('"\\u12"', "Invalid \\uXXXX escape"),
        ('"open', "Unterminated string"),
        ("True", "expected a JSON value"),
        ("{} // no", "more text after"),
        ("\u00a01", "expected a JSON value"),
    ],
)
def test_json_that_is_not_strict_is_rejected(text: str, words: str) -> None:
    assert words in fault_of(text)


@pytest.mark.parametrize("text", ["{}", " {\n} ", "[]", '""', "null", "true", "0", '{"": {"": []}}'])
def test_scalars_are_json_too(text: str) -> None:
    assert read(text, DEPTH_MAX).value == json.loads(text)


@pytest.mark.parametrize(
    "digits",
    [
        "1e308",
        "1.7e308",
        "-1.7e308",
        "1e-308",
        "123456789012345678901234567890",
        "-123456789012345678901234567890.123456789012345678901234567890",
        "0.10",
        "1E5",
        "1.0",
        "0e5",
        "9" * 308,
        f"0.{'1' * 900}",
    ],
)
def test_a_number_keeps_every_digit(digits: str) -> None:
    value = read(digits, DEPTH_MAX).value

    assert Decimal(value) == Decimal(digits)
    if isinstance(value, Decimal):
        assert value.as_tuple() == Decimal(digits).as_tuple()


@pytest.mark.parametrize(
    "digits",
    [
        "9e308",
        "-9e308",
        f"{'9' * 309}.5",
        "1e309",
        "1e-309",
        "1e400",
        "1e999999999999999999999",
        "-1E+99999",
        "0e-999999",
        "0e999999",
        "9" * 309,
        f"1.{'0' * 1000}",
    ],
)
def test_a_number_that_breaks_other_parsers_is_rejected(digits: str) -> None:
    for text in (digits, f'{{"a": {digits}}}', f'{{"a": [{digits}]}}'):
        assert "number" in fault_of(text)


def test_an_integer_too_long_for_python_is_refused_before_python_sees_it() -> None:
    assert "5000 digits" in fault_of("9" * 5000)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_is_accepted_up_to_the_limit(opening: str, closing: str) -> None:
    taken = opening * DEPTH_MAX + "1" + closing * DEPTH_MAX

    assert read(taken, DEPTH_MAX).value is not None
    assert f"nested deeper than {DEPTH_MAX} levels" in fault_of(opening + taken + closing)


def depth_of(value: Any) -> int:
    """Count the levels of a value by walking it."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


@few
@given(value=values, separators=separators)
def test_the_depth_limit_is_exact(value: Any, separators: tuple[str, str]) -> None:
    text = text_of(value, separators=separators)
    depth = depth_of(value)

    read(text, depth)

    if depth:
        with pytest.raises(JsonFault, match=f"^nested deeper than {depth - 1} levels"):
            read(text, depth - 1)


def test_many_short_numbers_are_each_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """`isinf` represents the checks that ordinary numbers skip: it was most of their cost."""
    monkeypatch.setattr("processor.wire.strict_json.math.isinf", lambda _: pytest.fail("asked"))

    found = read("[1.50, -1e-300, 1.0e307, 0.00, 0e300, 1e-308]", DEPTH_MAX)

    assert found.value == [*map(Decimal, ("1.50", "-1e-300", "1.0e307", "0.00", "0e300", "1e-308"))]


def test_brackets_in_strings_do_not_count_as_nesting() -> None:
    text = json.dumps({"a": "[{" * 500 + '\\"[', "b": ['"', "\\", "["] * 100})

    assert read(text, DEPTH_MAX).value["b"][2] == "["


def test_adjacent_brackets_do_not_count_as_nesting() -> None:
    assert len(read("[" + "[]," * 1000 + "{}]", DEPTH_MAX).value) == 1001


@pytest.mark.parametrize(
    "text",
    [
        '"' + '\\"' * 250_000 + "[" * 65,
        '"[' * 300_000,
        "[" * 500_000,
        '{"a":' * 200_000,
        " " * 500_000,
        '"' + "\\" * 499_999 + "[" * 65,
        "]" * 100_000 + "[" * 100_000,
    ],
    ids=["escaped quotes", "quotes", "arrays", "objects", "spaces", "backslashes", "closing first"],
)
def test_half_a_megabyte_of_nonsense_is_rejected_early(text: str) -> None:
    began = time.process_time()

    fault_of(text)

    # Generous: one pass costs 0.1 s, a quadratic one hours.
    assert time.process_time() - began < 2


def test_names_are_equal_if_their_characters_are_equal() -> None:
    # U+00E9 and e + U+0301 look alike and are two keys, to PostgreSQL too.
    assert len(read('{"\u00e9": 1, "e\u0301": 2}', DEPTH_MAX).value) == 2


# ── how many values ───────────────────────────────────────────────────────────────────────────────────


def count_of(value: Any) -> int:
    """Count the values in a value, itself included, by walking it."""
    match value:
        case dict():
            return 1 + sum(count_of(member) for member in value.values())
        case list():
            return 1 + sum(count_of(member) for member in value)
        case _:
            return 1


@few
@given(value=values, separators=separators)
def test_the_limit_of_values_is_exact(value: Any, separators: tuple[str, str]) -> None:
    text = text_of(value, separators=separators)
    count = count_of(value)

    read(text, DEPTH_MAX, count)

    if len(text) > 2 * (count - 1):
        with pytest.raises(JsonFault, match=rf"^{count} values .* at most {count - 1} are accepted"):
            read(text, DEPTH_MAX, count - 1)


def test_no_text_of_twice_the_limit_has_more_values() -> None:
    """A text that is too short to count is within the limit: a value takes at least two characters."""
    text = "[" + ",".join("0" * 50) + "]"

    assert len(text) == 2 * count_of(json.loads(text)) - 1


def test_commas_in_strings_do_not_count_as_values() -> None:
    text = json.dumps({"a": ',[{\\",' * 100, ",[{": [1, 2]})

    assert read(text, DEPTH_MAX, 5).value == json.loads(text)


def test_too_many_values_are_refused_before_they_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("processor.wire.strict_json._read_plain", lambda _: pytest.fail("parsed"))

    fault = fault_of("[" + "0," * 100_000 + "0]")

    assert fault == "100002 values (members and elements); at most 100000 are accepted (JSON_VALUES_MAX)"
