"""Start both programs, so that common failures around a command end without a traceback.

These are Ctrl-C during imports, a full or closed output, and a terminal limited to ASCII.
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
    """Import a program's commands, which takes a while, and run the command line.

    After the import, Ctrl-C raises KeyboardInterrupt as usual.
    """
    group = getattr(import_module(f"{program}.cli"), commands)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run(group, program)


def run(commands: "click.Group", program: str) -> NoReturn:
    """Run the command of the command line, and exit with its code."""
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
            # The stream was closed. Else the next file or socket would get its number, and the output.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r" if name == "stdin" else "w"))
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            kept = (stream.encoding, "backslashreplace", None, stream.line_buffering)
            setattr(sys, name, Output(stream.detach(), *kept))


def _leave(code: int) -> NoReturn:
    """Exit with this code, even if remaining output can't be written."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or _FAILED
            # Else Python tries again at exit and prints an error.
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)
