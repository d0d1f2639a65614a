"""What a schema asks of one value: its own words, those of `allOf` and of what `$ref` names, in one spelling.

The five drafts spell some words in different ways; all are given as 2020-12 spells them. References are
resolved by the library, so embedded `$id`s, anchors and bundles mean what they mean to the validator.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

import jsonschema_rs

from processor.validation.dialects import (
    DIALECTS,
    DRAFT_4,
    DRAFT_6,
    DRAFT_7,
    DRAFT_2019,
    DRAFT_2020,
    Dialect,
    dialect_of,
)

_BASE = "json-schema:///schema"
_BEFORE_2019 = (DRAFT_4, DRAFT_6, DRAFT_7)
_COUNTS = ("minContains", "maxContains")
_SINCE_6 = ("const", "contains", "propertyNames")
_SINCE_7 = ("if", "then", "else")
_SINCE_2019 = (
    *_COUNTS,
    *("dependentRequired", "dependentSchemas", "unevaluatedItems"),
    *("unevaluatedProperties", "$recursiveRef", "$dynamicRef", "prefixItems"),
)
# Notes alone, since 2019-09.
_UNTIL_7 = ("contentEncoding", "contentMediaType")
_UNREAD: Mapping[str, tuple[str, ...]] = {
    DRAFT_4.name: (*_SINCE_6, *_SINCE_7, *_SINCE_2019, *_UNTIL_7),
    DRAFT_6.name: (*_SINCE_7, *_SINCE_2019),
    DRAFT_7.name: _SINCE_2019,
    DRAFT_2019.name: ("prefixItems", "$dynamicRef", *_UNTIL_7),
    DRAFT_2020.name: ("$recursiveRef", *_UNTIL_7),
}
_WALKED_MAX = 1_000_000
DYNAMIC = ("$dynamicRef", "$recursiveRef")

Words: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One subschema, and where its references lead from."""

    schema: Any
    resolver: jsonschema_rs.Resolver
    dialect: Dialect

    def within(self, schema: Any) -> "Node":  # noqa: ANN401 - any JSON value
        """Give a subschema of this one."""
        return Node(schema, self.resolver, self.dialect)


class Document:
    """A whole schema. What is looked up stays in memory, so that one subschema is one object."""

    def __init__(self, definition: dict[str, Any] | bool, *, formats: bool) -> None:
        self.dialect = dialect_of(definition)
        self.formats = formats
        self._definition = definition
        self._found: dict[tuple[str, str], Node] = {}
        self._walked = 0

    @cached_property
    def root(self) -> Node:
        """The schema itself. Raises ReferencingError where its ids can't be read."""
        base = _BASE
        registry = jsonschema_rs.Registry([(base, self._definition)], draft=self.dialect.number)
        root = self._entered(Node(self._definition, registry.resolver(base), self.dialect))
        self._found[root.resolver.base_uri, "#"] = root
        return root

    @cached_property
    def _is_dynamic(self) -> bool:
        return any(word in str(self._definition) for word in DYNAMIC)

    def conjunction(self, nodes: Sequence[Node]) -> "Conjunction":
        """Give all that several subschemas ask of one value. Raises ReferencingError."""
        parts: list[tuple[Node, Words]] = []
        seen: set[int] = set()
        refuses = False
        pending = list(reversed(nodes))
        while pending:
            node = self._entered(pending.pop())
            if node.schema is False:
                refuses = True
            if not isinstance(node.schema, dict) or id(node.schema) in seen:
                continue
            seen.add(id(node.schema))
            words = modern(node.schema, node.dialect)
            if not self.formats:
                words.pop("format", None)
            parts.append((node, words))
            pending += [node.within(branch) for branch in reversed(words.pop("allOf", ()))]
            if isinstance(reference := words.pop("$ref", None), str):
                pending.append(self._target(node, reference))
        return Conjunction(parts, refuses)

    def whole(self, node: Node) -> str:
        """Give a subschema and all that it refers to, as text that is equal for what means the same.

        Raises ValueError where that took too much in all.
        """
        texts: dict[str, Any] = {}
        if self._is_dynamic:
            texts["all"] = self._definition
        pending = [("", self._entered(node))]
        while pending:
            name, at = pending.pop()
            if name in texts:
                continue
            texts[name] = at.schema
            for place, reference in self._references(at):
                try:
                    target = self._target(place, reference)
                except jsonschema_rs.ReferencingError:
                    # It looks like a reference, and stands in a value, such as an example.
                    continue
                pending.append((f"{target.resolver.base_uri} {reference}", target))
        return str(jsonschema_rs.canonical.json.to_string([self.dialect.name, self.formats, texts]))

    def _references(self, node: Node) -> list[tuple[Node, str]]:
        """Find what looks like a reference below a subschema, and where each leads from."""
        found = []
        pending = [node]
        while pending:
            self._walked += 1
            if self._walked > _WALKED_MAX:
                raise ValueError("too much refers to too much")
            at = pending.pop()
            if isinstance(at.schema, dict):
                with suppress(jsonschema_rs.ReferencingError):
                    at = self._entered(at)
                if isinstance(reference := at.schema.get("$ref"), str):
                    found.append((at, reference))
                pending += [at.within(value) for value in at.schema.values()]
            elif isinstance(at.schema, list):
                pending += [at.within(value) for value in at.schema]
        return found

    def _target(self, node: Node, reference: str) -> Node:
        key = (node.resolver.base_uri, reference)
        if key not in self._found:
            found = node.resolver.lookup(reference)
            # A part of a bundle may be of another draft.
            dialect = next((known for known in DIALECTS if known.number == found.draft), node.dialect)
            self._found[key] = Node(found.contents, found.resolver, dialect)
        return self._found[key]

    def _entered(self, node: Node) -> Node:
        """Give a subschema with the base that its own `$id` makes."""
        word = "id" if node.dialect is DRAFT_4 else "$id"
        own = node.schema.get(word) if isinstance(node.schema, dict) else None
        if not isinstance(own, str) or own.startswith("#") or _only_refers(node):
            return node
        target = self._target(node, own)
        return Node(node.schema, target.resolver, target.dialect)


