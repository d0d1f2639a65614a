"""Locates schemas in OpenAPI, Swagger and AsyncAPI documents, and in JSON Schemas with definitions.

    document ─▶ its kind ─▶ the place of --pointer, or the list of pointers ─▶ extracting

OpenAPI 3.1 is draft 2020-12 unless jsonSchemaDialect says otherwise, and AsyncAPI is draft-07.
"""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import unquote

from processor.errors import SettingsError
from processor.schemas.dialects import DRAFT_7, DRAFT_2020, Dialect, dialect_named, dialect_of
from processor.schemas.documents.extracting import MAPS, DocumentKind, Path, extracted, translated
from processor.schemas.wording import listed
from processor.wire import json_pointer
from processor.wire.json_pointer import pointer as written

_SHOWN_MAX = 5
_NEAR = 0.5
_COLLECTIONS: tuple[Path, ...] = (
    ("components", "schemas"),
    ("definitions",),
    ("$defs",),
    ("components", "messages"),
)
_HOLDERS = ("payload", "schema")
"""The schema of an AsyncAPI message or an OpenAPI media type stands below this member."""

_STEPS_MAX = 50


def schema_within(
    document: Any,  # noqa: ANN401 - any JSON value
    pointer: str | None,
    unnamed: Dialect = DRAFT_2020,
) -> Any:  # noqa: ANN401 - as above
    """Return the schema at a pointer of a document, complete; without a pointer the document is the schema.

    A document without `$schema` that is not an API description is read by `unnamed`. Raises SettingsError if
    the place has no schema, or if an API description comes without a pointer; the message lists schemas.
    """
    kind = _kind(document, unnamed)
    if pointer is not None:
        path, kind = _place(document, _steps(document, pointer), kind)
        return extracted(document, path, kind)
    if kind.is_api:
        raise SettingsError(
            f"{kind.name}, not a schema; select one of its schemas with --pointer, "
            f"such as {_some(list(_pointers(document)))}"
        )
    return document


def referable(document: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a document for references; an API description is translated to JSON Schema."""
    kind = _kind(document)
    return translated(document, kind) if kind.is_api else document


def is_openapi_30(document: Any) -> bool | None:  # noqa: ANN401 - any JSON value
    """Return whether a document is OpenAPI 3.0 or Swagger; None: undeclared."""
    kind = _kind(document)
    return kind.is_openapi_30 if kind.is_api or kind.schema is not None else None


def _kind(document: Any, unnamed: Dialect = DRAFT_2020) -> DocumentKind:  # noqa: ANN401 - any JSON value
    if not isinstance(document, dict):
        return DocumentKind("the document", is_api=False)
    if "info" in document or "components" in document or "paths" in document:
        if "openapi" in document:
            return _openapi(document)
        if "swagger" in document:
            return DocumentKind("a Swagger document", is_openapi_30=True)
        if "asyncapi" in document:
            return DocumentKind("an AsyncAPI document", DRAFT_7)
    return DocumentKind(
        "the document", dialect_of(document, unnamed), is_api=False, schema=document.get("$schema")
    )


def _openapi(document: dict[str, Any]) -> DocumentKind:
    if str(document["openapi"]).startswith("3.0"):
        return DocumentKind("an OpenAPI document", is_openapi_30=True)
    named = document.get("jsonSchemaDialect")
    if not isinstance(named, str) or named.startswith("https://spec.openapis.org/"):
        return DocumentKind("an OpenAPI document")
    return DocumentKind("an OpenAPI document", dialect_of({"$schema": named}))


def _steps(document: Any, pointer: str) -> Path:  # noqa: ANN401 - any JSON value
    plain = unquote(pointer[1:]) if pointer.startswith("#") else pointer
    path = json_pointer.steps(plain)
    if (plain and not plain.startswith("/")) or json_pointer.follow(document, path) is None:
        raise SettingsError(f"--pointer {pointer}: this place does not exist; {_advice(document, plain)}")
    return path


def _place(document: Any, path: Path, kind: DocumentKind) -> tuple[Path, DocumentKind]:  # noqa: ANN401 - any JSON value
    """Return the place of the schema for a path, and the kind that it is read by."""
    asked, form = path, None
    for _ in range(_STEPS_MAX):
        found = json_pointer.follow(document, path)
        if not kind.is_api or not isinstance(found, dict):
            break
        form = found.get("schemaFormat", form)
        reference = found.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/") and not _is_schema(path):
            path = json_pointer.steps(unquote(reference[1:]))
            continue
        holder = next((one for one in _HOLDERS if one in found), None)
        if holder is None or (_is_schema(path) and "schemaFormat" not in found):
            break
        path = (*path, holder)
    if not isinstance(found, dict | bool) or _is_map(path) or (kind.is_api and not _is_schema(path)):
        raise SettingsError(
            f"--pointer {written(asked)}: this place is not a schema; {_advice(document, written(asked))}"
        )
    return path, kind if form is None else _of_format(written(asked), str(form), kind)


def _of_format(pointer: str, form: str, kind: DocumentKind) -> DocumentKind:
    """Return the kind that the payload of an AsyncAPI message is read by."""
    plain, _, version = form.partition(";")
    version = version.rpartition("=")[2].strip()
    if plain.startswith("application/vnd.aai.asyncapi"):
        return kind
    if plain.startswith("application/vnd.oai.openapi"):
        return _openapi({"openapi": version})
    if plain.startswith("application/schema+"):
        return DocumentKind(kind.name, dialect_named(version) or kind.dialect)
    raise SettingsError(
        f"--pointer {pointer}: its schemaFormat is {form[:80]!r}; expected that of JSON Schema"
    )


def _is_schema(path: Path) -> bool:
    """Return whether a path in an API description leads to a schema, or into one."""
    if len(path) > len(_COLLECTIONS[0]) and path[:2] == _COLLECTIONS[0]:
        return True
    return (len(path) > 1 and path[0] == "definitions") or any(step in _HOLDERS for step in path[3:])


def _is_map(path: Path) -> bool:
    """Return whether a path ends with a keyword whose value is a map of schemas."""
    return bool(path) and path[-1] in MAPS and not _is_map(path[:-1])


def _advice(document: Any, wanted: str) -> str:  # noqa: ANN401 - any JSON value
    pointers = list(_pointers(document))
    by_name = {json_pointer.steps(pointer)[-1].lower(): pointer for pointer in reversed(pointers)}
    name = wanted.rpartition("/")[2].lower()
    near = [by_name[one] for one in difflib.get_close_matches(name, by_name, _SHOWN_MAX, _NEAR)]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"expected a pointer to a schema, such as {_some(pointers)}"


def _some(pointers: Sequence[str]) -> str:
    if not pointers:
        return "/components/schemas/NAME (none was found)"
    return listed(pointers, _SHOWN_MAX)


def _pointers(document: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON value
    """Yield the pointers to the schemas of a document: the named ones, else those at known places."""
    named = False
    for path in _COLLECTIONS:
        found = json_pointer.follow(document, path)
        for name in found if isinstance(found, dict) else ():
            named = True
            yield written((*path, name))
    pending: list[tuple[Path, Any]] = [((), document)] if not named else []
    while pending:
        path, value = pending.pop()
        if path and _is_schema(path):
            yield written(path)
        elif isinstance(value, dict):
            pending += [((*path, name), value[name]) for name in reversed(value)]
