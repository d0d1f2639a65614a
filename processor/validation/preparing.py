"""From the bytes of a file to the schema that is stored: complete, and in one draft that it names itself.

bytes ─▶ text ─▶ value ─▶ schema
"""

from dataclasses import dataclass
from typing import Any

from processor.errors import SettingsError
from processor.validation.schema_text import schema_value

FORMATS = ("assert", "annotate")


@dataclass(frozen=True, slots=True)
class HowToRead:
    """What people say of a schema beside its file."""

    formats: str = FORMATS[0]


def prepare(data: bytes, how: HowToRead) -> Any:  # noqa: ANN401, ARG001 - any JSON value
    """Give the schema that a file holds, as it is to be stored. Raises SettingsError."""
    try:
        return schema_value(data.decode())
    except UnicodeDecodeError as error:
        raise SettingsError(f"not UTF-8: {error.reason} at byte {error.start}") from None
