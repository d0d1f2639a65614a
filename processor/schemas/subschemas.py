"""Walks the subschemas of a schema, with the place, base URI and draft of each."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from processor.schemas.dialects import Dialect, dialect_of
from processor.wire.json_pointer import pointer

TOP = "json-schema:///"
"""The library's URI for a schema without an id."""


@dataclass(frozen=True, slots=True)
class Subschema:
    """A subschema, or the root schema."""

    at: str
    """A JSON pointer from the root; '' is the root."""
    schema: dict[str, Any] | bool
    base: str
    """The base URI of its references."""
    dialect: Dialect
    is_resource: bool = False
    """Whether the schema has an id of its own, which is its base."""

    def within(self, schema: Any) -> "Subschema":  # noqa: ANN401 - any JSON value
        """Return a part of this schema, with the same base and draft."""
        return replace(self, schema=schema)


def subschemas(
    schema: Any,  # noqa: ANN401 - any JSON value
    dialect: Dialect,
    base: str = TOP,
    at: str = "",
) -> Iterator[Subschema]:
    """Yield a schema and its subschemas, outer before inner; values that can't be schemas are skipped.

    Raises SettingsError for an unknown `$schema`, anywhere.
    """
    pending = [(at, schema, base, dialect)]
    while pending:
        here, found, outer, draft = pending.pop()
        if isinstance(found, bool):
            yield Subschema(here, found, outer, draft)
        if not isinstance(found, dict):
            continue
        named = dialect_of(found, draft, here)
        own = own_uri(found, named, outer)
        if own is not None or here == "":
            draft = named
        yield Subschema(here, found, own or outer, draft, is_resource=own is not None)
        pending += reversed(
            [(here + pointer(path), part, own or outer, draft) for path, part in parts(found, draft)]
        )


def parts(schema: dict[str, Any], dialect: Dialect) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield the direct subschemas of a schema, with their paths."""
    for word, value in schema.items():
        kind = dialect.holds(word)
        if isinstance(value, list) and (kind == "list" or word == "items"):
            yield from (((word, place), part) for place, part in enumerate(value))
        elif isinstance(value, dict) and kind == "map":
            yield from (((word, name), part) for name, part in value.items())
        elif kind == "one":
            yield (word,), value


def rebuilt(word: str, value: Any, dialect: Dialect, part_of: Callable[..., Any]) -> Any:  # noqa: ANN401 - any JSON value
    """Return a keyword's value with each subschema replaced by `part_of(subschema, *steps)`."""
    kind = dialect.holds(word)
    match value:
        case dict() if kind == "one":
            return part_of(value)
        case list() if kind == "list" or word == "items":
            return [part_of(part, place) for place, part in enumerate(value)]
        case dict() if kind == "map":
            return {name: part_of(part, name) for name, part in value.items()}
        case _:
            return value


def own_uri(schema: dict[str, Any], dialect: Dialect, base: str) -> str | None:
    """Return the URI that a schema gives itself; None: no id, or only a name within its document."""
    own = schema.get(dialect.id_word)
    if not isinstance(own, str) or own.startswith("#") or is_place(own):
        return None
    if "$ref" in schema and not dialect.is_modern:
        return None
    return joined(base, own)[0]


def is_place(own: str) -> bool:
    """Return whether an id only repeats its place, as generators write: #/properties/x, #root/x, #root."""
    fragment = own.partition("#")[2]
    return "/" in fragment or own == "#root"


def joined(base: str, reference: str) -> tuple[str, str]:
    """Resolve a reference against a base; return its URI and its fragment."""
    whole, _, fragment = as_uri(reference).partition("#")
    try:
        if not whole or urlsplit(whole).scheme:
            return whole or base, fragment
        # urljoin only joins URIs of schemes that it knows.
        scheme, _, rest = base.partition(":")
        return scheme + urljoin(f"http:{rest}", whole).removeprefix("http"), fragment
    except ValueError:
        return whole, fragment


def as_uri(text: str) -> str:
    """Escape the characters that a URI can't have, such as < and >: generators write such names."""
    whole, hash_sign, fragment = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", text).partition("#")
    brackets = "[]" if "//[" in whole else ""
    return (
        quote(whole, safe=_OF_URIS + brackets, errors="surrogatepass")
        + hash_sign
        + quote(fragment, safe=_OF_URIS, errors="surrogatepass")
    )


_OF_URIS = "%!$&'()*+,;=:@/?-._~"
