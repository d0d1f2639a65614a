"""Possible misses: schemas that accept payloads which a meter can't count, reported when it is added.

The analysis is simple: required and type at each step of the pointer, through local references. A schema may
forbid such payloads in other ways (allOf, if and then); the result is then a superfluous warning.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_NUMBERS = frozenset({"number", "integer"})
_PATTERNED = "string with a pattern"
_SCALARS = _NUMBERS | {"string", _PATTERNED, "boolean"}
_REFERENCES_MAX = 10


@dataclass(frozen=True, slots=True)
class PossibleMiss:
    """A schema, by event type, tenant (None: shared) and version, and its gap at a pointer."""

    event_type: str
    tenant_id: str | None
    version: int
    pointer: str
    why: str


def doubts_of(
    event_type: str,
    schema: Mapping[str, Any],
    value_pointer: str | None,
    group_pointers: Sequence[str],
    *,
    text_amounts: bool = False,
) -> Iterator[PossibleMiss]:
    """Find the gaps of one schema (tenant_id, version, definition as text) for a meter."""
    definition = _value(schema["definition"])
    wanted = [(pointer, _SCALARS, "a text, number or boolean") for pointer in group_pointers]
    if value_pointer is not None:
        # A pattern is assumed to accept only the intended texts.
        kinds = _NUMBERS | {_PATTERNED} if text_amounts else _NUMBERS
        wanted.insert(0, (value_pointer, kinds, "a number"))
    for pointer, kinds, words in wanted:
        why = _open_question(definition, pointer, kinds, words)
        if why:
            yield PossibleMiss(event_type, schema["tenant_id"], schema["version"], pointer, why)


def _value(text: str) -> Any:  # noqa: ANN401 - any JSON value
    # Only the type of a number matters, and one inserted by psql may have too many digits for Python.
    try:
        return json.loads(text, parse_int=lambda _: 0, parse_float=lambda _: 0.5)
    except RecursionError:
        return None


def _open_question(definition: Any, pointer: str, kinds: frozenset[str], words: str) -> str | None:  # noqa: ANN401
    node, path = _followed(definition, definition), ""
    for token in pointer.split("/")[1:]:
        step = token.replace("~1", "/").replace("~0", "~")
        if not isinstance(node, dict) or node.get("type") != "object":
            return f"{path or 'the payload'} need not be an object"
        path += f"/{token}"
        if step not in _list(node.get("required")):
            return f"{path} may be missing"
        properties = node.get("properties")
        node = _followed(definition, properties.get(step) if isinstance(properties, dict) else None)
    types = set(_types(node))
    return None if types and types <= kinds else f"{path or 'the payload'} need not be {words}"


def _types(node: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON value
    if not isinstance(node, dict):
        return
    if "type" in node:
        for kind in _list(node["type"]):
            yield _PATTERNED if kind == "string" and "pattern" in node else str(kind)
        return
    for value in [node["const"]] if "const" in node else _list(node.get("enum")):
        match value:
            case bool():
                yield "boolean"
            case int() | float():
                yield "number"
            case str():
                yield "string"
            case _:
                yield "other"


def _followed(definition: Any, node: Any) -> Any:  # noqa: ANN401 - any JSON value
    for _ in range(_REFERENCES_MAX):
        reference = node.get("$ref") if isinstance(node, dict) else None
        if not isinstance(reference, str) or not reference.startswith("#/"):
            break
        node = definition
        for token in reference[2:].split("/"):
            node = node.get(token.replace("~1", "/").replace("~0", "~")) if isinstance(node, dict) else None
    return node


def _list(value: Any) -> list[Any]:  # noqa: ANN401 - any JSON value
    return value if isinstance(value, list) else [] if value is None else [value]
