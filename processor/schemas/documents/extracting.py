"""Extracts one schema from a document, with all its references below its definitions.

#/components/schemas/Money ─▶ #/$defs/Money        its references too, recursively
keywords of OpenAPI 3.0 ─▶ those of 2020-12        nullable, exclusiveMinimum: true
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias
from urllib.parse import quote, unquote

from processor.errors import SettingsError
from processor.schemas.dialects import DRAFT_2020, KEYWORDS, Dialect, asks, dialect_of
from processor.schemas.spelling import DYNAMIC, exclude_by_number
from processor.schemas.subschemas import TOP, joined, own_uri, rebuilt
from processor.wire import json_pointer
from processor.wire.json_pointer import pointer as written

Path: TypeAlias = tuple[str, ...]

_LEFT_BEHIND = ("$defs", "definitions", "$id", "id", "$schema", "$anchor")
"""Targets of references are copied by their path."""

_NOTES_OF_APIS = ("discriminator", "xml", "externalDocs")
_DATA = ("example", "examples", "default", "enum", "const")
MAPS = ("schemas", *(word for word, known in KEYWORDS.items() if known.kind == "map"))
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_STEPS_MAX = 50


@dataclass(frozen=True, slots=True)
class DocumentKind:
    """The kind of a document, which decides the meaning of its keywords."""

    name: str
    dialect: Dialect = DRAFT_2020
    is_api: bool = True
    is_openapi_30: bool = False
    """OpenAPI 3.0 or Swagger 2.0: a dialect of its own, which is translated to 2020-12."""

    schema: str | None = None
    """The document's `$schema`; a document that is not an API description may have none."""

    @property
    def head(self) -> dict[str, Any]:
        """Return the first members of an extracted schema."""
        named = self.schema or (self.dialect.uri if self.is_api else None)
        return {} if named is None else {"$schema": named}


def extracted(document: Any, path: Path, kind: DocumentKind) -> Any:  # noqa: ANN401 - any JSON value
    """Return the schema at a path of a document, with all parts of the document that it refers to.

    References to other documents stay. Raises SettingsError for a reference that does not resolve.
    """
    if not path and not kind.is_api:
        return document
    target = json_pointer.follow(document, path)
    if isinstance(target, dict) and "$schema" in target and not kind.is_openapi_30:
        kind = replace(kind, dialect=dialect_of(target), schema=target["$schema"])
    try:
        return _Extract(document, kind).schema(path)
    except _Inseparable:
        return _as_part(document, path, kind)


def translated(document: dict[str, Any], kind: DocumentKind) -> dict[str, Any]:
    """Return an API description as a document for references, each schema at its place."""
    if not kind.is_openapi_30:
        return kind.head | document
    found: dict[str, Any] = {
        name: document[name] for name in ("components", "definitions") if name in document
    }
    return {**kind.head, **translated_part(found)}


def translated_part(value: Any, *, is_map: bool = False) -> Any:  # noqa: ANN401 - any JSON value
    """Return a part of an OpenAPI 3.0 document, each schema at its place, in keywords of 2020-12.

    A part may be a schema, a map of schemas, or contain schemas anywhere; `is_map`: its members are names.
    """
    if isinstance(value, list):
        return [translated_part(part) for part in value]
    if not isinstance(value, dict):
        return value
    if not is_map and isinstance(value.get("$ref"), str):
        return {"$ref": value["$ref"]}
    found = {
        word: part
        if word in _DATA and not is_map
        else translated_part(part, is_map=word in MAPS and not is_map)
        for word, part in value.items()
    }
    if is_map or not any(asks(word) for word in value):
        return found
    return _from_openapi_30(_without_notes(found))


class _Inseparable(Exception):
    """A reference is a cycle through the root, or a part is of another draft."""


def _as_part(document: dict[str, Any], path: Path, kind: DocumentKind) -> dict[str, Any]:
    """Return a schema that refers to a path of the document, and contains the whole document."""
    whole = {kind.dialect.id_word: "urn:document"} | document
    reference = {"$ref": f"{whole[kind.dialect.id_word].removesuffix('#')}#{quote(written(path))}"}
    return kind.head | reference | {kind.dialect.defs_word: {"document": whole}}


