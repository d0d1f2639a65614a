"""The front of the gRPC door: it takes connections, counts them, and hands their bytes on to gRPC's own socket.

client ─▶ [a place; until a key is shown: a meter] ─▶ socket in a directory of ours ─▶ gRPC

gRPC itself shows no connection to anybody: there the first who came keep all places, and what has no key costs as
much as what has one. Here places are shared by tenant, before a key is shown by address; the longest silent goes
first; and frames of those who have shown no key come at a pace.
"""

import asyncio
import os
import socket
import tempfile
from collections import OrderedDict
from collections.abc import Hashable
from itertools import count
from pathlib import Path

from processor.errors import SettingsError
from producers.gateway.shares import Shares, holder_of

FILES_PER_CONNECTION = 3

FRAMES_PER_S, FRAMES_AT_ONCE = 100, 200
"""Frames of HTTP/2 that come from one address without a key; some six make a call."""

_BYTES_PER_FRAME = 4096
"""A frame counts once more for each so many bytes."""

_PREFACE_BYTES, _HEAD_BYTES = 24, 9
_BACKLOG = 4096


class Front:
    """Takes connections on HOST:PORT; `connections_max` at once. All on one event loop.

    Who calls is `pipe_of` what gRPC names as the peer of a call.
    """

    def __init__(self, host: str, port: int, connections_max: int, silent_s: float) -> None:
        self._listener = _listen(host, port)
        self.port: int = self._listener.getsockname()[1]
        self._folder = tempfile.TemporaryDirectory(prefix="gateway-grpc-", ignore_cleanup_errors=True)
        self._numbers = count()
        self._pipes: dict[str, Pipe] = {}
        self._meters: dict[Hashable, Meter] = {}
        self._server: asyncio.Server | None = None
        self.silent_s = silent_s
        self.places = Places(connections_max)

    @property
    def behind(self) -> str:
        """Where gRPC is to listen."""
        return f"{self._folder.name}/door"

    async def start(self) -> None:
        """Begin to take connections."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Pipe(self), sock=self._listener, backlog=_BACKLOG)

    def stop(self) -> None:
        """Take no further connection; those that are here stay."""
        if self._server is not None:
            self._server.close()

    def close(self) -> None:
        """End whatever is left."""
        self._listener.close()
        for pipe in list(self._pipes.values()):
            pipe.shut()
        self._folder.cleanup()

    def pipe_of(self, peer: str) -> "Pipe | None":
        """Give the connection of a call; None: it is gone."""
        return self._pipes.get(peer.rpartition("/")[2])

    def meter_of(self, holder: Hashable) -> "Meter":
        """Give the meter of an address; who has been quiet for long has a new one."""
        meter = self._meters.get(holder)
        if meter is None:
            if len(self._meters) > 2 * self.places.total:
                now = asyncio.get_running_loop().time()
                self._meters = {one: meter for one, meter in self._meters.items() if not meter.full(now)}
            meter = self._meters[holder] = Meter(asyncio.get_running_loop().time())
        return meter

    def reach(self, pipe: "Pipe") -> socket.socket:
        """Connect to gRPC, under a name by which it will name the peer."""
        pipe.name = str(next(self._numbers))
        name = f"{self._folder.name}/{pipe.name}"
        inside = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            inside.setblocking(False)
            inside.bind(name)
            os.unlink(name)  # noqa: PTH108 - the quicker one, for each connection
            inside.connect(self.behind)
        except OSError:
            inside.close()
            raise
        self._pipes[pipe.name] = pipe
        return inside

    def forget(self, pipe: "Pipe") -> None:
        """Let go of a connection that has ended."""
        self._pipes.pop(pipe.name, None)
        self.places.leave(pipe)


class Places:
    """The places of connections: those of tenants, and of addresses that have shown no key, from one store."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._shares = Shares(total)
        # Of each holder the longest silent first. Addresses are evicted before tenants.
        self._strangers: dict[Hashable, OrderedDict[Pipe, None]] = {}
        self._known: dict[Hashable, OrderedDict[Pipe, None]] = {}

    @property
    def taken(self) -> int:
        """Say how many there are."""
        return self._shares.taken

    def enter(self, pipe: "Pipe") -> bool:
        """Give a newcomer a place, if need be that of the longest silent of who has most; False: there is none."""
        while not self._shares.take(("address", pipe.address)):
            if not self._evict():
                return False
        pipe.holder = ("address", pipe.address)
        self._strangers.setdefault(pipe.holder, OrderedDict())[pipe] = None
        return True

    def know(self, pipe: "Pipe", tenant: Hashable) -> bool:
        """Let it be the tenant's from now on; False: the tenant has its share, and it stays with its address."""
        holder = ("tenant", tenant)
        if pipe.holder == holder:
            return True
        if not self._shares.take(holder):
            return False
        self.leave(pipe)
        pipe.holder = holder
        self._known.setdefault(holder, OrderedDict())[pipe] = None
        return True

    def heard(self, pipe: "Pipe") -> None:
        """Note that it is not silent."""
        of = self._strangers if pipe.is_stranger else self._known
        of[pipe.holder].move_to_end(pipe)

    def leave(self, pipe: "Pipe") -> None:
        """Give its place back."""
        if pipe.holder is None:
            return
        of = self._strangers if pipe.is_stranger else self._known
        del of[pipe.holder][pipe]
        if not of[pipe.holder]:
            del of[pipe.holder]
        self._shares.give_back(pipe.holder)
        pipe.holder = None

    def _evict(self) -> bool:
        for of in (self._strangers, self._known):
            if of:
                most = max(of.values(), key=len)
                silent = next((pipe for pipe in most if not pipe.calls), None)
                if silent is not None:
                    silent.shut()
                    return True
        return False


