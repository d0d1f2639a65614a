"""Post over HTTP/1.1 with persistent connections, llhttp as the parser, and a limit on every wait.

    HttpEndpoint.post ─▶ socket ─▶ AnswerReader ─▶ HttpResponse │ HttpTrouble

There are no redirects, proxies, cookies or compression, which our calls don't need. An answer counts only if
its end is known: by a length, chunks or, with `until_close`, the end of the connection.
"""

import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httptools

ANSWER_BYTES_MAX = 128 * 1024 * 1024
"""The default size limit of an answer. Ten bodies of 1 MiB stay below it, even with every byte escaped."""

HEAD_BYTES_MAX = 256 * 1024
_RECV_SIZE = 64 * 1024
_FINAL = 200
"""Answers with a lower status are interim; the final answer follows."""

_ENDS = ("content-length", "transfer-encoding")


class HttpTrouble(Exception):
    """No connection to the server, or no complete answer."""


class HttpUnreachable(HttpTrouble):
    """No connection to the server."""


class HttpTimeout(HttpTrouble):
    """The server accepted the connection and did not answer in time."""


class HttpMalformed(HttpTrouble):
    """The answer is not HTTP."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An answer. Header names are in lower case, and the last value of each counts."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict, compare=False)


class HttpEndpoint:
    """One server, given by scheme, host and port of `url`. Thread-safe.

    `ca_file` is the CA bundle for https (None: the system's). `total_timeout_s` limits a whole call; without
    it only each wait for bytes is limited.
    """

    def __init__(
        self,
        url: str,
        *,
        connect_timeout_s: float,
        read_timeout_s: float,
        ca_file: str | None = None,
        total_timeout_s: float | None = None,
    ) -> None:
        self._idle: deque[socket.socket] = deque()
        self.url = url
        self._address, self._tls = address_of(url, ca_file)
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._total_timeout_s = total_timeout_s

    def post(
        self,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        *,
        path: str = "/",
        bytes_max: int = ANSWER_BYTES_MAX,
        until_close: bool = False,
    ) -> HttpResponse:
        """Send one request and wait for its answer. Raises HttpTimeout, HttpTrouble."""
        request = post_request(headers, body, path)
        until_s = None if self._total_timeout_s is None else time.monotonic() + self._total_timeout_s
        # The connection is reused after a complete answer, if the server allows it.
        connection = self._connection()
        reader = AnswerReader(bytes_max, until_close=until_close)
        try:
            _limit(connection, until_s)
            connection.sendall(request)
            while reader.answer is None:
                _limit(connection, until_s)
                reader.feed(connection.recv(_RECV_SIZE))
        except TimeoutError:
            waited_s = self._total_timeout_s or self._read_timeout_s
            raise HttpTimeout(f"no whole answer within {waited_s:g} s") from None
        except OSError as error:
            raise HttpTrouble(f"the connection failed: {type(error).__name__}") from error
        finally:
            if reader.keep:
                self._idle.append(connection)
            else:
                connection.close()
        return reader.answer

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()

    def __del__(self) -> None:
        # Like boto3's client, an endpoint need not be closed explicitly.
        self.close()

    def _connection(self) -> socket.socket:
        while True:
            try:
                # The connection used last is most likely still open.
                connection = self._idle.pop()
            except IndexError:
                return self._connect()
            if not _readable(connection):
                return connection
            # A readable connection before a request means that the server has closed it.
            connection.close()

    def _connect(self) -> socket.socket:
        try:
            connection = socket.create_connection(self._address, self._connect_timeout_s)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_hostname=self._address[0])
        except (OSError, UnicodeError) as error:
            raise HttpUnreachable(f"no connection to the server: {type(error).__name__}") from error
        connection.settimeout(self._read_timeout_s)
        return connection


class AnswerReader:
    """Parses one answer with llhttp, which calls the `on_` methods by name.

    A body longer than `bytes_max` is cut at some point after that, and no more is read.
    """

    def __init__(self, bytes_max: int = ANSWER_BYTES_MAX, *, until_close: bool = False) -> None:
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._bytes_max = bytes_max
        self._until_close = until_close
        self._headers: dict[str, str] = {}
        self._pieces: list[bytes] = []
        self._head_bytes = self._size_bytes = 0
        self._in_body = False
        self._status = 0
        self.answer: HttpResponse | None = None
        self.keep = False

    def feed(self, piece: bytes) -> None:
        """Parse a piece; `answer` is set when it is complete. Raises HttpTrouble if it never can be."""
        if not piece and self._until_close and self._in_body and not self._headers.keys() & {*_ENDS}:
            self._complete()
            return
        if not piece:
            raise HttpTrouble("the server closed the connection before its answer was whole")
        assert self._parser is not None  # noqa: S101 - it is let go of with the answer
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            # The library does not raise it as an HttpParserError.
            raise HttpMalformed("the server changes to another protocol, which nobody asked for") from None
        except httptools.HttpParserError as error:
            self.keep = False
            raise HttpMalformed(f"the answer is not HTTP: {type(error).__name__}") from error
        if self._in_body and self.answer is None and self._size_bytes > self._bytes_max:
            self._complete()
        elif not self._in_body:
            self._head_bytes += len(piece)
            if self._head_bytes > HEAD_BYTES_MAX:
                raise HttpMalformed(f"the head of the answer has more than {HEAD_BYTES_MAX} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Record the status; the body follows."""
        assert self._parser is not None  # noqa: S101 - likewise
        self._in_body, self._status = True, self._parser.get_status_code()

    def on_body(self, piece: bytes) -> None:
        """Store a piece of the body."""
        self._pieces.append(piece)
        self._size_bytes += len(piece)

    def on_message_complete(self) -> None:
        """Complete the answer, unless it is interim."""
        assert self._parser is not None  # noqa: S101 - likewise
        if self._status < _FINAL:
            self._headers, self._in_body = {}, False
            return
        # llhttp knows this only here; later it has reset itself for the next answer.
        self.keep = self._parser.should_keep_alive()
        self._complete()

    def _complete(self) -> None:
        self.answer = HttpResponse(self._status, b"".join(self._pieces), self._headers)
        # Breaks the reference cycle, so that megabytes don't wait for the garbage collector.
        self._parser = None
        self._pieces.clear()


def address_of(url: str, ca_file: str | None) -> tuple[tuple[str, int], ssl.SSLContext | None]:
    """Return host and port of a URL, and for https the SSL context."""
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    address = parts.hostname or "", parts.port or (443 if is_tls else 80)
    return address, ssl.create_default_context(cafile=ca_file) if is_tls else None


def host_of(url: str) -> str:
    """Return the value of the Host header, with the port if it is not the scheme's default."""
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    return host if parts.port in (None, default) else f"{host}:{parts.port}"


def post_request(headers: Sequence[tuple[str, str]], body: bytes, path: str = "/") -> bytes:
    """Return the bytes of a request."""
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"POST {path} HTTP/1.1\r\n{head}content-length: {len(body)}\r\n\r\n".encode("latin-1") + body


def _limit(connection: socket.socket, until_s: float | None) -> None:
    if until_s is not None:
        # Not 0, which would make the socket non-blocking.
        connection.settimeout(max(0.001, until_s - time.monotonic()))


def _readable(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
