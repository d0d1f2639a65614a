"""Generates payloads that a schema may accept: ordinary ones, and ones at the bounds of another schema.

Only the validators decide whether a payload is valid.
"""

import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from decimal import Decimal
from itertools import islice
from typing import Any

from processor.schemas.compare.conjunctions import Conjunction, ModernSchema
from processor.schemas.compare.plain_differences import bound, limit, types_of, values_of
from processor.schemas.subschemas import Subschema

_PLACES_MAX = 5000
_VALUES_MAX = 100
_LONG = 300
_SAMPLES = (
    *("x", "", "2024-05-01T12:00:00Z", "2024-05-01", "12:00:00Z", "P1D", "a@example.com", "example.com"),
    *("192.0.2.1", "2001:db8::1", "https://example.com/", "0d0a7f3e-5b1c-4f5e-9c1a-2b3c4d5e6f70", "/a"),
    *("A1", "EUR", "1", "é"),
)
_LITERAL = re.compile(r"\^?([\w-]{1,9})")
_NUMBERS = (1, 0, -1, 0.5, 100, 1000000000000)


def payloads(schema: ModernSchema, other: ModernSchema, count_max: int) -> Iterator[Any]:
    """Yield at most `count_max` payloads, with values at the bounds of both schemas."""
    making = _Making(schema, other)
    return islice(making.values([schema.root], [other.root]), count_max)


class _Making:
    def __init__(self, schema: ModernSchema, other: ModernSchema) -> None:
        self.schema = schema
        self.other = other
        self._known: dict[tuple[frozenset[int], frozenset[int]], list[Any]] = {}

    def some(self, mine: Sequence[Subschema], others: Sequence[Subschema]) -> list[Any]:
        """Return values of a member or item; none for a recursion or beyond the limits."""
        key = (frozenset(id(node.schema) for node in mine), frozenset(id(node.schema) for node in others))
        if key not in self._known and len(self._known) < _PLACES_MAX:
            self._known[key] = []
            self._known[key] = list(islice(self.values(mine, others), _VALUES_MAX))
        return self._known.get(key, [])

    def values(self, mine: Sequence[Subschema], others: Sequence[Subschema]) -> Iterator[Any]:
        """Yield values, the most ordinary one first."""
        asked, beside = self.schema.conjunction(mine), self.other.conjunction(others)
        if asked.refuses:
            return
        branches = [one for word in ("anyOf", "oneOf") for each in asked.branches(word) for one in each]
        # One list of branches at a time is enough.
        for more in [[branch] for branch in branches] or [[]]:
            yield from self._plain(self.schema.conjunction([*mine, *more]), beside)

    def _plain(self, asked: Conjunction, beside: Conjunction) -> Iterator[Any]:
        if (known := values_of(asked)) is not None:
            yield from known.values()
            return
        types = types_of(asked)
        if "object" in types:
            yield from self._objects(asked, beside)
        if "array" in types:
            yield from self._arrays(asked, beside)
        if "string" in types:
            yield from _strings(asked, beside)
        if "integer" in types:
            yield from (
                number for number in _numbers(asked, beside) if "number" in types or number == int(number)
            )
        if "boolean" in types:
            yield from (True, False)
        if "null" in types:
            yield None

    def _objects(self, asked: Conjunction, beside: Conjunction) -> Iterator[Any]:
        required = asked.required()
        names = dict.fromkeys([*asked.names(), *required, *beside.names(), *beside.required()])
        names |= dict.fromkeys(_names(asked.patterns() | beside.patterns()))
        members = {name: self.some(asked.member(name), beside.member(name)) for name in names}
        least = {name: members[name][0] for name in names if name in required and members[name]}
        most = {name: values[0] for name, values in members.items() if values}
        yield least
        yield most
        for name, values in members.items():
            yield {key: value for key, value in most.items() if key != name}
            for value in values:
                yield least | {name: value}
        for more in self.some(asked.member_matching(set()), beside.member_matching(set()))[:1]:
            yield least | {"other": more}

    def _arrays(self, asked: Conjunction, beside: Conjunction) -> Iterator[Any]:
        length = max(
            (len(prefix) for part in (asked, beside) for prefix in part.all("prefixItems")), default=0
        )
        places = [self.some(asked.item(at), beside.item(at)) for at in range(length + 1)]
        for count in sorted({0, 1, 2, length, length + 1} | _lengths("Items", asked, beside)):
            if 0 <= count <= _LONG:
                chosen = [places[min(at, length)] for at in range(count)]
                if all(chosen):
                    yield [values[0] for values in chosen]
                    # All different, because of uniqueItems.
                    yield [values[at % len(values)] for at, values in enumerate(chosen)]
        for at, values in enumerate(places):
            before = [found[0] for found in places[:at] if found]
            for value in values:
                yield [*before, value]


def _lengths(what: str, *conjunctions: Conjunction) -> set[int]:
    """Return the lengths at and next to the bounds of "Items" or "Length"."""
    return {
        int(found) + more
        for part in conjunctions
        for found in (bound(part, f"min{what}", max), bound(part, f"max{what}", min))
        if found is not None
        for more in (-1, 0, 1)
    }


def _strings(asked: Conjunction, beside: Conjunction) -> Iterator[str]:
    least = int(bound(asked, "minLength", max) or 0)
    for word in ("examples", "default"):
        for said in asked.all(word):
            yield from (
                value for value in (said if isinstance(said, list) else [said]) if isinstance(value, str)
            )
    if 1 < least <= _LONG:
        yield "x" * least
    yield from _SAMPLES
    yield from (
        "x" * length for length in sorted(_lengths("Length", asked, beside) | {_LONG}) if 0 <= length <= _LONG
    )
    if (known := values_of(beside)) is not None:
        yield from (value for value in known.values() if isinstance(value, str))


def _names(patterns: AbstractSet[str]) -> Iterator[str]:
    """Yield names that match the start of patterns, and shorter ones."""
    for pattern in sorted(patterns):
        if found := _LITERAL.match(pattern):
            yield from (found[1][:length] for length in range(len(found[1]), 0, -1))


def _numbers(asked: Conjunction, beside: Conjunction) -> Iterator[Any]:
    bounds = [
        found[0]
        for part in (asked, beside)
        for side in ("minimum", "maximum")
        if (found := limit(part, side)) is not None
    ]
    steps = [*asked.all("multipleOf"), *beside.all("multipleOf")]
    yield from steps
    # No value is a multiple of every step.
    yield from (Decimal(str(start)) + Decimal(str(step)) / 2 for step in steps for start in (0, *bounds))
    yield from (number + more for number in bounds for more in (0, 1, -1))
    yield from _NUMBERS
