"""From the bytes of a file to the schema that is stored: complete, and in one draft that it names itself.

bytes ─▶ value ─▶ what --pointer names in it ─▶ its draft by --draft ─▶ with all that it refers to ─▶ schema
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
    """What people say of a schema beside its file."""

    formats: str = FORMATS[0]
    pointer: str | None = None
    """Where in the document of the file the schema is; None: the document is the schema."""
    draft: Dialect | None = None
    """The draft of a schema that names none; None: 2020-12."""
    others: tuple[Path, ...] = ()
    """Files and directories with documents that the schema may refer to."""


def prepare(data: bytes, how: HowToRead, name: str = "") -> Any:  # noqa: ANN401 - any JSON value
    """Give the schema that a file of this name holds, as it is to be stored. Raises SettingsError."""
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
            f"its $schema says {named.name}, and --draft says {draft.name}; leave --draft out, "
            "or correct $schema"
        )
    return schema
