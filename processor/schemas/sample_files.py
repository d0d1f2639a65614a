"""Reads samples from a file: one per line, the elements of one JSON array, or one document."""

from collections.abc import Iterator
from typing import Any

from processor.errors import SettingsError
from processor.schemas.schema_text import file_text, require_texts, without_settings
from processor.wire import strict_json

BYTES_MAX = 64 * 1024 * 1024
_DEPTH_MAX = 128


def samples_of(data: bytes) -> Iterator[tuple[str, Any]]:
    """Yield each sample with its place in the file. Raises SettingsError."""
    text = file_text(data, BYTES_MAX, "JSON samples: one a line, or one array of them")
    for place, part in _parts(text):
        try:
            yield place, sample(part)
        except SettingsError as error:
            raise SettingsError(f"{place}: {error}") from None


def _parts(text: str) -> list[tuple[str, str]]:
    """Split the text into samples. One document may have many lines."""
    lines = [(f"line {at}", line) for at, line in enumerate(text.split("\n"), start=1) if line.strip()]
    try:
        if text.lstrip().startswith("["):
            found = strict_json.elements(text, _DEPTH_MAX, len(text))
            return [(f"element {at}", part) for at, part in enumerate(found)]
        if len(lines) > 1:
            sample(text)
            return [("document", text)]
    except (strict_json.JsonFault, SettingsError):
        pass
    return lines


def sample(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """Parse a sample. Raises SettingsError."""
    try:
        value = strict_json.read(text, _DEPTH_MAX, len(text)).value
    except strict_json.JsonFault as fault:
        raise SettingsError(f"invalid JSON: {without_settings(fault)}") from None
    require_texts(text, value)
    return value
