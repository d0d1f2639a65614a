"""A stream of events in, a word on each out, and never more than a window of them between.

read ─▶ [window] ─▶ gathered, some at a time ─▶ Intake.take (several at once) ─▶ answer ─▶ room in the window

Who does not read the answers gets no room, and is then not read either: that is the flow control.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from producers.gateway.grpc_items import Read, read_request
from producers.gateway.items import Caller, Intake, Item, Refusal, Word

WINDOW_ITEMS, WINDOW_BYTES = 256, 4 * 1024 * 1024
"""What one stream may have without an answer; of one event alone any size that the server takes."""

CHUNK_ITEMS = 10
"""SQS takes ten at a time."""

LINGER_S = 0.001
"""How long an event waits for others of its stream, while some are on their way already."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """One event of a stream, and its place in it."""

    sequence: int
    read: Read
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Answered:
    """The words on some events of a stream, in the order of these events."""

    arrived: list[Arrived]
    words: list[Word]


class Stream:
    """One call that streams.

    `check` says, now and again, who calls; `key_of` gives the idempotency key of an event by its place.
    `answer` hands words back: never twice at once, and not before it returns is there room for more.
    """

    def __init__(
        self,
        intake: Intake,
        check: Callable[[], Awaitable[Caller | Refusal]],
        answer: Callable[[Answered], Awaitable[None]],
        key_of: Callable[[int], str | None],
    ) -> None:
        self._intake = intake
        self._check = check
        self._answer = answer
        self._key_of = key_of
        self._answering = asyncio.Lock()
        self._window = _Window()
        self._gathered: list[Arrived] = []
        self._linger: asyncio.TimerHandle | None = None
        self._ended = asyncio.Event()
        self.refusal: Refusal | None = None
        """Why it was ended before its end, if the caller is no longer known."""

    @property
    def ended_early(self) -> bool:
        """Whether it was ended, so that there may be more that was not read."""
        return self._ended.is_set()

    def end(self) -> None:
        """Read no further; what was read is still answered."""
        self._ended.set()

    async def run(self, messages: AsyncIterator[bytes]) -> None:
        """Take all that comes, and return when each that was read is answered."""
        reader = asyncio.create_task(self._read(messages))
        ended = asyncio.create_task(self._ended.wait())
        try:
            async with asyncio.TaskGroup() as self._takes:
                await asyncio.wait((reader, ended), return_when=asyncio.FIRST_COMPLETED)
                if reader.done():
                    reader.result()
                else:
                    # No await between the two: what was read has been gathered.
                    reader.cancel()
                self._flush()
        finally:
            for task in (reader, ended):
                task.cancel()
            if self._linger is not None:
                self._linger.cancel()

    async def _read(self, messages: AsyncIterator[bytes]) -> None:
        sequence = 0
        async for data in messages:
            if self._ended.is_set():
                return
            # Its place is taken before anything can interrupt: what was read is answered, come what may.
            self._gathered.append(Arrived(sequence, read_request(data, self._key_of(sequence)), len(data)))
            sequence += 1
            idle = not self._window.items
            self._window.enter(len(data))
            if idle or len(self._gathered) >= CHUNK_ITEMS:
                self._flush()
            elif self._linger is None:
                self._linger = asyncio.get_running_loop().call_later(LINGER_S, self._flush)
            await self._window.room()

    def _flush(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if self._gathered:
            self._takes.create_task(self._take(self._gathered))
            self._gathered = []

    async def _take(self, arrived: list[Arrived]) -> None:
        # Again for each chunk, from memory: a stream may outlive its key.
        caller = await self._check()
        if isinstance(caller, Refusal):
            self.refusal = caller
            self.end()
            words: list[Word] = [caller] * len(arrived)
        else:
            words = await take(self._intake, [one.read for one in arrived], caller)
        async with self._answering:
            await self._answer(Answered(arrived, words))
        self._window.leave(len(arrived), sum(one.size_bytes for one in arrived))


async def take(intake: Intake, reads: list[Read], caller: Caller) -> list[Word]:
    """Take those that are items; those that can't be any keep their refusal. One word each, in order."""
    items = [read.item for read in reads if isinstance(read.item, Item)]
    words = iter(await intake.take(items, caller) if items else [])
    return [read.item if isinstance(read.item, Refusal) else next(words) for read in reads]


class _Window:
    """Counts what has no answer."""

    def __init__(self) -> None:
        self.items = self._bytes = 0
        self._left = asyncio.Event()

    def enter(self, size_bytes: int) -> None:
        self.items += 1
        self._bytes += size_bytes

    def leave(self, items: int, size_bytes: int) -> None:
        self.items -= items
        self._bytes -= size_bytes
        self._left.set()

    async def room(self) -> None:
        """Wait until there is room for one more."""
        while self.items >= WINDOW_ITEMS or self._bytes >= WINDOW_BYTES:
            self._left.clear()
            await self._left.wait()
