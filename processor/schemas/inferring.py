"""A schema proposed from samples, as a start: it takes each of them, and people make it say what they mean.

genson finds types, members, and which of them every sample has; formats are added where all texts have one.
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
"""Those that no text has by chance, as the validator asserts them."""


class Inferring:
    """Takes samples, and then gives the schema."""

    def __init__(self) -> None:
        self.count = 0
        self._builder = _Builder(DRAFT_2020.uri)

    def add(self, value: Any) -> None:  # noqa: ANN401 - any JSON value
        """Take one more sample. Raises SettingsError where it is nested too deeply."""
        try:
            self._builder.add_object(_plain(value))
        except RecursionError:
            raise SettingsError("nested too deeply") from None
        self.count += 1

    def schema(self) -> dict[str, Any]:
        """Give a schema that takes every sample so far. Raises SettingsError where there was none."""
        if not self.count:
            raise SettingsError("no samples, so there is nothing to propose a schema from")
        found: dict[str, Any] = self._builder.to_schema()
        return found


class _Text(String):  # type: ignore[misc]  # genson has no types
    """A text, and the formats that all texts at this place have."""

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
    """Give a value of the same shape in the types that genson knows: of a number its kind counts alone."""
    match value:
        case dict():
            return {name: _plain(member) for name, member in value.items()}
        case list():
            return [_plain(element) for element in value]
        case Decimal():
            return 0.5
        case _:
            return value
