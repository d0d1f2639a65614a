"""Parses HTTP/1.1 by RFC 9112, and rejects ambiguous messages.

    bytes ─▶ Framing.head ─▶ Head
                 ▲             │ how its body ends
                 └─ whole ◀─ Framing.body ─▶ pieces of the body

`Upgrade` is ignored: the server supports HTTP/1.1 only, and RFC 9110 permits a server to ignore the header.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from msgspec import Struct

from producers.gateway.http.problems import Headers, ProblemAnswer

HEAD_BYTES_MAX = 64 * 1024
FIELDS_MAX = 128

_EMPTY_LINES_MAX = 2

_SIZE_LINE_BYTES_MAX = 1024
_CHUNKS_MAX = 1024
_CHUNK_BYTES_MIN = 16
"""The minimum average size of chunks after the first ones: each chunk costs time, however small."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_TEXT = rb"[^\x00-\x08\x0a-\x1f\x7f]*"
_REQUEST_LINE = re.compile(rb"(%b) ([!-~]+) HTTP/(\d\.\d)" % _TOKEN)
_LINE_BEGINNING = re.compile(rb"(?:%b)?(?: [!-~]*(?: [HTP/.\d]*)?)?\r?" % _TOKEN)
_FIELDS = re.compile(rb"(?:%b+:%b+\r\n)*+" % (_TOKEN, _TEXT))
_BROKEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;%b)?\r\n" % _TEXT)

_SIZE_BEGINNING = re.compile(rb"[0-9A-Fa-f]{0,16}(?:[ \t]*(?:;%b)?)\r?" % _TEXT)

_HOST = re.compile(rb"(?:[\w\-.~!$&'()*+,;=%]*|\[[0-9A-Fa-f:.]+\])(?::\d*)?", re.ASCII)
_ABSOLUTE = re.compile(rb"https?://([^/?#:][^/?#]*)([^#]*)", re.IGNORECASE)
_LENGTH = re.compile(rb"\d{1,18}")

_OF_FRAMING = (b"host", b"content-length", b"transfer-encoding", b"connection", b"expect")


class UnreadableRequest(Exception):
    """The data is malformed or ambiguous HTTP/1.1; later data of the connection is ignored."""

    def __init__(self, detail: str, code: str = "malformed", status: int = 400) -> None:
        super().__init__(detail)
        self.problem = ProblemAnswer(code, status, f"malformed HTTP/1.1 request: {detail}")


class Head(Struct, frozen=True, gc=False):
    """A request head. `length` is the length of the body; None: chunked."""

    method: str
    target: bytes
    version: str
    headers: Headers
    length: int | None
    keep_alive: bool
    expects_continue: bool


class Framing:
    """Parses the bytes of one connection: alternately a head, and the parts of its body."""

    def __init__(self) -> None:
        self._rest = b""
        self._searched = self._empty_lines = 0
        self._left: int | None = 0
        self._chunks = _Chunks()

    @property
    def rest_bytes(self) -> int:
        """The number of bytes that are not parsed yet."""
        return len(self._rest)

    def receive(self, data: bytes) -> None:
        """Add received data."""
        self._rest = self._rest + data if self._rest else data

    def head(self) -> Head | None:
        """Return the next head; None: it is incomplete. Raises Unreadable."""
        # RFC 9112 2.2: empty lines before a request are ignored. Only a few, as each costs time.
        while self._rest.startswith(b"\r\n"):
            self._empty_lines += 1
            if self._empty_lines > _EMPTY_LINES_MAX:
                raise UnreadableRequest("too many empty lines before it")
            self._rest = self._rest[2:]
        rest = self._rest
        end = rest.find(b"\r\n\r\n", self._searched)
        if not 0 <= end <= HEAD_BYTES_MAX - 4:
            _require_beginning(rest)
            self._searched = max(0, len(rest) - 3)
            return None
        head = head_of(rest[: end + 2])
        self._rest = rest[end + 4 :]
        self._searched = self._empty_lines = 0
        self._left = head.length
        if self._left is None:
            self._chunks = _Chunks()
        return head

    def body(self) -> tuple[bytes, bool]:
        """Return the received part of the body, and whether the body is complete. Raises Unreadable."""
        rest, left = self._rest, self._left
        if left is None:
            piece, at, is_whole = self._chunks.read(rest)
            self._rest = rest[at:]
            return piece, is_whole
        if len(rest) <= left:
            self._rest, self._left = b"", left - len(rest)
            return rest, self._left == 0
        self._rest, self._left = rest[left:], 0
        return rest[:left], True


def head_of(text: bytes) -> Head:
    """Parse a head; `text` ends with the line end of its last field. Raises Unreadable."""
    line, _, fields = text.partition(b"\r\n")
    method, target, version = _request_line(line)
    if not _FIELDS.fullmatch(fields):
        raise UnreadableRequest("expected lines of a name, a colon and a value, each ended by CR and LF")
    if fields.count(b"\r\n") > FIELDS_MAX:
        raise UnreadableRequest(f"the head has more than {FIELDS_MAX} fields", "head_too_large", 431)
    parts = [field.partition(b":") for field in fields.split(b"\r\n")[:-1]]
    headers = [(name.lower(), value.strip(b" \t")) for name, _, value in parts]
    found = dict(headers)
    if len(found) != len(headers):
        for of_framing in _OF_FRAMING:
            # RFC 9110 5.3: repeated fields are joined to a list. For Host and Content-Length it is rejected.
            if of_framing in found:
                found[of_framing] = b", ".join([value for name, value in headers if name == of_framing])
    is_new = version == "1.1"
    host, connection = found.get(b"host"), found.get(b"connection")
    if is_new if host is None else not _is_host(host):
        raise UnreadableRequest("expected one Host header that names a host")
    return Head(
        method.decode(),
        target if target[:1] == b"/" and b"#" not in target else _path_of(method, target),
        version,
        headers,
        _length(found, is_new=is_new),
        # An HTTP/1.0 client gets its response, and its connection is closed.
        is_new and not (connection and b"close" in _tokens(connection)),
        is_new and b"expect" in found and b"100-continue" in _tokens(found[b"expect"]),
    )


