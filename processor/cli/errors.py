"""Errors of ours as one line and an exit code; anything else is a bug, and shows its traceback."""

from enum import IntEnum
from typing import Any, NoReturn

import click

from processor.errors import ProcessorError, SettingsError, Stopped, Unavailable
from processor.logs import one_line


class Exit(IntEnum):
    """What the exit codes mean."""

    FINE = 0
    FAILED = 1
    USAGE = 2
    PROBLEM_FOUND = 3
    UNREACHABLE = 4


class Commands(click.Group):
    """A group whose commands may raise ProcessorError."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click has it
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except ProcessorError as error:
            _fail(ctx, error)


def _fail(ctx: click.Context, error: ProcessorError) -> NoReturn:
    match error:
        case SettingsError():
            code = Exit.USAGE
        case Unavailable() | Stopped():
            code = Exit.UNREACHABLE
        case _:
            code = Exit.FAILED
    click.echo(f"{ctx.info_name}: {one_line(str(error))}", err=True)
    ctx.exit(code)
