"""Compares constraints without subschemas: types, values, bounds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import jsonschema_rs

from processor.schemas.compare.conjunctions import Conjunction
from processor.schemas.dialects import DRAFT_4
from processor.schemas.form_faults import TYPES
from processor.schemas.wording import listed, shown
from processor.wire.json_pointer import pointer

_UNKNOWN_EFFECT = "may narrow or widen"
_TYPES = frozenset(TYPES)
_LOW = ("minLength", "minItems", "minProperties")
_HIGH = ("maxLength", "maxItems", "maxProperties")
_SETS = ("multipleOf", "pattern", "format", "contentEncoding", "contentMediaType", "uniqueItems")
_TYPE_OF = {
    **dict.fromkeys(("minItems", "maxItems", "uniqueItems"), "array"),
    **dict.fromkeys(("minProperties", "maxProperties"), "object"),
    **dict.fromkeys(("minLength", "maxLength", *_SETS[1:-1]), "string"),
    "multipleOf": "number",
}
"""The type that these keywords apply to."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference at one place of a payload; `narrows`: the new version may reject accepted payloads."""

    pointer: str
    kind: Literal["adds", "removes", "narrows", "widens", "changes", "notes"]
    words: str
    narrows: bool = False
    widens: bool = False

    def __str__(self) -> str:
        return f"{self.pointer or '(root)'}: {self.words}"


def narrow(at: str, words: str) -> Difference:
    """Return a narrowing difference."""
    return Difference(at, "narrows", words, narrows=True)


def widen(at: str, words: str) -> Difference:
    """Return a widening difference."""
    return Difference(at, "widens", words, widens=True)


def change(at: str, words: str) -> Difference:
    """Return a difference that may narrow, widen, or both."""
    return Difference(at, "changes", f"{words}; {_UNKNOWN_EFFECT}", narrows=True, widens=True)


def plain_differences(old: Conjunction, new: Conjunction) -> Iterator[Difference]:
    """Compare types, values, bounds and independent keywords."""
    yield from _types(old, new)
    yield from _values(old, new)
    yield from _bounds(old, new)
    yield from _sets(old, new)


