"""Reads the schema argument of commands: a file or stdin, with the options for reading it."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import click

from processor.errors import SettingsError
from processor.schemas.dialects import DIALECTS, Dialect, dialect_named
from processor.schemas.documents.preparing import FORMATS, HowToRead, prepare
from processor.schemas.schema_text import FILE_BYTES_MAX

_Command = TypeVar("_Command", bound=Callable[..., Any])


def schema_options(command: _Command) -> _Command:
    """Add the options of `HowToRead` to a command, as its argument `how`."""

    @click.option(
        "--formats",
        type=click.Choice(FORMATS),
        default=FORMATS[0],
        help="assert: a value that is not of its format breaks the schema. annotate: formats are notes.",
    )
    @click.option(
        "--pointer",
        metavar="POINTER",
        help="The schema stands here in FILE, such as /components/schemas/Order of an OpenAPI document.",
    )
    @click.option(
        "--draft",
        metavar="DRAFT",
        callback=_draft,
        help="The draft of a schema without $schema: 4, 6, 7, 2019-09 or 2020-12, which it is else.",
    )
    @click.option(
        "--with",
        "others",
        metavar="FILE|DIR",
        type=click.Path(exists=True, path_type=Path),
        multiple=True,
        help="A document that the schema refers to by $id or path, or a directory of them; repeatable.",
    )
    @wraps(command)
    def given(
        *,
        formats: str,
        pointer: str | None,
        draft: Dialect | None,
        others: tuple[Path, ...],
        **rest: Any,  # noqa: ANN401 - what the command takes
    ) -> Any:  # noqa: ANN401 - what the command gives
        return command(**rest, how=HowToRead(formats=formats, pointer=pointer, draft=draft, others=others))

    return given  # type: ignore[return-value]  # the options are parameters of the command


def _draft(_context: click.Context, _option: click.Parameter, value: str | None) -> Dialect | None:
    if value is None:
        return None
    if (known := dialect_named(value)) is None:
        names = ", ".join(dialect.name for dialect in DIALECTS)
        raise click.BadParameter(f"unknown draft {value!r}; expected one of {names}")
    return known


def read_schema(file: BinaryIO, how: HowToRead) -> Any:  # noqa: ANN401 - any JSON value
    """Read the schema of a file, complete. Raises SettingsError, which names the file."""
    name = getattr(file, "name", "the input")
    try:
        return prepare(file.read(FILE_BYTES_MAX + 1), how, name)
    except SettingsError as error:
        raise SettingsError(f"{name}: {error}") from None
