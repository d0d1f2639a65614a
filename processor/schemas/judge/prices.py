"""Estimates the maximum cost of validating in the worker, per two bytes of a payload.

    schema ─▶ nodes: a subschema, its costs for the same value and for the values inside ─▶ nanoseconds

The estimate needn't be exact: expensive payloads go to the judge process. An unknown keyword or reference
counts as expensive.
"""

import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from jsonschema_rs import ReferencingError, Registry, Resolver

from processor.errors import SettingsError
from processor.schemas.dialects import dialect_of
from processor.schemas.references import SchemaDocument
from processor.schemas.subschemas import TOP

_PRICE_NS_MAX = 1_000_000
_NODES_MAX = 5_000
_ROUNDS_MAX = 512
_STEPS_MAX = 16
"""The limit of subschemas in a row for one value: the validator's stack grows with each, at each level."""

_WORD_NS = 40
_TYPE_NS, _TYPE_UNUSUAL_NS = 200, 6_000
_NUMBER_NS, _NUMBER_UNUSUAL_NS = 3_000, 10_000
_CONTAINER_NS = 500
_FORMAT_NS = 1_000
_UNIQUE_NS = 10_000
"""An element is hashed once for each list around it."""

_STEP_NS, _MATCH_NS = 15, 300
_DIGITS_MAX, _EXPONENT_MAX = 30, 40
"""Limits of a number in the schema; arithmetic with larger numbers is expensive."""

_REPETITION = re.compile(r"(.)\{(?:[0-9]*,)?([0-9]+)")

_DEAR_WORDS = frozenset(
    ("unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef", "contentMediaType")
)
_DEAR_FORMATS = ("regex", "uri-template")
_COMPARED = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_SIZED = ("properties", "required", "dependentRequired", "dependentSchemas", "dependencies", "type")
_NAMING = ("required", "dependentRequired", "dependencies")
"""Keywords with one error for each name."""

_SAME = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies")
_ONE_OF_THEM = ("properties", "additionalProperties", "items", "prefixItems", "additionalItems")
_EACH_OF_THEM = ("patternProperties", "propertyNames", "contains")
_MAPS = ("properties", "patternProperties", "dependentSchemas", "dependencies")


class _TooExpensive(Exception):
    """The cost exceeds the limit, or is unknown."""


_NOT_SEEN_THROUGH = (
    *(_TooExpensive, ReferencingError, SettingsError),
    *(ArithmeticError, AttributeError, LookupError, TypeError, ValueError),
)


def price_of(definition: Any, *, unusual: bool = False) -> int | None:  # noqa: ANN401 - any JSON value
    """Return the maximum nanoseconds per two bytes of a payload; None: too many, or unknown.

    `unusual`: the payload may have numbers of many digits or with large exponents.
    """
    try:
        return _Prices(definition, unusual=unusual).highest()
    except _NOT_SEEN_THROUGH:
        return None


def errors_of(definition: Any) -> int | None:  # noqa: ANN401 - any JSON value
    """Return the maximum number of errors of a value; None: too many, or unknown."""
    try:
        return _Errors(definition, unusual=False).highest()
    except _NOT_SEEN_THROUGH:
        return None


@dataclass(slots=True, eq=False)
class _Node:
    own_ns: int = 0
    same: "list[_Node]" = field(default_factory=list)
    """All of them apply to the same value."""
    one_of: "list[_Node]" = field(default_factory=list)
    """At most one of them applies to a child,"""
    each_of: "list[_Node]" = field(default_factory=list)
    """and all of these apply."""
    total_ns: int = 0
    steps: int = -1
    """The longest chain by `same`; -1: not computed yet."""
    below_ns: int = 0
    highest_ns: int = 0


