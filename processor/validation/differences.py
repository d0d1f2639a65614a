"""What a version of a schema adds, removes, narrows and widens, in words.

Both schemas are walked side by side, by what they ask of one value (`conjunctions`). Whatever can't be told
from their structure is said to be changed, and counts as narrower and as wider: no difference is left out.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations
from typing import Any, Literal, TypeAlias

import jsonschema_rs

from processor.errors import SettingsError
from processor.validation.conjunctions import DYNAMIC, Conjunction, Document, Node
from processor.validation.dialects import DRAFT_4

Kind: TypeAlias = Literal["adds", "removes", "narrows", "widens", "changes", "notes"]

_UNTOLD = "whether it narrows can't be told"
_DEPTH_MAX = 64
_COMPARED_MAX = 20_000
_TOLD_MAX = 200
_SHOWN_MAX = 60
_TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
_NOTES = (
    "title",
    "description",
    "default",
    "examples",
    "example",
    "$comment",
    "deprecated",
    "readOnly",
    "writeOnly",
)
_OPAQUE = ("oneOf", "not", "contains", "propertyNames", "dependentSchemas", *DYNAMIC)
_PATTERNS_MAX = 4
_UNEVALUATED = ("unevaluatedProperties", "unevaluatedItems")
_LOW = (("minLength", "length"), ("minItems", "number of items"), ("minProperties", "number of members"))
_HIGH = (("maxLength", "length"), ("maxItems", "number of items"), ("maxProperties", "number of members"))


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference at one place of a payload; `narrows`: payloads taken before may be refused by it."""

    pointer: str
    kind: Kind
    words: str
    narrows: bool = False
    widens: bool = False

    def __str__(self) -> str:
        return f"{self.pointer or '(root)'}: {self.words}"


def differences(
    old: dict[str, Any] | bool, new: dict[str, Any] | bool, *, formats: tuple[str, str] = ("assert", "assert")
) -> list[Difference]:
    """Say what a schema has become, at each place of a payload, with `*` for any item or member.

    `formats` are "assert" or "annotate", of the old and of the new. Never raises: where a schema can't be
    followed, this is said as a difference.
    """
    try:
        comparing = _Comparing(
            Document(old, formats=formats[0] == "assert"), Document(new, formats=formats[1] == "assert")
        )
        return comparing.compare("", [comparing.old.root], [comparing.new.root], 0)
    except (jsonschema_rs.ReferencingError, SettingsError, ValueError, TypeError, AttributeError) as error:
        return [incomparable(str(error))]


def incomparable(why: str) -> Difference:
    """Say that two schemas can't be compared word by word."""
    return _change("", f"the versions can't be compared word by word: {why}")


def _narrow(pointer: str, words: str) -> Difference:
    return Difference(pointer, "narrows", words, narrows=True)


def _widen(pointer: str, words: str) -> Difference:
    return Difference(pointer, "widens", words, widens=True)


def _change(pointer: str, words: str) -> Difference:
    return Difference(pointer, "changes", f"{words}; {_UNTOLD}", narrows=True, widens=True)


