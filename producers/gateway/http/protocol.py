"""One HTTP connection: `framing` parses its requests, one after the other, within limits of time and size.

uvicorn's own protocol parses with llhttp, which skips the body of an upgrade request, limits neither time nor
size of a head, answers errors in plain text, and does not answer a client that has closed its sending side.
This protocol has at most one timer for each connection; a request that arrives in one piece never starts it.
A pipelined request waits unread until the one before it is answered.
"""

import asyncio
from asyncio.events import TimerHandle
from collections.abc import Hashable
from typing import Any
from urllib.parse import unquote

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from producers.gateway.http import HttpLimits
from producers.gateway.http.framing import HEAD_BYTES_MAX, Framing, Head, UnreadableRequest
from producers.gateway.http.places import CONNECTION, Visitors
from producers.gateway.http.problems import ProblemAnswer, problem
from producers.gateway.http.reading import CUT, LATE, Message
from producers.gateway.shares import Shares, holder_of

_FRAMING = 16
"""The limit for a chunked body with all framing, in multiples of the body limit."""

_WAKE_BYTES = 4096
"""Bytes of a body that are gathered before the reader is woken, as each wake-up costs time."""

_REASONS = {
    400: b"Bad Request",
    408: b"Request Timeout",
    429: b"Too Many Requests",
    501: b"Not Implemented",
    505: b"HTTP Version Not Supported",
}


