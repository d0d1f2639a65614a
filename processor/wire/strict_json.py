"""Parses JSON strictly: accepted text can be stored, parsed by any reader, and keeps every digit.

Python's scanner does the work. Hooks reject duplicate keys, NaN and infinities, numbers too large for a
double, and deep nesting. Plain text, which is nearly every text, takes a faster way: see `_read_plain`.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

import orjson
from msgspec import Struct

DIGITS_MAX = 1000
"""Maximum characters in one number: far above any amount, and below the limit of Python's int() (4,300)."""

VALUES_MAX = 100_000
"""Maximum values in one text: members and elements at every level, and the root.

The cost of parsing and validating depends on their number, not on the length.
"""

_EXPONENT_MAX = 308
"""Maximum decimal exponent: a double ends at 1.8e308, and PostgreSQL writes out every exponent in digits."""

_WHITESPACE = " \t\n\r"
# Possessive: without a closing quote a string does not backtrack. Otherwise a body of escaped quotes is
# scanned once from each of them, which takes hours at 1 MiB.
_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_STRINGS = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_RUN = re.compile(rf"[{_WHITESPACE}]*+")
_ONE_KIND, _NO_BRACKETS = bytes.maketrans(b"{}", b"[]"), bytes(set(range(256)) - set(b"[]{}"))


class JsonFault(ValueError):
    """The text is rejected; the message says why and where."""


class Document(Struct, frozen=True, gc=False):
    """A parsed JSON text: its value, and for an object the text of each member."""

    value: Any
    text: str
    member_texts: Mapping[str, str]


def read(text: str, depth_max: int, values_max: int = VALUES_MAX) -> Document:
    """Parse one JSON text, with only white space around it.

    Integers give int, other numbers Decimal, or float if that is exactly equal. Raises JsonFault; a text
    beyond the limits is rejected before parsing.
    """
    check_limits(text, depth_max, values_max)
    return _read_plain(text) or _read_exactly(text)


def check_limits(text: str, depth_max: int, values_max: int = VALUES_MAX) -> None:
    """Raise JsonFault for a text with too many values or levels; the syntax is not checked."""
    _check_values(text, values_max)
    _check_depth(text, depth_max)


def elements(text: str, depth_max: int, values_max: int = VALUES_MAX) -> list[str]:
    """Return the exact texts of the elements of a JSON array, for `read`.

    Raises JsonFault if the text is not an array, or exceeds the limits as a whole (each element may be
    `depth_max` deep). Other faults, such as duplicate keys, are left to `read`, so that one bad element does
    not affect others.
    """
    check_limits(text, depth_max + 1, values_max)
    document = _read_plain(text)
    if document is not None:
        if not isinstance(document.value, list):
            raise JsonFault(_NOT_AN_ARRAY)
        return [orjson.dumps(value).decode() for value in document.value]
    try:
        return _split_array(text)
    except _SCAN_FAULTS as error:
        raise _as_json_fault(error) from None


def _split_array(text: str) -> list[str]:
    at = _skip(text, 0)
    if text[at : at + 1] != "[":
        raise JsonFault(_NOT_AN_ARRAY)
    found: list[str] = []
    at = _skip(text, at + 1)
    if text[at : at + 1] != "]":
        while True:
            _, end = _scan_loosely(text, at)
            found.append(text[at:end])
            at = _skip(text, end)
            match text[at : at + 1]:
                case ",":
                    at = _skip(text, at + 1)
                case "]":
                    break
                case _:
                    raise JsonFault(f"expected ',' or ']' at character {at}")
    _check_end(text, at + 1)
    return found


_NOT_AN_ARRAY = "expected a JSON array"


def _read_plain(text: str) -> Document | None:
    """Parse a text that equals its serialized value, but for white space; None: use the exact parser.

    The fast parser is lenient, and rounds. But if the serialized value equals the text, nothing was changed:
    a duplicate key would be written once, and a lost digit would be missing. White space can't hide that,
    because it is no part of members or numbers.
    """
    try:
        body = text.encode()
        value = orjson.loads(body)
        written = orjson.dumps(value)
    except (ValueError, TypeError):
        # Invalid, or unsupported by the fast parser: the exact parser finds the fault.
        return None
    if written != body and written.translate(None, _SPACES) != body.translate(None, _SPACES):
        return None
    if _TINY in body:
        return None
    return Document(value, text, _Written(value) if isinstance(value, dict) else {})


_SPACES = _WHITESPACE.encode()

_TINY = b"e-3"
"""Contained in every number that a double can't hold with all its digits (below 1e-307)."""


class _Written(Mapping[str, str]):
    """The texts of an object's members, serialized on demand."""

    def __init__(self, members: Mapping[str, Any]) -> None:
        self._members = members

    def __getitem__(self, name: str) -> str:
        return orjson.dumps(self._members[name]).decode()

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


def _read_exactly(text: str) -> Document:
    start = _skip(text, 0)
    try:
        if text[start : start + 1] == "{":
            value, member_texts, end = _read_object(text, start)
        else:
            value, end = _scan(text, start)
            member_texts = {}
    except _SCAN_FAULTS as error:
        raise _as_json_fault(error) from None
    _check_end(text, end)
    return Document(value, text, member_texts)


_SCAN_FAULTS = (StopIteration, json.JSONDecodeError, RecursionError)


def _as_json_fault(fault: Exception) -> JsonFault:
    match fault:
        case StopIteration():
            return JsonFault(f"expected a JSON value at character {fault.value}")
        case json.JSONDecodeError():
            return JsonFault(f"{fault.msg} at character {fault.pos}")
        case _:
            return JsonFault("nested too deeply")


