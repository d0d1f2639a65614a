"""Log to standard error, one event per line, as JSON for machines or coloured for people.

A line never has a payload, an id chosen by a sender, or a DSN, but our own words with counts and reasons.
Text from a library or the environment can't end its line and forge another. Lines of one event are
rate-limited, because a sender could cause a million; the number of dropped lines is logged.
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
"""The prefix of traceback lines on a console, which no event line has."""

LINES_MAX, LINES_S = 20, 10.0
"""The most lines of one event within this many seconds; others are counted."""

_EVENTS_MAX = 1000

_EACH = frozenset(("delivery",))
"""Events without a rate limit: --log-events requests a line for each."""


def configure(log_format: Literal["json", "console"], level: str) -> None:
    """Configure structlog, and route the standard library's loggers (such as boto3's) through it."""
    limiter = Limiter()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    if log_format == "console":
        # JSON escapes line ends by itself.
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
        # Not cached, so that a new configuration reaches loggers that were used already.
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
    # Warnings and errors of libraries only: their lower levels log requests with bodies.
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    silence_libraries()
    # Else warnings would be printed past this configuration.
    logging.captureWarnings(capture=True)


def silence_libraries() -> None:
    """Keep library loggers quiet that print tracebacks of failures which our programs report themselves."""
    # urllib3 logs headers of a server's answer with a traceback. The answer itself is checked by us.
    logging.getLogger("urllib3.connection").setLevel(logging.ERROR)
    # pika logs every failure with tracebacks. We log each failure once, as text.
    logging.getLogger("pika").setLevel(logging.CRITICAL + 1)


class Limiter:
    """Limits lines to LINES_MAX per event in LINES_S; the next line has the number of dropped ones.

    Our events are identified by name, lines of a library by their place in the code.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # By event: the start of the interval, and the numbers of lines and of dropped lines since.
        self._seen: dict[Hashable, tuple[float, int, int]] = {}

    def of_ours(
        self, _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Pass or drop a line of ours."""
        if event["event"] not in _EACH:
            left_out = self._judge(event["event"])
            if left_out is None:
                raise structlog.DropEvent
            if left_out:
                event["left_out"] = left_out
        return event

    def of_others(self, record: logging.LogRecord) -> bool:
        """Pass or drop a line of a library."""
        left_out = self._judge((record.name, record.pathname, record.lineno))
        if left_out:
            record.msg, record.args = f"{record.getMessage()} (left out: {left_out} lines like this)", ()
        return left_out is not None

    def _judge(self, what: Hashable) -> int | None:
        """Return the number of lines dropped before this one, or None if it is dropped too."""
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
    """Standard error that ignores errors: a full disk or a closed pipe must not end a worker."""

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.flush()


def _time_first(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Move timestamp, level and event to the left, and keep the order of the rest."""
    return {name: event[name] for name in ("timestamp", "level", "event") if name in event} | dict(event)


def _on_one_line(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if name == "exception":
            event[name] = "\n".join(_CONTINUED + escaped(line) for line in str(value).split("\n"))
        elif isinstance(value, str):
            event[name] = escaped(value)
    return event
