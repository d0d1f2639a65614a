"""Infers a schema from samples. The schema accepts each sample; a person then refines it.

genson infers types, members and required members; a format is added where all strings match one.
"""

from decimal import Decimal
from typing import Any

import jsonschema_rs
from genson import SchemaBuilder
from genson.schema.strategies import String

from processor.errors import SettingsError
from processor.schemas.dialects import DRAFT_2020

_FORMATS = {
    name: jsonschema_rs.Draft202012Validator({"format": name}, validate_formats=True)
    for name in ("date-time", "date", "uuid")
}
"""Formats that no string matches by chance, as the validator asserts them."""


class Inferring:
    """Collects samples, and infers a schema from them."""

    def __init__(self) -> None:
        self.count = 0
        self._builder = _Builder(DRAFT_2020.uri)

    def add(self, value: Any) -> None:  # noqa: ANN401 - any JSON value
        """Add a sample. Raises SettingsError if the sample is nested too deeply."""
        try:
            self._builder.add_object(_plain(value))
        except RecursionError:
            raise SettingsError("nested too deeply") from None
        self.count += 1

    def schema(self) -> dict[str, Any]:
        """Return a schema that accepts every sample so far. Raises SettingsError without samples."""
        if not self.count:
            raise SettingsError("no samples; at least one is needed to infer a schema")
        found: dict[str, Any] = self._builder.to_schema()
        return found


class _Text(String):  # type: ignore[misc]  # genson has no types
    """A string, and the formats that all strings at this place match."""

    KEYWORDS = (*String.KEYWORDS, "format")

    def __init__(self, node_class: Any) -> None:  # noqa: ANN401 - a class of genson
        super().__init__(node_class)
        self._formats = list(_FORMATS)

    def add_object(self, obj: str) -> None:
        super().add_object(obj)
        self._formats = [name for name in self._formats if _FORMATS[name].is_valid(obj)]

    def to_schema(self) -> dict[str, Any]:
        found: dict[str, Any] = super().to_schema()
        return found | {"format": self._formats[0]} if self._formats else found


class _Builder(SchemaBuilder):  # type: ignore[misc]  # as above
    EXTRA_STRATEGIES = (_Text,)


def _plain(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return the value in types that genson knows. Only the type of a number counts."""
    match value:
        case dict():
            return {name: _plain(member) for name, member in value.items()}
        case list():
            return [_plain(element) for element in value]
        case Decimal():
            return 0.5
        case _:
            return value
