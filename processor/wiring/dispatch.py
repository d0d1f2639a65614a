"""Wiring of the hand-over: `processor dispatch`, as a loop with probes or once, and to a file."""

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psycopg
import structlog

from processor.brokers.source_url import source_address
from processor.check.roles import RIGHTS, missing_rights, update_of
from processor.database import migrations
from processor.database.connection import Deadline, connect
from processor.database.queries import queries
from processor.database.sqlstates import Remedy, name_of, remedy
from processor.errors import SettingsError, Stopped, StoreFault, StoreUnavailable, Unavailable
from processor.handover.batches import Waiting
from processor.handover.dispatcher import DispatchCounts, Dispatcher, DispatchLimits
from processor.handover.export import export, require_new
from processor.handover.sink import HttpSink, Sink
from processor.runtime import metrics
from processor.runtime.outages import OutageRetry
from processor.runtime.probes import Probes
from processor.settings import DispatchSettings

log = structlog.get_logger(__name__)
T = TypeVar("T")
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
"""The rights without which nothing can be closed or handed over: relation and privilege."""

_OUTAGES = (Remedy.RETRY, Remedy.RECONNECT, Remedy.WAIT, Remedy.HALVE)
_MARGIN_S = 5.0
_PROBE_S_MAX = 5.0
"""How long a server may take to answer a probe."""


def run(settings: DispatchSettings, stop: threading.Event) -> DispatchCounts:
    """Close and hand over until told to stop. Absent dependencies are waited for.

    Raises SettingsError, MigrationsPending and StoreFault, which waiting would not mend.
    """
    session = _Session(settings, _retry(settings, stop), stop)
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
        session.require_fit()
        dispatcher.run(settings.usage_dispatch_every_s)
    except Stopped:
        # While waiting for the database: nothing was under way.
        pass
    finally:
        probes.stop()
        session.close()
    tally = dispatcher.tally
    log.info("stopped", lines_written=tally.lines_written, lines_accepted=tally.lines_accepted)
    return tally


def run_once(settings: DispatchSettings, stop: threading.Event) -> tuple[DispatchCounts, Waiting]:
    """Close and send all that waits; gives what was done and what is left. Raises outages of the database."""
    session = _Session(settings, _no_retry(), stop)
    dispatcher = _dispatcher(settings, session, stop)
    try:
        session.require_fit()
        return dispatcher.tally, dispatcher.run_once()
    except Stopped as error:
        raise _outage(error) from None
    finally:
        session.close()


def run_to_file(
    settings: DispatchSettings, to: Path | None, stop: threading.Event
) -> tuple[DispatchCounts, Waiting]:
    """Close what is due, and write all that waits to a new file, or to standard output (None)."""
    if to is not None:
        require_new(to)
    session = _Session(settings, _no_retry(), stop)
    dispatcher = Dispatcher(session.transact, _NoSink(), _limits(settings), stop)
    try:
        session.require_fit()
        dispatcher.prepare()
        if not stop.is_set():
            dispatcher.tally.lines_accepted = session.transact(
                lambda connection: export(connection, to, settings.usage_sink_amounts)
            )
        return dispatcher.tally, dispatcher.count_waiting()
    except Stopped as error:
        raise _outage(error) from None
    finally:
        session.close()


class _NoSink:
    """Stands where a sink would, for who sends nothing."""

    def send(self, body: bytes, *, key: str, line_keys: object) -> Any:  # noqa: ANN401 - as Sink has it
        raise NotImplementedError


class _Session:
    """One connection for the dispatcher, opened when needed and anew after an outage."""

    def __init__(self, settings: DispatchSettings, retry: OutageRetry, stop: threading.Event) -> None:
        self._dsn = settings.need_database_url()
        self._timeout_s = settings.database_timeout_s
        # A piece of work is a few statements and a request; a server that is frozen says nothing for longer.
        self._limit_s = self._timeout_s + settings.usage_sink_timeout_s + _MARGIN_S
        self._deadline = Deadline(self._limit_s)
        self._probe_deadline = Deadline(_PROBE_S_MAX)
        self._retry = retry
        self._stop = stop
        self._connection: Connection | None = None

    @property
    def trouble(self) -> str:
        """What the database is in, in words; empty if it works."""
        return f"database: {self._retry.trouble}" if self._retry.trouble else ""

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Run a piece of work; outages are waited out, and then it is run again from its beginning."""
        return self._retry(lambda: self._attempt(work, self._deadline))

    def probe(self) -> None:
        """Ask the database for a sign of life, once, and note whether it works."""
        self._retry.probe(
            lambda: self._attempt(
                lambda connection: connection.execute(queries("session")["probe"]), self._probe_deadline
            )
        )

    def require_fit(self) -> None:
        """Wait until the database can say that it has our tables and lets us work on them."""

        def look(connection: Connection) -> list[str]:
            migrations.require_current(connection)
            return missing_rights(connection, TO_DISPATCH)

        missing = self.transact(look)
        if missing:
            raise StoreFault(
                f"the role of DATABASE_URL lacks {', '.join(missing)}; make it a member of processor_biller"
            )

    def close(self) -> None:
        """Close the connection; a later piece of work opens a new one."""
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
            self._connection = None

    def _attempt(self, work: Callable[[Connection], T], deadline: Deadline) -> T:
        try:
            connection = self._connection = self._connection or self._open()
        except StoreUnavailable:
            metrics.database_errors.labels(remedy=Remedy.RECONNECT.name.lower()).inc()
            raise
        try:
            with deadline.over(connection):
                return work(connection)
        except psycopg.Error as error:
            what = remedy(error, connection_broken=connection.broken)
            metrics.database_errors.labels(remedy=what.name.lower()).inc()
            self.close()
            if what in _OUTAGES:
                raise StoreUnavailable(f"the database can't do this now: {name_of(error)}") from None
            # Its text may carry a row, so it is named and not quoted.
            raise StoreFault(f"the database refused: {name_of(error)}") from None

    def _open(self) -> Connection:
        connection = connect(self._dsn, timeout_s=self._timeout_s, application="event-processor dispatch")
        try:
            with self._deadline.over(connection):
                connection.execute(
                    queries("dispatch")["outlast_request"], {"timeout_ms": str(int(self._limit_s * 1000))}
                )
        except psycopg.Error as error:
            connection.close()
            raise StoreUnavailable(f"the database let us in and answers no more: {name_of(error)}") from None
        return connection


def _dispatcher(settings: DispatchSettings, session: _Session, stop: threading.Event) -> Dispatcher:
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


def _no_retry() -> OutageRetry:
    # For who runs it once: an outage is said at once instead of being waited out.
    stop = threading.Event()
    stop.set()
    return OutageRetry("database", wait_s_max=1, stop=stop)


def _outage(error: Stopped) -> Exception:
    return error.__cause__ if isinstance(error.__cause__, Unavailable) else error
