"""Tests parsing of schema files: every digit, no duplicate keys, JSON or YAML."""

import json
from decimal import Decimal
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from processor.errors import SettingsError
from processor.schemas.compiling import compile_schema
from processor.schemas.documents.preparing import HowToRead, prepare
from processor.schemas.schema_text import FILE_BYTES_MAX, file_value, schema_text, schema_value

LONG = "9" * 300


def refusal(data: bytes, name: str = "") -> str:
    with pytest.raises(SettingsError) as refused:
        file_value(data, name)
    return str(refused.value)


# ── every digit ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "digits",
    [
        "0.1000",
        "1234567890123456789012",
        "99999999999999999.99",
        "-0.0",
        "1e-300",
        LONG,
        f"0.{LONG}",
    ],
)
@pytest.mark.parametrize("form", ['{{"const": {}}}', "const: {}\n", "const:   {}   # said so\n"])
def test_a_number_keeps_every_digit(digits: str, form: str) -> None:
    written = schema_text(file_value(form.format(digits).encode(), "a.json" if form[0] == "{" else "a.yaml"))

    assert written.lower() == f'{{"const":{digits}}}'


@pytest.mark.parametrize(
    ("number", "right", "wrong"),
    [
        ("1234567890123456789012", "1234567890123456789012", "1234567890123456789013"),
        ("0.12345678901234567890123", "0.12345678901234567890123", "0.12345678901234567890124"),
    ],
)
def test_a_verdict_depends_on_every_digit(number: str, right: str, wrong: str) -> None:
    validator = compile_schema(prepare(f'{{"const": {number}}}'.encode(), HowToRead()))

    assert validator.is_valid(schema_value(right))
    assert not validator.is_valid(schema_value(wrong))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": [0, {"maximum": 1e400}]}', "at /a/1/maximum: the number 1e400 is out of range"),
        ('{"minimum": 1e-999999}', "at /minimum: the number 1e-999999 is out of range"),
        ('{"a/b": ' + "9" * 309 + "}", "at /a~1b: a whole number of 309 digits"),
        ('{"a": -Infinity}', "at /a: -Infinity is not a JSON number"),
        ('{"a": {"b": 1, "b": 2}}', "at /a: duplicate key 'b'"),
        ('{"a": 1, "a": 2}', "at (root): duplicate key 'a'"),
        ('{"a": 1,\n "b": 2,\n  c: 3}', "expected a member's name in double quotes at line 3, column 3"),
        ('{"a": 1}\n{"a": 1}', "more text after the JSON value, at line 2, column 1"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", "nested deeper than 64 levels, at line 1, column 70"),
    ],
)
def test_a_json_fault_is_reported_with_its_place(text: str, words: str) -> None:
    said = refusal(text.encode())

    assert said.startswith(f"invalid JSON: {words}"), said
    assert "JSON_" not in said


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (r'{"const": "\u0000"}', "/const"),
        (r'{"a": [1, "\ud800"]}', "/a/1"),
        (r'{"a": {"x\udc00": 1}}', "/a"),
        (r'{"\u0000": 1}', "(root)"),
        ('const: "a\\0"', "/const"),
    ],
)
def test_an_unstorable_string_is_rejected_with_its_place(text: str, where: str) -> None:
    assert refusal(text.encode()) == f"at {where}: a string with U+0000 or a lone surrogate"


def test_a_surrogate_pair_is_one_character() -> None:
    assert file_value(rb'{"const": "\ud83d\ude00", "a": "\\u0000"}') == {"const": "😀", "a": r"\u0000"}


# ── bytes ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", ['{"maximum": 5}', "maximum: 5\n", " \n maximum: 5"])
def test_a_byte_order_mark_is_accepted(text: str) -> None:
    assert file_value(b"\xef\xbb\xbf" + text.encode()) == {"maximum": 5}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_another_encoding_is_named(encoding: str) -> None:
    assert "UTF-16 or UTF-32 by its first bytes; save it as UTF-8" in refusal(
        '{"type": "object"}'.encode(encoding)
    )


def test_bytes_that_are_not_utf_8_are_rejected() -> None:
    assert refusal(b'{"a": "\xff"}') == "not UTF-8: invalid start byte at byte 7; save it as UTF-8"


@pytest.mark.parametrize("data", [b"", b" \n\t", b"\xef\xbb\xbf"])
def test_an_empty_file_is_reported(data: bytes) -> None:
    assert refusal(data) == "empty; expected a JSON Schema, in JSON or YAML"


def test_a_file_that_is_too_large_is_rejected_before_parsing() -> None:
    assert f"more than {FILE_BYTES_MAX} bytes" in refusal(b" " * (FILE_BYTES_MAX + 1))


# ── JSON or YAML ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.json", "{type: object}", "JSON"),
        ("a.json", "type: [", "JSON"),
        ("-", "{type: object, {", "JSON"),
        ("-", "nonsense", "JSON"),
        ("-", "type: [", "YAML"),
        ("a.schema", "a: b: c", "YAML"),
        ("a.YML", "{type: [}", "YAML"),
    ],
)
def test_a_broken_file_gives_an_error_of_its_format(name: str, text: str, kind: str) -> None:
    assert refusal(text.encode(), name).startswith(f"invalid {kind}: ")


def test_the_file_name_decides_between_yaml_and_json() -> None:
    assert file_value(b"{type: object}", "order.yaml") == {"type": "object"}


