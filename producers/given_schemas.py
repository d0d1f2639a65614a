"""The schemas that `producers validate --schema` is given, by event type.

order.created=order.json ─▶ of this type
order.json               ─▶ of every type
schemas/                 ─▶ of each TYPE.schema.json in it
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from processor.errors import SettingsError
from processor.validation.preparing import HowToRead
from processor.validation.schema_files import read_schema

SUFFIXES = (".schema.json", ".schema.yaml", ".schema.yml")


def read_given(said: Iterable[str], how: HowToRead) -> dict[str | None, Any]:
    """Read them; None stands for every type. Raises SettingsError, in words."""
    given: dict[str | None, Any] = {}
    for one in said:
        for event_type, path in _files(one):
            if event_type in given:
                whose = "every event type" if event_type is None else f"event type {event_type!r}"
                raise SettingsError(
                    f"--schema {one}: a second schema for {whose}; expected one, as TYPE=FILE"
                )
            try:
                with path.open("rb") as file:
                    given[event_type] = read_schema(file, how)
            except OSError as error:
                raise SettingsError(f"--schema: {path}: {error.strerror}") from None
    return given


def _files(said: str) -> Iterator[tuple[str | None, Path]]:
    """Give the files that one option names, each with its event type."""
    event_type, equals, name = said.partition("=")
    if Path(said).is_dir():
        found = [(path.name, path) for path in sorted(Path(said).iterdir()) if path.name.endswith(SUFFIXES)]
        if not found:
            raise SettingsError(f"--schema {said}: no TYPE.schema.json in this directory (nor .yaml)")
        yield from ((name.rpartition(".schema.")[0], path) for name, path in found)
    elif Path(said).exists() or not equals:
        yield None, Path(said)
    elif event_type and name:
        yield event_type, Path(name)
    else:
        raise SettingsError(f"--schema {said}: expected TYPE=FILE, FILE or a directory of TYPE.schema.json")
