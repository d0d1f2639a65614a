"""Logs: one event a line, as JSON for machines or coloured for people, on standard error.

Never a payload, an id that a sender chose, or a DSN: events are words of ours with counts and reasons. And
whatever text comes to be in one, from a library or the environment, it can't end its line and forge another.
"""

import io
import logging
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, Literal, TextIO, cast

import structlog

from processor.escaping import escaped

_CONTINUED = "    | "
"""What each line of a traceback begins with, on a console: no event looks so."""


def configure(log_format: Literal["json", "console"], level: str) -> None:
    """Set up structlog, and the standard library's loggers (boto3's among them) to go the same way."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    if log_format == "console":
        # JSON escapes them by itself.
        shared.append(_on_one_line)
    renderers: list[structlog.typing.Processor] = (
        [_time_first, structlog.processors.JSONRenderer()]
        if log_format == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _StandardError())),
        # Not cached: a command that configures again must be obeyed by loggers that have spoken already.
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    # Libraries speak only when something is wrong: their lower levels print requests, bodies included.
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    # It quotes, with a traceback, what a server wrote in the head of an answer; the answer itself is judged.
    logging.getLogger("urllib3.connection").setLevel(logging.ERROR)
    # Else they print themselves, past all of this.
    logging.captureWarnings(capture=True)


class _StandardError(io.TextIOBase):
    """Standard error, if it takes anything: a full disk or a closed pipe must not end a worker."""

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.flush()


def _time_first(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Put what a reader looks for at the left; the rest as it was given."""
    return {name: event[name] for name in ("timestamp", "level", "event") if name in event} | dict(event)


def _on_one_line(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if name == "exception":
            event[name] = "\n".join(_CONTINUED + escaped(line) for line in str(value).split("\n"))
        elif isinstance(value, str):
            event[name] = escaped(value)
    return event
