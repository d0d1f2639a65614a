"""Generates schemas of any draft, mutations of them, and payloads that are close to their keywords.

Everything derives from one seed, with few keywords and few names, so that payloads match the schemas.
"""

import copy
import random
from collections.abc import Callable
from typing import Any

from processor.schemas.dialects import DRAFT_4, DRAFT_6, DRAFT_7, DRAFT_2019, Dialect

NAMES = ("a", "b", "c", "x-a")
SCALARS: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    2,
    3,
    -1,
    0.5,
    1.0,
    10,
    "",
    "a",
    "ab",
    "abc",
    "2024-05-01",
    "é",
)
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
OLD = (DRAFT_4, DRAFT_6, DRAFT_7)


def a_payload(chance: random.Random, depth: int = 3) -> Any:
    match chance.randrange(5) if depth else 0:
        case 1 | 2:
            return {name: a_payload(chance, depth - 1) for name in (*NAMES, "other") if chance.random() < 0.4}
        case 3:
            return [a_payload(chance, depth - 1) for _ in range(chance.randrange(4))]
        case _:
            return chance.choice(SCALARS)


def a_schema(chance: random.Random, dialect: Dialect) -> dict[str, Any]:
    word = "definitions" if dialect in OLD else "$defs"
    making = _Making(chance, dialect, f"#/{word}/")
    schema: dict[str, Any] = making.schema(3)
    schema[word] = {name: making.schema(2) for name in "mn"}
    return {"$schema": dialect.uri} | schema


