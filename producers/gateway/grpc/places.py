"""What connections of the gRPC gateway may have: places, and without a key so many frames in a second."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from enum import IntEnum
from typing import TYPE_CHECKING

from producers.gateway.shares import Shares

if TYPE_CHECKING:
    from producers.gateway.grpc.front import Pipe

FIRST_FRAMES, FIRST_FRAMES_PER_S = 20, 3000
"""So many frames of a connection are its first, of HTTP/2; some six make a first call.

Of these so many come in a second, and as many at once, from one address without a key.
"""

FRAMES_PER_S, FRAMES_AT_ONCE, FRAMES_IN_TURN = 100, 200, 20
"""Those of connections that have sent more, and shown no key."""

FRAMES_OF_ALL_PER_S = 3000
"""Those of all addresses together, so that many addresses stop none that has shown a key."""

_EVERY_S = 0.01
"""How often is looked whether somebody may go on."""

_PREFACE_BYTES, _HEAD_BYTES = 24, 9


class Places:
    """Places of connections, shared among tenants, and among addresses for those that have shown no key."""

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
        """Give a newcomer a place; if need be that of the longest silent of whoever has most.

        Those without a key go first, those with a call under way never. False: there is none.
        """
        while not self._shares.take(("address", pipe.address)):
            if not self._evict():
                return False
        pipe.holder = ("address", pipe.address)
        self._strangers.setdefault(pipe.holder, OrderedDict())[pipe] = None
        return True

    def know(self, pipe: "Pipe", tenant: Hashable) -> bool:
        """Let it count for the tenant from now on; False: the tenant has its share."""
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


class Budget:
    """So many frames in a second, and what has gathered while none came."""

    def __init__(self, per_s: float, at_once: float, clock: Callable[[], float]) -> None:
        self._per_s, self._at_once, self._clock = per_s, at_once, clock
        self._left, self._at = at_once, clock()

    def left(self, taken: float = 0.0) -> float:
        """Take so much, and say what is left: less than nothing where more was taken than there was."""
        now = self._clock()
        self._left = min(self._at_once, self._left + (now - self._at) * self._per_s) - taken
        self._at = now
        return self._left


class Stage(IntEnum):
    """How far a connection without a key has come; those that have come in are to get through first."""

    IN = 0
    NEW = 1
    SUSPECT = 2
    """It has sent its first frames."""


class FrameMeter:
    """Lets frames of those in that have one address and no key: within budgets, first come first served."""

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
        """Whether it is as a new one."""
        return self._timer is None and self._of_a_minute.left() >= FIRST_FRAMES_PER_S

    def ask(self, pipe: "Pipe", stage: Stage) -> None:
        """Call `turn` of this connection when it may go on, which gives what it took."""
        self._waiting[stage][pipe] = None
        self._go()

    def leave(self, pipe: "Pipe") -> None:
        """Forget that it waits."""
        for waiting in self._waiting.values():
            waiting.pop(pipe, None)

    def give_back(self, frames: float) -> None:
        """Give back what one has taken that has shown a key since."""
        self._pay(Stage.NEW, -frames)
        self._go()

    def _pay(self, stage: Stage, frames: float) -> None:
        for budget in (self._budgets[stage], self._of_a_minute, self._of_all):
            budget.left(frames)

    def _next(self) -> Stage | None:
        # Half of what there is for all is kept for first frames of who has taken few within a minute.
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
            # Which may ask again.
            self._pay(stage, self._waiting[stage].popitem(last=False)[0].turn())
        self._going = False
        if self._timer is None and any(self._waiting.values()):
            self._timer = self._loop.call_later(_EVERY_S, self._again)

    def _again(self) -> None:
        self._timer = None
        self._go()


class Frames:
    """Counts the frames of HTTP/2 in what comes, however it is cut."""

    def __init__(self) -> None:
        # How many bytes until the next head of a frame, and what has come of one.
        self._skip, self._head = _PREFACE_BYTES, b""

    def some(self, data: bytearray, most: int) -> tuple[int, int]:
        """Find so many frames at the most; gives their number, and how many bytes they have in this."""
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
