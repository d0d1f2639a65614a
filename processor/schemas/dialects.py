"""Defines the drafts of JSON Schema, found by `$schema` or by name, and the keywords of each."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import jsonschema_rs

from processor.errors import SettingsError

_SHOWN_MAX = 120


@dataclass(frozen=True, slots=True)
class Dialect:
    """A draft: its name, its `$schema`, and the validator that applies its rules."""

    name: str
    uri: str
    validator: type[jsonschema_rs.Validator]
    number: int
    """The library's number for the draft."""

    @property
    def id_word(self) -> str:
        """The keyword that gives a schema its id."""
        return "id" if self is DRAFT_4 else "$id"

    @property
    def defs_word(self) -> str:
        """The keyword that holds definitions."""
        return "$defs" if self.is_modern else "definitions"

    @property
    def is_modern(self) -> bool:
        """Whether keywords next to `$ref` have an effect."""
        return self in (DRAFT_2019, DRAFT_2020)

    @lru_cache(maxsize=1000)  # noqa: B019 - the five dialects live as long as the process
    def knows_format(self, name: str) -> bool:
        """Return whether the draft defines and asserts a format."""
        try:
            self.validator({"format": name}, validate_formats=True, ignore_unknown_formats=False)
        except jsonschema_rs.ValidationError:
            return False
        return True

    def reads(self, word: str) -> bool:
        """Return whether a keyword has a meaning in this draft."""
        return word in KEYWORDS and (self in KEYWORDS[word].drafts or word in _APPLIED_BY_ALL)

    def holds(self, word: str) -> "Kind | None":
        """Return the kind of subschemas below a keyword; None: the keyword has none."""
        return KEYWORDS[word].kind if self.reads(word) else None


DRAFT_4 = Dialect(
    "draft-04", "http://json-schema.org/draft-04/schema#", jsonschema_rs.Draft4Validator, jsonschema_rs.Draft4
)
DRAFT_6 = Dialect(
    "draft-06", "http://json-schema.org/draft-06/schema#", jsonschema_rs.Draft6Validator, jsonschema_rs.Draft6
)
DRAFT_7 = Dialect(
    "draft-07", "http://json-schema.org/draft-07/schema#", jsonschema_rs.Draft7Validator, jsonschema_rs.Draft7
)
DRAFT_2019 = Dialect(
    "2019-09",
    "https://json-schema.org/draft/2019-09/schema",
    jsonschema_rs.Draft201909Validator,
    jsonschema_rs.Draft201909,
)
DRAFT_2020 = Dialect(
    "2020-12",
    "https://json-schema.org/draft/2020-12/schema",
    jsonschema_rs.Draft202012Validator,
    jsonschema_rs.Draft202012,
)
DIALECTS = (DRAFT_4, DRAFT_6, DRAFT_7, DRAFT_2019, DRAFT_2020)

Kind: TypeAlias = Literal["one", "list", "map"]
"""The value of the keyword is one schema, a list of schemas, or a map of schemas by name."""


@dataclass(frozen=True, slots=True)
class Keyword:
    """A keyword of JSON Schema: the drafts that define it, and the kind of its subschemas."""

    drafts: tuple[Dialect, ...]
    kind: Kind | None
    annotates: bool
    """Whether the keyword is an annotation, without effect on validation."""
    asks: bool
    """Whether the keyword is an assertion or applies subschemas."""