class _Comparing:
    def __init__(self, old: Document, new: Document) -> None:
        self.old = old
        self.new = new
        self._compared: dict[tuple[frozenset[int], frozenset[int]], list[Difference]] = {}
        self._alive: list[Node] = []

    def compare(self, pointer: str, olds: list[Node], news: list[Node], depth: int) -> list[Difference]:
        """Compare what is asked of one value. What is still being compared further up gives nothing here."""
        key = (frozenset(id(node.schema) for node in olds), frozenset(id(node.schema) for node in news))
        if key not in self._compared:
            if depth > _DEPTH_MAX or len(self._compared) > _COMPARED_MAX:
                return [_change(pointer, "too much to be compared")]
            self._compared[key] = []
            self._alive += [*olds, *news]
            self._compared[key] = _bounded(list(self._differences(olds, news, depth)))
        return [replace(one, pointer=pointer + one.pointer) for one in self._compared[key]]

    def _differences(self, olds: list[Node], news: list[Node], depth: int) -> Iterator[Difference]:
        old, new = self.old.conjunction(olds), self.new.conjunction(news)
        if old.refuses or new.refuses:
            if not old.refuses:
                yield Difference("", "removes", "is no longer taken", narrows=True)
            if not new.refuses:
                yield Difference("", "adds", f"is taken now: {_summary(new)}", widens=True)
            return
        yield from _types(old, new)
        yield from _values(old, new)
        yield from _bounds(old, new)
        yield from _sets(old, new)
        yield from self._members(old, new, depth)
        yield from self._items(old, new, depth)
        yield from self._branches(old, new, depth)
        yield from self._cases(old, new, depth)
        for word in _OPAQUE:
            if self._texts(self.old, old.nodes(word)) != self._texts(self.new, new.nodes(word)):
                yield _change("", f"{word} changed")
        for word in _UNEVALUATED:
            # What it is asked of depends on every other word.
            if (old.all(word) or new.all(word)) and self._texts(self.old, olds) != self._texts(
                self.new, news
            ):
                yield _change("", f"{word} stands beside what changed")
        if [old.all(word) for word in _NOTES] != [new.all(word) for word in _NOTES]:
            yield Difference("", "notes", "title, description or another note changed")

    def _members(self, old: Conjunction, new: Conjunction, depth: int) -> Iterator[Difference]:
        required = _required(old), _required(new)
        for name in sorted(required[1] - required[0]):
            yield _narrow(_step(name), "is now required")
        for name in sorted(required[0] - required[1]):
            yield _widen(_step(name), "is no longer required")
        described = old.names(), new.names()
        for name in dict.fromkeys([*described[1], *described[0]]):
            found = self.compare("", old.member(name), new.member(name), depth + 1)
            if name in described[0] and name in described[1]:
                yield from (replace(one, pointer=_step(name) + one.pointer) for one in found)
            else:
                yield self._described(name, old, new, found)
        yield from self._others(old, new, depth)

    def _described(
        self, name: str, old: Conjunction, new: Conjunction, found: list[Difference]
    ) -> Difference:
        narrows, widens = any(one.narrows for one in found), any(one.widens for one in found)
        if name in new.names():
            words = f"is new: {_summary(self.new.conjunction(new.member(name)))}"
            if narrows:
                words += (
                    "; anything was taken there before" if not old.member(name) else "; narrower than before"
                )
            return Difference(_step(name), "adds", words, narrows, widens)
        words = "is no longer described" if not narrows else "is no longer taken"
        if widens and not new.member(name):
            words += "; anything is taken there now"
        return Difference(_step(name), "removes", words, narrows, widens)

    def _others(self, old: Conjunction, new: Conjunction, depth: int) -> Iterator[Difference]:
        """Compare what is asked of members that no name describes, by the patterns that their names match."""
        patterns = old.patterns() | new.patterns()
        if old.patterns() != new.patterns() or len(patterns) > _PATTERNS_MAX:
            if self._texts(self.old, _members(old)) != self._texts(self.new, _members(new)):
                yield _change("", "patternProperties changed")
            return
        for length in range(len(patterns) + 1):
            for matching in combinations(sorted(patterns), length):
                olds, news = old.member_matching(set(matching)), new.member_matching(set(matching))
                closed = self.old.conjunction(olds).refuses, self.new.conjunction(news).refuses
                if not matching and closed == (False, True):
                    yield _narrow(
                        "", "members that are not described are no longer taken (additionalProperties)"
                    )
                elif not matching and closed == (True, False):
                    yield _widen("", "members that are not described are taken now (additionalProperties)")
                else:
                    at = _step(" and ".join(matching) or "*")
                    yield from self.compare(at, olds, news, depth + 1)

    def _items(self, old: Conjunction, new: Conjunction, depth: int) -> Iterator[Difference]:
        length = max((len(prefix) for part in (old, new) for prefix in part.all("prefixItems")), default=0)
        for at in range(length):
            yield from self.compare(f"/{at}", old.item(at), new.item(at), depth + 1)
        yield from self.compare("/*", old.item(length), new.item(length), depth + 1)

    def _branches(self, old: Conjunction, new: Conjunction, depth: int) -> Iterator[Difference]:
        """Compare `anyOf`: a branch more takes more, and so does a wider branch."""
        gone, come = self._left(_lists(old, "anyOf"), _lists(new, "anyOf"))
        if not gone and not come:
            return
        if not gone or not come:
            yield _narrow("", "anyOf is new") if come else _widen("", "anyOf is gone")
            return
        if len(gone) > 1 or len(come) > 1:
            yield _change("", "several anyOf changed")
            return
        without, within = self._left([[node] for node in gone[0]], [[node] for node in come[0]])
        if len(without) == 1 and len(within) == 1:
            yield from self.compare("", without[0], within[0], depth + 1)
        elif without and within:
            yield _change("", "anyOf changed")
        for [node] in without if not within else ():
            words = _summary(self.old.conjunction([node]))
            yield Difference("", "removes", f"a branch of anyOf: {words}", narrows=True)
        for [node] in within if not without else ():
            words = _summary(self.new.conjunction([node]))
            yield Difference("", "adds", f"a branch of anyOf: {words}", widens=True)

    def _cases(self, old: Conjunction, new: Conjunction, depth: int) -> Iterator[Difference]:
        """Compare `then` and `else`, where each is asked in the same case as before."""
        olds, news = old.nodes("if"), new.nodes("if")
        if self._texts(self.old, olds) == self._texts(self.new, news):
            return
        if len(olds) == len(news) == 1:
            [before], [after] = olds, news
            if self.old.whole(_below(before, "if")) == self.new.whole(_below(after, "if")):
                for word in ("then", "else"):
                    yield from self.compare("", [_below(before, word)], [_below(after, word)], depth + 1)
                return
        yield _change("", "if, then or else changed")

    def _texts(self, document: Document, nodes: Iterable[Node]) -> list[str]:
        return sorted(document.whole(node) for node in nodes)

    def _left(
        self, olds: list[list[Node]], news: list[list[Node]]
    ) -> tuple[list[list[Node]], list[list[Node]]]:
        """Take away what both have, and give what only one has."""
        before = [[self.old.whole(node) for node in nodes] for nodes in olds]
        after = [[self.new.whole(node) for node in nodes] for nodes in news]
        return (
            [nodes for nodes, texts in zip(olds, before, strict=True) if texts not in after],
            [nodes for nodes, texts in zip(news, after, strict=True) if texts not in before],
        )


