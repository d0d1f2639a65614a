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
"""A minute until a host that is gone, or a network that swallows packets, breaks a connection (libpq)."""

_PULSE_EVERY_S = 15.0
_PULSES_MISSED_MAX = 2

# libpq gives no SQLSTATE for a failed connection, only text, which names host, user and database.
# We repeat none of it but these.
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
    """Open a connection in autocommit mode; with `timeout_s` one prepared for saving.

    Raises StoreUnavailable where trying again may help, StoreFault where the server refuses who we are, or
    would hide rows from a saver.
    """
    connection = _open(dsn, application)
    if timeout_s is None:
        return connection
    try:
        # Not by `options` in the DSN, which poolers refuse. A server that lets us in and then says nothing
        # ends here all the same.
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
    """Raise StoreFault where row-level security hides rows from this role.

    Who can't see that a delivery has an outcome stores it again, and who counts rows counts too few; neither
    gets an error from the server.
    """
    hidden = hidden_relations(connection)
    if hidden:
        raise StoreFault(
            f"row-level security hides rows of {', '.join(hidden)} from the role of DATABASE_URL, so it "
            "would not see what is stored; take it out of processor_tenant_reader, or put back the policies "
            "(as the owner: SELECT put_up_tenant_walls())"
        )


def hidden_relations(connection: psycopg.Connection[Any]) -> list[str]:
    """Name those of our tables of which this role sees a part alone."""
    rows = connection.execute(queries("session")["hidden_relations"], prepare=False).fetchall()
    return [relation for (relation,) in rows]


def _open(dsn: str, application: str) -> psycopg.Connection[Any]:
    # libpq sends it as it connects, and it goes before the zone of a server, database or role: moments that
    # are printed or cut into days are UTC.
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
        # A refusal in another language, say: it is waited for as an outage is, and must not look like one.
        words = trouble[0] if trouble else "for a cause not known; check DATABASE_URL and the server's log"
        raise StoreUnavailable(f"the database can't be reached: {words}") from None


@contextmanager
def while_server_answers(connection: psycopg.Connection[Any], dsn: str) -> Iterator[None]:
    """Cut the connection if its server lets nobody in any more while the block runs.

    For commands whose statements may rightly take an hour, so that no deadline fits: a server that is only
    busy still answers who knocks, if with a refusal, and one that is frozen does not.
    """
    ended, cutting, fileno = threading.Event(), threading.Lock(), connection.fileno()

    def watch() -> None:
        missed = 0
        while not ended.wait(_PULSE_EVERY_S):
            missed = 0 if _answers(dsn) else missed + 1
            if missed >= _PULSES_MISSED_MAX:
                # Under the lock, lest the descriptor be closed and another's by now.
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
        # Somebody said no.
        return True
    return True


class Deadline:
    """Cuts a connection that has been at one piece of work for longer than `limit_s`, or when `stop` is set.

    A server that is frozen, or a network that swallows packets, sends no error and obeys no
    statement_timeout: the wait must end on our side. The work then fails with a broken connection.
    """

    def __init__(self, limit_s: float, *, stop: threading.Event | None = None) -> None:
        self._limit_s = limit_s
        self._stop = stop or threading.Event()
        self._watched: tuple[float, int] | None = None
        self._changed = threading.Lock()
        self._watching = False

    @contextmanager
    def over(self, connection: psycopg.Connection[Any]) -> Iterator[None]:
        """Watch the connection for as long as the block runs."""
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
                    # Nothing to watch: the thread ends, lest one be left over by each connection.
                    self._watching = False
                    return
                if stopped or time.monotonic() > self._watched[0]:
                    _cut(self._watched[1])
                    self._watched = None


def _cut(fileno: int) -> None:
    # A copy of the descriptor, so that closing it here does not close libpq's own.
    with suppress(OSError), socket.socket(fileno=os.dup(fileno)) as copy:
        copy.shutdown(socket.SHUT_RDWR)
