"""Lists what a version of a schema adds, removes, narrows and widens.

Both schemas are walked side by side, by the constraints on one value (`conjunctions`). A change whose effect
is unknown counts as narrowing and as widening, so that no difference is missed.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

from processor.errors import SettingsError
from processor.schemas.compare.conjunctions import Conjunction, ModernSchema
from processor.schemas.compare.plain_differences import (
    Difference,
    both_take,
    change,
    narrow,
    plain_differences,
    summary,
    widen,
)
from processor.schemas.compiling import compile_schema
from processor.schemas.spelling import DYNAMIC
from processor.schemas.subschemas import Subschema
from processor.wire.json_pointer import pointer

_DEPTH_MAX = 64
_COMPARED_MAX = 20_000
_TOLD_MAX = 200
_NOTES = (
    *("title", "description", "default", "examples", "example", "$comment"),
    *("deprecated", "readOnly", "writeOnly"),
)
_OPAQUE = ("oneOf", "not", "contains", "propertyNames", "dependentSchemas", *DYNAMIC)
_PATTERNS_MAX = 4
_UNEVALUATED = ("unevaluatedProperties", "unevaluatedItems")


def differences(
    old: dict[str, Any] | bool, new: dict[str, Any] | bool, *, formats: tuple[str, str] = ("assert", "assert")
) -> list[Difference]:
    """Return the differences at each place of a payload, with `*` for any item or member.

    `formats` has "assert" or "annotate" for the old and for the new schema. Never raises: a schema that can't
    be compared gives a difference that says so.
    """
    try:
        comparing = _Comparing(
            ModernSchema(old, formats=formats[0] == "assert"),
            ModernSchema(new, formats=formats[1] == "assert"),
        )
        return comparing.compare("", [comparing.old.root], [comparing.new.root], 0)
    except (ArithmeticError, AttributeError, LookupError, SettingsError, TypeError, ValueError):
        # A schema that can't be used may have any value for a keyword.
        return [incomparable(_trouble(old) or _trouble(new) or "the schemas are too large")]


def incomparable(why: str) -> Difference:
    """Return the difference for schemas that can't be compared keyword by keyword."""
    return change("", f"the versions can't be compared keyword by keyword: {why}")


def _trouble(definition: dict[str, Any] | bool) -> str | None:
    try:
        compile_schema(definition)
    except SettingsError as error:
        return str(error)
    return None