def changed(chance: random.Random, schema: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    """Change one to three places of a schema: add or remove a keyword, or change a value."""
    changed = copy.deepcopy(schema)
    word = "definitions" if dialect in OLD else "$defs"
    making = _Making(chance, dialect, f"#/{word}/")
    for _ in range(chance.randint(1, 3)):
        places = [place for place in _schemas(changed) if isinstance(place, dict)]
        place = chance.choice(places)
        match chance.randrange(4):
            case 0 if removable := [name for name in place if name not in ("$schema", word)]:
                del place[chance.choice(removable)]
            case 1 if lists := [
                name for name in ("required", "enum", "anyOf") if len(place.get(name, ())) > 1
            ]:
                place[chance.choice(lists)].pop()
            case _:
                making.add(place, 1)
    return changed


def _schemas(value: Any) -> list[Any]:
    """Every object below a value; in maps of schemas an added keyword is an added name."""
    found = [value] if isinstance(value, dict) and value.keys() - set(NAMES) - {"m", "n", "^x-", "a$"} else []
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return found + [one for child in below for one in _schemas(child)]


class _Making:
    def __init__(self, chance: random.Random, dialect: Dialect, reference: str) -> None:
        self.chance = chance
        self.dialect = dialect
        self.reference = reference

    def schema(self, depth: int) -> Any:
        if depth < 3 and self.chance.random() < 0.12:
            return {} if self.dialect is DRAFT_4 else self.chance.choice((True, False, {}))
        schema: dict[str, Any] = {}
        for _ in range(self.chance.randint(1, 3)):
            self.add(schema, depth)
        return schema

    def add(self, schema: dict[str, Any], depth: int) -> None:
        chance = self.chance
        words: list[Callable[[dict[str, Any], int], None]] = [
            self._scalar,
            self._scalar,
            self._numbers,
            self._sizes,
        ]
        if depth:
            words += [self._members, self._members, self._members, self._items, self._branches, self._rare]
        chance.choice(words)(schema, depth)

    def _scalar(self, schema: dict[str, Any], _: int) -> None:
        chance = self.chance
        match chance.randrange(7):
            case 0 | 1:
                schema["type"] = chance.choice(TYPES)
            case 2:
                schema["type"] = chance.sample(TYPES, chance.randint(1, 4))
            case 3:
                schema["enum"] = chance.sample(
                    [None, 0, 1, 2, "", "a", "ab", [], {}, {"a": 1}], chance.randint(1, 4)
                )
            case 4:
                schema["const"] = chance.choice(SCALARS)
            case 5:
                schema["pattern"] = chance.choice(("^a", "b", "^a?$", "c$"))
            case _:
                schema["format"] = chance.choice(("date", "email", "uuid"))

    def _numbers(self, schema: dict[str, Any], _: int) -> None:
        chance = self.chance
        side = chance.choice(("minimum", "maximum"))
        exclusive = "exclusive" + side.capitalize()
        if chance.random() < 0.3:
            schema["multipleOf"] = chance.choice((1, 2, 0.5, 3))
        elif self.dialect is DRAFT_4:
            schema[side] = chance.randrange(-1, 4)
            schema[exclusive] = chance.random() < 0.5
        else:
            schema[chance.choice((side, exclusive))] = chance.choice((-1, 0, 0.5, 1, 2, 3))

    def _sizes(self, schema: dict[str, Any], _: int) -> None:
        side = self.chance.choice(("min", "max"))
        schema[side + self.chance.choice(("Length", "Items", "Properties"))] = self.chance.randrange(4)

    def _members(self, schema: dict[str, Any], depth: int) -> None:
        chance = self.chance
        match chance.randrange(9):
            case 0 | 1 | 2:
                schema["properties"] = {name: self.schema(depth - 1) for name in chance.sample(NAMES, 2)}
            case 3 | 4:
                schema["required"] = chance.sample(NAMES, chance.randint(1, 2))
            case 5 | 6:
                schema["additionalProperties"] = chance.choice((True, False, self.schema(depth - 1)))
            case 7:
                schema["patternProperties"] = {chance.choice(("^x-", "a$")): self.schema(depth - 1)}
            case _:
                word = (
                    "dependencies"
                    if self.dialect in OLD
                    else chance.choice(("dependentRequired", "dependentSchemas"))
                )
                value = {"a": ["b"]} if word != "dependentSchemas" else {"a": self.schema(depth - 1)}
                schema[word] = value

    def _items(self, schema: dict[str, Any], depth: int) -> None:
        chance = self.chance
        match chance.randrange(5):
            case 0 | 1:
                schema["items"] = self.schema(depth - 1)
            case 2:
                schemas = [self.schema(depth - 1) for _ in range(chance.randint(1, 2))]
                if self.dialect in (*OLD, DRAFT_2019):
                    schema["items"] = schemas
                    schema["additionalItems"] = chance.choice((False, self.schema(depth - 1)))
                else:
                    schema["prefixItems"] = schemas
            case 3:
                schema["uniqueItems"] = chance.choice((True, False))
            case _:
                schema["contains"] = self.schema(depth - 1)
                if chance.random() < 0.5:
                    schema[chance.choice(("minContains", "maxContains"))] = chance.randrange(3)

    def _branches(self, schema: dict[str, Any], depth: int) -> None:
        chance = self.chance
        match chance.randrange(8):
            case 0 | 1 | 2:
                schema[chance.choice(("anyOf", "allOf", "oneOf"))] = [
                    self.schema(depth - 1) for _ in range(chance.randint(1, 3))
                ]
            case 3:
                schema["not"] = self.schema(depth - 1)
            case 4 | 5:
                schema["$ref"] = self.reference + chance.choice("mn")
            case 6:
                schema["if"] = self.schema(depth - 1)
                schema[chance.choice(("then", "else"))] = self.schema(depth - 1)
            case _:
                schema["propertyNames"] = self.schema(0)

    def _rare(self, schema: dict[str, Any], depth: int) -> None:
        chance = self.chance
        match chance.randrange(4):
            case 0:
                schema["unevaluatedProperties"] = chance.choice((False, self.schema(depth - 1)))
            case 1:
                schema["unevaluatedItems"] = chance.choice((False, self.schema(depth - 1)))
            case 2:
                schema["contentMediaType"] = "application/json"
            case _:
                schema["title"] = chance.choice(("one", "two"))
