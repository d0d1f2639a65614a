"""The schemas that `producers validate --schema` is given, by event type.

order.created=order.json ─▶ of this type
order.json               ─▶ of every type
schemas/                 ─▶ of each TYPE.schema.json in it
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from processor.errors import SettingsError
from processor.schemas.documents.preparing import HowToRead
from processor.schemas.documents.schema_files import read_schema

SUFFIXES = (".schema.json", ".schema.yaml", ".schema.yml")


def read_given(said: Iterable[str], how: HowToRead) -> dict[str | None, Any]:
    """Read the schemas by event type; None: every type. Raises SettingsError."""
    given: dict[str | None, Any] = {}
    for one in said:
        for event_type, name in _files(one):
            if event_type in given:
                whose = "every event type" if event_type is None else f"event type {event_type!r}"
                raise SettingsError(
                    f"--schema {one}: a second schema for {whose}; expected one, as TYPE=FILE"
                )
            given[event_type] = _read(name, how)
    return given


def _read(name: str, how: HowToRead) -> Any:  # noqa: ANN401 - any JSON value
    path, hash_, pointer = name.partition("#")
    if hash_ and not Path(name).exists():
        name, how = path, replace(how, pointer=pointer)
    try:
        with Path(name).open("rb") as file:
            return read_schema(file, how)
    except OSError as error:
        raise SettingsError(f"--schema: {name}: {error.strerror}") from None


def _files(said: str) -> Iterator[tuple[str | None, str]]:
    """Return the files that one option names, each with its event type."""
    event_type, equals, name = said.partition("=")
    if Path(said).is_dir():
        found = [path for path in sorted(Path(said).iterdir()) if path.name.endswith(SUFFIXES)]
        if not found:
            raise SettingsError(f"--schema {said}: no TYPE.schema.json in this directory (nor .yaml)")
        yield from ((path.name.rpartition(".schema.")[0], str(path)) for path in found)
    elif Path(said).exists() or not equals:
        yield None, said
    elif event_type and name:
        yield event_type, name
    else:
        raise SettingsError(f"--schema {said}: expected TYPE=FILE, FILE or a directory of TYPE.schema.json")
