"""Bad HTTP and slow clients: how long and how large a request may be, before there is anything to answer.

uvicorn bounds neither the time nor the size of a head, says what it refuses in plain text, and gives a client
that has sent all it had to say no answer. This adds that to its protocol, with one timer at the most for each
connection, which a request that comes in one piece never starts.
"""

import asyncio
from asyncio.events import TimerHandle
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from producers.gateway.http import Limits
from producers.gateway.http.problems import Problem, problem
from producers.gateway.http.reading import CUT, LATE

HEAD_BYTES_MAX = 64 * 1024
PIPELINED_MAX = 256
"""Requests of one connection that wait for those before them."""

_FRAMING = 16
"""What chunks and their extensions may add to a body: sixteen times its limit."""


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol over httptools, with bounds. `limits` belongs to a subclass: see `guarded`."""

    limits: Limits

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(*arguments, **named)
        self._deadline: TimerHandle | None = None
        self._in_head = False
        self._whole = True
        self._ended = False
        self._bytes = 0
        self._bytes_max = HEAD_BYTES_MAX + _FRAMING * self.limits.body_bytes_max

    # ── what the connection does ──────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Take the connection, or say that there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections_max:
            detail = "too many connections are open; come again, or send on one that is open"
            self._end_with(problem("over_quota", detail, retry_after_s=1))
            self.transport.close()
        else:
            # An empty connection has as long as a slow head.
            self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._disarm()
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
        super().data_received(data)
        if self._in_head and self._bytes > HEAD_BYTES_MAX:
            self._end_with(problem("head_too_large", f"the head has more than {HEAD_BYTES_MAX} bytes"))
        elif self._bytes > self._bytes_max or len(self.pipeline) > PIPELINED_MAX:
            self.transport.abort()
        elif self._whole and self.cycle is not None and not self.cycle.response_complete:
            # All is there; how long the answer may take is for the intake to say.
            self._disarm()
        else:
            self._arm()

    def eof_received(self) -> bool | None:  # type: ignore[override]  # uvicorn's gives None
        """Stay for the answer to whoever has said all; go where nothing was asked."""
        cycle = self.cycle
        if self._ended or cycle is None or cycle.response_complete or self._in_head:
            return None
        # Whoever has said all may still listen: stay for the answer.
        cycle.keep_alive = False
        if not self._whole:
            self._give_up_on_body(CUT)
        return True

    def pause_writing(self) -> None:
        """Give the client a bounded time to read."""
        # A client that reads nothing would keep its request's place for ever.
        self._arm()
        super().pause_writing()

    # ── what the parser finds ─────────────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        """Begin to count."""
        # Not counted is what came in one piece with a request's first byte, 256 KiB at the most.
        self._in_head, self._whole, self._bytes = True, False, 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header of the head."""
        # After the head these are trailers, which say nothing here, and must not change what the head said.
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request."""
        self._in_head = False
        super().on_headers_complete()
        if self.expect_100_continue:
            # Refused before its body was asked for, the client may send it or not: nobody could tell.
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Note that all of the request is there."""
        self._whole = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next, or end in time."""
        super().on_response_complete()
        if self.transport.is_closing():
            # What it wrote last is to be read, or not, within a bound.
            self._arm()

    # ── answers of uvicorn's own ──────────────────────────────────────────────────────────────────────

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - as uvicorn has it
        """Say as a problem that this is no HTTP."""
        self._end_with(problem("malformed", "the request is no HTTP/1.1 that can be read"))

    def _end_with(self, found: Problem) -> None:
        """Say this, and no more. Who is still sending could lose it if the connection ended at once."""
        if self._ended or self.transport.is_closing():
            return
        self._ended = True
        self._disarm()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            # The request before keeps its answer, which then is the last; or it is this one's body that ends.
            cycle.keep_alive = False
            if not self._whole and not self._in_head:
                self._give_up_on_body(CUT)
            return
        status, headers, body = found.as_response()
        reason = {400: b"Bad Request", 408: b"Request Timeout", 429: b"Too Many Requests"}.get(
            status, b"Refused"
        )
        lines = [b"HTTP/1.1 %d %s" % (status, reason), *(b"%s: %s" % header for header in headers)]
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
        cycle = self.cycle
        if self._ended or self.transport.is_closing() or self.flow.write_paused:
            self.transport.abort()
        elif self._in_head:
            self._end_with(
                problem("timeout", f"the head was not there within {self.limits.read_timeout_s:g} s")
            )
        elif cycle is not None and not cycle.response_complete and not self._whole:
            self._give_up_on_body(LATE)
            self._arm()
        elif cycle is None or cycle.response_complete:
            # Never said anything, or answered already and still sending.
            self.transport.abort()

    def _give_up_on_body(self, why: str) -> None:
        """Let the application see the end of a body that does not end, and why."""
        cycle = self.cycle
        cycle.scope["state"][why] = True
        cycle.keep_alive = False
        cycle.more_body = False
        cycle.message_event.set()


def guarded(limits: Limits) -> type[GuardedProtocol]:
    """Give the protocol class with these limits: uvicorn makes an instance for each connection by itself."""
    return type("Guarded", (GuardedProtocol,), {"limits": limits})
