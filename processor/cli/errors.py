"""Error output: our errors become one line and an exit code; any other error is a bug with a traceback."""

import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import click

from processor.errors import Incompatible, ProcessorError, SettingsError, Stopped, Unavailable
from processor.runtime.escaping import escaped
from processor.runtime.terminal import fit


class Exit(IntEnum):
    """The exit codes."""

    FINE = 0
    FAILED = 1
    USAGE = 2
    PROBLEM_FOUND = 3
    UNREACHABLE = 4


class Commands(click.Group):
    """A group whose commands may raise ProcessorError."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click has it
        """Run the named command."""
        try:
            return super().invoke(ctx)
        except ProcessorError as error:
            ctx.exit(_tell(ctx, error))


def exit_code_of(work: Callable[[], int]) -> int:
    """Run `work` and return its exit code; a ProcessorError is printed and gets the exit code of a command.

    For work in a child process, outside of a command.
    """
    try:
        return work()
    except ProcessorError as error:
        return _tell(click.get_current_context().find_root(), error)


def _tell(ctx: click.Context, error: ProcessorError) -> Exit:
    match error:
        case SettingsError():
            code = Exit.USAGE
        case Incompatible():
            code = Exit.PROBLEM_FOUND
        case Unavailable() | Stopped():
            code = Exit.UNREACHABLE
        case _:
            code = Exit.FAILED
    line = f"{ctx.info_name}: {escaped(str(error))}"
    click.echo(fit(line, "  ") if sys.stderr.isatty() else line, err=True)
    return code
