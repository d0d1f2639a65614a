"""Open connections to PostgreSQL, and close connections whose server does not answer."""

import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from processor.database.queries import queries
from processor.database.sqlstates import Remedy, name_of, remedy
from processor.errors import StoreFault, StoreUnavailable

_CONNECT_TIMEOUT_S = 10

_KEEPALIVE = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""A lost host, or a network that drops packets, breaks a connection within a minute (libpq)."""

_PULSE_EVERY_S = 15.0
_PULSES_MISSED_MAX = 2

# For a failed connection libpq has no SQLSTATE, only text with host, user and database. Only these parts of
# the text are repeated.
_REFUSALS = re.compile(
    r"(?:(?:password|SASL|SCRAM|PAM|LDAP|RADIUS|GSSAPI|SSPI|OAuth bearer|Ident|Peer|certificate) )?"
    r"authentication failed|no password supplied|no pg_hba.conf entry|pg_hba.conf rejects connection"
    r"|role \".*\" does not exist|not permitted to log in|no such user"
    r"|database \".*\" does not exist|no such database|permission denied for database"
)
_MISTAKES = re.compile(
    r"invalid \w+ value|invalid port number|invalid integer value"
    r"|root certificate file|could not read root certificate file|private key file"
)
_TROUBLES = re.compile(
    r"Connection refused|timeout expired|could not translate host name|Connection timed out|starting up"
    r"|shutting down|in recovery mode|too many clients|too many connections|remaining connection slots"
    r"|No route to host|certificate verify failed|does not match host name|does not support SSL"
    r"|server closed the connection|Name or service not known"
)


def connect(
    dsn: str, *, timeout_s: float | None = None, application: str = "event-processor"
) -> psycopg.Connection[Any]:
    """Open a connection in autocommit mode. With `timeout_s`, prepare it for saving.

    Raises StoreUnavailable if a retry may help, and StoreFault if the server refuses the login or hides rows
    from the role.
    """
    connection = _open(dsn, application)
    if timeout_s is None:
        return connection
    try:
        # Not by `options` in the DSN, which connection pools refuse. The deadline is for a server that
        # accepts the login and then does not answer.
        with Deadline(_CONNECT_TIMEOUT_S).over(connection):
            connection.execute(queries("save")["prepare_session"], {"timeout_ms": str(int(timeout_s * 1000))})
            require_all_rows(connection)
    except StoreFault:
        connection.close()
        raise
    except psycopg.Error as error:
        what = remedy(error, connection_broken=connection.broken)
        connection.close()
        if what in (Remedy.FAULT, Remedy.REJECT):
            raise StoreFault(f"the database refuses to prepare a session: {name_of(error)}") from None
        raise StoreUnavailable(f"the database let us in and answers no more: {name_of(error)}") from None
    return connection


def require_all_rows(connection: psycopg.Connection[Any]) -> None:
    """Raise StoreFault if row-level security hides rows from this role.

    A writer that can't see an outcome would store the delivery again, and a count would be too low. The
    server reports no error for either.
    """
    hidden = hidden_relations(connection)
    if hidden:
        raise StoreFault(
            f"row-level security hides rows of {', '.join(hidden)} from the role of DATABASE_URL, so it "
            "would not see what is stored; take it out of processor_tenant_reader, or put back the policies "
            "(as the owner: SELECT put_up_tenant_walls())"
        )


def hidden_relations(connection: psycopg.Connection[Any]) -> list[str]:
    """Return the names of our tables of which this role sees only a part of the rows."""
    rows = connection.execute(queries("session")["hidden_relations"], prepare=False).fetchall()
    return [relation for (relation,) in rows]


def _open(dsn: str, application: str) -> psycopg.Connection[Any]:
    # libpq sends PGTZ when it connects. It overrides the time zone of the server, database and role, so that
    # printed times and days are UTC.
    os.environ["PGTZ"] = "UTC"
    try:
        given = conninfo_to_dict(dsn)
        keepalive: dict[str, Any] = {name: value for name, value in _KEEPALIVE.items() if name not in given}
        return psycopg.connect(
            dsn,
            autocommit=True,
            application_name=application,
            connect_timeout=_CONNECT_TIMEOUT_S,
            **keepalive,
        )
    except psycopg.ProgrammingError:
        raise StoreFault(
            "DATABASE_URL can't be read; expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        ) from None
    except psycopg.Error as error:
        refusal = _REFUSALS.search(str(error))
        if refusal:
            words = re.sub(r'".*"', "named in DATABASE_URL", refusal[0])
            raise StoreFault(f"the database refuses us: {words}; check DATABASE_URL") from None
        mistake = _MISTAKES.search(str(error))
        if mistake:
            raise StoreFault(
                f"DATABASE_URL can't be used: {mistake[0]} (libpq); correct what it names"
            ) from None
        trouble = _TROUBLES.search(str(error))
        # An unknown text, such as a refusal in another language: retried like an outage, with other words.
        words = trouble[0] if trouble else "for a cause not known; check DATABASE_URL and the server's log"
        raise StoreUnavailable(f"the database can't be reached: {words}") from None


@contextmanager
def while_server_answers(connection: psycopg.Connection[Any], dsn: str) -> Iterator[None]:
    """Close the connection if its server accepts no new connections while the block runs.

    For commands whose statements may take an hour, so that no deadline fits. A busy server still answers a
    connection attempt, even with a refusal; a frozen server does not.
    """
    ended, cutting, fileno = threading.Event(), threading.Lock(), connection.fileno()

    def watch() -> None:
        missed = 0
        while not ended.wait(_PULSE_EVERY_S):
            missed = 0 if _answers(dsn) else missed + 1
            if missed >= _PULSES_MISSED_MAX:
                # Under the lock, since the descriptor may otherwise be closed and reused.
                with cutting:
                    if not ended.is_set():
                        _cut(fileno)
                return

    threading.Thread(target=watch, name="pulse", daemon=True).start()
    try:
        yield
    finally:
        with cutting:
            ended.set()


def _answers(dsn: str) -> bool:
    try:
        psycopg.connect(dsn, connect_timeout=_CONNECT_TIMEOUT_S).close()
    except psycopg.errors.ConnectionTimeout:
        return False
    except psycopg.Error:
        # A refusal is an answer.
        return True
    return True


class Deadline:
    """Closes a connection whose work takes longer than `limit_s`, or when `stop` is set.

    A frozen server, or a network that drops packets, sends no error and applies no statement_timeout, so the
    client must end the wait. The work then fails with a broken connection.
    """

    def __init__(self, limit_s: float, *, stop: threading.Event | None = None) -> None:
        self._limit_s = limit_s
        self._stop = stop or threading.Event()
        self._watched: tuple[float, int] | None = None
        self._changed = threading.Lock()
        self._watching = False

    @contextmanager
    def over(self, connection: psycopg.Connection[Any]) -> Iterator[None]:
        """Watch the connection while the block runs."""
        with self._changed:
            self._watched = (time.monotonic() + self._limit_s, connection.fileno())
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="deadline", daemon=True).start()
        try:
            yield
        finally:
            with self._changed:
                self._watched = None

    def _watch(self) -> None:
        while True:
            stopped = self._stop.wait(min(1.0, self._limit_s / 4))
            with self._changed:
                if self._watched is None:
                    # The thread ends when idle, so that connections leave no threads behind.
                    self._watching = False
                    return
                if stopped or time.monotonic() > self._watched[0]:
                    _cut(self._watched[1])
                    self._watched = None


def _cut(fileno: int) -> None:
    # A copy of the descriptor, so that closing it here does not close libpq's own.
    with suppress(OSError), socket.socket(fileno=os.dup(fileno)) as copy:
        copy.shutdown(socket.SHUT_RDWR)
