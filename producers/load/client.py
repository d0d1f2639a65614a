"""One persistent connection that posts pulses at minimal cost; llhttp parses the responses.

    ask(head, body) ─▶ socket ─▶ … ─▶ Asker.answered(connection, Reply) │ Asker.lost(connection, why)

A load generator that costs more than the server would measure itself. This client needs a twentieth of the
CPU time of a general one for each request.
"""

import asyncio
import re
import ssl
from dataclasses import dataclass
from typing import Protocol, cast
from urllib.parse import SplitResult, urlsplit

from processor.brokers.http_client import AnswerReader, HttpTrouble
from processor.errors import SettingsError
from processor.wire.bounds import wait_s_of
from producers.publishers import WAIT_S_MAX

REPLY_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """A response. `wait_s` is its Retry-After."""

    status: int
    body: bytes
    wait_s: float


class Asker(Protocol):
    """The user of a connection. One of its methods is called once for each request."""

    def answered(self, connection: "Connection", reply: Reply) -> None:
        """Handle the reply; the connection is free again, unless it is `closed`."""

    def lost(self, connection: "Connection", why: str) -> None:
        """Handle a lost connection; a pending request gets no reply."""


@dataclass(frozen=True, slots=True)
class Target:
    """The server and route for pulses: `head` is each request's head up to the id."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    name: str
    head: bytes

    @classmethod
    def of(cls, url: str, path: str, key: str | None) -> "Target":
        """Parse a URL such as http://HOST:PORT; `path` is the route. Raises SettingsError."""
        parts = _parts(url)
        default = 443 if parts.scheme == "https" else 80
        full = parts.path.rstrip("/") + path
        if not re.fullmatch(r"/[!-~]*", full):
            raise SettingsError("invalid --path: expected ASCII that begins with /, such as /ingest")
        lines = [
            f"POST {full} HTTP/1.1",
            f"Host: {parts.netloc}",
            "Content-Type: application/json",
            *([] if key is None else [f"Authorization: Bearer {key}"]),
            "Idempotency-Key: ",
        ]
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        name = f"{parts.scheme}://{parts.netloc}{full}"
        return cls(str(parts.hostname), parts.port or default, tls, name, "\r\n".join(lines).encode())

    async def connect(self, asker: Asker) -> "Connection":
        """Open a connection. Raises OSError."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: Connection(asker, self.head), self.host, self.port, ssl=self.tls
        )
        return connection


class Connection(asyncio.Protocol):
    """One connection with one request at a time. `closed`: it can't be used again."""

    def __init__(self, asker: Asker, head: bytes) -> None:
        self.closed = False
        self.asking = False
        self._asker = asker
        self._head = head
        self._reader = AnswerReader(REPLY_BYTES_MAX)
        self._transport: asyncio.Transport

    def ask(self, message_id: str, body: bytes) -> None:
        """Send a request with this idempotency key and body."""
        self.asking = True
        self._transport.write(
            b"%s%s\r\nContent-Length: %d\r\n\r\n%s" % (self._head, message_id.encode(), len(body), body)
        )

    def abort(self, why: str) -> None:
        """Abandon the pending request and close the connection."""
        self._end(why)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (called by asyncio)."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse received data (called by asyncio)."""
        try:
            self._reader.feed(data)
        except HttpTrouble:
            self._end("no HTTP")
            return
        answer, keep = self._reader.answer, self._reader.keep
        if answer is None:
            return
        self._reader = AnswerReader(REPLY_BYTES_MAX)
        if self.closed or not self.asking:
            # A response without a request: later responses could not be matched to requests.
            self._end("unexpected response")
        elif len(answer.body) > REPLY_BYTES_MAX:
            self._end("reply too large")
        else:
            self.asking = False
            if not keep:
                self._close()
            wait_s = wait_s_of(answer.headers.get("retry-after"), WAIT_S_MAX) or 0.0
            self._asker.answered(self, Reply(answer.status, answer.body, wait_s))

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the lost connection (called by asyncio)."""
        self._end(type(exc).__name__ if exc else "connection closed")

    def _end(self, why: str) -> None:
        if not self.closed:
            self._close()
            self._asker.lost(self, why)

    def _close(self) -> None:
        self.closed = True
        self._transport.abort()


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        parts, fits = urlsplit(""), False
    if not fits or parts.query or parts.fragment or "@" in parts.netloc or not url.isascii():
        raise SettingsError("invalid --url: expected http://HOST:PORT or https://HOST, and nothing more")
    return parts
