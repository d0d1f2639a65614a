"""The dispatcher's connection: opened when needed, bounded in time, and opened anew after an outage."""

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
"""How long a server may take to answer a probe."""


class Session:
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

    def require_fit(self, find_missing: Callable[[Connection], list[str]]) -> None:
        """Wait until the database can say that it has our tables and lets us work on them.

        `find_missing` names the rights that are lacking. Raises MigrationsPending, StoreFault.
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
