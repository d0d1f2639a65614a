"""Searches for a schema and a payload that cost more than estimated, for validation in the worker.

The kernel limits the judge process; in the worker only the estimate does, so it is the one under test.
"""

import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings

from processor.errors import SettingsError
from processor.schemas.compiling import compile_schema
from processor.schemas.judge.judging import INLINE_NS_MAX, Known
from processor.schemas.judge.prices import errors_of, price_of
from processor.schemas.judge.process import find_errors
from processor.wire import strict_json

MARGIN = 2
"""The worst pair found took a third of its estimate; a busy machine measures more for the same work."""

_LONG = pytest.mark.long("test_no_pair_costs_much_more_than_its_estimate")

BODY_BYTES_MAX = 1024 * 1024
NAMES = ["a", "b", "kind"]
PATTERNS = ["^[a-z]{1,40}$", "a", "(a|b)*c", "[01]*1[01]{12}2", "^x{3}$", r"\w{20}\d", "^(a+)+$", ".*.*=.*"]
NUMBERS = [0, 7, -1, 2**53, 0.5, 0.01, 1e9, 123456789.25, 1e-15, 10**20]
TYPES = ["integer", "number", "string", "array", "object", "null", "boolean"]
REFERENCES = ["#/$defs/a", "#/$defs/b", "#"]
FORMATS = ["date-time", "email", "uri", "uuid", "ipv6", "hostname", "idn-hostname", "duration"]

TRUE = {"maxLength": 10**6}
"""True for any value here, and less obvious than `true`."""

FALSE: list[tuple[Any, str]] = [
    ({"required": [f"a{number}" for number in range(20)]}, "{}"),
    ({"maxItems": 0}, "1"),
    ({"type": "string"}, "1"),
    ({"const": 7}, "1.5"),
    ({"anyOf": [{"required": NAMES}] * 3}, "{}"),
    ({"maxLength": 0}, '"a"'),
    (False, "1"),
]
"""Each gives one error or more."""

Rng = random.Random


def some(rng: Rng, of: list[Any], most: int) -> list[Any]:
    return rng.sample(of, rng.randint(1, min(most, len(of))))


def a_constant(rng: Rng, depth: int = 0) -> Any:
    match rng.randrange(8 if depth < 3 else 6):
        case 6:
            return [a_constant(rng, depth + 1) for _ in range(rng.randint(0, 8))]
        case 7:
            return {name: a_constant(rng, depth + 1) for name in some(rng, NAMES, 3)}
        case 0:
            return rng.choice([None, True, "a", "b" * 20])
    return rng.choice(NUMBERS)


PLAIN: dict[str, Callable[[Rng], Any]] = {
    "type": lambda rng: some(rng, TYPES, 2),
    "const": a_constant,
    "enum": lambda rng: [a_constant(rng) for _ in range(rng.randint(1, 20))],
    "minimum": lambda rng: rng.choice(NUMBERS),
    "exclusiveMaximum": lambda rng: rng.choice(NUMBERS),
    "multipleOf": lambda rng: rng.choice([1, 0.01, 7, 1e-9, 2.5]),
    "maxLength": lambda _: 10**6,
    "pattern": lambda rng: rng.choice(PATTERNS),
    "format": lambda rng: rng.choice(FORMATS),
    "required": lambda rng: some(rng, NAMES, 3),
    "maxProperties": lambda _: 10**6,
    "uniqueItems": lambda _: True,
    "dependentRequired": lambda _: {"a": NAMES, "b": NAMES},
    "$ref": lambda rng: rng.choice(REFERENCES),
}
LISTS = ["allOf", "anyOf", "oneOf", "prefixItems"]
MAPS = ["properties", "dependentSchemas", "patternProperties"]
ONES = ["not", "then", "items", "contains", "additionalProperties", "propertyNames"]


def a_schema(rng: Rng, depth: int = 0) -> Any:
    """Most of the constraints are true for any value, so that validation does not end early."""
    schema: dict[str, Any] = {}
    for word in some(rng, list(PLAIN), 2):
        if word == "$ref" and rng.random() < 0.5:
            continue
        asked = {word: PLAIN[word](rng)}
        true = word in ("maxLength", "maxProperties", "uniqueItems", "$ref")
        schema |= asked if true or rng.random() < 0.2 else {"anyOf": [asked, TRUE]}
    for word in some(rng, [*LISTS, *MAPS, *ONES], 2) if depth < 2 else ():
        if word in LISTS:
            schema[word] = [a_schema(rng, depth + 1)] * rng.choice([1, 1, 2, 8])
        elif word in MAPS:
            names = PATTERNS if word == "patternProperties" else NAMES
            schema[word] = {name: a_schema(rng, depth + 1) for name in some(rng, names, 2)}
        else:
            schema[word] = a_schema(rng, depth + 1)
    if depth == 0:
        schema["$defs"] = {"a": a_schema(rng, 2), "b": a_schema(rng, 2)}
    return schema


