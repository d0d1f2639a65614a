"""One kept connection that posts pulses, as cheaply as can be: llhttp reads, and little else is done.

    ask(head, body) ─▶ socket ─▶ … ─▶ Asker.answered(connection, Reply) │ Asker.lost(connection, why)

A load producer that costs more than what it measures measures itself: per request this takes a twentieth of
the CPU time of a general client.
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
    """What was answered. `wait_s` is Retry-After."""

    status: int
    body: bytes
    wait_s: float


class Asker(Protocol):
    """Whoever asks by a connection; told of each request once, how it ended."""

    def answered(self, connection: "Connection", reply: Reply) -> None:
        """Take the reply; the connection is free again, unless it says `closed`."""

    def lost(self, connection: "Connection", why: str) -> None:
        """Hear that a connection is gone, and with it the answer to what was asked, if anything was."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where pulses go: `head` is each request's head up to the id."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    name: str
    head: bytes

    @classmethod
    def of(cls, url: str, path: str, key: str | None) -> "Target":
        """Read a URL such as http://HOST:PORT; `path` is where to post. Raises SettingsError."""
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
    """One connection, one request at a time. `closed`: it can't be used again."""

    def __init__(self, asker: Asker, head: bytes) -> None:
        self.closed = False
        self.asking = False
        self._asker = asker
        self._head = head
        self._reader = AnswerReader(REPLY_BYTES_MAX)
        self._transport: asyncio.Transport

    def ask(self, message_id: str, body: bytes) -> None:
        """Post a body under an id."""
        self.asking = True
        self._transport.write(
            b"%s%s\r\nContent-Length: %d\r\n\r\n%s" % (self._head, message_id.encode(), len(body), body)
        )

    def abort(self, why: str) -> None:
        """Give up what is asked, and the connection with it."""
        self._end(why)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what to write to; asyncio's word that there is a connection."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read on; asyncio's word."""
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
            # Nobody asked for this: what comes next on this connection can't be told apart any more.
            self._end("an answer that nobody asked for")
        elif len(answer.body) > REPLY_BYTES_MAX:
            self._end("reply too large")
        else:
            self.asking = False
            if not keep:
                self._close()
            wait_s = wait_s_of(answer.headers.get("retry-after"), WAIT_S_MAX) or 0.0
            self._asker.answered(self, Reply(answer.status, answer.body, wait_s))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits; asyncio's word."""
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
