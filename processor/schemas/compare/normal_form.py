"""Serializes a schema by its meaning: independent of the names and places of its parts.

    every part a node ─▶ merge nodes with equal constraints ─▶ number them in order from the root

A referenced part, an inlined part and copies of a part are the same.
"""

from collections.abc import Sequence
from typing import Any

import jsonschema_rs

from processor.schemas.dialects import DRAFT_2020
from processor.schemas.subschemas import rebuilt

_DEFINITION = "#/$defs/"


def normal_text(definitions: Sequence[Any]) -> str:
    """Return one text for all 2020-12 schemas with the same constraints in the same keywords.

    The first definition is the root; each reference is `#/$defs/` with the index of a definition.
    """
    graph = _Graph(definitions)
    kinds = graph.kinds()
    met = [graph.end_of(0)]
    numbers = {kinds[met[0]]: 0}
    for node in met:
        for part in graph.parts[node]:
            if kinds[part] not in numbers:
                numbers[kinds[part]] = len(met)
                met.append(part)
    lines = [[graph.words[node], [numbers[kinds[part]] for part in graph.parts[node]]] for node in met]
    return str(jsonschema_rs.canonical.json.to_string(lines))


class _Graph:
    def __init__(self, definitions: Sequence[Any]) -> None:
        self.words: list[str] = [""] * len(definitions)
        """The constraints of each node, without those of its parts."""
        self.parts: list[list[int]] = [[] for _ in definitions]
        self._ends: dict[int, int] = {}
        for place, definition in enumerate(definitions):
            if (end := _lone_reference(definition)) is not None:
                self._ends[place] = end
            else:
                self._fill(place, definition)
        self.parts = [[self.end_of(part) for part in parts] for parts in self.parts]

    def end_of(self, node: int) -> int:
        """Follow lone references from a node to the last node."""
        seen = set()
        while node in self._ends and node not in seen:
            seen.add(node)
            node = self._ends[node]
        return node

    def kinds(self) -> list[int]:
        """Return a number for each node, equal for nodes with equal constraints."""
        kinds, count = [0] * len(self.words), 0
        while True:
            known: dict[Any, int] = {}
            kinds = [
                known.setdefault((words, *(kinds[part] for part in parts)), len(known))
                for words, parts in zip(self.words, self.parts, strict=True)
            ]
            if len(known) == count:
                return kinds
            count = len(known)

    def _fill(self, node: int, schema: Any) -> None:  # noqa: ANN401 - any JSON value
        def part_of(part: Any, *_: str | int) -> None:  # noqa: ANN401 - any JSON value
            self.parts[node].append(self._node(part))

        shape = schema
        if isinstance(schema, dict):
            shape = {}
            for word, value in sorted(schema.items()):
                if word == "$ref":
                    self.parts[node].append(int(value.removeprefix(_DEFINITION)))
                    shape[word] = None
                    continue
                ordered = dict(sorted(value.items())) if isinstance(value, dict) else value
                shape[word] = rebuilt(word, ordered, DRAFT_2020, part_of)
        self.words[node] = str(jsonschema_rs.canonical.json.to_string(shape))

    def _node(self, schema: Any) -> int:  # noqa: ANN401 - any JSON value
        if (end := _lone_reference(schema)) is not None:
            return end
        self.words.append("")
        self.parts.append([])
        node = len(self.words) - 1
        self._fill(node, schema)
        return node


def _lone_reference(schema: Any) -> int | None:  # noqa: ANN401 - any JSON value
    if isinstance(schema, dict) and schema.keys() == {"$ref"}:
        return int(schema["$ref"].removeprefix(_DEFINITION))
    return None