# ── YAML ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        *((text, text) for text in ("no", "on", "yes", "y", "off", "No", "ON")),
        *(
            (text, text)
            for text in ("2024-01-01", "2024-01-01T00:00:00Z", "1:30", "1_000", "007", "0o9", "1.2.3")
        ),
        *((text, text) for text in ("=", "<", "a b", "1e", "e1", "--1", "+", ".")),
        *((text, True) for text in ("true", "True", "TRUE")),
        *((text, None) for text in ("null", "Null", "NULL", "~", "")),
        *((text, 31) for text in ("31", "+31", "0x1F", "0o37", "!!int '31'")),
        *((text, "31") for text in ("'31'", '"31"', "!!str 31", "! 31")),
        (".5", Decimal("0.5")),
        ("5.", 5),
        ("-12e3", Decimal(-12000)),
        ("'on'", "on"),
        ("|-\n  two\n  lines", "two\nlines"),
    ],
)
def test_scalars_mean_what_json_schema_means(scalar: str, value: Any) -> None:
    found = file_value(f"const: {scalar}\n".encode(), "a.yaml")["const"]

    assert (found, isinstance(found, bool)) == (value, isinstance(value, bool))


def test_member_names_are_strings() -> None:
    assert file_value(b"200: a\n1.0: b\ntrue: c\nno: d\n2024-01-01: e\n? f\n: g\n", "a.yaml") == {
        "200": "a",
        "1.0": "b",
        "true": "c",
        "no": "d",
        "2024-01-01": "e",
        "f": "g",
    }


def test_anchors_aliases_and_merges_are_resolved() -> None:
    text = b"a: &a {type: object, x: 1}\nb: *a\nc:\n  <<: *a\n  x: 2\nd: {<<: [{y: 1}, {y: 2, z: 3}]}\n"

    found = file_value(text, "a.yaml")

    assert found["b"] == found["a"] == {"type": "object", "x": 1}
    assert found["b"] is not found["a"]
    assert (found["c"], found["d"]) == ({"type": "object", "x": 2}, {"y": 1, "z": 3})


LAUGHS = "a0: &a0 [lol]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 60))


MAPPED_LAUGHS = "a0: &a0 {b: lol}\n" + "".join(
    f"a{n}: &a{n} {{{', '.join(f'k{k}: *a{n - 1}' for k in range(9))}}}\n" for n in range(1, 60)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "duplicate key 'c' at line 4, column 3"),
        ("200: a\n'200': b\n", "duplicate key '200' at line 2, column 1"),
        (
            "a: 1e400",
            "the number 1e400 is out of range; expected from 1e-308 to 1.7e308 in size at line 1, column 4",
        ),
        ("a: .inf", ".inf is not a JSON number at line 1, column 4"),
        ("a: -.INF", "-.INF is not a JSON number"),
        ("a: .NaN", ".NaN is not a JSON number"),
        ("a: 0x" + "f" * 4000, "a number of 4002 characters at line 1, column 4"),
        (
            "a: !!python/object/apply:os.system [ls]",
            "unsupported tag 'tag:yaml.org,2002:python/object/apply:os.system'",
        ),
        ("a: !!binary aGk=", "unsupported tag 'tag:yaml.org,2002:binary'"),
        ("a: !!set {b}", "unsupported tag 'tag:yaml.org,2002:set'"),
        ("a: !!int x", "unsupported tag 'tag:yaml.org,2002:int'"),
        ("a: !include b.yaml", "unsupported tag '!include'"),
        ("? [a]\n: b", "a key is not a string at line 1, column 3"),
        ("? {a: b}\n: b", "a key is not a string"),
        ("a: 1\n---\nb: 2\n", "a second document begins at line 2, column 1; expected one"),
        ("# a comment", "expected a document, found only comments"),
        ("a: *b", "undefined alias *b at line 1, column 4"),
        ("a: &a [*a]", "undefined alias *a"),
        ("a:\n\t- b", "found character that cannot start any token at line 2, column 1"),
        ("a: " + "[" * 80 + "]" * 80, "nested deeper than 64 levels"),
        ("a: [", "did not find expected node content"),
        ("<<: 1", "<< expects a mapping or a list of mappings"),
        ("a: \x07", "unacceptable character"),
        (LAUGHS, "more than 1000000 values at line"),
        (MAPPED_LAUGHS, "more than 1000000 values at line"),
    ],
)
def test_a_yaml_fault_is_reported_with_its_place(text: str, words: str) -> None:
    assert words in refusal(text.encode(), "a.yaml")


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False, min_value=1e-300, max_value=1e300)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]))
    | st.sampled_from(
        ["no", "1", "1.0", "0x1", "null", "~", "", "<<", "=", "2024-01-01", "- a", "a: b", "#", "&a"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab1 :<-#", max_size=4), inner, max_size=3)
    ),
    max_leaves=20,
)


def exact(value: Any) -> Any:
    return json.loads(schema_text(value), parse_float=Decimal)


@given(value=VALUES, flow=st.sampled_from([True, False, None]))
def test_a_schema_has_the_same_value_in_json_and_yaml(value: Any, flow: bool | None) -> None:
    in_json = json.dumps({"a": value}, ensure_ascii=False)
    in_yaml = yaml.safe_dump({"a": value}, allow_unicode=True, default_flow_style=flow)

    assert exact(file_value(in_yaml.encode(), "a.yaml")) == exact(file_value(in_json.encode(), "a.json"))


@given(text=st.text(st.sampled_from("ab:-[]{}&*!|>'\"#%@,?\n 0.1<~\\"), max_size=40) | st.text(max_size=20))
def test_any_file_gives_a_value_or_an_error(text: str) -> None:
    for name in ("", "a.yaml", "a.json"):
        try:
            schema_text(file_value(text.encode(errors="replace"), name))
        except SettingsError as refused:
            assert str(refused)  # noqa: PT017 - either will do
