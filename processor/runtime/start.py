"""What both programs run first: whatever happens around their commands ends without a traceback.

Ctrl-C while modules are imported, an output that is full or closed, a terminal that knows ASCII alone.
"""

import errno
import io
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from processor.runtime.escaping import Output

if TYPE_CHECKING:
    import click

_OUTPUT_LOST = frozenset({errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT, errno.EBADF})
_FAILED, _INTERRUPTED = 1, 128 + signal.SIGINT


def start(program: str, commands: str) -> NoReturn:
    """Import a program's commands, which takes a while, and run what the command line says.

    Ctrl-C is Python's own again from then on.
    """
    group = getattr(import_module(f"{program}.cli"), commands)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run(group, program)


def run(commands: "click.Group", program: str) -> NoReturn:
    """Run the command that the command line names, and end with its exit code."""
    import click  # noqa: PLC0415 - not before a Ctrl-C is quiet

    _prepare_output()
    code: object = _FAILED
    try:
        code = commands.main(standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        code = error.exit_code
        with suppress(OSError):
            error.show()
    except (click.Abort, KeyboardInterrupt):
        code = _INTERRUPTED
    except SystemExit as end:
        code = end.code
    except OSError as error:
        if error.errno not in _OUTPUT_LOST or error.filename is not None:
            raise
        with suppress(OSError):
            click.echo(f"{program}: the output can't be written: {error.strerror}", err=True)
    _leave(code if isinstance(code, int) else _FAILED if code else 0)


def _prepare_output() -> None:
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            # It was closed, and the next file or socket would take its number: prints would go there.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r" if name == "stdin" else "w"))
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            kept = (stream.encoding, "backslashreplace", None, stream.line_buffering)
            setattr(sys, name, Output(stream.detach(), *kept))


def _leave(code: int) -> NoReturn:
    """End with this code, even if what is still to be written can't be."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or _FAILED
            # Else Python tries again at its end, and says so.
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)