class Cycle(RequestResponseCycle):
    """uvicorn's cycle, but a complete response is sent in one write."""

    _start: Message

    async def send(self, message: Message) -> None:  # type: ignore[override]  # uvicorn's are TypedDicts
        """Send a response; the application gives first the head, then the whole body."""
        if message["type"] == "http.response.start":
            self.response_started, self._start = True, message
            return
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        parts = [STATUS_LINE[self._start["status"]]]
        for name, value in (*self.default_headers, *self._start["headers"]):
            parts += (name, b": ", value, b"\r\n")
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        parts += (b"\r\n", b"" if self.scope["method"] == "HEAD" else message["body"])
        self.transport.write(b"".join(parts))
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with our parser and limits. A subclass has the limits: see `guarded`."""

    limits: HttpLimits
    visitors: Visitors
    room: Shares

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(*arguments, **named)
        self.holder: Hashable = None
        self._framing = Framing()
        # Unparsed bytes that are counted in `room`.
        self._held = 0
        self._deadline: TimerHandle | None = None
        # The last request was read completely.
        self._whole = True
        # Further data is read and discarded.
        self._ended = False
        self._has_finished = False
        # The application has asked for the body.
        self._is_read = True
        self._gone: asyncio.Future[None] | None = None
        self._bytes = 0
        self._bytes_max = HEAD_BYTES_MAX + _FRAMING * self.limits.body_bytes_max

    # ── what the connection does ──────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Accept the connection, or answer that there are too many."""
        super().connection_made(transport)
        self.holder = holder_of(self.client[0] if self.client else "")
        if not self.visitors.enter(self):
            detail = "too many open connections; retry later, or reuse an open one"
            self._end_with(problem("over_quota", detail, retry_after_s=1))
            self.transport.close()
        else:
            # A silent connection has the same timeout as a slow head.
            self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers, and release the place."""
        self._disarm()
        self.visitors.leave(self)
        self._hold(0)
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)
        super().connection_lost(exc)
        # uvicorn cancels its own timer only in some cases.
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        """Parse received data, within the limits."""
        self._bytes += len(data)
        if self._ended or self.transport.is_closing():
            if self._bytes > self._bytes_max:
                self.transport.abort()
            return
        self._unset_keepalive_if_required()
        self._framing.receive(data)
        self._go_on()

    def eof_received(self) -> bool | None:  # type: ignore[override]  # uvicorn's gives None
        """Keep a half-closed connection until its responses are sent; close it if none is due."""
        if self._ended or not self._is_answering or self._gone is not None:
            return None
        self._has_finished = True
        self._wait()
        return True

    def evict(self) -> None:
        """Close: the place is needed for another holder."""
        self.transport.abort()

    async def waits(self, seconds: float) -> None:
        """Wait so long or until the connection is lost; it may be evicted, and its body is discarded."""
        self.visitors.rests(self)
        self._is_read = False
        self.cycle.body.clear()
        if seconds:
            self._gone = self.loop.create_future()
            await asyncio.wait((self._gone,), timeout=seconds)
            self._gone = None

    def pause_writing(self) -> None:
        """Start the timeout for the client to read."""
        # A client that does not read would keep its request slot for ever.
        self._arm()
        super().pause_writing()

    def on_response_complete(self) -> None:
        """Continue with the next request, or close within the timeout."""
        super().on_response_complete()
        # The rest of the body is dropped with it.
        self.cycle = self.scope = None  # type: ignore[assignment]  # as uvicorn begins
        self.visitors.rests(self)
        if self.transport.is_closing():
            # The client has a bounded time to read the last response.
            self._arm()
        elif self._framing.rest_bytes and not self._ended:
            self._unset_keepalive_if_required()
            self._go_on()

    # ── requests ──────────────────────────────────────────────────────────────────────────────────────

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None

    def _go_on(self) -> None:
        """Parse received data, up to the end of one request without a response."""
        try:
            self._read()
        except UnreadableRequest as error:
            self._end_with(error.problem)
        else:
            self._wait()

    def _wait(self) -> None:
        """Wait for missing data within the timeout; close if the client has closed its sending side."""
        if self._bytes > self._bytes_max or not self._hold(self._framing.rest_bytes):
            self.transport.abort()
        elif self._whole and self._is_answering:
            if self._has_finished and not self._framing.rest_bytes:
                self.cycle.keep_alive = False
            # The request is complete; the intake's timeout applies from here on.
            if not self.flow.write_paused:
                self._disarm()
        elif not self._has_finished:
            self._arm()
        elif self._is_answering:
            self._give_up_on_body(CUT)
        else:
            self.transport.close()

    def _read(self) -> None:
        while True:
            if self._whole:
                if self._is_answering:
                    if self._framing.rest_bytes:
                        self.flow.pause_reading()
                    return
                head = self._framing.head()
                if head is None:
                    return
                self._begin(head)
            piece, self._whole = self._framing.body()
            self._take(piece)
            if not self._whole:
                return

    def _begin(self, head: Head) -> None:
        # Data in one piece with a request's first byte is not counted: at most 256 KiB.
        self._whole, self._is_read, self._bytes = False, True, 0
        path, _, query = head.target.partition(b"?")
        text = path.decode("ascii")
        self.scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": head.version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme or "http",
            "root_path": self.root_path,
            "method": head.method,
            "path": unquote(text) if "%" in text else text,
            "raw_path": path,
            "query_string": query,
            "headers": head.headers,
            "state": self.app_state | {CONNECTION: self},
        }
        self.cycle = Cycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=head.expects_continue,
            # After an early refusal the client may or may not send the body, so the next bytes are ambiguous.
            keep_alive=head.keep_alive and not head.expects_continue,
            on_response=self.on_response_complete,
        )
        self.visitors.works(self)
        self._start_asgi_task(self.cycle, self.app)

    def _take(self, piece: bytes) -> None:
        cycle = self.cycle
        if cycle is None or not self._is_read:
            # The response was sent before the body was complete.
            return
        cycle.body += piece
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.more_body = not self._whole
        if self._whole or len(cycle.body) >= _WAKE_BYTES:
            cycle.message_event.set()

    def _hold(self, size_bytes: int) -> bool:
        """Count so many unparsed bytes in `room`; False if there is no room for them."""
        more, self._held = size_bytes - self._held, size_bytes
        if more > 0 and not self.room.take(self.holder, more):
            self._held -= more
            return False
        if more < 0:
            self.room.give_back(self.holder, -more)
        return True

    # ── ends ──────────────────────────────────────────────────────────────────────────────────────────

    def _end_with(self, found: ProblemAnswer) -> None:
        """Send this last response. The connection lingers, as a client that still sends could lose it."""
        if self._ended or self.transport.is_closing():
            return
        self._ended = True
        self._disarm()
        if self._is_answering:
            # The request is being answered: the application sees the end of its body and responds.
            self._give_up_on_body(CUT)
            return
        if self._whole:
            status, headers, body = found.as_response()
            lines = [
                b"HTTP/1.1 %d %s" % (status, _REASONS.get(status, b"Refused")),
                *(b"%s: %s" % header for header in headers),
            ]
            self.transport.write(b"\r\n".join([*lines, b"connection: close", b"", body]))
        self.transport.write_eof()
        self._arm()

    # ── time ──────────────────────────────────────────────────────────────────────────────────────────

    def _arm(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.limits.read_timeout_s, self._too_late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        if self._ended or self.transport.is_closing() or self.flow.write_paused:
            self.transport.abort()
        elif self._is_answering:
            if not self._whole:
                self._give_up_on_body(LATE)
                self._arm()
        elif self._whole and self._framing.rest_bytes:
            self._end_with(
                problem("timeout", f"the request head did not arrive within {self.limits.read_timeout_s:g} s")
            )
        else:
            # The client never sent anything, or still sends after its response.
            self.transport.abort()

    def _give_up_on_body(self, why: str) -> None:
        """End an incomplete body for the application, with the reason."""
        cycle = self.cycle
        cycle.scope["state"][why] = True
        cycle.keep_alive = False
        cycle.more_body = False
        cycle.message_event.set()


def guarded(limits: HttpLimits, room: Shares) -> type[GuardedProtocol]:
    """Return a protocol class with these limits; uvicorn makes an instance for each connection."""
    bounds = {"limits": limits, "visitors": Visitors(limits.connections_max), "room": room}
    return type("Guarded", (GuardedProtocol,), bounds)
