"""Accepts the connections of the gRPC gateway, and forwards their bytes to gRPC's own socket.

client ─▶ [a place; without a key: a rate limit] ─▶ Unix socket in a private directory ─▶ gRPC

gRPC gives no access to its connections. By itself it lets the first clients keep all places, and does not
limit the calls of clients without a key.
"""

import asyncio
import os
import socket
import tempfile
from collections.abc import Hashable
from contextlib import suppress
from itertools import count

from processor.errors import SettingsError
from producers.gateway.grpc.places import (
    FIRST_FRAMES,
    FRAMES_IN_TURN,
    FRAMES_OF_ALL_PER_S,
    Budget,
    FrameMeter,
    Frames,
    Places,
    Stage,
)
from producers.gateway.shares import Shares, holder_of

FILES_PER_CONNECTION = 3

EARLY_BYTES_MAX = 64 * 1024 * 1024
"""Bytes in memory of all connections that wait for their turn."""

_EARLY_OF_ONE = 64 * 1024
"""Bytes of one connection that are read ahead. Reading goes on until then, so that a disconnect is seen."""

_FRAMES_PER_CONNECTION = 3
"""The cost of a new connection, in frames."""

_BYTES_PER_FRAME = 4096
"""So many bytes cost as much as one more frame."""

_BACKLOG = 4096


class Front:
    """Accepts connections on HOST:PORT, at most `connections_max` at once. Used on one event loop.

    `pipe_of` finds the connection of a call by the peer that gRPC names.
    """

    def __init__(self, host: str, port: int, connections_max: int, silent_s: float) -> None:
        self._listener = _listen(host, port)
        self.port: int = self._listener.getsockname()[1]
        self._folder = _folder()
        self._numbers = count()
        self._pipes: dict[str, Pipe] = {}
        self._open: set[Pipe] = set()
        self._meters: dict[Hashable, FrameMeter] = {}
        self._server: asyncio.Server | None = None
        self.silent_s = silent_s
        self.early = Shares(EARLY_BYTES_MAX)
        self.places = Places(connections_max)

    @property
    def behind(self) -> str:
        """The path of the Unix socket on which gRPC listens."""
        return f"{self._folder.name}/grpc"

    async def start(self) -> None:
        """Start accepting connections."""
        loop = asyncio.get_running_loop()
        self._of_all = Budget(FRAMES_OF_ALL_PER_S, FRAMES_OF_ALL_PER_S, loop.time)
        self._server = await loop.create_server(lambda: Pipe(self), sock=self._listener, backlog=_BACKLOG)

    def stop(self) -> None:
        """Accept no further connection; open connections stay."""
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """Close all connections and remove the directory."""
        self._listener.close()
        while self._open:
            for pipe in self._open:
                pipe.shut()
            # Each connection's `connection_lost` runs in the next rounds of the loop.
            await asyncio.sleep(0)
        self._folder.cleanup()

    def pipe_of(self, peer: str) -> "Pipe | None":
        """Return the connection of a call; None: it is closed."""
        return self._pipes.get(peer.rpartition("/")[2])

    def meter_of(self, holder: Hashable) -> "FrameMeter":
        """Return the rate limit of an address; a new one after a long idle time."""
        meter = self._meters.get(holder)
        if meter is None:
            loop = asyncio.get_running_loop()
            if len(self._meters) > 2 * self.places.total:
                self._meters = {one: meter for one, meter in self._meters.items() if not meter.idle}
            meter = self._meters[holder] = FrameMeter(loop, self._of_all)
        return meter

    def reach(self, pipe: "Pipe") -> socket.socket:
        """Connect to gRPC from a socket whose name gRPC will report as the peer."""
        pipe.name = str(next(self._numbers))
        name = f"{self._folder.name}/{pipe.name}"
        inside = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            inside.setblocking(False)  # noqa: FBT003 - Python's own
            inside.bind(name)
            os.unlink(name)  # noqa: PTH108 - faster than pathlib, and called for each connection
            inside.connect(self.behind)
        except OSError:
            inside.close()
            raise
        self._pipes[pipe.name] = pipe
        return inside

    def opened(self, pipe: "Pipe") -> None:
        """Register a connection."""
        self._open.add(pipe)

    def ended(self, pipe: "Pipe") -> None:
        """Unregister a closed connection."""
        self._open.discard(pipe)

    def forget(self, pipe: "Pipe") -> None:
        """Release the name and the place of a connection."""
        self._pipes.pop(pipe.name, None)
        self.places.leave(pipe)


