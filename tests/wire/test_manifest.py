"""Tests that equal values have equal digests, and that every sent message is in the manifest."""

import json
import math
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.errors import SettingsError
from processor.wire.manifest import ManifestLine, ManifestWriter, payload_digest, read_manifest

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def an_intention(message_id: str | None = "m-1", tenant_id: str | None = "acme") -> ManifestLine:
    return ManifestLine("intended", tenant_id, message_id, payload_digest("{}"))


def an_acceptance(message_id: str | None = "m-1", delivery_id: str = "d-1") -> ManifestLine:
    return ManifestLine("accepted", "acme", message_id, payload_digest("{}"), delivery_id)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "1.0"),
        ("1", "1e0"),
        ("1", "1.00"),
        ("1", "0.1e1"),
        ("100", "1E+2"),
        ("-0", "0"),
        ("-0.00e7", "0"),
        ("0.00001", "1e-5"),
        ("12.50", "125e-1"),
        ("1e3000", "1" + "0" * 3000),
        ("9" * 5000 + ".0", "9" * 5000),
        ('{"b": 1, "a": [1, 2]}', '{"a":[1.0,2],"b":1}'),
        ('"\\u00e9"', '"é"'),
        ('"\\ud83d\\ude00"', '"😀"'),
        ('"\\u002f\\/"', '"//"'),
        ('{"a": 1, "a": 2}', '{"a": 2}'),
    ],
)
def test_two_spellings_of_one_value_have_one_digest(one: str, other: str) -> None:
    assert payload_digest(one) == payload_digest(other)
    assert payload_digest(one.encode()) == payload_digest(one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", '"1"'),
        ("1", "10"),
        ("1", "-1"),
        ("0.1", "0.10000000000000000000000000000000000001"),
        ("9" * 400, "9" * 399 + "8"),
        ("true", '"true"'),
        ("null", "0"),
        ("[1, 2]", "[2, 1]"),
        ("1e999999999", "1e999999998"),
        ("1e" + "9" * 30, "1e" + "9" * 29 + "8"),
        ('"\\ud800"', '"\\ud801"'),
    ],
)
def test_two_values_have_two_digests(one: str, other: str) -> None:
    assert payload_digest(one) != payload_digest(other)


def test_the_digest_is_that_of_the_documented_canonical_form() -> None:
    """Scripts of users compute it too, so the exact bytes are a contract."""
    text = '{"b": [1.50, -0, 1e2, 1E-3, true, null], "é": "a\\u0001\\"/", "B": {}}'

    expected = '{"B":{},"b":[1.5,0,100,0.001,true,null],"é":"a\\u0001\\"/"}'

    assert payload_digest(text) == sha256(expected.encode()).hexdigest()


@given(json_values)
def test_the_digest_does_not_depend_on_how_a_value_was_written(value: Any) -> None:
    spaced = json.dumps(value, indent=3)

    assert payload_digest(spaced) == payload_digest(json.dumps(value, ensure_ascii=False, sort_keys=True))


@given(st.decimals(allow_nan=False, allow_infinity=False, places=None), st.integers(0, 20))
def test_numbers_are_compared_as_decimals_to_the_last_digit(number: Decimal, zeros: int) -> None:
    plain = format(number, "f")
    longer = plain + ("." if "." not in plain else "") + "0" * (zeros + 1)

    assert payload_digest(plain) == payload_digest(longer) == payload_digest(f"{number:e}")


@pytest.mark.parametrize(
    "text", ["", "{", "NaN", "-Infinity", "01", "'a'", "[" * 100_000, b"\xff", b'"\xed\xa0\x80"']
)
def test_what_is_not_json_has_no_digest(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        payload_digest(text)


def test_a_deeply_nested_payload_has_a_digest_as_far_as_the_processor_reads() -> None:
    assert payload_digest("[" * 512 + "]" * 512) == sha256(b"[" * 512 + b"]" * 512).hexdigest()
    assert math.isfinite(len(payload_digest('"\\ud800"')))


def test_lines_are_read_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    lines = [an_intention("a\u2028\ud800"), an_intention(None, None), an_acceptance("a\u2028\ud800")]

    with ManifestWriter(path) as manifest:
        manifest.intend(lines[:2])
        manifest.accept(lines[2:])
    with ManifestWriter(path) as manifest:
        manifest.intend([an_intention("again")])

    reader = read_manifest(path)
    assert list(reader) == [*lines, an_intention("again")]
    assert not reader.torn


def test_a_line_is_with_the_operating_system_when_the_call_returns(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"

    with ManifestWriter(path) as manifest:
        manifest.intend([an_intention()])
        seen_by_others = list(read_manifest(path))

    assert seen_by_others == [an_intention()]


def test_the_fields_are_those_of_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"

    with ManifestWriter(path) as manifest:
        manifest.intend([an_intention()])
        manifest.accept([an_acceptance()])

    intended, accepted = map(json.loads, path.read_text().splitlines())
    assert list(intended) == ["state", "tenant_id", "message_id", "digest"]
    assert list(accepted) == ["state", "tenant_id", "message_id", "digest", "delivery_id"]


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_a_torn_last_line_is_skipped_and_reported(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(an_intention("whole").encode() + an_intention("torn").encode()[:-cut])

    reader = read_manifest(path)
    read = [line.message_id for line in reader]

    # A line that lacks only its line feed is complete.
    assert (read, reader.torn) == ((["whole", "torn"], False) if cut == 1 else (["whole"], True))


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_a_new_writer_does_not_continue_a_torn_line(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(an_intention("whole").encode() + an_intention("torn").encode()[:-cut])

    with ManifestWriter(path) as manifest:
        manifest.intend([an_intention("next")])

    kept = ["whole", "torn", "next"] if cut == 1 else ["whole", "next"]
    assert [line.message_id for line in read_manifest(path)] == kept


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"Hello World", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"state": "sent"}', "unknown state 'sent'"),
        (b'{"state": ["intended"]}', "unknown state"),
        (b'{"state": "intended", "tenant_id": 7}', "tenant_id is neither text nor null"),
        (b'{"state": "intended", "digest": "abc"}', "64 hexadecimal"),
        (b'{"state": "accepted"}', "needs a delivery_id"),
        (b'{"state": "intended", "delivery_id": "d"}', "an intended line must have none"),
    ],
)
def test_a_bad_line_is_reported_by_its_number(tmp_path: Path, bad: bytes, why: str) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(an_intention().encode() + b"\n" + bad + b"\n" + an_intention().encode())

    with pytest.raises(SettingsError, match=f"line 3: .*{why}"):
        list(read_manifest(path))


def test_an_endless_line_is_not_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(b"x" * 1_000_000)

    with pytest.raises(SettingsError, match="line 1: not JSON"):
        list(read_manifest(path))


def test_an_unreadable_file_gives_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"can't be read: No such file"):
        list(read_manifest(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match=r"can't be written: Is a directory"):
        ManifestWriter(tmp_path)


def test_a_line_of_the_wrong_state_raises_value_error(tmp_path: Path) -> None:
    with ManifestWriter(tmp_path / "m") as manifest, pytest.raises(ValueError, match="only if accepted"):
        manifest.accept([an_intention()])


@pytest.mark.parametrize("text", ["my thesis\nis precious", '{"other": 1', "x" * 100_000])
def test_a_file_that_is_not_a_manifest_stays_unchanged(tmp_path: Path, text: str) -> None:
    path = tmp_path / "thesis.txt"
    path.write_text(text)

    with pytest.raises(SettingsError, match="does not end with a line of a manifest"):
        ManifestWriter(path)

    assert path.read_text() == text