ATOMS = ["1", "0", "7", "1.5", "0.01", "99", "true", "null", '""', '"a"', '"' + "01" * 400 + '"', '"aaaa=ab"']
ATOMS += ['"2020-01-01T00:00:00Z"', "[]", "{}", "1e-9", "1e9", "123456789.123456", str(2**63), '"é"']
ATOMS += [
    "1e-300",
    "1.7e308",
    "1e40",
    "1" * 30,
    "0." + "1" * 40,
    "9" * 300,
    "0." + "7" * 600,
    "1e-30",
    "0." + "3" * 15,
]


def a_unit(rng: Rng, depth: int = 0) -> str:
    match rng.randrange(4 if depth < 3 else 2):
        case 2:
            return f"[{','.join(a_unit(rng, depth + 1) for _ in range(rng.randint(1, 4)))}]"
        case 3:
            members = (f'"{name}":{a_unit(rng, depth + 1)}' for name in some(rng, NAMES, 3))
            return "{" + ",".join(members) + "}"
    return rng.choice(ATOMS)


FRAMES: list[Callable[[str, int], str]] = [
    lambda unit, times: "[" + ",".join([unit] * times) + "]",
    lambda unit, times: "{" + ",".join(f'"a{i}":{unit}' for i in range(times)) + "}",
    lambda unit, times: '{"a":[' + ",".join([unit] * times) + "]}",
    lambda unit, times: '{"a":[' * 25 + ",".join([unit] * times) + "]}" * 25,
    lambda _, times: "[" + ",".join(f"{i}.{i % 89}5" for i in range(times)) + "]",
    lambda _, times: "[" + ",".join(str(2**53 * 3 + i) for i in range(times)) + "]",
    lambda _, times: "[" + ",".join(f"1.{i}e-9" for i in range(times)) + "]",
]


def longest(is_cheap: Callable[[str], bool], frame: Callable[[str, int], str], unit: str) -> str | None:
    """Return the longest payload of a shape that is validated in the worker; None: none is."""
    for size in (BODY_BYTES_MAX >> shift for shift in range(14)):
        text = frame(unit, max(1, size // (len(unit) + 6)))
        if len(text) <= BODY_BYTES_MAX and is_cheap(text):
            try:
                strict_json.check_limits(text, 64)
            except strict_json.JsonFault:
                continue
            return text
    return None


def cost_ns(definition: Any, frame: Callable[[str, int], str], unit: str, *, search: bool) -> int | None:
    """Measure the CPU time of the thread, without other processes; None: not validated here.

    `search`: the search for errors is included.
    """
    try:
        validator = compile_schema(definition)
    except SettingsError:
        return None
    price_ns = price_of(definition)
    if price_ns is None:
        return None
    known = Known(None, validator, price_ns, price_of(definition, unusual=True), errors_of(definition))
    text = longest(known.has_few_errors if search else known.is_cheap, frame, unit)
    if text is None:
        return None
    value = strict_json.read(text, 64).value
    began = time.thread_time_ns()
    if not validator.is_valid(value) and search:
        find_errors(validator, value, len(text))
    return time.thread_time_ns() - began


def pairs(rng: Rng, count: int) -> Iterator[tuple[Any, Callable[[str, int], str], str]]:
    """Yield each keyword by itself, applied to each atom as often as possible; then random combinations."""
    for word, make in PLAIN.items():
        for atom in ATOMS:
            asked = [{"anyOf": [{word: make(rng)}, TRUE]} for _ in range(rng.choice([1, 4, 20]))]
            yield {"items": {"allOf": asked}, "$defs": {"a": {}, "b": {}}}, FRAMES[0], atom
    for times in (1, 5, 20, 100):
        for asked, atom in FALSE:
            for frame in FRAMES:
                yield {"allOf": [asked] * times, "items": {"$ref": "#"}, "$defs": {}}, frame, atom
    for _ in range(count):
        yield a_schema(rng), rng.choice(FRAMES), a_unit(rng)


@pytest.mark.parametrize("search", [False, pytest.param(True, marks=_LONG)])
def test_no_pair_costs_much_more_than_its_estimate(*, search: bool) -> None:
    examples, tried = settings.default.max_examples, 0  # type: ignore[union-attr]
    for definition, frame, unit in pairs(Rng(examples), examples * 3):
        cost = cost_ns(definition, frame, unit, search=search)
        if cost is not None and cost > MARGIN * INLINE_NS_MAX:
            # Again: the first run may have met a machine short of memory.
            cost = cost_ns(definition, frame, unit, search=search)
        tried += cost is not None

        assert cost is None or cost <= MARGIN * INLINE_NS_MAX, (cost, json.dumps(definition), unit)

    assert tried > examples
