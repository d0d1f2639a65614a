"""Logs: one event a line, as JSON for machines or coloured for people, on standard error.

Never a payload, an id that a sender chose, or a DSN: events are words of ours with counts and reasons. And
whatever text comes to be in one, from a library or the environment, it can't end its line and forge another.

Whoever can cause a line can cause a million: of one event so many are written in a while, then their number.
"""

import io
import logging
import sys
import threading
import time
from collections.abc import Callable, Hashable, MutableMapping
from contextlib import suppress
from typing import Any, Literal, TextIO, cast

import structlog

from processor.runtime.escaping import escaped

_CONTINUED = "    | "
"""What each line of a traceback begins with, on a console: no event looks so."""

LINES_MAX, LINES_S = 20, 10.0
"""So many lines of one event within so many seconds; the others are counted."""

_EVENTS_MAX = 1000

_EACH = frozenset(("delivery",))
"""Events of which somebody asked for a line each, by --log-events."""


def configure(log_format: Literal["json", "console"], level: str) -> None:
    """Set up structlog, and the standard library's loggers (boto3's among them) to go the same way."""
    limiter = Limiter()
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
        processors=[limiter.of_ours, *shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _StandardError())),
        # Not cached: a command that configures again must be obeyed by loggers that have spoken already.
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(limiter.of_others)
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
    # It tells every failure itself, in tracebacks; ours are said once, in words.
    logging.getLogger("pika").setLevel(logging.CRITICAL + 1)
    # Else they print themselves, past all of this.
    logging.captureWarnings(capture=True)


class Limiter:
    """Lets LINES_MAX lines of one event through in LINES_S; the next one says how many were left out.

    An event is known by its name, a line of a library by the place in the code that writes it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # By event: since when is counted, how many came since, and how many of them were not written.
        self._seen: dict[Hashable, tuple[float, int, int]] = {}

    def of_ours(
        self, _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Judge a line of ours."""
        if event["event"] not in _EACH:
            left_out = self._judge(event["event"])
            if left_out is None:
                raise structlog.DropEvent
            if left_out:
                event["left_out"] = left_out
        return event

    def of_others(self, record: logging.LogRecord) -> bool:
        """Judge a line of a library."""
        left_out = self._judge((record.name, record.pathname, record.lineno))
        if left_out:
            record.msg, record.args = f"{record.getMessage()} (left out: {left_out} lines like this)", ()
        return left_out is not None

    def _judge(self, what: Hashable) -> int | None:
        """Say how many were left out before this line; None: it is left out, too."""
        with self._lock:
            now = self._clock()
            if what not in self._seen and len(self._seen) >= _EVENTS_MAX:
                what = "others"
            since, lines, left_out = self._seen.get(what, (now, 0, 0))
            if now - since >= LINES_S:
                since, lines = now, 0
            passes = lines < LINES_MAX
            self._seen[what] = (since, lines + 1, 0) if passes else (since, lines, left_out + 1)
            return left_out if passes else None


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
