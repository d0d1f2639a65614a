"""Answers by HTTP as the standard library reads them, but none of which it can not tell where it ends."""

import http.client
import re
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

_LENGTH = re.compile("[0-9]{1,18}", re.ASCII)


class WholeAnswer(http.client.HTTPResponse):
    """An answer of which is known where it ends: head, length and chunks are what HTTP says."""

    def begin(self) -> None:
        """Read the head. Raises HTTPException if it is not whole, or its lengths can't be read."""
        # It reads as the other does.
        lines: Any = _Lines(self.fp)
        self.fp = lines
        super().begin()
        fp: Any = self.fp
        if fp is lines:
            self.fp = lines.file
        if lines.last not in (b"\r\n", b"\n"):
            raise http.client.IncompleteRead(lines.last)
        lengths = {text.strip(" \t") for text in self.headers.get_all("Content-Length", ())}
        codings = [text.strip(" \t").lower() for text in self.headers.get_all("Transfer-Encoding", ())]
        # The library would read on to the end of the connection, wherever it breaks.
        if len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths)) or codings not in ([], ["chunked"]):
            raise http.client.HTTPException("the length of the answer can't be read")

    def _safe_read(self, amt: int) -> bytes:
        # A chunk may be said to have fewer than no bytes; the library reads all there is then.
        if amt < 0:
            raise http.client.IncompleteRead(b"")
        return super()._safe_read(amt)  # type: ignore[misc,no-any-return]  # of the library


class WholeHTTP(HTTPConnection):
    """A connection whose answers are whole ones."""

    response_class = WholeAnswer


class WholeHTTPS(HTTPSConnection):
    """The same with TLS."""

    response_class = WholeAnswer


def want_whole_answers(pool: urllib3.HTTPConnectionPool) -> None:
    """Let a pool take whole answers alone."""
    pool.ConnectionCls = WholeHTTPS if pool.scheme == "https" else WholeHTTP


def read_whole(response: urllib3.BaseHTTPResponse, bytes_max: int) -> bytes:
    """Read the body, and no more of it than shows that it is too long. As it came: nothing is unpacked.

    Raises urllib3's HTTPError where it breaks off.
    """
    said = b""
    # A read that comes back short is no error; the next one is.
    while len(said) <= bytes_max:
        piece = response.read(min(65536, bytes_max + 1 - len(said)), decode_content=False)
        if not piece:
            break
        said += piece
    return said


class _Lines:
    """A file that remembers the last line that was read from it."""

    def __init__(self, file: Any) -> None:  # noqa: ANN401 - as the library has it
        self.file = file
        self.last = b""

    def readline(self, limit: int = -1) -> bytes:
        self.last = self.file.readline(limit)
        return self.last

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a file has
        return getattr(self.file, name)
