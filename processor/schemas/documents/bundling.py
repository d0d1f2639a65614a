"""Bundles the documents that a schema refers to into the schema. Nothing is fetched.

files ─▶ documents, by id and by path ─▶ the referenced ones, recursively ─▶ below the schema's definitions

Each document becomes a resource with its own URI, and references use that URI. The library's `bundle` embeds
the target of a pointer as the whole document, and rejects cycles.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processor.errors import SettingsError
from processor.schemas.dialects import KEYWORDS, Dialect, dialect_of, metaschema_uri
from processor.schemas.documents.extracting import translated_part
from processor.schemas.documents.openapi import is_openapi_30, referable
from processor.schemas.references import Reference, SchemaDocument, missing, trouble
from processor.schemas.schema_text import FILE_BYTES_MAX, file_value
from processor.schemas.subschemas import TOP, as_uri, is_place, joined, own_uri

FILES_MAX = 20_000
_SUFFIXES = (".json", ".yaml", ".yml")
_KEPT_BESIDE_REF = ("definitions", "title", "description", "$comment")


def bundled(
    definition: Any,  # noqa: ANN401 - any JSON value
    at: Path,
    dialect: Dialect,
    paths: Sequence[Path],
    whole: Any = None,  # noqa: ANN401 - as above
) -> Any:  # noqa: ANN401 - as above
    """Return a schema with all its references inside; `at` is its file, to which paths are relative.

    `whole` is the document that contains the schema, to which other documents may refer. `paths` are files
    and directories of other documents; documents without `$schema` are read by `dialect`. Raises
    SettingsError if documents are missing (the message names all), or if two documents have the same name.
    """
    files = [(file, is_named) for file, is_named in _files(paths) if file.absolute() != at.absolute()]
    top = Path(os.path.commonpath([at.absolute().parent, *(file.absolute().parent for file, _ in files)]))
    location = _location(at, top)
    words = is_openapi_30(whole)
    root = _Given(at, location if whole is None else f"{location}.part", definition, is_openapi_30=words)
    others = [] if whole is None else [_Given(at, location, referable(whole), is_openapi_30=words)]
    others += [_Given.of(file, _location(file, top), is_named) for file, is_named in files]
    return _Bundle(root, others, dialect).schema()


@dataclass(slots=True, eq=False)
class _Given:
    """A given document: its file, the URI of its path, and its value."""

    file: Path
    location: str
    definition: Any
    is_openapi_30: bool | None = None
    """Whether the document uses OpenAPI 3.0; None: inherited from the document that refers to it."""

    fault: str | None = None
    """Why the document can't be used; reported when a reference needs it."""

    uri: str = ""
    verbatim: str = ""
    """Its URI if a relative id is taken literally, wherever the file lies; some schemas refer to it so."""
    document: SchemaDocument | None = None

    @classmethod
    def of(cls, file: Path, location: str, is_named: bool) -> "_Given":
        """Read a file. Raises SettingsError if the file was named itself."""
        try:
            with file.open("rb") as data:
                value = file_value(data.read(FILE_BYTES_MAX + 1), file.name)
            return cls(file, location, referable(value), is_openapi_30=is_openapi_30(value))
        except (OSError, SettingsError) as error:
            if is_named:
                raise SettingsError(f"--with {file}: {error}") from None
            return cls(file, location, None, fault=str(error))

    def read_as_openapi_30(self) -> None:
        """Read the document as OpenAPI 3.0, unless it declares its kind."""
        if self.is_openapi_30 is None:
            self.is_openapi_30, self.document = True, None
            self.definition = translated_part(self.definition)

    def read(self, dialect: Dialect) -> SchemaDocument:
        """Parse the document. Raises SettingsError if it can't be used."""
        if self.document is None:
            if self.fault is None and not isinstance(self.definition, dict | bool):
                self.fault = "expected a JSON Schema, or an object that contains schemas"
            if self.fault is not None:
                raise SettingsError(self.fault)
            named = dialect_of(self.definition, dialect)
            own = self.definition.get(named.id_word) if isinstance(self.definition, dict) else None
            self.uri = self.verbatim = self.location
            if isinstance(own, str) and not own.startswith("#") and not is_place(own):
                self.uri, self.verbatim = joined(self.location, own)[0], joined(TOP, own)[0]
            # An id next to a $ref has no effect in old drafts, but authors mean it.
            counts = isinstance(own, str) and own_uri(self.definition, named, self.location) is not None
            self.document = SchemaDocument(self.definition, named, self.location if counts else self.uri)
        return self.document


