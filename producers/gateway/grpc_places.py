"""What connections of the gRPC door may have: places, and without a key so many frames in a second."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from producers.gateway.shares import Shares

if TYPE_CHECKING:
    from producers.gateway.grpc_front import Pipe

FRAMES_PER_S, FRAMES_AT_ONCE, FRAMES_IN_TURN = 100, 200, 20
"""Frames of HTTP/2 that come from one address without a key; some six make a first call."""

FRAMES_OF_ALL_PER_S = 3000
"""Those of all addresses together, so that many addresses stop none that has shown a key."""

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


class Meter:
    """Lets frames of those in that have one address and no key: within budgets, and each in turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop, of_all: Budget) -> None:
        self._loop = loop
        self._budgets = (
            Budget(FRAMES_PER_S, FRAMES_AT_ONCE, loop.time),
            Budget(FRAMES_AT_ONCE / 60, FRAMES_AT_ONCE, loop.time),
            of_all,
        )
        self._waiting: deque[Pipe] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._going = False

    @property
    def idle(self) -> bool:
        """Whether it is as a new one."""
        return not self._waiting and self._budgets[1].left() >= FRAMES_AT_ONCE

    def ask(self, pipe: "Pipe") -> None:
        """Call `turn` of this connection when it may go on, which gives what it took."""
        self._waiting.append(pipe)
        if self._timer is None and not self._going:
            self._go()

    def give_back(self, frames: float) -> None:
        """Give back what one has taken that has shown a key since."""
        for budget in self._budgets:
            budget.left(-frames)
        if self._timer is not None:
            self._timer.cancel()
            self._go()

    def _may_go(self) -> bool:
        now, of_a_minute, of_all = (budget.left() for budget in self._budgets)
        # Half of what there is for all is kept for addresses that have taken little within a minute.
        quiet = max(0.0, of_a_minute) / FRAMES_AT_ONCE
        return now > 0 and of_all > FRAMES_OF_ALL_PER_S / 2 * (1 - quiet)

    def _go(self) -> None:
        self._timer, self._going = None, True
        while self._waiting and self._may_go():
            # Which may ask again.
            taken = self._waiting.popleft().turn()
            for budget in self._budgets:
                budget.left(taken)
        self._going = False
        if self._waiting:
            self._timer = self._loop.call_later(1 / FRAMES_PER_S, self._go)


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
