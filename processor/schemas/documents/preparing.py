"""Prepares a schema for storage: complete, in one draft that it declares.

bytes ─▶ value ─▶ the place of --pointer ─▶ its draft by --draft ─▶ with all its references ─▶ schema
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processor.errors import SettingsError
from processor.schemas.dialects import DRAFT_2020, Dialect, dialect_of
from processor.schemas.documents.bundling import bundled
from processor.schemas.documents.openapi import schema_within
from processor.schemas.schema_text import file_value

FORMATS = ("assert", "annotate")


@dataclass(frozen=True, slots=True)
class HowToRead:
    """The options for reading a schema file."""

    formats: str = FORMATS[0]
    pointer: str | None = None
    """The place of the schema in the file's document; None: the document is the schema."""
    draft: Dialect | None = None
    """The draft of a schema without `$schema`; None: 2020-12."""
    others: tuple[Path, ...] = ()
    """Files and directories of documents that the schema may refer to."""


def prepare(data: bytes, how: HowToRead, name: str = "") -> Any:  # noqa: ANN401 - any JSON value
    """Return the schema of a file, ready for storage. Raises SettingsError."""
    document = file_value(data, name)
    schema = schema_within(document, how.pointer, how.draft or DRAFT_2020)
    if not isinstance(schema, dict):
        return schema
    draft = ""
    try:
        if how.draft is not None:
            schema = _in_draft(schema, how.draft)
        dialect = dialect_of(schema)
        draft = f" {dialect.name}"
        whole = document if how.pointer and how.others else None
        return bundled(schema, Path(name), dialect, how.others, whole)
    except SettingsError as error:
        raise SettingsError(f"not a usable JSON Schema{draft}: {error}") from None


def _in_draft(schema: dict[str, Any], draft: Dialect) -> dict[str, Any]:
    if "$schema" not in schema:
        return {"$schema": draft.uri, **schema}
    if (named := dialect_of(schema)) is not draft:
        raise SettingsError(
            f"$schema says {named.name}, but --draft says {draft.name}; omit --draft, or correct $schema"
        )
    return schema