def text(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Serialize a value; equal values give equal texts."""
    return str(jsonschema_rs.canonical.json.to_string(value))


def types_of(conjunction: Conjunction) -> frozenset[str]:
    """Return the accepted types, `number` with `integer`."""
    taken = _TYPES
    for types in conjunction.all("type"):
        named = {types} if isinstance(types, str) else set(types)
        taken &= named | ({"integer"} if "number" in named else set())
    values = values_of(conjunction)
    return taken if values is None else taken & {kind for value in values.values() for kind in _kinds(value)}


def _kinds(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - any JSON value
    match value:
        case None:
            return ("null",)
        case bool():
            return ("boolean",)
        case str():
            return ("string",)
        case list():
            return ("array",)
        case dict():
            return ("object",)
        case _:
            return ("integer",) if value == int(value) else ("number",)


def values_of(conjunction: Conjunction) -> dict[str, Any] | None:
    """Return the values that `enum` and `const` allow, by their text; None: neither is present."""
    lists = [*conjunction.all("enum"), *([value] for value in conjunction.all("const"))]
    if not lists:
        return None
    common = {text(value): value for value in lists[0]}
    for values in lists[1:]:
        texts = {text(value) for value in values}
        common = {key: value for key, value in common.items() if key in texts}
    return common


def _types(old: Conjunction, new: Conjunction) -> Iterator[Difference]:
    before, after = types_of(old), types_of(new)
    if before != after:
        words = f"type {_named(before)} → {_named(after)}"
        if before - after and after - before:
            yield Difference("", "changes", words, narrows=True, widens=True)
        else:
            yield (narrow if before - after else widen)("", words)
    drafts = {node.dialect is DRAFT_4 for part in (old, new) for node, words in part.parts if "type" in words}
    if "integer" in before & after and not {"number"} & before & after and len(drafts) > 1:
        yield change("", "1.0 is an integer, except in draft-04")


def _named(types: frozenset[str]) -> str:
    if types == _TYPES:
        return "any"
    shown = types - {"integer"} if "number" in types else types
    return " or ".join(sorted(shown)) or "none"


def _values(old: Conjunction, new: Conjunction) -> Iterator[Difference]:
    before, after = values_of(old), values_of(new)
    if before is None and after is not None:
        yield narrow("", f"only {_listed(after)} now")
    elif before is not None and after is None:
        yield widen("", f"no longer only {_listed(before)}")
    elif before is not None and after is not None:
        if gone := {key: before[key] for key in before if key not in after}:
            yield Difference("", "removes", f"the value {_listed(gone)}", narrows=True)
        if come := {key: after[key] for key in after if key not in before}:
            yield Difference("", "adds", f"the value {_listed(come)}", widens=True)


def _listed(values: dict[str, Any]) -> str:
    return listed([shown(value) for value in values.values()]) or "no value"


def bound(conjunction: Conjunction, word: str, choose: Callable[..., Any]) -> Any:  # noqa: ANN401 - a number
    """Return the effective bound of a keyword; None: absent."""
    return choose(conjunction.all(word), default=None)


def limit(conjunction: Conjunction, side: str) -> tuple[Any, bool] | None:
    """Return the numeric bound of a side ("minimum" or "maximum"), and whether it is exclusive."""
    found = [(value, False) for value in conjunction.all(side)]
    found += [(value, True) for value in conjunction.all("exclusive" + side.capitalize())]
    # Of two equal bounds the exclusive one counts.
    sign = 1 if side == "minimum" else -1
    return max(found, key=lambda one: (sign * _exact(one[0]), one[1]), default=None)


def _exact(number: Any) -> Fraction:  # noqa: ANN401 - a number
    """Return the exact number as written; a float may stand for several."""
    return Fraction(str(number))


def both_take(old: Conjunction, new: Conjunction, kind: str) -> bool:
    """Return whether both may accept values of a type; constraints on other types make no difference."""
    common = types_of(old) & types_of(new)
    return kind in common or (kind == "number" and "integer" in common)


def _bounds(old: Conjunction, new: Conjunction) -> Iterator[Difference]:
    for word in (word for word in _LOW if both_take(old, new, _TYPE_OF[word])):
        before, after = bound(old, word, max) or 0, bound(new, word, max) or 0
        if before != after:
            yield (narrow if after > before else widen)("", f"{word} {before} → {after}")
    for word in (word for word in _HIGH if both_take(old, new, _TYPE_OF[word])):
        before, after = bound(old, word, min), bound(new, word, min)
        if before != after:
            lower = before is None or (after is not None and after < before)
            yield (narrow if lower else widen)("", f"{word} {_or_none(before)} → {_or_none(after)}")
    for side, sign in (("minimum", 1), ("maximum", -1)) if both_take(old, new, "number") else ():
        first, then = limit(old, side), limit(new, side)
        before, after = ((sign * _exact(one[0]), one[1]) if one else None for one in (first, then))
        if before != after:
            narrower = before is None or (after is not None and after > before)
            words = f"{side} {_limit_shown(first)} → {_limit_shown(then)}"
            yield (narrow if narrower else widen)("", words)


def _or_none(value: Any) -> str:  # noqa: ANN401 - a number or None
    return "none" if value is None else shown(value)


def _limit_shown(found: tuple[Any, bool] | None) -> str:
    return "none" if found is None else shown(found[0]) + (" (excluded)" if found[1] else "")


def _sets(old: Conjunction, new: Conjunction) -> Iterator[Difference]:
    """Compare independent keywords."""
    for word in (word for word in _SETS if both_take(old, new, _TYPE_OF[word])):
        before, after = ({text(value): value for value in part.all(word)} for part in (old, new))
        gone = [shown(before[key]) for key in before if key not in after and before[key] is not False]
        come = [shown(after[key]) for key in after if key not in before and after[key] is not False]
        if word == "multipleOf" and len(before) == len(after) == 1 and gone and come:
            yield _multiple(*before.values(), *after.values())
        elif gone and come:
            yield change("", f"{word} {', '.join(gone)} → {', '.join(come)}")
        elif come:
            yield narrow("", f"{word} {', '.join(come)} was added")
        elif gone:
            yield widen("", f"{word} {', '.join(gone)} was removed")
    if not both_take(old, new, "object"):
        return
    needs = [
        {
            (name, needed)
            for pairs in part.all("dependentRequired")
            for name in pairs
            for needed in pairs[name]
        }
        for part in (old, new)
    ]
    for name, needed in sorted(needs[1] - needs[0]):
        yield narrow(pointer([needed]), f"is now required if {pointer([name])} is present")
    for name, needed in sorted(needs[0] - needs[1]):
        yield widen(pointer([needed]), f"is no longer required if {pointer([name])} is present")


def _multiple(before: Any, after: Any) -> Difference:  # noqa: ANN401 - numbers
    words = f"multipleOf {shown(before)} → {shown(after)}"
    first, then = _exact(before), _exact(after)
    if then % first == 0:
        return narrow("", words)
    if first % then == 0:
        return widen("", words)
    return change("", words)


def summary(conjunction: Conjunction) -> str:
    """Return a short description of the accepted values."""
    values = values_of(conjunction)
    if values is not None:
        return f"only {_listed(values)}"
    types = types_of(conjunction)
    return "anything" if types == _TYPES and not conjunction.parts else _named(types)
