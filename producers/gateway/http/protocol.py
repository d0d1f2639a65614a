"""One connection: HTTP taken apart by `framing`, one request after the other, within bounds of time and size.

uvicorn's own protocol leaves reading HTTP to llhttp, which skips the body of whoever asks for an upgrade,
bounds neither the time nor the size of a head, says what it refuses in plain text, and gives no answer to a
client that has sent all it had to say. This has one timer at the most for each connection, which a request
that comes in one piece never starts. A request that comes before the last one was answered waits unread.
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
"""What chunks and their extensions may add to a body: sixteen times its limit."""

_WAKE_BYTES = 4096
"""So much of a body is gathered before its reader hears of it, as each time costs what many bytes do."""

_REASONS = {
    400: b"Bad Request",
    408: b"Request Timeout",
    429: b"Too Many Requests",
    501: b"Not Implemented",
    505: b"HTTP Version Not Supported",
}


class Cycle(RequestResponseCycle):
    """uvicorn's, but for answers that are whole, which go out in one write."""

    _start: Message

    async def send(self, message: Message) -> None:  # type: ignore[override]  # uvicorn's are TypedDicts
        """Send an answer, of which the application gives first the head and then all of the body."""
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
    """uvicorn's protocol with a reader of ours, and bounds, which belong to a subclass: see `guarded`."""

    limits: HttpLimits
    visitors: Visitors
    room: Shares

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(*arguments, **named)
        self.holder: Hashable = None
        self._framing = Framing()
        # Bytes of it that are held in `room`.
        self._held = 0
        self._deadline: TimerHandle | None = None
        # All of the last request was read.
        self._whole = True
        # Nothing more is read for what it says.
        self._ended = False
        self._has_finished = False
        # Somebody wants the body of the request.
        self._is_read = True
        self._gone: asyncio.Future[None] | None = None
        self._bytes = 0
        self._bytes_max = HEAD_BYTES_MAX + _FRAMING * self.limits.body_bytes_max

    # ── what the connection does ──────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Take the connection, or say that there are too many."""
        super().connection_made(transport)
        self.holder = holder_of(self.client[0] if self.client else "")
        if not self.visitors.enter(self):
            detail = "too many open connections; retry later, or reuse an open one"
            self._end_with(problem("over_quota", detail, retry_after_s=1))
            self.transport.close()
        else:
            # An empty connection has as long as a slow head.
            self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._disarm()
        self.visitors.leave(self)
        self._hold(0)
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)
        super().connection_lost(exc)
        # uvicorn forgets its own only on some ways out.
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        """Read on, within the bounds."""
        self._bytes += len(data)
        if self._ended or self.transport.is_closing():
            if self._bytes > self._bytes_max:
                self.transport.abort()
            return
        self._unset_keepalive_if_required()
        self._framing.receive(data)
        self._go_on()

    def eof_received(self) -> bool | None:  # type: ignore[override]  # uvicorn's gives None
        """Stay for the answers to whoever has said all; go where nothing was asked, or no answer is due."""
        if self._ended or not self._is_answering or self._gone is not None:
            return None
        self._has_finished = True
        self._wait()
        return True

    def evict(self) -> None:
        """End, as others need the place more."""
        self.transport.abort()

    async def waits(self, seconds: float) -> None:
        """May be evicted from now on, keeps nothing of the body, and waits so long, or until it is lost."""
        self.visitors.rests(self)
        self._is_read = False
        self.cycle.body.clear()
        if seconds:
            self._gone = self.loop.create_future()
            await asyncio.wait((self._gone,), timeout=seconds)
            self._gone = None

    def pause_writing(self) -> None:
        """Give the client a bounded time to read."""
        # A client that reads nothing would keep its request's place for ever.
        self._arm()
        super().pause_writing()

    def on_response_complete(self) -> None:
        """Go on with the next, or end in time."""
        super().on_response_complete()
        # With it go the head and what is left of the body.
        self.cycle = self.scope = None  # type: ignore[assignment]  # as uvicorn begins
        self.visitors.rests(self)
        if self.transport.is_closing():
            # What it wrote last is to be read, or not, within a bound.
            self._arm()
        elif self._framing.rest_bytes and not self._ended:
            self._unset_keepalive_if_required()
            self._go_on()

    # ── requests ──────────────────────────────────────────────────────────────────────────────────────

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None

    def _go_on(self) -> None:
        """Read what is there, up to the end of one request that has no answer yet."""
        try:
            self._read()
        except UnreadableRequest as error:
            self._end_with(error.problem)
        else:
            self._wait()

    def _wait(self) -> None:
        """Wait for what is missing, in time; end where nothing more can come."""
        if self._bytes > self._bytes_max or not self._hold(self._framing.rest_bytes):
            self.transport.abort()
        elif self._whole and self._is_answering:
            if self._has_finished and not self._framing.rest_bytes:
                self.cycle.keep_alive = False
            # All is there; how long the answer may take is for the intake to say.
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
        # Not counted is what came in one piece with a request's first byte, 256 KiB at the most.
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
            # Refused before its body was asked for, the client may send it or not: nobody could tell.
            keep_alive=head.keep_alive and not head.expects_continue,
            on_response=self.on_response_complete,
        )
        self.visitors.works(self)
        self._start_asgi_task(self.cycle, self.app)

    def _take(self, piece: bytes) -> None:
        cycle = self.cycle
        if cycle is None or not self._is_read:
            # Answered before it was there.
            return
        cycle.body += piece
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.more_body = not self._whole
        if self._whole or len(cycle.body) >= _WAKE_BYTES:
            cycle.message_event.set()

    def _hold(self, size_bytes: int) -> bool:
        """Hold so many bytes that can't be read on yet; False if there is no room for them."""
        more, self._held = size_bytes - self._held, size_bytes
        if more > 0 and not self.room.take(self.holder, more):
            self._held -= more
            return False
        if more < 0:
            self.room.give_back(self.holder, -more)
        return True

    # ── ends ──────────────────────────────────────────────────────────────────────────────────────────

    def _end_with(self, found: ProblemAnswer) -> None:
        """Say this, and no more. Who is still sending could lose it if the connection ended at once."""
        if self._ended or self.transport.is_closing():
            return
        self._ended = True
        self._disarm()
        if self._is_answering:
            # It is the request's body that ends, of which the application tells.
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
            # Never said anything, or answered already and still sending.
            self.transport.abort()

    def _give_up_on_body(self, why: str) -> None:
        """Let the application see the end of a body that does not end, and why."""
        cycle = self.cycle
        cycle.scope["state"][why] = True
        cycle.keep_alive = False
        cycle.more_body = False
        cycle.message_event.set()


def guarded(limits: HttpLimits, room: Shares) -> type[GuardedProtocol]:
    """Give the protocol class with these bounds: uvicorn makes an instance for each connection by itself."""
    bounds = {"limits": limits, "visitors": Visitors(limits.connections_max), "room": room}
    return type("Guarded", (GuardedProtocol,), bounds)