_OF_KIND: Mapping[Kind, str] = {
    "one": "not if then else items additionalItems unevaluatedItems contains contentSchema propertyNames "
    "additionalProperties unevaluatedProperties",
    "list": "allOf anyOf oneOf prefixItems",
    "map": "$defs definitions dependencies dependentSchemas properties patternProperties",
}
_NOTES = """
    title description default examples $comment readOnly writeOnly deprecated contentMediaType contentEncoding
    contentSchema $vocabulary
"""
_NAMES = "$schema id $id $anchor $dynamicAnchor $recursiveAnchor $defs definitions"
_KNOWN = (
    (0, 4, "$schema $ref title description default type enum multipleOf maximum minimum maxLength minLength"),
    (0, 4, "exclusiveMaximum exclusiveMinimum pattern format items maxItems minItems uniqueItems required"),
    (0, 4, "maxProperties minProperties properties patternProperties additionalProperties"),
    (0, 4, "allOf anyOf oneOf not"),
    (0, 0, "id"),
    (1, 4, "$id const contains propertyNames examples"),
    (2, 4, "$comment if then else readOnly writeOnly contentMediaType contentEncoding"),
    (0, 2, "definitions dependencies"),
    (0, 3, "additionalItems"),
    (3, 4, "$anchor $defs $vocabulary deprecated contentSchema dependentRequired dependentSchemas"),
    (3, 4, "maxContains minContains unevaluatedItems unevaluatedProperties"),
    (3, 3, "$recursiveRef $recursiveAnchor"),
    (4, 4, "$dynamicRef $dynamicAnchor prefixItems"),
)
"""The first and the last draft that define these keywords."""


def _keywords() -> Iterator[tuple[str, Keyword]]:
    notes, names = _NOTES.split(), _NAMES.split()
    kinds = {word: kind for kind, words in _OF_KIND.items() for word in words.split()}
    for first, last, words in _KNOWN:
        for word in words.split():
            drafts, annotates = DIALECTS[first : last + 1], word in notes
            yield word, Keyword(drafts, kinds.get(word), annotates, asks=not annotates and word not in names)


KEYWORDS: Mapping[str, Keyword] = MappingProxyType(dict(_keywords()))
_APPLIED_BY_ALL = ("definitions", "dependencies")
"""Renamed in later drafts, which still apply the old names."""


def asks(word: str) -> bool:
    """Return whether any draft validates payloads by this keyword."""
    return word in KEYWORDS and KEYWORDS[word].asks


_IGLU = re.compile(r"(.*/|iglu:)com\.snowplowanalytics\.self-desc/schema/jsonschema/1-0-\d+")
"""Snowplow's self-describing schemas: draft-04 with a `self` member that names the schema."""


def dialect_of(
    definition: Any,  # noqa: ANN401 - any JSON value
    unnamed: Dialect = DRAFT_2020,
    at: str = "",
) -> Dialect:
    """Return the draft that a schema declares, else `unnamed`. Raises SettingsError for an unknown draft."""
    if not isinstance(definition, dict) or "$schema" not in definition:
        return unnamed
    named = definition["$schema"]
    if isinstance(named, str):
        plain = _plain(named)
        for dialect in DIALECTS:
            if plain == _plain(dialect.uri):
                return dialect
        if _IGLU.fullmatch(plain):
            return DRAFT_4
    where = f"at {at}: " if at else ""
    raise SettingsError(
        f"{where}$schema: unknown draft {str(named)[:_SHOWN_MAX]!r}; "
        "expected one of " + ", ".join(dialect.uri for dialect in DIALECTS)
    )


def dialect_named(name: str) -> Dialect | None:
    """Return the draft of a common name: 7, 07, draft-07, draft7, 2019-09, 2020; None: unknown."""
    said = re.fullmatch(r"(?:draft)?[-_/ ]?([\d-]+)", name.strip().lower())
    digits = said[1].replace("-", "").lstrip("0") if said else ""
    for dialect in DIALECTS:
        known = re.sub(r"\D", "", dialect.name).lstrip("0")
        if digits and digits in (known, known[:4]):
            return dialect
    return None


def metaschema_uri(uri: str) -> str | None:
    """Return the library's URI for a draft's metaschema; None: the URI is not one of a draft."""
    whole, _, fragment = uri.partition("#")
    plain = _plain(whole)
    for dialect in DIALECTS:
        own = _plain(dialect.uri)
        if plain == own or (dialect.is_modern and plain.startswith(own.removesuffix("schema") + "meta/")):
            scheme = dialect.uri.partition("://")[0]
            return f"{scheme}://{plain}#{fragment}"
    return None


def _plain(uri: str) -> str:
    return uri.strip().removesuffix("#").removeprefix("http://").removeprefix("https://")