class Meter:
    """How many frames may come from one address without a key."""

    def __init__(self, now: float) -> None:
        self._left, self._at = float(FRAMES_AT_ONCE), now

    def full(self, now: float) -> bool:
        """Say whether it is as a new one."""
        return self._left + (now - self._at) * FRAMES_PER_S >= FRAMES_AT_ONCE

    def pay(self, frames: float, now: float) -> float:
        """Take so much, and say for how many seconds nothing more may come."""
        self._left = min(FRAMES_AT_ONCE, self._left + (now - self._at) * FRAMES_PER_S) - frames
        self._at = now
        return max(0.0, -self._left / FRAMES_PER_S)

    def give_back(self, frames: float) -> None:
        """Give back what one has paid that has shown a key since."""
        self._left += frames


class Pipe(asyncio.Protocol):
    """One connection from outside; the one behind it is an `_Inside`."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._paid = 0.0
        self._wait: asyncio.TimerHandle | None = None
        self._outside: asyncio.Transport | None = None
        self._reaching: asyncio.Task[None] | None = None
        self._early = bytearray()
        self._full = False
        self.inside: asyncio.Transport | None = None
        self.address: Hashable = None
        self.holder: Hashable = None
        self.name = ""
        self.calls = 0
        """Calls with a key that are under way."""

    @property
    def is_stranger(self) -> bool:
        """Whether it has shown no key."""
        return isinstance(self.holder, tuple) and self.holder[0] == "address"

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as it is called
        """Take a place, or end."""
        self._outside = transport
        peer = transport.get_extra_info("peername")
        self.address = holder_of(peer[0] if peer else "")
        if not self._front.places.enter(self):
            transport.abort()
            return
        # Who connects and says nothing costs gRPC nothing.
        self._wait = self._loop.call_later(self._front.silent_s, self.shut)

    def data_received(self, data: bytes) -> None:
        """Hand on what came; of a stranger not faster than its address may."""
        if self.holder is None:
            return
        self._front.places.heard(self)
        if self.is_stranger:
            self._meter(data)
        if self.inside is not None:
            self.inside.write(data)
            return
        self._early += data
        if self._reaching is None:
            self._reaching = self._loop.create_task(self._reach(), name="reach gRPC")

    def _meter(self, data: bytes) -> None:
        frames = self._frames.of(data) + len(data) / _BYTES_PER_FRAME
        self._paid += frames
        pause_s = self._front.meter_of(self.address).pay(frames, self._loop.time())
        if self._wait is not None:
            self._wait.cancel()
            self._wait = None
        if pause_s:
            self._wait = self._loop.call_later(pause_s, self._resume)
        self._flow()

    def known(self, tenant: Hashable) -> None:
        """Note that it has shown a key of this tenant: no meter from here on, and what it paid comes back."""
        if self.is_stranger and self._front.places.know(self, tenant):
            self._front.meter_of(self.address).give_back(self._paid)
            self._resume()

    def _resume(self) -> None:
        if self._wait is not None:
            self._wait.cancel()
            self._wait = None
        self._flow()

    def full(self, full: bool) -> None:
        """Read no further while gRPC takes no more."""
        self._full = full
        self._flow()

    def _flow(self) -> None:
        if self._outside is None or self._outside.is_closing():
            return
        if self._full or self._wait is not None or (self._early and self.inside is None):
            self._outside.pause_reading()
        else:
            self._outside.resume_reading()

    async def _reach(self) -> None:
        try:
            inside = self._front.reach(self)
            await self._loop.create_unix_connection(lambda: _Inside(self), sock=inside)
        except OSError:
            self.shut()

    def reached(self, inside: asyncio.Transport) -> None:
        """Hand on what came before gRPC was there."""
        if self.holder is None:
            inside.abort()
            return
        self.inside = inside
        inside.write(bytes(self._early))
        self._early.clear()
        self._flow()

    def write(self, data: bytes) -> None:
        """Hand out what gRPC says."""
        if self._outside is not None:
            self._outside.write(data)

    def pause_writing(self) -> None:
        """Let gRPC wait for a client that does not read."""
        if self.inside is not None:
            self.inside.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        if self.inside is not None:
            self.inside.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whichever way
        """End inside what ended outside."""
        self._outside = None
        self.shut()

    def shut(self) -> None:
        """End it at once."""
        if self._wait is not None:
            self._wait.cancel()
            self._wait = None
        self._front.forget(self)
        for transport in (self.inside, self._outside):
            if transport is not None:
                transport.abort()

    def end(self) -> None:
        """End it as gRPC ended it: what it said last goes out."""
        self.inside = None
        if self._outside is not None:
            self._outside.close()


class _Inside(asyncio.Protocol):
    """The connection to gRPC."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self.data_received = pipe.write  # type: ignore[method-assign]  # one call less for each piece

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as it is called
        self._pipe.reached(transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whichever way
        self._pipe.end()

    def pause_writing(self) -> None:
        self._pipe.full(full=True)

    def resume_writing(self) -> None:
        self._pipe.full(full=False)


class Frames:
    """Counts the frames of HTTP/2 in what comes, however it is cut."""

    def __init__(self) -> None:
        # How many bytes until the next head of a frame, and what has come of one.
        self._skip, self._head = _PREFACE_BYTES, b""

    def of(self, data: bytes) -> int:
        """Count the frames that begin in this."""
        found, place = 0, 0
        if self._head:
            data = self._head + data
            self._head = b""
        while True:
            place += self._skip
            if place > len(data):
                self._skip = place - len(data)
                return found
            self._skip = 0
            if place + _HEAD_BYTES > len(data):
                self._head = data[place:]
                return found
            found += 1
            place += _HEAD_BYTES
            self._skip = int.from_bytes(data[place - _HEAD_BYTES : place - _HEAD_BYTES + 3])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    except (OSError, UnicodeError) as error:
        words = getattr(error, "strerror", None) or "no such address"
        raise SettingsError(
            f"GATEWAY_GRPC_PORT: {host}:{port} can't be listened on ({words}); set GATEWAY_HOST to an address "
            "of this machine and GATEWAY_GRPC_PORT to a free port, or to 0 for any"
        ) from None