class Pipe(asyncio.Protocol):
    """One connection of a client; the matching connection to gRPC is an `_Inside`."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._paid = 0.0
        self._silent: asyncio.TimerHandle | None = None
        self._outside: asyncio.Transport | None = None
        self._reaching: asyncio.Task[None] | None = None
        self._full = False
        self._early = bytearray()
        self._first = FIRST_FRAMES
        self.inside: asyncio.Transport | None = None
        self.address: Hashable = None
        self.holder: Hashable = None
        self.is_stranger = True
        """Whether it has shown no valid key yet."""
        self.name = ""
        self.calls = 0
        """Calls with a key that are in progress."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as it is called
        """Take a place, or close the connection."""
        self._outside = transport
        self._front.opened(self)
        peer = transport.get_extra_info("peername")
        self.address = holder_of(peer[0] if peer else "")
        if self._front.places.enter(self):
            # A silent connection is not forwarded to gRPC, and is closed after a timeout.
            self._silent = self._loop.call_later(self._front.silent_s, self.shut)
        else:
            # Not directly: uvloop is still setting the connection up.
            self._loop.call_soon(transport.abort)

    def data_received(self, data: bytes) -> None:
        """Forward data; without a key only when the rate limit of the address allows it."""
        if self.holder is None:
            return
        self._front.places.heard(self)
        if not self.is_stranger and self.inside is not None and not self._early:
            self.inside.write(data)
            return
        if self._silent is not None:
            self._silent.cancel()
            self._silent = None
        if not self._front.early.take(self.address, len(data)):
            self.shut()
            return
        self._early += data
        self._ask()

    def _ask(self) -> None:
        if self._early and self.is_stranger:
            if self._reaching is None:
                self._front.meter_of(self.address).ask(self, Stage.NEW)
            elif self.inside is not None:
                stage = Stage.IN if self._first else Stage.SUSPECT
                self._front.meter_of(self.address).ask(self, stage)
        self._flow()

    def turn(self) -> float:
        """Forward some frames, and return their cost."""
        frames, size_bytes = self._frames.some(self._early, self._first or FRAMES_IN_TURN)
        self._first = max(0, self._first - frames)
        cost = frames + size_bytes / _BYTES_PER_FRAME
        if self.inside is None:
            cost += _FRAMES_PER_CONNECTION
            self._reaching = self._loop.create_task(self._reach(self._out_of_early(size_bytes)))
        else:
            self.inside.write(self._out_of_early(size_bytes))
        self._paid += cost
        self._ask()
        return cost

    def _out_of_early(self, size_bytes: int) -> bytes:
        data = bytes(self._early[:size_bytes])
        del self._early[:size_bytes]
        if data:
            self._front.early.give_back(self.address, len(data))
        return data

    def known(self, tenant: Hashable) -> None:
        """Note a valid key of this tenant: the rate limit no longer applies, and its tokens are returned."""
        if not self.is_stranger or self.holder is None or not self._front.places.know(self, tenant):
            return
        if self.inside is not None and self._early:
            self.inside.write(self._out_of_early(len(self._early)))
        self._flow()
        meter = self._front.meter_of(self.address)
        meter.leave(self)
        meter.give_back(self._paid)

    def full(self, *, full: bool) -> None:
        """Pause reading while gRPC's buffer is full."""
        self._full = full
        self._flow()

    def _flow(self) -> None:
        if self._outside is None or self._outside.is_closing():
            return
        if self._full or len(self._early) > _EARLY_OF_ONE:
            self._outside.pause_reading()
        else:
            self._outside.resume_reading()

    async def _reach(self, first: bytes) -> None:
        if self.holder is None:
            return
        try:
            inside, _ = await self._loop.create_unix_connection(
                lambda: _Inside(self), sock=self._front.reach(self)
            )
        except OSError:
            self.shut()
            return
        if self.holder is None:
            # The client has disconnected meanwhile.
            inside.abort()
            return
        self.inside = inside
        inside.write(first)
        self._ask()

    def write(self, data: bytes) -> None:
        """Send gRPC's data to the client."""
        if self._outside is not None:
            self._outside.write(data)

    def pause_writing(self) -> None:
        """Pause gRPC while the client does not read."""
        if self.inside is not None:
            self.inside.pause_reading()

    def resume_writing(self) -> None:
        """Resume gRPC."""
        if self.inside is not None:
            self.inside.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - any cause
        """Close the connection to gRPC as well."""
        self._outside = None
        self.shut()
        self._front.ended(self)

    def shut(self) -> None:
        """Close both connections at once."""
        if self._silent is not None:
            self._silent.cancel()
            self._silent = None
        self._front.forget(self)
        self._front.meter_of(self.address).leave(self)
        self._out_of_early(len(self._early))
        for transport in (self.inside, self._outside):
            if transport is not None:
                transport.abort()

    def end(self) -> None:
        """Close the client's connection after gRPC closed its own, once pending data is sent."""
        self.inside = None
        if self._outside is not None:
            self._outside.close()


class _Inside(asyncio.Protocol):
    """The connection to gRPC."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self.data_received = pipe.write  # type: ignore[method-assign]  # saves one call for each piece

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - any cause
        self._pipe.end()

    def pause_writing(self) -> None:
        self._pipe.full(full=True)

    def resume_writing(self) -> None:
        self._pipe.full(full=False)


def _folder() -> "tempfile.TemporaryDirectory[str]":
    """Make a directory of mode 0700."""
    # /dev/shm is writable even in a container with a read-only file system.
    for place in (None, "/dev/shm"):  # noqa: S108 - a fresh directory of mode 0700 in it
        with suppress(OSError):
            return tempfile.TemporaryDirectory(prefix="gateway-grpc-", dir=place, ignore_cleanup_errors=True)
    raise SettingsError(
        "TMPDIR: no directory that can be written to; expected one for a socket of the gateway's"
    )


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    except (OSError, UnicodeError) as error:
        words = getattr(error, "strerror", None) or "no such address"
        raise SettingsError(
            f"GATEWAY_GRPC_PORT: {host}:{port} cannot listen ({words}); set GATEWAY_HOST to an "
            "address of this machine and GATEWAY_GRPC_PORT to a free port, or to 0 for any"
        ) from None
