"""Logs: one event a line, as JSON for machines or coloured for people, on standard error.

Never a payload, an id that a sender chose, or a DSN: events are words of ours with counts and reasons.
"""

import logging
import sys
from typing import Literal

import structlog


def configure(log_format: Literal["json", "console"], level: str) -> None:
    """Set up structlog, and the standard library's loggers (boto3's among them) to go the same way."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
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
