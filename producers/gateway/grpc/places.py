"""The limits of gRPC connections: places, and without a key a rate of frames per second."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from enum import IntEnum
from typing import TYPE_CHECKING

from producers.gateway.shares import Shares

if TYPE_CHECKING:
    from producers.gateway.grpc.front import Pipe

FIRST_FRAMES, FIRST_FRAMES_PER_S = 20, 3000
"""The first HTTP/2 frames of a connection (a first call has about six), and their rate limit.

The rate and the burst apply to one address without a key.
"""

FRAMES_PER_S, FRAMES_AT_ONCE, FRAMES_IN_TURN = 100, 200, 20
"""The rate of connections that have sent more frames without a key."""

FRAMES_OF_ALL_PER_S = 3000
"""The rate of all addresses together, so that many addresses can't starve clients with a key."""

_EVERY_S = 0.01
"""The period in which waiting connections are checked."""

_PREFACE_BYTES, _HEAD_BYTES = 24, 9


class Places:
    """Places of connections, shared among tenants, and among addresses for connections without a key."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._shares = Shares(total)
        # Each holder's longest idle connection comes first. Addresses are evicted before tenants.
        self._strangers: dict[Hashable, OrderedDict[Pipe, None]] = {}
        self._known: dict[Hashable, OrderedDict[Pipe, None]] = {}

    @property
    def taken(self) -> int:
        """Return the number of connections."""
        return self._shares.taken

    def enter(self, pipe: "Pipe") -> bool:
        """Give a new connection a place; if necessary, evict the longest idle one of the largest holder.

        Connections without a key are evicted first, those with a running call never. False: no place.
        """
        while not self._shares.take(("address", pipe.address)):
            if not self._evict():
                return False
        pipe.holder = ("address", pipe.address)
        self._strangers.setdefault(pipe.holder, OrderedDict())[pipe] = None
        return True

    def know(self, pipe: "Pipe", tenant: Hashable) -> bool:
        """Move its place to the tenant; False: the tenant has its full share."""
        holder = ("tenant", tenant)
        if pipe.holder == holder:
            return True
        if not self._shares.take(holder):
            return False
        self.leave(pipe)
        pipe.holder, pipe.is_stranger = holder, False
        self._known.setdefault(holder, OrderedDict())[pipe] = None
        return True

    def heard(self, pipe: "Pipe") -> None:
        """Note that it is not idle."""
        of = self._strangers if pipe.is_stranger else self._known
        of[pipe.holder].move_to_end(pipe)

    def leave(self, pipe: "Pipe") -> None:
        """Free its place."""
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


class Budget:
    """A token bucket of frames: a rate per second, and a burst."""

    def __init__(self, per_s: float, at_once: float, clock: Callable[[], float]) -> None:
        self._per_s, self._at_once, self._clock = per_s, at_once, clock
        self._left, self._at = at_once, clock()

    def left(self, taken: float = 0.0) -> float:
        """Take an amount, and return the rest; below 0 if more was taken than there was."""
        now = self._clock()
        self._left = min(self._at_once, self._left + (now - self._at) * self._per_s) - taken
        self._at = now
        return self._left


class Stage(IntEnum):
    """The stage of a connection without a key. Forwarded connections go before new ones."""

    IN = 0
    NEW = 1
    SUSPECT = 2
    """It has sent more than its first frames."""


class FrameMeter:
    """The rate limit of the connections of one address without a key: first come, first served."""

    def __init__(self, loop: asyncio.AbstractEventLoop, of_all: Budget) -> None:
        self._loop = loop
        first = Budget(FIRST_FRAMES_PER_S, FIRST_FRAMES_PER_S, loop.time)
        self._budgets = {
            Stage.IN: first,
            Stage.NEW: first,
            Stage.SUSPECT: Budget(FRAMES_PER_S, FRAMES_AT_ONCE, loop.time),
        }
        self._of_a_minute = Budget(FIRST_FRAMES_PER_S / 60, FIRST_FRAMES_PER_S, loop.time)
        self._of_all = of_all
        self._waiting: dict[Stage, OrderedDict[Pipe, None]] = {stage: OrderedDict() for stage in Stage}
        self._timer: asyncio.TimerHandle | None = None
        self._going = False

    @property
    def idle(self) -> bool:
        """Whether its state equals that of a new one."""
        return self._timer is None and self._of_a_minute.left() >= FIRST_FRAMES_PER_S

    def ask(self, pipe: "Pipe", stage: Stage) -> None:
        """Call `turn` of this connection when the rate allows it; `turn` returns the cost."""
        self._waiting[stage][pipe] = None
        self._go()

    def leave(self, pipe: "Pipe") -> None:
        """Remove it from the waiting connections."""
        for waiting in self._waiting.values():
            waiting.pop(pipe, None)

    def give_back(self, frames: float) -> None:
        """Return the tokens of a connection that has shown a key since."""
        self._pay(Stage.NEW, -frames)
        self._go()

    def _pay(self, stage: Stage, frames: float) -> None:
        for budget in (self._budgets[stage], self._of_a_minute, self._of_all):
            budget.left(frames)

    def _next(self) -> Stage | None:
        # Half of the common budget is kept for first frames of addresses that took few within a minute.
        quiet = max(0.0, self._of_a_minute.left()) / FIRST_FRAMES_PER_S
        kept, of_all = FRAMES_OF_ALL_PER_S / 2, self._of_all.left()
        for stage, waiting in self._waiting.items():
            if waiting and self._budgets[stage].left() > 0:
                return stage if of_all > (kept if stage is Stage.SUSPECT else kept * (1 - quiet)) else None
        return None

    def _go(self) -> None:
        if self._going:
            return
        self._going = True
        while (stage := self._next()) is not None:
            # `turn` may call `ask` again.
            self._pay(stage, self._waiting[stage].popitem(last=False)[0].turn())
        self._going = False
        if self._timer is None and any(self._waiting.values()):
            self._timer = self._loop.call_later(_EVERY_S, self._again)

    def _again(self) -> None:
        self._timer = None
        self._go()


class Frames:
    """Counts HTTP/2 frames in received data, however it is split."""

    def __init__(self) -> None:
        # The bytes until the next frame header, and the part of a header that was received.
        self._skip, self._head = _PREFACE_BYTES, b""

    def some(self, data: bytearray, most: int) -> tuple[int, int]:
        """Find at most so many frames; return their number, and their bytes in this data."""
        found = place = 0
        while True:
            step = min(self._skip, len(data) - place)
            self._skip -= step
            place += step
            if self._skip or found == most:
                return found, place
            missing = _HEAD_BYTES - len(self._head)
            self._head += data[place : place + missing]
            place = min(place + missing, len(data))
            if len(self._head) < _HEAD_BYTES:
                return found, place
            self._skip = int.from_bytes(self._head[:3])
            self._head = b""
            found += 1
