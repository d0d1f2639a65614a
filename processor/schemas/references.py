"""Resolves the references of a schema: to a place within it, a metaschema, or another document."""

from collections import deque
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

import jsonschema_rs

from processor.errors import SettingsError
from processor.schemas.dialects import KEYWORDS, Dialect, metaschema_uri
from processor.schemas.form_faults import form_fault
from processor.schemas.subschemas import TOP, Subschema, as_uri, is_place, joined, subschemas
from processor.schemas.wording import nearest
from processor.wire.json_pointer import follow, pointer, steps

_WORDS = ("$ref", "$dynamicRef", "$recursiveRef")
_NAMES = ("$schema", "$anchor", "$dynamicAnchor")


class Reference(NamedTuple):
    """A reference: its place, and the URI and fragment of its target."""

    place: Subschema
    word: str
    text: str
    uri: str
    fragment: str


class SchemaDocument:
    """A schema document: its subschemas, and its ids and references as URIs that the library can parse.

    Raises SettingsError for an unknown `$schema`.
    """

    def __init__(self, definition: Any, dialect: Dialect, base: str = TOP) -> None:  # noqa: ANN401 - any JSON value
        self.definition = deepcopy(definition)
        self.resources: dict[str, list[str]] = {base: [""]}
        """The places of the schemas with this id. An id with several places can't be used."""
        self._anchors: dict[tuple[str, str], list[str]] = {}
        self._places: dict[str, Subschema] = {}
        self._by_schema: dict[int, Subschema] = {}
        self._unread: deque[Subschema] = deque()
        self._followed: list[tuple[Reference, str]] = []
        self._add(subschemas(self.definition, dialect, base))

    def places(self) -> Sequence[Subschema]:
        """Return every known schema, outer before inner."""
        return list(self._places.values())

    def place(self, at: str) -> Subschema:
        """Return the schema at a known place."""
        return self._places[at]

    def place_of(self, schema: Any) -> Subschema | None:  # noqa: ANN401 - any JSON value
        """Return the place of an object of the definition; None: no schema, or a boolean schema."""
        return self._by_schema.get(id(schema))

    def references(self) -> Iterator[Reference]:
        """Yield every reference once, also those in targets outside of schema keywords."""
        while self._unread:
            place = self._unread.popleft()
            if isinstance(place.schema, bool):
                continue
            for word in _WORDS:
                text = place.schema.get(word)
                if isinstance(text, str) and place.dialect in KEYWORDS[word].drafts:
                    yield Reference(place, word, text, *joined(place.base, text))

    def foreign(self) -> list[Reference]:
        """Return the references to other documents.

        Raises SettingsError for a reference that does not resolve to a schema.
        """
        others = []
        for reference in self.references():
            if reference.uri in self.resources:
                self._followed.append((reference, self.target(reference)))
            elif metaschema_uri(reference.uri) is None:
                others.append(reference)
            else:
                schema_of_draft(reference)
        return others

    def flatten(self) -> None:
        """Rewrite each reference as a pointer from the root, without inner ids, if the meaning is the same.

        The library compiles the target of a reference to another resource once for each path to it. For an
        ordinary bundle of 150 documents that exceeds any memory. Call this after `foreign`.
        """
        dialects = {place.dialect.name for place in self._places.values()}
        if len(self.resources) == 1 or len(dialects) > 1:
            return
        if any(reference.word != "$ref" for reference, _ in self._followed):
            # Dynamic references resolve by name, from wherever they were reached.
            return
        for reference, at in self._followed:
            if isinstance(reference.place.schema, dict):
                fragment = quote(at, safe="!$&'()*+,;=:@/?~", errors="surrogatepass")
                reference.place.schema["$ref"] = f"#{fragment}"
        for place in self._places.values():
            if place.at and isinstance(place.schema, dict):
                for word in (place.dialect.id_word, *_NAMES):
                    place.schema.pop(word, None)

    def target(self, by: Reference, uri: str | None = None) -> str:
        """Return the place of a reference's target, which is a schema; `uri` replaces the reference's own.

        Raises SettingsError.
        """
        uri, fragment = by.uri if uri is None else uri, unquote(by.fragment, errors="surrogatepass")
        is_pointer = not fragment or fragment.startswith("/")
        starts = self.resources[uri] if is_pointer else self._anchors.get((uri, fragment), [])
        if len(starts) > 1 and any(self._at(start) != self._at(starts[0]) for start in starts):
            raise trouble(
                by, f"is ambiguous: {' and '.join(start or '(root)' for start in starts)} have this name"
            )
        at = starts[0] + (fragment if is_pointer else "") if starts else ""
        schema = self._at(at)
        if not starts or not isinstance(schema, dict | bool):
            raise trouble(by, f"does not resolve to a schema; {self._near(at)}")
        if at not in self._places:
            outer = at
            while outer not in self._places:
                outer = outer.rpartition("/")[0]
            near = self._places[outer]
            _check_form(schema, near.dialect, at)
            self._add(subschemas(schema, near.dialect, near.base, at))
        return at

    def _near(self, at: str) -> str:
        outer, _, name = at.rpartition("/")
        inside = self._at(outer) if at else None
        near = nearest(name, list(inside)[:1000], 0.7) if isinstance(inside, dict) else None
        return f"did you mean {outer}{pointer([near])}?" if near else "correct it, or add the schema"

    def _at(self, at: str) -> Any:  # noqa: ANN401 - any JSON value
        return follow(self.definition, steps(at))

    def _add(self, found: Iterator[Subschema]) -> None:
        for place in found:
            self._places[place.at] = place
            self._unread.append(place)
            if isinstance(place.schema, dict):
                self._by_schema.setdefault(id(place.schema), place)
                self._name(place, place.schema)

    def _name(self, place: Subschema, schema: dict[str, Any]) -> None:
        own = schema.get(place.dialect.id_word)
        if isinstance(own, str):
            if is_place(own):
                del schema[place.dialect.id_word]
            else:
                _check_id(own, place)
                schema[place.dialect.id_word] = as_uri(own)
        if place.is_resource or place.at == "":
            if "$schema" in schema:
                schema["$schema"] = place.dialect.uri
            if place.at not in (places := self.resources.setdefault(place.base, [])):
                places.append(place.at)
        for word in _WORDS:
            if isinstance(text := schema.get(word), str):
                schema[word] = metaschema_uri(text) or as_uri(text)
        for name in _anchors(schema, place.dialect):
            if place.at not in (places := self._anchors.setdefault((place.base, name), [])):
                places.append(place.at)


