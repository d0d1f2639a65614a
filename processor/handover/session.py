"""The dispatcher's database connection: opened on demand, with time limits, and reopened after an outage."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import psycopg

from processor.database import migrations
from processor.database.connection import Deadline, connect
from processor.database.queries import queries
from processor.database.sqlstates import Remedy, name_of, remedy
from processor.errors import StoreFault, StoreUnavailable
from processor.runtime import metrics
from processor.runtime.outages import OutageRetry
from processor.settings import DispatchSettings

T = TypeVar("T")
Connection = psycopg.Connection[Any]

_OUTAGES = (Remedy.RETRY, Remedy.RECONNECT, Remedy.WAIT, Remedy.HALVE)
_MARGIN_S = 5.0
_PROBE_S_MAX = 5.0
"""The time limit of a probe."""


class Session:
    """One connection for the dispatcher, opened on demand and reopened after an outage."""

    def __init__(self, settings: DispatchSettings, retry: OutageRetry, stop: threading.Event) -> None:
        self._dsn = settings.need_database_url()
        self._timeout_s = settings.database_timeout_s
        # One call runs a few statements and one request; only a frozen server needs longer.
        self._limit_s = self._timeout_s + settings.usage_sink_timeout_s + _MARGIN_S
        self._deadline = Deadline(self._limit_s)
        self._probe_deadline = Deadline(_PROBE_S_MAX)
        self._retry = retry
        self._stop = stop
        self._connection: Connection | None = None

    @property
    def trouble(self) -> str:
        """The database's error at the last attempt; empty after a success."""
        return f"database: {self._retry.trouble}" if self._retry.trouble else ""

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Run `work`; after an outage it is retried from its beginning."""
        return self._retry(lambda: self._attempt(work, self._deadline))

    def probe(self) -> None:
        """Query the database once, and record whether it answers."""
        self._retry.probe(
            lambda: self._attempt(
                lambda connection: connection.execute(queries("session")["probe"]), self._probe_deadline
            )
        )

    def require_fit(self, find_missing: Callable[[Connection], list[str]]) -> None:
        """Wait for the database, then check that its tables are current and that no privilege is missing.

        `find_missing` returns the missing privileges. Raises MigrationsPending, StoreFault.
        """

        def look(connection: Connection) -> list[str]:
            migrations.require_current(connection)
            return find_missing(connection)

        missing = self.transact(look)
        if missing:
            raise StoreFault(
                f"the role of DATABASE_URL lacks {', '.join(missing)}; make it a member of processor_biller"
            )

    def close(self) -> None:
        """Close the connection; the next `transact` opens a new one."""
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
            # The error's text may quote a row, so the message has only its name.
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