def _lists(conjunction: Conjunction, word: str) -> list[list[Node]]:
    return [[node.within(branch) for branch in node.schema] for node in conjunction.nodes(word)]


def _below(node: Node, word: str) -> Node:
    return node.within(node.schema.get(word, True))


def _members(conjunction: Conjunction) -> list[Node]:
    """Give what each part says of members, as one value each."""
    words = ("properties", "patternProperties", "additionalProperties")
    return [
        node.within({word: said[word] for word in words if word in said}) for node, said in conjunction.parts
    ]


def _bounded(found: list[Difference]) -> list[Difference]:
    if len(found) <= _TOLD_MAX:
        return found
    rest = found[_TOLD_MAX:]
    narrows, widens = any(one.narrows for one in rest), any(one.widens for one in rest)
    return [
        *found[:_TOLD_MAX],
        Difference("", "changes", f"and {len(rest)} differences more", narrows, widens),
    ]


def _step(name: str) -> str:
    return "/" + name.replace("~", "~0").replace("/", "~1")


def _required(conjunction: Conjunction) -> set[str]:
    return {name for names in conjunction.all("required") for name in names}


def text(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Write a value so that equal values have one text."""
    return str(jsonschema_rs.canonical.json.to_string(value))


def _shown(value: Any) -> str:  # noqa: ANN401 - any JSON value
    written = text(value)
    return written if len(written) <= _SHOWN_MAX else written[: _SHOWN_MAX - 1] + "…"


def types_of(conjunction: Conjunction) -> frozenset[str]:
    """Give the types of the values that can be taken, `number` with `integer`."""
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
    """Give the values that `enum` and `const` leave, by their text; None where neither is said."""
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
    if before - after:
        yield _narrow("", f"type {_named(before)} → {_named(after)}")
    if after - before:
        yield _widen("", f"type {_named(before)} → {_named(after)}")
    drafts = {node.dialect is DRAFT_4 for part in (old, new) for node, words in part.parts if "type" in words}
    if "integer" in before & after and not {"number"} & before & after and len(drafts) > 1:
        yield _change("", "1.0 is an integer, but not in draft-04")


def _named(types: frozenset[str]) -> str:
    if types == _TYPES:
        return "any"
    shown = types - {"integer"} if "number" in types else types
    return " or ".join(sorted(shown)) or "none"


def _values(old: Conjunction, new: Conjunction) -> Iterator[Difference]:
    before, after = values_of(old), values_of(new)
    if before is None and after is not None:
        yield _narrow("", f"only {_listed(after)} now")
    elif before is not None and after is None:
        yield _widen("", f"no longer only {_listed(before)}")
    elif before is not None and after is not None:
        if gone := {key: before[key] for key in before if key not in after}:
            yield Difference("", "removes", f"the value {_listed(gone)}", narrows=True)
        if come := {key: after[key] for key in after if key not in before}:
            yield Difference("", "adds", f"the value {_listed(come)}", widens=True)


def _listed(values: dict[str, Any]) -> str:
    texts = [_shown(value) for value in values.values()]
    more = f" and {len(texts) - 5} more" if len(texts) > 5 else ""  # noqa: PLR2004 - enough to recognise them by
    return (", ".join(texts[:5]) or "no value") + more


def bound(conjunction: Conjunction, word: str, choose: Callable[..., Any]) -> Any:  # noqa: ANN401 - a number
    """Give the bound that counts of all that a word says; None where it says none."""
    return choose(conjunction.all(word), default=None)


def limit(conjunction: Conjunction, side: str) -> tuple[Any, bool] | None:
    """Give the bound of numbers on a side ("minimum" or "maximum"), and whether it is excluded itself."""
    found = [(value, False) for value in conjunction.all(side)]
    found += [(value, True) for value in conjunction.all("exclusive" + side.capitalize())]
    # Of two equal bounds the one that excludes itself counts.
    sign = 1 if side == "minimum" else -1
    return max(found, key=lambda one: (sign * one[0], one[1]), default=None)


def _bounds(old: Conjunction, new: Conjunction) -> Iterator[Difference]:
    for word, _ in _LOW:
        before, after = bound(old, word, max) or 0, bound(new, word, max) or 0
        if before != after:
            yield (_narrow if after > before else _widen)("", f"{word} {before} → {after}")
    for word, _ in _HIGH:
        before, after = bound(old, word, min), bound(new, word, min)
        if before != after:
            lower = before is None or (after is not None and after < before)
            yield (_narrow if lower else _widen)("", f"{word} {_or_none(before)} → {_or_none(after)}")
    for side, sign in (("minimum", 1), ("maximum", -1)):
        first, then = limit(old, side), limit(new, side)
        if first != then:
            narrower = first is None or (
                then is not None and (sign * then[0], then[1]) > (sign * first[0], first[1])
            )
            words = f"{side} {_limit_shown(first)} → {_limit_shown(then)}"
            yield (_narrow if narrower else _widen)("", words)


def _or_none(value: Any) -> str:  # noqa: ANN401 - a number or None
    return "none" if value is None else _shown(value)


def _limit_shown(found: tuple[Any, bool] | None) -> str:
    return "none" if found is None else _shown(found[0]) + (" (excluded)" if found[1] else "")


def _sets(old: Conjunction, new: Conjunction) -> Iterator[Difference]:
    """Compare words of which each asks something by itself."""
    for word in ("multipleOf", "pattern", "format", "contentEncoding", "contentMediaType", "uniqueItems"):
        before, after = ({text(value): value for value in part.all(word)} for part in (old, new))
        gone = [_shown(before[key]) for key in before if key not in after and before[key] is not False]
        come = [_shown(after[key]) for key in after if key not in before and after[key] is not False]
        if word == "multipleOf" and len(before) == len(after) == 1 and gone and come:
            yield _multiple(*before.values(), *after.values())
        elif gone and come:
            yield _change("", f"{word} {', '.join(gone)} → {', '.join(come)}")
        elif come:
            yield _narrow("", f"{word} {', '.join(come)} is new")
        elif gone:
            yield _widen("", f"{word} {', '.join(gone)} is gone")
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
        yield _narrow(_step(needed), f"is now required where there is {_step(name)}")
    for name, needed in sorted(needs[0] - needs[1]):
        yield _widen(_step(needed), f"is no longer required where there is {_step(name)}")


def _multiple(before: Any, after: Any) -> Difference:  # noqa: ANN401 - numbers
    words = f"multipleOf {_shown(before)} → {_shown(after)}"
    first, then = Fraction(str(before)), Fraction(str(after))
    if then % first == 0:
        return _narrow("", words)
    if first % then == 0:
        return _widen("", words)
    return _change("", words)


def _summary(conjunction: Conjunction) -> str:
    values = values_of(conjunction)
    if values is not None:
        return f"only {_listed(values)}"
    types = types_of(conjunction)
    return "anything" if types == _TYPES and not conjunction.parts else _named(types)