class _Extract:
    def __init__(self, document: Any, kind: DocumentKind) -> None:  # noqa: ANN401 - any JSON value
        self._document = document
        self._kind = kind
        self._resources: dict[str, Path] = {TOP: ()}
        """The place of each `$id`, by its absolute URI."""
        self._bases: dict[Path, str] = {(): TOP}
        self._anchors: dict[tuple[str, str], Path] = {}
        self._index_ids(document)
        self._names: dict[Path, str] = {}
        self._pending: list[Path] = []

    def schema(self, path: Path) -> Any:  # noqa: ANN401 - any JSON value
        path = self._end_of(path)
        self._names[path] = ""
        root = self._extracted(self._at(path), path)
        if not isinstance(root, dict):
            return root
        definitions: dict[str, Any] = {}
        while self._pending:
            wanted = self._pending.pop()
            definitions[self._names[wanted]] = self._extracted(self._at(wanted), wanted)
        tail = {self._kind.dialect.defs_word: dict(sorted(definitions.items()))} if definitions else {}
        return self._kind.head | root | tail

    def _end_of(self, path: Path) -> Path:
        """Follow lone references, so that the extracted schema has its keywords at the root."""
        for _ in range(_STEPS_MAX):
            schema = self._at(path)
            if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
                break
            if len(schema) > 1 and not self._kind.is_openapi_30:
                break
            target = self._target(schema["$ref"], path)
            if isinstance(target, str):
                break
            path = target
        return path

    def _at(self, path: Path) -> Any:  # noqa: ANN401 - any JSON value
        schema = json_pointer.follow(self._document, path)
        if not isinstance(schema, dict | bool):
            raise SettingsError(f"$ref to '#{written(path)}', where {self._kind.name} has no schema")
        return schema

    def _extracted(self, schema: Any, path: Path) -> Any:  # noqa: ANN401 - any JSON value
        if not isinstance(schema, dict):
            return schema
        if self._kind.is_openapi_30 and isinstance(schema.get("$ref"), str):
            # Keywords next to a reference have no effect there.
            return {"$ref": self._reference(schema["$ref"], path)}
        members: dict[str, Any] = {}
        for word, value in schema.items():
            if not self._kind.is_openapi_30 and (word in DYNAMIC or self._is_of_another(word, schema)):
                raise _Inseparable
            if word == "$ref" and isinstance(value, str):
                members[word] = self._reference(value, path)
            elif word not in _LEFT_BEHIND:
                members[word] = self._word(word, value, path)
        if self._kind.is_api:
            members = _without_notes(members)
        return _from_openapi_30(members) if self._kind.is_openapi_30 else members

    def _is_of_another(self, word: str, schema: dict[str, Any]) -> bool:
        return word == "$schema" and dialect_of(schema) is not self._kind.dialect

    def _word(self, word: str, value: Any, path: Path) -> Any:  # noqa: ANN401 - any JSON value
        def taken(part: Any, *steps: str | int) -> Any:  # noqa: ANN401 - any JSON value
            return self._extracted(part, (*path, word, *map(str, steps)))

        return rebuilt(word, value, self._kind.dialect, taken)

    def _reference(self, reference: str, path: Path) -> str:
        target = self._target(reference, path)
        if isinstance(target, str):
            return target
        if target not in self._names:
            self._names[target] = self._name(target)
            self._pending.append(target)
        name = self._names[target]
        return f"#/{self._kind.dialect.defs_word}/{name}" if name else "#"

    def _target(self, reference: str, path: Path) -> Path | str:
        """Resolve a reference to a path; a string: it leads to another document."""
        base = next(self._bases[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self._bases)
        whole, fragment = joined(base, reference)
        if whole not in self._resources:
            return reference if base == TOP else f"{whole}#{fragment}" if fragment else whole
        fragment = unquote(fragment)
        if not fragment or fragment.startswith("/"):
            return self._resources[whole] + json_pointer.steps(fragment)
        if (whole, fragment) not in self._anchors:
            raise SettingsError(f"at {written(path) or '(root)'}: $ref {reference!r} does not resolve")
        return self._anchors[whole, fragment]

    def _index_ids(self, document: Any) -> None:  # noqa: ANN401 - any JSON value
        pending: list[tuple[Path, Any, str]] = [((), document, TOP)]
        while pending:
            path, value, base = pending.pop()
            if isinstance(value, dict):
                base = self._index_id(path, value, base)
            pending += [((*path, step), part, base) for step, part in _parts(value)]

    def _index_id(self, path: Path, schema: dict[str, Any], base: str) -> str:
        dialect = self._kind.dialect
        if (own := own_uri(schema, dialect, base)) is not None:
            base = self._bases[path] = own
            self._resources.setdefault(own, path)
        elif isinstance(name := schema.get(dialect.id_word), str) and name.startswith("#"):
            self._anchors[base, name[1:]] = path
        for word in ("$anchor", "$dynamicAnchor"):
            if isinstance(schema.get(word), str):
                self._anchors[base, schema[word]] = path
        return base

    def _name(self, path: Path) -> str:
        wanted = _NO_NAME.sub("_", path[-1]) or "_"
        name, number, others = wanted, 2, set(self._names.values())
        while name in others:
            name, number = f"{wanted}_{number}", number + 1
        return name


def _parts(value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - any JSON value
    match value:
        case dict():
            yield from ((name, part) for name, part in value.items() if name not in _DATA)
        case list():
            yield from ((str(place), part) for place, part in enumerate(value))


def _without_notes(schema: dict[str, Any]) -> dict[str, Any]:
    """Drop the annotations of API standards; examples stay."""
    kept = {word: value for word, value in schema.items() if word not in (*_NOTES_OF_APIS, "example")}
    if "example" in schema and "examples" not in schema:
        kept["examples"] = [schema["example"]]
    return kept


def _from_openapi_30(schema: dict[str, Any]) -> dict[str, Any]:
    """Translate a schema of OpenAPI 3.0 to 2020-12."""
    exclude_by_number(schema)
    says_so = [schema.pop(word, None) is True for word in ("nullable", "x-nullable")]
    return _or_null(schema) if any(says_so) else schema


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    kind = schema.get("type")
    if not isinstance(kind, str) or schema.keys() & {"allOf", "anyOf", "oneOf", "not", "const"}:
        return {"anyOf": [schema, {"type": "null"}]} if schema else schema
    wider = schema | {"type": [kind, "null"]}
    if isinstance(values := schema.get("enum"), list) and None not in values:
        wider["enum"] = [*values, None]
    return wider
