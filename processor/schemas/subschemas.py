"""Every schema within a schema: where it stands, what it is called by, and by which draft it is read."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from processor.schemas.dialects import Dialect, dialect_of
from processor.wire.json_pointer import pointer

TOP = "json-schema:///"
"""The URI of a schema that says none, as the library has it."""


@dataclass(frozen=True, slots=True)
class Subschema:
    """One schema that stands in another, or is the whole."""

    at: str
    """A JSON pointer from the top; '' is the whole."""
    schema: dict[str, Any] | bool
    base: str
    """The URI that its references are relative to."""
    dialect: Dialect
    is_resource: bool = False
    """Whether it has an id of its own, which is its base."""

    def within(self, schema: Any) -> "Subschema":  # noqa: ANN401 - any JSON value
        """Give a part of this one, as it is read here."""
        return replace(self, schema=schema)


def subschemas(
    schema: Any,  # noqa: ANN401 - any JSON value
    dialect: Dialect,
    base: str = TOP,
    at: str = "",
) -> Iterator[Subschema]:
    """Give a schema and all that stand in it, outer before inner; what is no schema by its form is left out.

    Raises SettingsError for a `$schema` that is no draft, wherever it stands.
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
    """Give what stands directly below the words of a schema that hold some, and its path from there."""
    for word, value in schema.items():
        kind = dialect.holds(word)
        if isinstance(value, list) and (kind == "list" or word == "items"):
            yield from (((word, place), part) for place, part in enumerate(value))
        elif isinstance(value, dict) and kind == "map":
            yield from (((word, name), part) for name, part in value.items())
        elif kind == "one":
            yield (word,), value


def rebuilt(word: str, value: Any, dialect: Dialect, part_of: Callable[..., Any]) -> Any:  # noqa: ANN401 - any JSON value
    """Give the value of a word anew, each part of it as `part_of(part, *its steps from there)` gives it."""
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
    """Give the URI that a schema gives to itself; None: it gives none, or a mere name within another."""
    own = schema.get(dialect.id_word)
    if not isinstance(own, str) or own.startswith("#") or is_place(own):
        return None
    if "$ref" in schema and not dialect.is_modern:
        return None
    return joined(base, own)[0]


def is_place(own: str) -> bool:
    """Say whether an id only repeats where it stands, as generators write: #/properties/x, #root/x, #root."""
    fragment = own.partition("#")[2]
    return "/" in fragment or own == "#root"


def joined(base: str, reference: str) -> tuple[str, str]:
    """Give the URI that a reference leads to from a base, and the fragment behind it."""
    whole, _, fragment = as_uri(reference).partition("#")
    try:
        if not whole or urlsplit(whole).scheme:
            return whole or base, fragment
        # Python joins by the rules of a scheme, and knows few of them.
        scheme, _, rest = base.partition(":")
        return scheme + urljoin(f"http:{rest}", whole).removeprefix("http"), fragment
    except ValueError:
        return whole, fragment


def as_uri(text: str) -> str:
    """Write a reference or an id without what no URI may have, such as < and >; generators write names so."""
    whole, hash_sign, fragment = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", text).partition("#")
    brackets = "[]" if "//[" in whole else ""
    return (
        quote(whole, safe=_OF_URIS + brackets, errors="surrogatepass")
        + hash_sign
        + quote(fragment, safe=_OF_URIS, errors="surrogatepass")
    )


_OF_URIS = "%!$&'()*+,;=:@/?-._~"