@dataclass(frozen=True, slots=True)
class Conjunction:
    """All that is asked of one value: the subschemas with their words, and whether one is `false`."""

    parts: list[tuple[Node, Words]]
    refuses: bool

    def all(self, word: str) -> list[Any]:
        """Give what each part says by a word, where it says anything."""
        return [words[word] for _, words in self.parts if word in words]

    def nodes(self, word: str) -> list[Node]:
        """Give the subschemas that stand directly below a word."""
        return [node.within(words[word]) for node, words in self.parts if word in words]

    def names(self) -> list[str]:
        """Give the members that are described, in their order."""
        return list(dict.fromkeys(name for properties in self.all("properties") for name in properties))

    def member(self, name: str) -> list[Node]:
        """Give what is asked of the member of a name."""
        return self.member_matching({at for at in self.patterns() if _matches(at, name)}, name)

    def patterns(self) -> frozenset[str]:
        """Give the patterns of names by which members are described."""
        return frozenset(pattern for patterns in self.all("patternProperties") for pattern in patterns)

    def member_matching(self, patterns: AbstractSet[str], name: str | None = None) -> list[Node]:
        """Give what is asked of a member whose name matches just these patterns; None: an unknown name."""
        found = []
        for node, words in self.parts:
            named = words.get("properties", {})
            mine = [named[name]] if name in named else []
            mine += [
                words["patternProperties"][at] for at in words.get("patternProperties", ()) if at in patterns
            ]
            if not mine and "additionalProperties" in words:
                mine = [words["additionalProperties"]]
            found += [node.within(schema) for schema in mine]
        return found

    def item(self, at: int) -> list[Node]:
        """Give what is asked of the item at a place."""
        found = []
        for node, words in self.parts:
            prefix = words.get("prefixItems", ())
            if at < len(prefix):
                found.append(node.within(prefix[at]))
            elif "items" in words:
                found.append(node.within(words["items"]))
        return found


def modern(schema: Mapping[str, Any], dialect: Dialect) -> Words:
    """Give the words that a draft reads in a schema, as 2020-12 spells them; what is below them stays.

    `if` has `then` and `else` within it here, and `contains` its counts.
    """
    words = dict(schema)
    if dialect in _BEFORE_2019 and isinstance(words.get("$ref"), str):
        return {"$ref": words["$ref"]}
    for word in _UNREAD[dialect.name]:
        words.pop(word, None)
    if dialect is DRAFT_4:
        for word, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if words.pop(exclusive, False) is True and word in words:
                words[exclusive] = words.pop(word)
    rest = words.pop("additionalItems", None)
    if isinstance(words.get("items"), list):
        words["prefixItems"] = words.pop("items")
        if rest is not None:
            words["items"] = rest
    for name, needed in words.pop("dependencies", {}).items():
        word = "dependentRequired" if isinstance(needed, list) else "dependentSchemas"
        words[word] = words.get(word, {}) | {name: needed}
    return words | _together(words, "if", "then", "else") | _together(words, "contains", *_COUNTS)


def _together(words: Words, first: str, *others: str) -> Words:
    """Take words that belong together out, as one; they do nothing without their first."""
    found = {word: words.pop(word) for word in (first, *others) if word in words}
    return {first: found} if first in found else {}


@lru_cache(maxsize=10_000)
def _matches(pattern: str, name: str) -> bool:
    return jsonschema_rs.is_valid({"pattern": pattern}, name)


def _only_refers(node: Node) -> bool:
    return node.dialect in _BEFORE_2019 and isinstance(node.schema.get("$ref"), str)