class _Prices:
    _word_ns = _WORD_NS

    def __init__(self, definition: Any, *, unusual: bool) -> None:  # noqa: ANN401 - any JSON value
        dialect = dialect_of(definition)
        self._unusual = unusual
        self._id = dialect.id_word
        self._nodes: list[_Node] = []
        self._referred: dict[tuple[str, str], _Node] = {}
        self._pending: list[tuple[_Node, Any, Resolver]] = []
        document = SchemaDocument(definition, dialect)
        if document.foreign():
            raise _TooExpensive
        registry = Registry([(TOP, document.definition)], draft=dialect.number)
        self._root = self._node(document.definition, registry.resolver(TOP))
        while self._pending:
            self._add_keywords(*self._pending.pop())

    def highest(self) -> int:
        """Return the maximum cost of one value at any depth."""
        order: list[_Node] = []
        for node in self._nodes:
            _add_up(node, order)
        for _ in range(_ROUNDS_MAX):
            changed = False
            for node in order:
                # If several apply, each may have another child in view; their sum is an upper bound.
                node.below_ns = (
                    max((child.highest_ns for child in node.one_of), default=0)
                    + sum(child.highest_ns for child in node.each_of)
                    + sum(part.below_ns for part in node.same)
                )
                highest_ns = max(node.total_ns, node.below_ns)
                if highest_ns > _PRICE_NS_MAX:
                    raise _TooExpensive
                changed |= highest_ns > node.highest_ns
                node.highest_ns = highest_ns
            if not changed:
                return self._root.highest_ns
        raise _TooExpensive

    def _node(self, schema: Any, resolver: Resolver) -> _Node:  # noqa: ANN401 - any JSON value
        node = self._leaf(0)
        self._pending.append((node, schema, resolver))
        return node

    def _leaf(self, own_ns: int) -> _Node:
        if len(self._nodes) >= _NODES_MAX:
            raise _TooExpensive
        self._nodes.append(_Node(own_ns))
        return self._nodes[-1]

    def _add_keywords(self, node: _Node, schema: Any, resolver: Resolver) -> None:  # noqa: ANN401 - any JSON value
        node.own_ns = self._word_ns
        if isinstance(schema, bool):
            return
        if not isinstance(schema, dict) or schema.keys() & _DEAR_WORDS:
            raise _TooExpensive
        if "$schema" in schema and node is not self._root:
            raise _TooExpensive
        if isinstance(schema.get(self._id), str):
            resolver = resolver.lookup(schema[self._id]).resolver
        node.own_ns += self._own_ns(schema)
        if "$ref" in schema:
            node.same.append(self._target(schema["$ref"], resolver))
        for words, nodes in (
            (_SAME, node.same),
            (_ONE_OF_THEM, node.one_of),
            (_EACH_OF_THEM, node.each_of),
        ):
            nodes += [self._node(part, resolver) for word in words for part in _parts(word, schema)]
        node.each_of += [self._leaf(_pattern_ns(pattern)) for pattern in schema.get("patternProperties", ())]
        if schema.get("uniqueItems"):
            if self._unusual:
                raise _TooExpensive
            node.each_of.append(self._leaf(_UNIQUE_NS))

    def _target(self, reference: str, resolver: Resolver) -> _Node:
        key = resolver.base_uri, reference
        if key not in self._referred:
            resolved = resolver.lookup(reference)
            self._referred[key] = self._node(resolved.contents, resolved.resolver)
        return self._referred[key]

    def _own_ns(self, schema: dict[str, Any]) -> int:
        """Return the cost of the keywords for one value or for two bytes of a string, without subschemas."""
        type_ns = _TYPE_UNUSUAL_NS if self._unusual else _TYPE_NS
        total = _WORD_NS * (len(schema) + sum(_size(schema.get(word)) for word in _SIZED))
        if "type" in schema:
            total += type_ns * max(1, _size(schema["type"]))
        for word in _COMPARED:
            if word in schema:
                total += self._constant_ns(schema[word])
        if "const" in schema:
            total += self._constant_ns(schema["const"])
        if "enum" in schema:
            members = schema["enum"]
            # A lookup, whatever the number of strings.
            plain = all(isinstance(member, str) for member in members)
            total += len(members) if plain else sum(map(self._constant_ns, members))
        if "format" in schema:
            if schema["format"] in _DEAR_FORMATS:
                raise _TooExpensive
            total += _FORMAT_NS
        if "pattern" in schema:
            total += _pattern_ns(schema["pattern"])
        return total

    def _constant_ns(self, value: Any) -> int:  # noqa: ANN401 - any JSON value
        match value:
            case bool() | None | str():
                return _WORD_NS
            case dict():
                return _CONTAINER_NS + sum(map(self._constant_ns, value.values()))
            case list():
                return _CONTAINER_NS + sum(map(self._constant_ns, value))
        number = Decimal(value)
        if len(number.as_tuple().digits) > _DIGITS_MAX or abs(number.adjusted()) > _EXPONENT_MAX:
            raise _TooExpensive
        return _NUMBER_UNUSUAL_NS if self._unusual else _NUMBER_NS


class _Errors(_Prices):
    """Counts errors instead of nanoseconds."""

    _word_ns = 1

    def _own_ns(self, schema: dict[str, Any]) -> int:
        return len(schema) + sum(_size(schema.get(word)) for word in _NAMING)


def _add_up(node: _Node, order: list[_Node]) -> None:
    """Add up the costs for the same value; `order` gets each node after its dependencies."""
    if node.steps >= 0:
        return
    pending = [(node, iter(node.same))]
    way = {id(node)}
    while pending:
        at, parts = pending[-1]
        part = next(parts, None)
        if part is None:
            pending.pop()
            way.discard(id(at))
            at.total_ns = at.own_ns + sum(each.total_ns for each in at.same)
            at.steps = 1 + max((each.steps for each in at.same), default=-1)
            if at.total_ns > _PRICE_NS_MAX or at.steps > _STEPS_MAX:
                raise _TooExpensive
            order.append(at)
        elif id(part) in way:
            # A cycle for the same value.
            raise _TooExpensive
        elif part.steps < 0:
            pending.append((part, iter(part.same)))
            way.add(id(part))


def _parts(word: str, schema: dict[str, Any]) -> list[Any]:
    """Return the subschemas below a keyword that has one, a list or a map."""
    value = schema.get(word)
    if value is None:
        return []
    if word in _MAPS:
        # Values of `dependencies` may be lists of names.
        return [part for part in value.values() if not isinstance(part, list)]
    return value if isinstance(value, list) else [value]


def _size(value: Any) -> int:  # noqa: ANN401 - any JSON value
    """Count the entries of a list or map, and those of the lists in it."""
    if isinstance(value, dict):
        return sum(1 + (len(part) if isinstance(part, list) else 0) for part in value.values())
    return len(value) if isinstance(value, list) else 0


def _pattern_ns(pattern: str) -> int:
    """Return the cost of a pattern, which grows with its states after the repetitions are expanded."""
    steps, times = len(pattern), 1
    for before, most in _REPETITION.findall(pattern):
        if before in ")}":
            times *= max(1, int(most))
        else:
            steps += int(most)
    return _MATCH_NS + 2 * _STEP_NS * steps * times