class _Comparing:
    def __init__(self, old: ModernSchema, new: ModernSchema) -> None:
        self.old = old
        self.new = new
        self._compared: dict[tuple[frozenset[int], frozenset[int]], list[Difference]] = {}

    def compare(self, at: str, olds: list[Subschema], news: list[Subschema], depth: int) -> list[Difference]:
        """Compare the constraints on one value. A pair that is being compared already gives nothing."""
        key = (frozenset(id(node.schema) for node in olds), frozenset(id(node.schema) for node in news))
        if key not in self._compared:
            if depth > _DEPTH_MAX or len(self._compared) > _COMPARED_MAX:
                return [change(at, "too large to compare")]
            self._compared[key] = []
            self._compared[key] = _bounded(list(self._differences(olds, news, depth)))
        return [replace(one, pointer=at + one.pointer) for one in self._compared[key]]

    def _differences(self, olds: list[Subschema], news: list[Subschema], depth: int) -> Iterator[Difference]:
        old, new = self.old.conjunction(olds), self.new.conjunction(news)
        if old.refuses or new.refuses:
            if not old.refuses:
                yield Difference("", "removes", "is no longer accepted", narrows=True)
            if not new.refuses:
                yield Difference("", "adds", f"is now accepted: {summary(new)}", widens=True)
            return
        yield from plain_differences(old, new)
        yield from self._members(old, new, depth)
        yield from self._items(old, new, depth)
        yield from self._branches(old, new, depth)
        yield from self._cases(old, new, depth)
        for word in _OPAQUE:
            if old.texts(word) != new.texts(word):
                yield change("", f"{word} changed")
        for word in _UNEVALUATED:
            # Its effect depends on every other keyword.
            if (old.all(word) or new.all(word)) and old.whole() != new.whole():
                yield change("", f"{word} depends on a changed keyword")
        if [old.all(word) for word in _NOTES] != [new.all(word) for word in _NOTES]:
            yield Difference("", "notes", "title, description or another annotation changed")

    def _members(self, old: Conjunction, new: Conjunction, depth: int) -> Iterator[Difference]:
        if not both_take(old, new, "object"):
            return
        required = old.required(), new.required()
        for name in sorted(required[1] - required[0]):
            yield narrow(pointer([name]), "is now required")
        for name in sorted(required[0] - required[1]):
            yield widen(pointer([name]), "is no longer required")
        described = old.names(), new.names()
        for name in dict.fromkeys([*described[1], *described[0]]):
            found = self.compare("", old.member(name), new.member(name), depth + 1)
            if name in described[0] and name in described[1]:
                yield from (replace(one, pointer=pointer([name]) + one.pointer) for one in found)
            else:
                yield self._described(name, old, new, found)
        yield from self._others(old, new, depth)

    def _described(
        self, name: str, old: Conjunction, new: Conjunction, found: list[Difference]
    ) -> Difference:
        narrows, widens = any(one.narrows for one in found), any(one.widens for one in found)
        if name in new.names():
            words = f"is new: {summary(self.new.conjunction(new.member(name)))}"
            if narrows:
                words += (
                    "; any value was accepted before" if not old.member(name) else "; narrower than before"
                )
            return Difference(pointer([name]), "adds", words, narrows, widens)
        words = "is no longer described" if not narrows else "is no longer accepted"
        if widens and not new.member(name):
            words += "; any value is now accepted"
        return Difference(pointer([name]), "removes", words, narrows, widens)

    def _others(self, old: Conjunction, new: Conjunction, depth: int) -> Iterator[Difference]:
        """Compare the constraints on undescribed members, by the patterns that their names match."""
        patterns = old.patterns() | new.patterns()
        if old.patterns() != new.patterns() or len(patterns) > _PATTERNS_MAX:
            words = ("properties", "patternProperties", "additionalProperties")
            if old.texts(*words) != new.texts(*words):
                yield change("", "patternProperties changed")
            return
        for length in range(len(patterns) + 1):
            for matching in combinations(sorted(patterns), length):
                olds, news = old.member_matching(set(matching)), new.member_matching(set(matching))
                closed = self.old.conjunction(olds).refuses, self.new.conjunction(news).refuses
                if not matching and closed == (False, True):
                    yield narrow("", "undescribed members are no longer accepted (additionalProperties)")
                elif not matching and closed == (True, False):
                    yield widen("", "undescribed members are now accepted (additionalProperties)")
                else:
                    at = pointer([" and ".join(matching) or "*"])
                    yield from self.compare(at, olds, news, depth + 1)

    def _items(self, old: Conjunction, new: Conjunction, depth: int) -> Iterator[Difference]:
        if not both_take(old, new, "array"):
            return
        length = max((len(prefix) for part in (old, new) for prefix in part.all("prefixItems")), default=0)
        for at in range(length):
            yield from self.compare(f"/{at}", old.item(at), new.item(at), depth + 1)
        yield from self.compare("/*", old.item(length), new.item(length), depth + 1)

    def _branches(self, old: Conjunction, new: Conjunction, depth: int) -> Iterator[Difference]:
        """Compare `anyOf`: a further branch accepts more, and so does a wider branch."""
        gone, come = self._unmatched(old.branches("anyOf"), new.branches("anyOf"))
        if not gone and not come:
            return
        if not gone or not come:
            yield narrow("", "anyOf was added") if come else widen("", "anyOf was removed")
            return
        if len(gone) > 1 or len(come) > 1:
            yield change("", "several anyOf changed")
            return
        without, within = self._unmatched([[node] for node in gone[0]], [[node] for node in come[0]])
        if len(without) == 1 and len(within) == 1:
            yield from self.compare("", without[0], within[0], depth + 1)
        elif without and within:
            yield change("", "anyOf changed")
        for [node] in without if not within else ():
            words = summary(self.old.conjunction([node]))
            yield Difference("", "removes", f"a branch of anyOf: {words}", narrows=True)
        for [node] in within if not without else ():
            words = summary(self.new.conjunction([node]))
            yield Difference("", "adds", f"a branch of anyOf: {words}", widens=True)

    def _cases(self, old: Conjunction, new: Conjunction, depth: int) -> Iterator[Difference]:
        """Compare `then` and `else` of conditions that did not change."""
        if old.texts("if") == new.texts("if"):
            return
        olds, news = old.cases(), new.cases()
        if len(olds) == len(news) == 1:
            [before], [after] = olds, news
            if self.old.whole(before[0]) == self.new.whole(after[0]):
                for first, then in zip(before[1:], after[1:], strict=True):
                    yield from self.compare("", [first], [then], depth + 1)
                return
        yield change("", "if, then or else changed")

    def _unmatched(
        self, olds: list[list[Subschema]], news: list[list[Subschema]]
    ) -> tuple[list[list[Subschema]], list[list[Subschema]]]:
        """Return the items of each side that the other does not have."""
        before = [[self.old.whole(node) for node in nodes] for nodes in olds]
        after = [[self.new.whole(node) for node in nodes] for nodes in news]
        return (
            [nodes for nodes, texts in zip(olds, before, strict=True) if texts not in after],
            [nodes for nodes, texts in zip(news, after, strict=True) if texts not in before],
        )


def _bounded(found: list[Difference]) -> list[Difference]:
    if len(found) <= _TOLD_MAX:
        return found
    rest = found[_TOLD_MAX:]
    narrows, widens = any(one.narrows for one in rest), any(one.widens for one in rest)
    return [
        *found[:_TOLD_MAX],
        Difference("", "changes", f"and {len(rest)} more differences", narrows, widens),
    ]
