"""Connections to PostgreSQL: how they are opened, and how a silent one is cut."""

import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

from processor.errors import StoreFault, StoreUnavailable
from processor.queries import queries

_CONNECT_TIMEOUT_S = 10

# libpq gives no SQLSTATE for a failed connection, only text, which names host, user and database.
# We repeat none of it but these.
_REFUSALS = re.compile(
    r"password authentication failed|no password supplied|no pg_hba.conf entry|role \S+ does not exist"
    r"|database \S+ does not exist|permission denied for database"
)
_TROUBLES = re.compile(
    r"Connection refused|timeout expired|could not translate host name|Connection timed out|starting up"
    r"|shutting down|in recovery mode|too many clients|remaining connection slots|No route to host"
    r"|certificate verify failed|does not support SSL|server closed the connection|Name or service not known"
)


def connect(
    dsn: str, *, timeout_s: float | None = None, application: str = "event-processor"
) -> psycopg.Connection[Any]:
    """Open a connection in autocommit mode; with `timeout_s` one prepared for saving.

    Raises StoreUnavailable where trying again may help, StoreFault where the server refuses who we are.
    """
    try:
        connection = psycopg.connect(
            dsn, autocommit=True, application_name=application, connect_timeout=_CONNECT_TIMEOUT_S
        )
        if timeout_s is not None:
            connection.execute(queries("save")["prepare_session"], {"timeout_ms": str(int(timeout_s * 1000))})
    except psycopg.ProgrammingError:
        raise StoreFault(
            "DATABASE_URL can't be read; expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        ) from None
    except psycopg.Error as error:
        refusal = _REFUSALS.search(str(error))
        if refusal:
            words = re.sub(r'"[^"]*"', "named in DATABASE_URL", refusal[0])
            raise StoreFault(f"the database refuses us: {words}; check DATABASE_URL") from None
        trouble = _TROUBLES.search(str(error))
        words = trouble[0] if trouble else error.sqlstate or "no connection"
        raise StoreUnavailable(f"the database can't be reached: {words}") from None
    return connection


class Deadline:
    """Cuts a connection that has been at one piece of work for longer than `limit_s`.

    A server that is frozen, or a network that swallows packets, sends no error and obeys no
    statement_timeout: the wait must end on our side. The work then fails with a broken connection.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._watched: tuple[float, int] | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @contextmanager
    def over(self, connection: psycopg.Connection[Any]) -> Iterator[None]:
        """Watch the connection for as long as the block runs."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="deadline", daemon=True)
            self._thread.start()
        self._watched = (time.monotonic() + self._limit_s, connection.fileno())
        try:
            yield
        finally:
            with self._changed:
                self._watched = None

    def _watch(self) -> None:
        while True:
            time.sleep(min(1.0, self._limit_s / 4))
            with self._changed:
                if self._watched is not None and time.monotonic() > self._watched[0]:
                    _cut(self._watched[1])
                    self._watched = None


def _cut(fileno: int) -> None:
    # A copy of the descriptor, so that closing it here does not close libpq's own.
    with suppress(OSError), socket.socket(fileno=os.dup(fileno)) as copy:
        copy.shutdown(socket.SHUT_RDWR)
