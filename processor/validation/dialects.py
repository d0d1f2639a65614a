"""The drafts of JSON Schema that a schema may be written in, told by its `$schema`."""

import re
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from processor.errors import SettingsError

_SHOWN_MAX = 120


@dataclass(frozen=True, slots=True)
class Dialect:
    """One draft: its name, the `$schema` that stands for it, and the validator that judges by its rules."""

    name: str
    uri: str
    validator: type[jsonschema_rs.Validator]
    number: int
    """What the library calls it."""


DRAFT_4 = Dialect(
    "draft-04",
    "http://json-schema.org/draft-04/schema#",
    jsonschema_rs.Draft4Validator,
    jsonschema_rs.Draft4,
)
DRAFT_6 = Dialect(
    "draft-06",
    "http://json-schema.org/draft-06/schema#",
    jsonschema_rs.Draft6Validator,
    jsonschema_rs.Draft6,
)
DRAFT_7 = Dialect(
    "draft-07",
    "http://json-schema.org/draft-07/schema#",
    jsonschema_rs.Draft7Validator,
    jsonschema_rs.Draft7,
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

_IGLU = re.compile(r"(.*/|iglu:)com\.snowplowanalytics\.self-desc/schema/jsonschema/1-0-\d+")
"""Snowplow's self-describing schemas: draft-04 with a `self` that says which schema this is."""


def dialect_of(definition: Any) -> Dialect:  # noqa: ANN401 - any JSON value
    """Give the draft that a schema names, 2020-12 where it names none. Raises SettingsError for any other."""
    if not isinstance(definition, dict) or "$schema" not in definition:
        return DRAFT_2020
    named = definition["$schema"]
    if isinstance(named, str):
        plain = _plain(named)
        for dialect in DIALECTS:
            if plain == _plain(dialect.uri):
                return dialect
        if _IGLU.fullmatch(plain):
            return DRAFT_4
    raise SettingsError(
        f"not a usable JSON Schema: $schema: {str(named)[:_SHOWN_MAX]!r} is no draft that is known here; "
        "expected one of " + ", ".join(dialect.uri for dialect in DIALECTS)
    )


def _plain(uri: str) -> str:
    return uri.removesuffix("#").removeprefix("http://").removeprefix("https://")
