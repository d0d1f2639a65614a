"""Wiring of the hand-over: `processor dispatch`, as a loop with probes or once, and to a file."""

import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import structlog

from processor.brokers.source_url import source_address
from processor.check.roles import RIGHTS, missing_rights, update_of
from processor.errors import SettingsError, Stopped
from processor.handover.batches import Waiting
from processor.handover.dispatcher import DispatchCounts, Dispatcher, DispatchLimits
from processor.handover.export import export, require_new
from processor.handover.session import Session
from processor.handover.sink import HttpSink, NoSink, Sink
from processor.runtime.outages import OutageRetry
from processor.runtime.probes import Probes
from processor.settings import DispatchSettings

log = structlog.get_logger(__name__)
Connection = psycopg.Connection[Any]

TO_DISPATCH = (
    ("meter", "SELECT"),
    ("reopened_window", "SELECT"),
    ("total", "SELECT"),
    *(("total", privilege) for privilege in update_of("is_closed")),
    *(
        (table, privilege)
        for table in ("usage_line", "usage_batch", "window_lock", "batch_lock")
        for privilege in RIGHTS["processor_biller"][table]
    ),
    ("usage_place", "SELECT"),
    ("usage_place", "INSERT"),
)
"""The privileges that closing and hand-over need: relation and privilege."""


def run(settings: DispatchSettings, stop: threading.Event) -> DispatchCounts:
    """Close and hand over until stopped. Outages of dependencies are waited out.

    Raises SettingsError, MigrationsPending and StoreFault, which a retry can't fix.
    """
    session = Session(settings, _retry(settings, stop), stop)
    dispatcher = _dispatcher(settings, session, stop)
    probes = Probes(
        settings.http_host,
        settings.http_port,
        alive=lambda: True,
        trouble=lambda: "; ".join(filter(None, [session.trouble, dispatcher.trouble])),
    )
    probes.start()
    sink = urlsplit(settings.need_sink_url())
    log.info("started", sink=sink.hostname, http_port=probes.port)
    try:
        session.require_fit(_missing_rights)
        dispatcher.run(settings.usage_dispatch_every_s)
    except Stopped:
        # The stop came while waiting for the database: no work was in progress.
        pass
    finally:
        probes.stop()
        session.close()
    tally = dispatcher.tally
    log.info("stopped", lines_written=tally.lines_written, lines_accepted=tally.lines_accepted)
    return tally


def run_once(settings: DispatchSettings, stop: threading.Event) -> tuple[DispatchCounts, Waiting]:
    """Close and send all lines; returns the counts and the lines left. Raises outages of the database."""
    session = Session(settings, OutageRetry("database", stop=None), stop)
    dispatcher = _dispatcher(settings, session, stop)
    try:
        session.require_fit(_missing_rights)
        return dispatcher.tally, dispatcher.run_once()
    finally:
        session.close()


def run_to_file(
    settings: DispatchSettings, to: Path | None, stop: threading.Event
) -> tuple[DispatchCounts, Waiting]:
    """Close due windows, and write all lines to a new file, or to standard output (None)."""
    if to is not None:
        require_new(to)
    session = Session(settings, OutageRetry("database", stop=None), stop)
    dispatcher = Dispatcher(session.transact, NoSink(), _limits(settings), stop)
    try:
        session.require_fit(_missing_rights)
        dispatcher.prepare()
        if not stop.is_set():
            dispatcher.export(lambda connection: export(connection, to, settings.usage_sink_amounts))
        return dispatcher.tally, dispatcher.count_waiting()
    finally:
        session.close()


def _missing_rights(connection: Connection) -> list[str]:
    return missing_rights(connection, TO_DISPATCH)


def _dispatcher(settings: DispatchSettings, session: Session, stop: threading.Event) -> Dispatcher:
    return Dispatcher(session.transact, _sink(settings), _limits(settings), stop, probe=session.probe)


def _sink(settings: DispatchSettings) -> Sink:
    url, token = settings.need_sink_url(), settings.usage_sink_token
    if not url.startswith("kafka"):
        return HttpSink(
            url,
            token=token.get_secret_value() if token else None,
            timeout_s=settings.usage_sink_timeout_s,
        )
    try:
        from processor.handover.kafka_sink import KafkaSink  # noqa: PLC0415 - an extra's driver
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"USAGE_SINK_URL is of kafka, and the package {error.name} is not installed; run: "
            "pip install 'sqs-event-processor[kafka]'"
        ) from None
    return KafkaSink(source_address(url), timeout_s=settings.usage_sink_timeout_s)


def _limits(settings: DispatchSettings) -> DispatchLimits:
    return DispatchLimits(
        lines_max=settings.usage_sink_lines_max,
        amounts=settings.usage_sink_amounts,
        outage_wait_s_max=settings.retry_wait_s_max,
        refused_wait_s_max=settings.usage_sink_refused_wait_s_max,
    )


def _retry(settings: DispatchSettings, stop: threading.Event) -> OutageRetry:
    return OutageRetry("database", wait_s_max=settings.retry_wait_s_max, stop=stop)
