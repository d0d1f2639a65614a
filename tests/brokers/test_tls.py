"""TLS for real: who proves its name is believed, and nobody else is told anything."""

import contextlib
import os
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import trustme

from processor.database.connection import connect
from processor.errors import SourceUnavailable, StoreFault, StoreUnavailable
from processor.runtime.outages import OutageRetry
from processor.settings import Settings
from processor.sources.sqs.source import SqsSource
from processor.wiring import make_schemas, make_store
from tests.builders import a_delivery
from tests.scripted_server import ScriptedServer, an_answer

SSL_REQUEST = 80877103
Front = Callable[[ssl.SSLContext | None], int]


def _serve(client: socket.socket, tls: ssl.SSLContext | None, upstream: tuple[str, int]) -> None:
    with contextlib.suppress(OSError), client:
        while struct.unpack("!ii", client.recv(8, socket.MSG_WAITALL))[1] != SSL_REQUEST:
            # GSS encryption is asked for first by some builds.
            client.sendall(b"N")
        if tls is None:
            client.sendall(b"N")
            return
        client.sendall(b"S")
        with (
            tls.wrap_socket(client, server_side=True) as inside,
            socket.create_connection(upstream) as server,
        ):
            while True:
                ready = [inside] if inside.pending() else select.select([inside, server], [], [])[0]
                for one in ready:
                    data = one.recv(65536)
                    if not data:
                        return
                    (server if one is inside else inside).sendall(data)


@pytest.fixture
def front(database_url: str) -> Iterator[Front]:
    """Makes servers that speak TLS with such a certificate, or none, before the real PostgreSQL."""
    parts = urlsplit(database_url)
    upstream = (parts.hostname or "", parts.port or 0)
    with contextlib.ExitStack() as closing:

        def make(tls: ssl.SSLContext | None) -> int:
            listener = closing.enter_context(socket.create_server(("127.0.0.1", 0)))

            def accept() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        client, _ = listener.accept()
                        threading.Thread(target=_serve, args=(client, tls, upstream), daemon=True).start()

            threading.Thread(target=accept, daemon=True).start()
            return int(listener.getsockname()[1])

        yield make


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> str:
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


def _server_of(ca: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(context)
    return context


def _verified(database_url: str, port: int, ca_file: str) -> str:
    parts = urlsplit(database_url)
    return (
        f"postgresql://{parts.username}:sesame@localhost:{port}{parts.path}"
        f"?sslmode=verify-full&sslrootcert={ca_file}&hostaddr=127.0.0.1"
    )


def test_a_database_that_proves_its_name_is_saved_to(
    front: Front, ca: trustme.CA, ca_file: str, database_url: str, db: psycopg.Connection[Any]
) -> None:
    url = _verified(database_url, front(_server_of(ca, "localhost")), ca_file)
    settings = Settings.load(_env_file=None, database_url=url)
    schemas = make_schemas(settings)
    store = make_store(settings, schemas, OutageRetry("database", wait_s_max=1, stop=threading.Event()))
    store.load_registry()

    store.save([schemas.validate(a_delivery())])
    with connect(url) as connection:
        assert connection.pgconn.ssl_in_use
    store.close()

    assert db.execute("SELECT count(*) FROM message").fetchone() == (1,)


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("another authority", "certificate verify failed"),
        ("another name", "does not match host name"),
        ("no TLS", "does not support SSL"),
    ],
)
def test_whoever_does_not_prove_to_be_the_database_is_refused_in_words(
    front: Front, ca: trustme.CA, ca_file: str, database_url: str, trouble: str, words: str
) -> None:
    tls = {
        "another authority": _server_of(trustme.CA(), "localhost"),
        "another name": _server_of(ca, "database.example.com"),
        "no TLS": None,
    }[trouble]
    url = _verified(database_url, front(tls), ca_file)

    with pytest.raises(StoreUnavailable) as caught:
        connect(url)

    assert words in str(caught.value)
    assert "sesame" not in str(caught.value)
    assert "localhost" not in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ("sslmode=sesame", "invalid sslmode value"),
        ("port=sesame", "invalid integer value"),
        ("sslmode=verify-full&sslrootcert=/nowhere/sesame", "root certificate file"),
    ],
)
def test_what_can_never_work_is_no_outage(front: Front, ca: trustme.CA, parameters: str, words: str) -> None:
    port = front(_server_of(ca, "localhost"))

    with pytest.raises(StoreFault) as caught:
        connect(f"postgresql://localhost/x?hostaddr=127.0.0.1&port={port}&{parameters}")

    assert words in str(caught.value)
    assert "sesame" not in str(caught.value)


# ── SQS ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("known", [True, False])
def test_an_authority_of_ones_own_vouches_for_sqs_where_it_is_named(
    ca: trustme.CA, ca_file: str, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_") or name.endswith("CA_BUNDLE")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    if known:
        monkeypatch.setenv("AWS_CA_BUNDLE", ca_file)
    with ScriptedServer(an_answer({"Messages": []}), tls=_server_of(ca, "127.0.0.1")) as server:
        source = SqsSource.open(
            Settings.load(
                _env_file=None,
                sqs_queue_url=f"{server.url}/1/events",
                aws_region="us-east-1",
                aws_access_key_id="id",
                aws_secret_access_key="secret",
            )
        )

        if known:
            assert list(source.receive(1, 0)) == []
        else:
            with pytest.raises(SourceUnavailable, match="SSL"):
                source.receive(1, 0)

        assert bool(server.requests) == known
