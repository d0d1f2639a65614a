"""Connections to PostgreSQL: which failures are outages and which are refusals, and how silence is ended."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from processor.database import connection as module
from processor.database.connection import Deadline, connect
from processor.errors import StoreFault, StoreUnavailable
from processor.settings import Settings
from processor.wiring import database
from tests.fixtures.check import url_as
from tests.rig import wait_until

Db = psycopg.Connection[Any]
SECRETS = ("hunter", "my role", "secretdb", "127.0.0.1")


class Proxy:
    """Stands between us and the server, and can fall silent without closing anything."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "", parts.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = urlunsplit(
            parts._replace(netloc=f"{parts.username}@127.0.0.1:{self._listener.getsockname()[1]}")
        )
        self.silent_after_login = False
        self.silent = threading.Event()
        self._sockets: list[socket.socket] = []
        _in_background(self._accept)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                if not self.silent.is_set():
                    server = socket.create_connection(self._server)
                    self._sockets.append(server)
                    _in_background(partial(self._pump, client, server))
                    _in_background(partial(self._pump, server, client))

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                # The first message after the login begins with P: parse.
                if self.silent_after_login and data[:1] == b"P":
                    self.silent.set()
                if self.silent.is_set():
                    return
                target.sendall(data)

    def close(self) -> None:
        for each in [self._listener, *self._sockets]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def _in_background(work: Callable[[], object]) -> None:
    threading.Thread(target=work, daemon=True).start()


@pytest.fixture
def proxy(database_url: str) -> Iterator[Proxy]:
    with closing(Proxy(database_url)) as proxy:
        yield proxy


# ── refusals and outages ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def refusing(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    """Gives the URL of a server that says one thing to whoever knocks."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(text: str) -> str:
        fields = b"SFATAL\0VFATAL\0C28000\0M" + text.encode() + b"\0\0"

        def answer() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client:
                        client.recv(1000)
                        client.sendall(b"E" + struct.pack("!i", len(fields) + 4) + fields)

        _in_background(answer)
        port = listener.getsockname()[1]
        return f"postgresql://my%20role:hunter2@127.0.0.1:{port}/secretdb?sslmode=disable&gssencmode=disable"

    yield serve
    with suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('password authentication failed for user "my role"', "password authentication failed;"),
        ("SASL authentication failed", "SASL authentication failed;"),
        ('PAM authentication failed for user "my role"', "PAM authentication failed;"),
        ("authentication failed", "authentication failed;"),
        ('role "my role" does not exist', "role named in DATABASE_URL does not exist;"),
        ('role "my role"hunter" does not exist', "role named in DATABASE_URL does not exist;"),
        ('role "my role" is not permitted to log in', "not permitted to log in;"),
        ("no such user: my role", "no such user;"),
        ('database "secretdb" does not exist', "database named in DATABASE_URL does not exist;"),
        ('pg_hba.conf rejects connection for host "127.0.0.1"', "pg_hba.conf rejects connection;"),
    ],
)
def test_who_is_refused_is_told_so_and_does_not_wait(
    refusing: Callable[[str], str], text: str, words: str
) -> None:
    with pytest.raises(StoreFault, match=words) as caught:
        connect(refusing(text))

    assert not [secret for secret in SECRETS if secret in str(caught.value)]


@pytest.mark.parametrize(
    "text",
    ["Passwort-Authentifizierung für Benutzer »my role« fehlgeschlagen", "something else of hunter2"],
)
def test_what_is_not_understood_points_to_the_url_and_the_log(
    refusing: Callable[[str], str], text: str
) -> None:
    with pytest.raises(StoreUnavailable, match="check DATABASE_URL and the server's log") as caught:
        connect(refusing(text))

    assert not [secret for secret in SECRETS if secret in str(caught.value)]


def test_a_role_that_may_not_log_in_is_refused(db: Db, database_url: str) -> None:
    db.execute('CREATE ROLE "not for you" NOLOGIN')
    try:
        with pytest.raises(StoreFault, match="not permitted to log in"):
            connect(url_as(database_url, "not%20for%20you"))
    finally:
        db.execute('DROP ROLE "not for you"')


def test_a_session_that_may_not_be_prepared_is_no_unreadable_url(db: Db, database_url: str) -> None:
    db.execute("CREATE SCHEMA shadow")
    db.execute(
        "CREATE FUNCTION shadow.set_config(text, text, boolean) RETURNS text LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE insufficient_privilege; END $$"
    )
    db.execute(f"ALTER DATABASE {db.info.dbname} SET search_path = shadow, pg_catalog, public")

    with pytest.raises(StoreFault, match="refuses to prepare a session: 42501"):
        connect(database_url, timeout_s=5)


# ── silence ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CONNECT_TIMEOUT_S", 2)
    monkeypatch.setattr(module, "_PULSE_EVERY_S", 0.1)


def _fails_within(seconds: float, work: Callable[[], object]) -> StoreUnavailable:
    """The outage that the work ended with, in a thread that a failed test leaves behind."""
    failures: list[StoreUnavailable] = []

    def attempt() -> None:
        try:
            work()
        except StoreUnavailable as error:
            failures.append(error)

    runner = threading.Thread(target=attempt, daemon=True)
    runner.start()
    runner.join(seconds)
    assert failures, f"no failure in {seconds} s"
    return failures[0]


@pytest.mark.usefixtures("_in_a_hurry")
def test_a_server_that_is_silent_after_the_login_is_an_outage(proxy: Proxy) -> None:
    proxy.silent_after_login = True

    error = _fails_within(10, lambda: connect(proxy.url, timeout_s=1))

    assert "answers no more" in str(error)


@pytest.mark.usefixtures("_in_a_hurry")
def test_a_command_does_not_wait_for_a_server_that_has_fallen_silent(proxy: Proxy) -> None:
    def ask() -> None:
        with database(Settings.load(database_url=proxy.url)) as connection:
            proxy.silent.set()
            connection.execute("SELECT 1")

    error = _fails_within(15, ask)

    assert "went away" in str(error)


@pytest.mark.usefixtures("_in_a_hurry")
def test_a_command_that_takes_long_is_left_in_peace_while_its_server_answers(database_url: str) -> None:
    with database(Settings.load(database_url=database_url)) as connection:
        row = connection.execute("SELECT pg_sleep(1.5), 1 AS answer").fetchone()

    assert row is not None
    assert row[1] == 1


def test_a_stop_cuts_what_is_watched(database_url: str) -> None:
    stop = threading.Event()
    # Neither the deadline nor the server ends it while anybody waits for this test.
    with connect(database_url) as connection, Deadline(3600, stop=stop).over(connection):
        threading.Timer(0.2, stop.set).start()

        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT pg_sleep(3600)")


def test_a_deadline_leaves_no_thread_behind_and_serves_again(database_url: str) -> None:
    def watching() -> bool:
        return any(thread.name == "deadline" for thread in threading.enumerate())

    deadline = Deadline(0.4)
    with connect(database_url) as connection, deadline.over(connection):
        assert watching()
    wait_until(lambda: not watching(), "its thread has ended")

    connection = connect(database_url)
    with pytest.raises(psycopg.OperationalError), deadline.over(connection):
        connection.execute("SELECT pg_sleep(20)")
    connection.close()
