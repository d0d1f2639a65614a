"""From the bytes of a file to the schema that is stored: complete, and in one draft that it names itself.

bytes ─▶ value ─▶ what --pointer names in it ─▶ schema
"""

from dataclasses import dataclass
from typing import Any

from processor.validation.openapi import schema_within
from processor.validation.schema_text import file_value

FORMATS = ("assert", "annotate")


@dataclass(frozen=True, slots=True)
class HowToRead:
    """What people say of a schema beside its file."""

    formats: str = FORMATS[0]
    pointer: str | None = None
    """Where in the document of the file the schema is; None: the document is the schema."""


def prepare(data: bytes, how: HowToRead, name: str = "") -> Any:  # noqa: ANN401 - any JSON value
    """Give the schema that a file of this name holds, as it is to be stored. Raises SettingsError."""
    return schema_within(file_value(data, name), how.pointer)