@lru_cache(maxsize=64)
def _is_host(text: bytes) -> bool:
    return _HOST.fullmatch(text) is not None


@lru_cache(maxsize=64)
def _request_line(line: bytes) -> tuple[bytes, bytes, str]:
    matched = _REQUEST_LINE.fullmatch(line)
    if matched is None:
        raise UnreadableRequest(
            "expected a method, a target and HTTP/1.1 in the first line, with one space between"
        )
    method, target, version = matched.groups()
    if version not in (b"1.0", b"1.1"):
        raise UnreadableRequest("its version is neither 1.1 nor 1.0", status=505)
    return method, target, version.decode()


def _path_of(method: bytes, target: bytes) -> bytes:
    """Return path and query of a target in absolute or asterisk form."""
    if target == b"*" and method == b"OPTIONS":
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or method == b"CONNECT" or not _is_host(absolute[1]):
        raise UnreadableRequest("its target is not a path")
    rest = absolute[2]
    return rest if rest.startswith(b"/") else b"/" + rest


def _length(found: Mapping[bytes, bytes], *, is_new: bool) -> int | None:
    """Return the length of the body; None: chunked."""
    length, coding = found.get(b"content-length"), found.get(b"transfer-encoding")
    if coding is None:
        if length is None:
            return 0
        if not _LENGTH.fullmatch(length):
            raise UnreadableRequest("expected one Content-Length, which is a number")
        return int(length)
    if length is not None or not is_new:
        raise UnreadableRequest("Transfer-Encoding together with Content-Length, or in HTTP/1.0")
    *others, last = _tokens(coding)
    if last != b"chunked" or b"chunked" in others:
        raise UnreadableRequest("the Transfer-Encoding does not end with one chunked")
    if others:
        raise UnreadableRequest("a Transfer-Encoding other than chunked is not known here", status=501)
    return None


def _tokens(value: bytes) -> list[bytes]:
    return [token.strip(b" \t").lower() for token in value.split(b",")]


def _require_beginning(rest: bytes) -> None:
    """Raise Unreadable as early as the data can't become a valid head."""
    line, ended, _ = rest.partition(b"\r\n")
    if ended or not _LINE_BEGINNING.fullmatch(line):
        _request_line(line)
    if _BROKEN.search(rest, 0, HEAD_BYTES_MAX):
        raise UnreadableRequest("a byte in its head that can't be there")
    if len(rest) > HEAD_BYTES_MAX:
        detail = f"the head has more than {HEAD_BYTES_MAX} bytes"
        raise UnreadableRequest(detail, "head_too_large", 431)


class _Chunks:
    """A chunked body, and how far it was parsed."""

    __slots__ = ("_bytes", "_count", "_is_last", "_left")

    def __init__(self) -> None:
        # The bytes left in the chunk; None: the next line is a chunk size.
        self._left: int | None = None
        self._is_last = False
        self._count = self._bytes = 0

    def read(self, rest: bytes) -> tuple[bytes, int, bool]:
        """Return the received data, the position after it, and whether the body is complete."""
        pieces: list[bytes] = []
        at = 0
        while True:
            if self._left is None:
                line = _SIZE_LINE.match(rest, at)
                if line is None or line.end() - at > _SIZE_LINE_BYTES_MAX:
                    _require_size_beginning(rest, at)
                    break
                at = line.end()
                self._begin(int(line[1], 16))
            if self._is_last:
                end = _end_of_trailers(rest, at)
                return b"".join(pieces), at if end is None else end, end is not None
            piece = rest[at : at + (self._left or 0)]
            pieces.append(piece)
            at += len(piece)
            self._left = (self._left or 0) - len(piece)
            line_end = rest[at : at + 2]
            if self._left or (line_end != b"\r\n" and b"\r\n".startswith(line_end)):
                break
            if line_end != b"\r\n":
                raise UnreadableRequest("a chunk is longer than its size")
            at, self._left = at + 2, None
        return b"".join(pieces), at, False

    def _begin(self, size: int) -> None:
        self._left, self._is_last = size, size == 0
        self._count += 1
        self._bytes += size
        if self._count > _CHUNKS_MAX + self._bytes // _CHUNK_BYTES_MIN:
            raise UnreadableRequest("its chunks are too small")


def _require_size_beginning(rest: bytes, at: int) -> None:
    if len(rest) - at > _SIZE_LINE_BYTES_MAX or not _SIZE_BEGINNING.fullmatch(rest, at):
        raise UnreadableRequest("expected the size of a chunk")


def _end_of_trailers(rest: bytes, at: int) -> int | None:
    """Return the position after the body; None: incomplete. Trailers are ignored."""
    if rest.startswith(b"\r\n", at):
        return at + 2
    end = rest.find(b"\r\n\r\n", at)
    if len(rest) - at > HEAD_BYTES_MAX and not 0 <= end < at + HEAD_BYTES_MAX:
        raise UnreadableRequest("its trailers are too long")
    if end < 0:
        if _BROKEN.search(rest, at):
            raise UnreadableRequest("a byte in its trailers that can't be there")
        return None
    if not _FIELDS.fullmatch(rest, at, end + 2):
        raise UnreadableRequest("expected trailers that are lines of a name, a colon and a value")
    return end + 4