class _Bundle:
    def __init__(self, root: _Given, others: Sequence[_Given], dialect: Dialect) -> None:
        self._root = root
        self._dialect = dialect
        self._reached = [root]
        self._by_uri: dict[str, list[_Given]] = {}
        self._is_referred_back = False
        root.read(dialect)
        for given in (root, *others):
            self._index(given)

    def schema(self) -> Any:  # noqa: ANN401 - any JSON value
        """Return the root with all documents that it refers to; unchanged if there are none."""
        absent: list[tuple[str, Reference]] = []
        rewritten = False
        # A later reference may reach a new place in a document that was walked before.
        while found := [
            (given, each) for given in self._reached for each in given.read(self._dialect).references()
        ]:
            for given, reference in found:
                try:
                    target = self._target(given, reference)
                except SettingsError as error:
                    raise SettingsError(f"{self._name(given)} {error}".strip()) from None
                if target is None:
                    absent.append((self._name(given), reference))
                rewritten |= target not in (None, given)
        if absent:
            raise SettingsError(missing(absent))
        if not rewritten and not self._is_referred_back:
            return self._root.definition
        return self._whole()

    def _target(self, given: _Given, reference: Reference) -> _Given | None:
        """Resolve a reference, and rewrite it if its target is another document; None: no such document."""
        own = given.read(self._dialect)
        if reference.uri in own.resources:
            own.target(reference)
            if given is self._root and reference.uri == given.uri and not reference.text.startswith("#"):
                self._is_referred_back = True
            return given
        if metaschema_uri(reference.uri) is not None:
            return given
        found = self._found(reference.uri, reference) or self._near(given, reference)
        if found is None:
            return None
        if given.is_openapi_30 and found not in self._reached:
            found.read_as_openapi_30()
        try:
            document = found.read(self._dialect)
        except SettingsError as error:
            raise trouble(reference, f"refers to {found.file}, which can't be used: {error}") from None
        uri = reference.uri if reference.uri in document.resources else found.uri
        document.target(reference, uri)
        schema = reference.place.schema
        if isinstance(schema, dict):
            schema[reference.word] = uri + (f"#{reference.fragment}" if reference.fragment else "")
        if found not in self._reached:
            self._check_name(found)
            self._reached.append(found)
        self._is_referred_back |= found is self._root
        return found

    def _found(self, uri: str, reference: Reference) -> _Given | None:
        """Find a document by its id, else one that contains a schema with that id."""
        known = self._by_uri.get(uri, [])
        known = [each for each in known if uri in (each.uri, each.location, each.verbatim)] or known
        if len(known) > 1 and any(each.definition != known[0].definition for each in known):
            files = " and ".join(str(each.file) for each in known[:5])
            raise trouble(reference, f"names several documents that differ: {files}; give one of them")
        return known[0] if known else None

    def _near(self, given: _Given, reference: Reference) -> _Given | None:
        """Find a document by its path, relative to the file that refers to it."""
        text = reference.text
        if not given.uri.startswith(TOP) and (path := _path_from(given.uri, reference.uri)) is not None:
            text = path
        return self._found(joined(given.location, text)[0], reference) or self._found(
            joined(given.verbatim, text)[0], reference
        )

    def _check_name(self, found: _Given) -> None:
        for other in self._reached:
            if other.uri == found.uri:
                raise SettingsError(
                    f"{other.file} and {found.file} have the same $id, {found.uri!r}, but differ; "
                    "give one of them"
                )

    def _index(self, given: _Given) -> None:
        names = [given.location]
        try:
            names += given.read(self._dialect).resources
            names.append(given.verbatim)
        except SettingsError as error:
            given.fault = str(error)
        for name in dict.fromkeys(names):
            self._by_uri.setdefault(name, []).append(given)

    def _name(self, given: _Given) -> str:
        return "" if given is self._root else f"{given.file}:"

    def _whole(self) -> dict[str, Any]:
        """Put all reached documents below the definitions of the root."""
        root = self._root.read(self._dialect)
        schema: dict[str, Any] = root.definition
        draft = dialect_of(schema, self._dialect)
        if self._is_referred_back and own_uri(schema, draft, TOP) != self._root.uri:
            schema = _as_resource(schema, draft, self._root.uri)
        definitions = dict(schema.get(draft.defs_word, {}))
        for given in self._reached[1:]:
            name = given.uri
            while name in definitions:
                name += "_"
            found = given.read(self._dialect).definition
            definitions[name] = _as_resource(found, dialect_of(found, self._dialect), given.uri)
        return schema | {draft.defs_word: definitions}


def _as_resource(schema: Any, dialect: Dialect, uri: str) -> dict[str, Any]:  # noqa: ANN401 - any JSON value
    """Return an equivalent schema with its draft and its URI."""
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    if "$ref" in schema and not dialect.is_modern:
        # In old drafts nothing next to a reference has an effect, not even an id.
        rest = {
            word: value for word, value in schema.items() if word not in KEYWORDS or word in _KEPT_BESIDE_REF
        }
        schema = rest | {"allOf": [{"$ref": schema["$ref"]}]}
    head = {"$schema": dialect.uri, dialect.id_word: uri}
    return head | {word: value for word, value in schema.items() if word not in head}


def _path_from(base: str, uri: str) -> str | None:
    """Return the relative path between two URIs of one host, as between files; None: different hosts."""
    host, path = _host_and_path(base)
    other, wanted = _host_and_path(uri)
    return os.path.relpath(wanted, Path(path).parent) if host == other and path and wanted else None


def _host_and_path(uri: str) -> tuple[str, str]:
    scheme, _, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host}", slash + path


def _location(file: Path, top: Path) -> str:
    return TOP + as_uri(
        Path(os.path.relpath(file.absolute(), top)).as_posix().replace("%", "%25").replace("#", "%23")
    )


def _files(paths: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """Yield the files to read; the flag: the file was named itself, and not its directory."""
    count = 0
    for path in paths:
        if not path.is_dir():
            yield path, True
            continue
        for directory, inner, names in os.walk(path):
            inner.sort()
            for name in sorted(names):
                # A pipe without a writer would block forever.
                if name.lower().endswith(_SUFFIXES) and Path(directory, name).is_file():
                    count += 1
                    if count > FILES_MAX:
                        raise SettingsError(
                            f"--with {path}: more than {FILES_MAX} files; name a smaller directory"
                        )
                    yield Path(directory, name), False
