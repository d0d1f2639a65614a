"""POST requests on the event loop, over persistent connections.

A thread for each call would cost more than the call: two thread switches.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import cast

from processor.brokers.http_client import (
    AnswerReader,
    HttpResponse,
    HttpTimeout,
    HttpTrouble,
    HttpUnreachable,
    address_of,
    post_request,
)


class AsyncEndpoint:
    """One server, given by the scheme, host and port of `url`. Used on one event loop.

    `ca_file` has the certificate authorities for an https server.
    """

    def __init__(self, url: str, *, connect_timeout_s: float, read_timeout_s: float, ca_file: str) -> None:
        self.url = url
        self._address, self._tls = address_of(url, ca_file)
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._idle: deque[_PostConnection] = deque()

    async def post(self, headers: Sequence[tuple[str, str]], body: bytes) -> HttpResponse:
        """Send one request to `/` and wait for its answer. Raises HttpTimeout, HttpTrouble."""
        connection = await self._connection()
        # In use until the whole answer is there. Then it is reused, if the server keeps it open.
        answer = await connection.ask(post_request(headers, body), self._read_timeout_s)
        if connection.usable:
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()

    async def _connection(self) -> "_PostConnection":
        while self._idle:
            # The connection used last is the most likely to be still open.
            connection = self._idle.pop()
            if connection.usable:
                return connection
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await loop.create_connection(_PostConnection, *self._address, ssl=self._tls)
        except (OSError, TimeoutError) as error:
            raise HttpUnreachable(f"no connection to the server: {type(error).__name__}") from error
        return connection


class _PostConnection(asyncio.Protocol):
    """One connection, and the answer that it waits for."""

    def __init__(self) -> None:
        self.usable = False
        self._transport: asyncio.WriteTransport | None = None
        self._reading: AnswerReader | None = None
        self._answer: asyncio.Future[HttpResponse] | None = None
        self._loop = asyncio.get_running_loop()

    async def ask(self, request: bytes, timeout_s: float) -> HttpResponse:
        assert self._transport is not None  # noqa: S101 - it is connected
        self.usable = False
        self._reading = AnswerReader()
        self._answer = self._loop.create_future()
        timer = self._loop.call_later(timeout_s, self._fail, HttpTimeout(f"no answer within {timeout_s:g} s"))
        try:
            self._transport.write(request)
            return await self._answer
        finally:
            timer.cancel()

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    # ── as asyncio calls it ───────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self.usable = True

    def data_received(self, data: bytes) -> None:
        if self._reading is None:
            # Data without a request: the connection can't be trusted any more.
            self.close()
            return
        try:
            self._reading.feed(data)
        except HttpTrouble as error:
            self._fail(HttpTrouble(f"the answer can't be read: {type(error).__name__}"))
            return
        found, keep = self._reading.answer, self._reading.keep
        if found is None:
            return
        self._reading = None
        if self._answer is not None and not self._answer.done():
            self.usable = keep
            self._answer.set_result(found)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(HttpTrouble(f"the connection was lost: {type(exc).__name__ if exc else 'closed'}"))

    def _fail(self, trouble: HttpTrouble) -> None:
        self.close()
        self._reading = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(trouble)