def _check_end(text: str, at: int) -> None:
    end = _skip(text, at)
    if end != len(text):
        raise JsonFault(f"more text after the JSON value, at character {end}")


def _read_object(text: str, start: int) -> tuple[dict[str, Any], dict[str, str], int]:
    """Parse the root object member by member, to find the text of each member."""
    members: dict[str, Any] = {}
    texts: dict[str, str] = {}
    at = _skip(text, start + 1)
    if text[at : at + 1] == "}":
        return members, texts, at + 1
    while True:
        if text[at : at + 1] != '"':
            raise JsonFault(f"expected a member's name in double quotes at character {at}")
        name, at = _scan(text, at)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise JsonFault(f"expected ':' at character {at}")
        at = _skip(text, at + 1)
        value, end = _scan(text, at)
        if name in members:
            raise JsonFault(f"duplicate key {name[:64]!r}")
        members[name], texts[name] = value, text[at:end]
        at = _skip(text, end)
        match text[at : at + 1]:
            case ",":
                at = _skip(text, at + 1)
            case "}":
                return members, texts, at + 1
            case _:
                raise JsonFault(f"expected ',' or '}}' at character {at}")


def _skip(text: str, at: int) -> int:
    # White space may be as long as the text, but is usually absent.
    return _RUN.match(text, at).end() if text[at : at + 1] in _WHITESPACE else at  # type: ignore[union-attr]
    # it takes nothing, too


def _check_values(text: str, values_max: int) -> None:
    # A value takes at least two characters, so nearly every text is short enough.
    if len(text) <= 2 * values_max:
        return
    if text.count(",") + text.count("[") + text.count("{") < values_max:
        return
    bare = _STRINGS.sub("0", text).encode(errors="replace").translate(_ONE_KIND, _SPACES)
    # Brackets count the first value of an array or object, commas the others; the root is one more.
    count = 1 + bare.count(b",") + bare.count(b"[") - bare.count(b"[]")
    if count > values_max:
        raise JsonFault(
            f"{count} values (members and elements); at most {values_max} are accepted (JSON_VALUES_MAX)"
        )


def _check_depth(text: str, depth_max: int) -> None:
    # Counting is cheap and enough for nearly every text; only texts with many brackets are scanned.
    if text.count("[") + text.count("{") <= depth_max or _is_shallow(text, depth_max):
        return
    depth = 0
    for token in _BRACKETS.finditer(text):
        match token[0]:
            case "[" | "{":
                depth += 1
                if depth > depth_max:
                    raise JsonFault(
                        f"nested deeper than {depth_max} levels (JSON_DEPTH_MAX), "
                        f"at character {token.start()}"
                    )
            case "]" | "}":
                depth -= 1


def _is_shallow(text: str, depth_max: int) -> bool:
    """Return whether no brackets remain after removing innermost pairs `depth_max` times, or can't match."""
    brackets = _STRINGS.sub("", text).encode(errors="replace").translate(_ONE_KIND, _NO_BRACKETS)
    if 2 * brackets.count(b"[") != len(brackets):
        # Invalid JSON. The parser finds the place, and fails safely on a value that is too deep for Python.
        return True
    for _ in range(depth_max):
        if not brackets:
            break
        brackets = brackets.replace(b"[]", b"")
    return not brackets


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise JsonFault(f"duplicate key {name[:64]!r}")
            seen.add(name)
    return members


def _integer(digits: str) -> int:
    # 1e308 has one more digit, and comes so from PostgreSQL.
    if len(digits) > _EXPONENT_MAX and (len(digits) > _EXPONENT_MAX + 2 or math.isinf(float(digits))):
        raise JsonFault(f"a whole number of {len(digits)} digits; at most {_EXPONENT_MAX} are accepted")
    return int(digits)


def _decimal(digits: str) -> Decimal:
    if len(digits) > DIGITS_MAX:
        raise JsonFault(f"a number of {len(digits)} characters; at most {DIGITS_MAX} are accepted")
    try:
        number = Decimal(digits)
        # Nearly every number, and all that a text can have many of. The other conditions follow from these.
        if (
            len(digits) < DIGITS_MAX - _EXPONENT_MAX - 2
            and -_EXPONENT_MAX <= (place := number.adjusted()) <= _EXPONENT_MAX
            and (place < _EXPONENT_MAX or not math.isinf(float(digits)))
        ):
            return number
    except InvalidOperation:
        number = None
    # The exponent is limited for zero too: PostgreSQL writes out 0e-999999 in digits, and its output must be
    # accepted again.
    if (
        number is None
        or number.is_signed() + max(number.adjusted(), 0) + 2 - int(number.as_tuple().exponent) > DIGITS_MAX
        or abs(number.adjusted()) > _EXPONENT_MAX
        or math.isinf(float(number))
    ):
        raise JsonFault(f"the number {digits[:40]} is out of range; expected from 1e-308 to 1.7e308 in size")
    return number


def _no_constant(name: str) -> NoReturn:
    raise JsonFault(f"{name} is not a JSON number")


# scan_once parses one value at an index and returns its end, which json.loads does not.
_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder(
    object_pairs_hook=_without_duplicates,
    parse_int=_integer,
    parse_float=_decimal,
    parse_constant=_no_constant,
).scan_once  # type: ignore[attr-defined]  # part of the json module since Python 3.0, absent from its stubs

# The same to find only the end of a value: every value with an end is accepted.
_scan_loosely: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder(
    parse_int=str, parse_float=str, parse_constant=str
).scan_once  # type: ignore[attr-defined]  # as above
