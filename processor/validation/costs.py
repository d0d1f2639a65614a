"""What each word of a JSON Schema costs where it is asked once of one value, as it was measured."""

import re
from collections.abc import Mapping
from typing import Any

_SCHEMA_NS = 20
_NUMBER_NS = 3_500
"""Comparing with a number that is not whole: 1.3 µs for ordinary ones; 1 MiB of numbers of 900 digits costs
as much as 100,000 at this price."""

_MULTIPLE_NS = 15_000
"""2.4 µs for ordinary numbers; 28 for those near 1e308, which are few outside of attacks."""

_MULTIPLE_SMALLEST = 1e-15
_MULTIPLE_OF_TINY_NS = 60_000
_DEEP_NS = 500
_FORMAT_NS = 500
_REGEX_FORMAT_NS = 10_000
_UNIQUE_NS = 1_000
_PATTERN_NS = 300
_ENTRY_NS = 25

_WORDS_NS = {
    "minimum": _NUMBER_NS,
    "maximum": _NUMBER_NS,
    "exclusiveMinimum": _NUMBER_NS,
    "exclusiveMaximum": _NUMBER_NS,
    "multipleOf": _MULTIPLE_NS,
    "uniqueItems": _UNIQUE_NS,
    "pattern": _PATTERN_NS,
    "contains": 200,
    "propertyNames": 200,
    "unevaluatedProperties": 200,
    "unevaluatedItems": 200,
}
_ENTRIES = ("properties", "required", "dependentRequired", "dependentSchemas", "prefixItems", "type")

STEPS_MAX = 128
"""Steps of a pattern that may begin anywhere or go on for ever: at the worst, all are tried at once."""

STEPS_BOUNDED_MAX = 2048
"""Steps of one that begins with ^ and ends after so many characters."""


def cost_ns(schema: Any) -> int:  # noqa: ANN401 - any JSON value
    """Give nanoseconds for one subschema, without what it asks by others."""
    if not isinstance(schema, Mapping):
        return 2
    total = _SCHEMA_NS + sum(price for word, price in _WORDS_NS.items() if word in schema)
    for word in _ENTRIES:
        held = schema.get(word)
        total += _ENTRY_NS * (len(held) if isinstance(held, list | dict) else 0)
    total += 2 * _PATTERN_NS * len(schema.get("patternProperties", ()))
    if schema.get("multipleOf", 1) < _MULTIPLE_SMALLEST:
        total += _MULTIPLE_OF_TINY_NS
    if "format" in schema:
        total += _REGEX_FORMAT_NS if schema["format"] in ("regex", "uri-template") else _FORMAT_NS
    if "const" in schema:
        total += _constant_ns(schema["const"])
    if isinstance(schema.get("enum"), list):
        total += sum(map(_constant_ns, schema["enum"]))
    return total


def _constant_ns(value: Any) -> int:  # noqa: ANN401 - any JSON value
    match value:
        case bool() | None | str():
            # Looked up, however many there are.
            return 1
        case dict():
            return _DEEP_NS + sum(map(_constant_ns, value.values()))
        case list():
            return _DEEP_NS + sum(map(_constant_ns, value))
        case _:
            return _NUMBER_NS


_TOKENS = re.compile(
    r"(?P<class>\\[pPu]\{[^}]*\}|\\.|\[(?:\\.|[^\]\\])*+\])"
    r"|(?P<repeat>\{(?P<least>[0-9]+)(?P<comma>,(?P<most>[0-9]*))?\})"
    r"|(?P<open>\((?:\?(?:[:=!]|<[^>]*>))?)|(?P<close>\))|(?P<endless>[*+])|(?P<other>.)",
    re.DOTALL,
)


def pattern_trouble(pattern: str) -> str | None:
    """Say why a pattern may be too slow on a long text, or None.

    It takes a time that grows with the text's length times the steps that it has when written out, which are
    what is counted here.
    """
    steps, endless = _steps(pattern)
    bounded = pattern.startswith("^") and not endless and "|" not in pattern
    most = STEPS_BOUNDED_MAX if bounded else STEPS_MAX
    if steps <= most:
        return None
    return (
        f"the pattern {pattern[:60]!r} has {steps} steps with its repetitions written out; at most "
        f"{STEPS_MAX} are taken, {STEPS_BOUNDED_MAX} if it begins with ^ and has no *, + or |; "
        "say lengths by maxLength"
    )


def _steps(pattern: str) -> tuple[int, bool]:
    groups: list[list[int]] = [[]]
    endless = False
    for token in _TOKENS.finditer(pattern):
        if token["open"]:
            groups.append([])
        elif token["close"]:
            inner = groups.pop() if len(groups) > 1 else []
            groups[-1].append(max(1, sum(inner)))
        elif token["repeat"]:
            least, most = int(token["least"]), token["most"]
            endless |= most == ""
            if groups[-1]:
                groups[-1][-1] *= max(1, least, int(most or 0))
        elif token["endless"]:
            endless = True
        else:
            groups[-1].append(1)
    return sum(map(sum, groups)), endless
