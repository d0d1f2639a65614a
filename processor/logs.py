"""Logs: one event a line, as JSON for machines or coloured for people, on standard error.

Never a payload, an id that a sender chose, or a DSN: events are words of ours with counts and reasons. And
whatever text comes to be in one, from a library or the environment, it can't end its line and forge another.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

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
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        # Not cached: a command that configures again must be obeyed by loggers that have spoken already.
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    # Libraries speak only when something is wrong: their lower levels print requests, bodies included.
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    # Else they print themselves, past all of this.
    logging.captureWarnings(capture=True)


def one_line(text: str) -> str:
    """Give the text with all that a terminal or a reader of lines would obey written as an escape."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def _on_one_line(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if name == "exception":
            event[name] = "\n".join(_CONTINUED + one_line(line) for line in str(value).split("\n"))
        elif isinstance(value, str):
            event[name] = one_line(value)
    return event