def schema_of_draft(by: Reference) -> Any:  # noqa: ANN401 - any JSON value
    """Return the target of a reference to a metaschema, from the library.

    Raises SettingsError if the target does not exist.
    """
    uri = f"{by.uri}#{by.fragment}"
    registry = jsonschema_rs.Registry([(TOP, {"$ref": uri})], draft=by.place.dialect.number)
    try:
        return registry.resolver(TOP).lookup(uri).contents
    except (jsonschema_rs.ReferencingError, ValueError):
        raise trouble(
            by,
            f"does not resolve to a schema of {by.place.dialect.name}; correct it, or add the schema",
        ) from None


def _anchors(schema: dict[str, Any], dialect: Dialect) -> Iterator[str]:
    if dialect.is_modern:
        words = [schema.get(word) for word in ("$anchor", "$dynamicAnchor")]
        yield from (word for word in words if isinstance(word, str))
    elif isinstance(own := schema.get(dialect.id_word), str) and own.startswith("#"):
        yield own[1:]


def _check_id(own: str, place: Subschema) -> None:
    fragment = own.partition("#")[2]
    if fragment and place.dialect.is_modern:
        raise SettingsError(
            f"at {place.at or '(root)'}: $id: {own!r} has a fragment, which no $id of {place.dialect.name} "
            f'may have; write "$anchor": "{fragment}" for a name within the schema'
        )
    try:
        urlsplit(own)
    except ValueError as error:
        raise SettingsError(
            f"at {place.at or '(root)'}: {place.dialect.id_word}: {own!r} is not a valid URI: {error}"
        ) from None


def _check_form(schema: dict[str, Any] | bool, dialect: Dialect, at: str) -> None:
    if isinstance(schema, bool):
        return
    try:
        jsonschema_rs.meta.validate(schema | {"$schema": dialect.uri})
    except jsonschema_rs.ValidationError as error:
        raise SettingsError(
            f"at {at}{pointer(error.instance_path)}: {form_fault(error, dialect)}; "
            "a reference resolves to this place"
        ) from None


def trouble(reference: Reference, words: str) -> SettingsError:
    """Return the error for a reference."""
    place = reference.place.at or "(root)"
    return SettingsError(f"at {place}: {reference.word}: {reference.text!r} {words}")


def missing(absent: Sequence[tuple[str, Reference]]) -> str:
    """Return which documents are missing and how to give them; each reference comes with its file, or ""."""
    places: dict[str, list[str]] = {}
    for holder, reference in absent:
        place = f"{holder} {reference.place.at}".strip() or "(root)"
        places.setdefault(reference.uri.removeprefix(TOP), []).append(place)
    named = "; ".join(
        f"{uri} (at {at[0]}{f' and {len(at) - 1} more' if len(at) > 1 else ''})" for uri, at in places.items()
    )
    count = "a document that is" if len(places) == 1 else f"{len(places)} documents that are"
    return (
        f"the schema refers to {count} not given, and nothing is fetched: {named}; "
        "give each with --with FILE, or a directory of them with --with DIR"
    )
