"""Handles a stream of events: a result for each, and at most a window of events without one.

read ─▶ [window] ─▶ batches ─▶ Intake.take (several at once) ─▶ answer ─▶ room in the window

Flow control: while a client does not read its results, its window stays full, and its events are not read.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from google.protobuf.message import DecodeError

from producers.gateway.grpc.items import Read, read_event, too_many_items, unreadable
from producers.gateway.items import Caller, Intake, Item, Refusal, Why, Word
from producers.gateway.shares import Shares
from producers.protos import ingest_pb2 as pb

WINDOW_ITEMS, WINDOW_BYTES = 256, 4 * 1024 * 1024
"""The window: reading pauses when so much has no answer. The last message may exceed it."""

CHUNK_ITEMS = 10
"""SQS takes ten at a time."""

LINGER_S = 0.001
"""How long an event waits for others of its stream, while earlier ones are in progress."""

FULL = Refusal(Why.OVER_QUOTA, "the tenant has too much work in progress; retry later", retry_after_s=1)


Do: TypeAlias = Callable[[int, Callable[[], list[Read]]], Awaitable[list[Read] | Refusal]]


@dataclass(frozen=True, slots=True)
class Arrived:
    """One event of a stream, and its sequence number."""

    sequence: int
    read: Read
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Answered:
    """The results of some events of a stream, in the order of these events."""

    arrived: list[Arrived]
    words: list[Word]


class EventStream:
    """One streaming call.

    `check` returns the caller, for each batch anew; `key_of` gives the idempotency key of an event by number.
    `answer` sends results: one call at a time, and the window gets room only when it returns.
    Messages in memory count against the share of `holder` in `room`; events beyond the share are refused.
    """

    def __init__(
        self,
        intake: Intake,
        check: Callable[[], Awaitable[Caller | Refusal]],
        answer: Callable[[Answered], Awaitable[None]],
        key_of: Callable[[int], str | None],
        items_max: int,
        room: Shares,
        holder: Hashable,
    ) -> None:
        self._room = room
        self._holder = holder
        self._intake = intake
        self._check = check
        self._answer = answer
        self._key_of = key_of
        self._items_max = items_max
        self._answering = asyncio.Lock()
        self._window = _Window()
        self._gathered: list[Arrived] = []
        self._linger: asyncio.TimerHandle | None = None
        self._ended = asyncio.Event()
        self.refusal: Refusal | None = None
        """Why the stream was ended early by the caller's fault: a revoked key or a malformed message."""

    @property
    def ended_early(self) -> bool:
        """Whether the stream was ended early, so that some messages may be unread."""
        return self._ended.is_set() or self.refusal is not None

    def end(self) -> None:
        """Stop reading; events that were read are still answered."""
        self._ended.set()

    async def run(self, next_message: Callable[[], Awaitable[bytes | None]], do: Do) -> None:
        """Take messages until None, and return when every event is answered.

        `do` does work on so many bytes, such as parsing a message.
        """
        try:
            await self._run(next_message, do)
        finally:
            if self._window.size_bytes:
                self._room.give_back(self._holder, self._window.size_bytes)

    async def _run(self, next_message: Callable[[], Awaitable[bytes | None]], do: Do) -> None:
        reader = asyncio.create_task(self._read(next_message, do))
        ended = asyncio.create_task(self._ended.wait())
        async with asyncio.TaskGroup() as self._takes:
            try:
                await asyncio.wait((reader, ended), return_when=asyncio.FIRST_COMPLETED)
                if reader.done():
                    reader.result()
            finally:
                # Before the task group ends: it takes no tasks after that. All events read were gathered.
                reader.cancel()
                ended.cancel()
                self._call_off_linger()
            self._flush()

    async def _read(self, next_message: Callable[[], Awaitable[bytes | None]], do: Do) -> None:
        sequence = 0
        while (data := await next_message()) is not None:
            try:
                reads = await do(len(data), partial(self._reads, data, sequence))
            except DecodeError:
                reads = unreadable(pb.IngestStreamRequest)
            if isinstance(reads, Refusal):
                # The number of its events is unknown, so later events would have no sequence number.
                self.refusal = reads
                return
            if reads:
                # No await from here to the flush: every event that was read must be answered.
                self._arrive(reads, sequence, len(data))
                sequence += len(reads)
                await self._window.room()

    def _reads(self, data: bytes, first: int) -> list[Read]:
        items = pb.IngestStreamRequest.FromString(data).items
        if too_many := too_many_items(len(items), self._items_max):
            return [Read(too_many)] * len(items)
        return [read_event(item, self._key_of(sequence)) for sequence, item in enumerate(items, first)]

    def _arrive(self, reads: Sequence[Read], first: int, size_bytes: int) -> None:
        idle = not self._window.items
        if not self._room.take(self._holder, size_bytes):
            reads, size_bytes = [Read(FULL)] * len(reads), 0
        self._window.enter(len(reads), size_bytes)
        for sequence, read in enumerate(reads, first):
            # The bytes of a message stay in the window until its last event is answered.
            last = sequence == first + len(reads) - 1
            self._gathered.append(Arrived(sequence, read, size_bytes if last else 0))
        if idle or len(self._gathered) >= CHUNK_ITEMS:
            self._flush()
        elif self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(LINGER_S, self._flush)

    def _flush(self) -> None:
        self._call_off_linger()
        if self._gathered:
            self._takes.create_task(self._take(self._gathered))
            self._gathered = []

    def _call_off_linger(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None

    async def _take(self, arrived: list[Arrived]) -> None:
        # Checked for each batch, in the cache: a stream may outlive its key.
        caller = await self._check()
        if isinstance(caller, Refusal):
            self.refusal = caller
            self.end()
            words: list[Word] = [caller] * len(arrived)
        else:
            words = await take(self._intake, [one.read for one in arrived], caller)
        async with self._answering:
            await self._answer(Answered(arrived, words))
        size_bytes = sum(one.size_bytes for one in arrived)
        self._window.leave(len(arrived), size_bytes)
        if size_bytes:
            self._room.give_back(self._holder, size_bytes)


async def take(intake: Intake, reads: list[Read], caller: Caller) -> list[Word]:
    """Take the items, and keep existing refusals. Returns one result per event, in order."""
    items = [read.item for read in reads if isinstance(read.item, Item)]
    words = iter(await intake.take(items, caller) if items else [])
    return [read.item if isinstance(read.item, Refusal) else next(words) for read in reads]


class _Window:
    """Counts events and bytes without an answer."""

    def __init__(self) -> None:
        self.items = self.size_bytes = 0
        self._left = asyncio.Event()

    def enter(self, items: int, size_bytes: int) -> None:
        self.items += items
        self.size_bytes += size_bytes

    def leave(self, items: int, size_bytes: int) -> None:
        self.items -= items
        self.size_bytes -= size_bytes
        self._left.set()

    async def room(self) -> None:
        """Wait until there is room for another message."""
        while self.items >= WINDOW_ITEMS or self.size_bytes >= WINDOW_BYTES:
            self._left.clear()
            await self._left.wait()
