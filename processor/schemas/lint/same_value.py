"""Groups the subschemas that apply to the same value, and checks what they describe together.

One subschema may describe a member and another one require it; only the group shows a typo.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from processor.schemas.compare.conjunctions import matches
from processor.schemas.lint.unknown_words import Oddity
from processor.schemas.references import SchemaDocument
from processor.schemas.subschemas import Subschema, parts
from processor.schemas.wording import listed, nearest, shown
from processor.wire.json_pointer import pointer

_SAME = ("if", "then", "else", "allOf", "anyOf", "oneOf", "dependentSchemas", "dependencies")
_NEAREST_MAX = 100
_DESCRIBE = 'add it to "properties", or correct the name'


@dataclass(slots=True)
class _Group:
    """The subschemas that apply to one value."""

    places: list[Subschema] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    patterns: set[str] = field(default_factory=set)
    is_typed: bool = False
    is_open: bool = True
    """Whether undescribed members are accepted."""
    is_known: bool = True
    """Whether the group is complete: all of it in this schema, and none below a `not`."""
    holds_any: bool = False
    """Whether undescribed members have a schema."""


class SameValue:
    """The subschemas of a schema, grouped by value."""

    def __init__(self, document: SchemaDocument) -> None:
        self._groups: dict[str, _Group] = defaultdict(_Group)
        self._above: dict[str, str] = {}
        self.within: set[str] = set()
        """The targets of references, and all places above them."""
        unknown = self._link(document)
        self._places = document.places()
        for place in self._places:
            if isinstance(place.schema, dict):
                _describe(self._groups[self._top(place.at)], place, place.schema)
        for at in unknown:
            self._groups[self._top(at)].is_known = False

    def remarks(self) -> Iterator[Oddity]:
        """Yield level, kind, pointer and message of each remark."""
        for group in self._groups.values():
            if group.is_known:
                yield from _required(group)
                yield from _untyped(group)
        top = self._groups[self._top("")]
        if top.names and top.is_open and not top.holds_any:
            advice = 'write "additionalProperties": false to reject them'
            yield "note", "open", "", f"undescribed members are accepted; {advice}"
        yield from self._unused()

    def _link(self, document: SchemaDocument) -> list[str]:
        unknown = []
        for place in document.places():
            for path, _ in parts(place.schema, place.dialect) if isinstance(place.schema, dict) else ():
                if path[0] in _SAME:
                    self._join(place.at, place.at + pointer(path))
        for reference in document.references():
            at = reference.place.at
            if reference.uri in document.resources:
                target = document.target(reference)
                self._join(at, target)
                while target and target not in self.within:
                    self.within.add(target)
                    target = target.rpartition("/")[0]
            else:
                unknown.append(at)
            if reference.word != "$ref":
                unknown.append(at)
        return unknown

    def _unused(self) -> Iterator[Oddity]:
        holders = {f"{place.at}/{word}" for place in self._places for word in ("$defs", "definitions")}
        unused = [
            place.at
            for place in self._places
            if place.at.rpartition("/")[0] in holders and place.at not in self.within
        ]
        if unused:
            names = listed([shown(at.rpartition("/")[2]) for at in unused])
            yield "note", "unused", unused[0], f"nothing refers to {names}"

    def _join(self, one: str, other: str) -> None:
        self._above[self._top(other)] = self._top(one)

    def _top(self, at: str) -> str:
        path = []
        while (above := self._above.get(at, at)) != at:
            path.append(at)
            at = above
        for each in path:
            self._above[each] = at
        return at


def _describe(group: _Group, place: Subschema, schema: dict[str, Any]) -> None:
    group.places.append(place)
    group.is_known &= "/not" not in place.at
    group.is_typed |= bool(schema.keys() & {"type", "enum", "const"})
    group.names.update(_keys(schema.get("properties")))
    group.patterns.update(_keys(schema.get("patternProperties")))
    for word in ("additionalProperties", "unevaluatedProperties"):
        group.is_open &= word not in schema
        group.holds_any |= isinstance(schema.get(word), dict)


def _keys(value: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON value
    yield from value if isinstance(value, dict) else ()


def _required(group: _Group) -> Iterator[Oddity]:
    if group.holds_any:
        return
    looked_up = 0
    for place in group.places:
        schema = place.schema if isinstance(place.schema, dict) else {}
        required = schema.get("required")
        for name in required if isinstance(required, list) else ():
            if (
                not isinstance(name, str)
                or name in group.names
                or any(matches(each, name) for each in group.patterns)
            ):
                continue
            looked_up += 1
            near = nearest(name, sorted(group.names), 0.7) if looked_up <= _NEAREST_MAX else None
            advice = f"did you mean {shown(near)}?" if near else _DESCRIBE
            message = f"{shown(name)} is required, but no property describes it; {advice}"
            yield "warning", "required", f"{place.at}/required", message


def _untyped(group: _Group) -> Iterator[Oddity]:
    if group.is_typed:
        return
    for word, type_ in (("properties", "object"), ("required", "object"), ("items", "array")):
        for place in group.places:
            if isinstance(place.schema, dict) and word in place.schema:
                message = f'{word} without a type accepts any other type; add "type": "{type_}"'
                yield "note", "untyped", place.at, message
                return
