"""End the process when one of its threads dies, because it would look healthy and do nothing.

thread or task ──raises──▶ critical "thread_died" ─▶ SIGTERM to ourselves ─▶ an orderly end, by code 1
                                                 └─▶ not ended in time: the end, by code 1
"""

import asyncio
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from processor.errors import Stopped

log = structlog.get_logger(__name__)

FAILED = 1
_MARGIN_S = 5.0


@contextmanager
def exit_on_thread_death(stop_timeout_s: float) -> Iterator[None]:
    """Stop the process like SIGTERM when any thread dies, and end the block with SystemExit(1).

    A stop that takes longer than `stop_timeout_s` and a margin is aborted.
    """
    before = threading.excepthook
    died = threading.Event()

    def note(args: threading.ExceptHookArgs) -> None:
        try:
            # Without its text, which may quote input.
            log.critical(
                "thread_died",
                thread=args.thread.name if args.thread is not None else None,
                error=args.exc_type.__name__,
                at=_place(args),
                consequence="stopping",
            )
        finally:
            if not died.is_set():
                died.set()
                _stop(stop_timeout_s + _MARGIN_S)

    threading.excepthook = note
    try:
        yield
    except Stopped:
        # Our own SIGTERM may have ended the retry of an outage.
        if not died.is_set():
            raise
    finally:
        threading.excepthook = before
    if died.is_set():
        raise SystemExit(FAILED)


def watch(task: asyncio.Task[Any]) -> None:
    """Treat the death of a permanent task like that of a thread."""
    task.add_done_callback(_look_at)


def _look_at(task: asyncio.Task[Any]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        named = threading.Thread(name=task.get_name())
        threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, named)))


def _stop(within_s: float) -> None:
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        # Without a handler, SIGTERM would end the process with another code.
        os._exit(FAILED)
    end = threading.Timer(within_s, os._exit, [FAILED])
    end.name, end.daemon = "end", True
    end.start()
    os.kill(os.getpid(), signal.SIGTERM)


def _place(args: threading.ExceptHookArgs) -> str:
    frames = traceback.extract_tb(args.exc_traceback)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
