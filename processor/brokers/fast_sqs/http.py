"""POST over connections that are kept open: a socket, llhttp for the answer, and a bound on every wait.

It does what the hot calls need and no more: no redirects, no proxies, no cookies, no compression.
"""

import select
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import httptools

ANSWER_BYTES_MAX = 128 * 1024 * 1024
"""Ten bodies of 1 MiB, each byte escaped as JSON can at its worst, stay well below."""

_RECV_SIZE = 64 * 1024


class HttpTrouble(Exception):
    """The server could not be asked, or gave no whole answer."""


class HttpTimeout(HttpTrouble):
    """The server let us in and then did not answer in time."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What came back: the status and the body."""

    status: int
    body: bytes


class HttpEndpoint:
    """One server, by the scheme, host and port of `url`. Safe to share between threads.

    `ca_file` is the file of authorities by whom an https server is known.
    """

    def __init__(self, url: str, *, connect_timeout_s: float, read_timeout_s: float, ca_file: str) -> None:
        self._idle: deque[socket.socket] = deque()
        self.url = url
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s

    def post(self, headers: Sequence[tuple[str, str]], body: bytes) -> HttpResponse:
        """Send one request to `/` and wait for its answer. Raises HttpTimeout, HttpTrouble."""
        request = post_request(headers, body)
        # Nobody else's until its answer is whole; then it may be used again, if the server lets it.
        connection = self._connection()
        keep = False
        try:
            connection.sendall(request)
            answer, keep = _read_answer(connection)
        except TimeoutError:
            raise HttpTimeout(f"no answer within {self._read_timeout_s:.0f} s") from None
        except (OSError, httptools.HttpParserError) as error:
            raise HttpTrouble(f"the connection failed: {type(error).__name__}") from error
        finally:
            if keep:
                self._idle.append(connection)
            else:
                connection.close()
        return answer

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()

    def __del__(self) -> None:
        # As with boto3's client, whoever lets go of it need not close it.
        self.close()

    def _connection(self) -> socket.socket:
        while True:
            try:
                # The one used last is the one most likely to be open still.
                connection = self._idle.pop()
            except IndexError:
                return self._connect()
            if not _readable(connection):
                return connection
            # Nothing is to be read before we have asked: the server has closed it.
            connection.close()

    def _connect(self) -> socket.socket:
        try:
            connection = socket.create_connection(self._address, self._connect_timeout_s)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_hostname=self._address[0])
        except OSError as error:
            raise HttpTrouble(f"no connection to the server: {type(error).__name__}") from error
        connection.settimeout(self._read_timeout_s)
        return connection


class ReadingAnswer:
    """One answer, read by llhttp from the pieces that it is fed; it calls the `on_` methods by name."""

    def __init__(self) -> None:
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._size_bytes = 0
        self.answer: HttpResponse | None = None
        self.keep = False

    def feed(self, piece: bytes) -> None:
        """Read on; `answer` is set when it is whole."""
        if not piece:
            raise HttpTrouble("the server closed the connection before its answer was whole")
        assert self._parser is not None  # noqa: S101 - it is let go of with the answer
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            # No HttpParserError to the library.
            raise HttpTrouble("the server changes to another protocol, which nobody asked for") from None
        if self._size_bytes > ANSWER_BYTES_MAX:
            raise HttpTrouble(f"an answer of more than {ANSWER_BYTES_MAX} bytes")

    def on_body(self, piece: bytes) -> None:
        """Keep a piece of the body."""
        self._pieces.append(piece)
        self._size_bytes += len(piece)

    def on_message_complete(self) -> None:
        """Put the answer together."""
        assert self._parser is not None  # noqa: S101 - likewise
        self.answer = HttpResponse(self._parser.get_status_code(), b"".join(self._pieces))
        # Only here does llhttp know; afterwards it is ready for the next answer, and says no.
        self.keep = self._parser.should_keep_alive()
        # The two hold each other, and megabytes would wait for the garbage collector.
        self._parser = None
        self._pieces.clear()


def post_request(headers: Sequence[tuple[str, str]], body: bytes) -> bytes:
    """Write a request as it goes over the wire."""
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"POST / HTTP/1.1\r\n{head}content-length: {len(body)}\r\n\r\n".encode("latin-1") + body


def _read_answer(connection: socket.socket) -> tuple[HttpResponse, bool]:
    """Read one answer whole; says, too, whether the connection can be used again."""
    reading = ReadingAnswer()
    while reading.answer is None:
        reading.feed(connection.recv(_RECV_SIZE))
    return reading.answer, reading.keep


def _readable(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
