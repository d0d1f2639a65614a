"""The core of the gateway: reads items, enforces quotas, and sends the remaining items to SQS.

Item ─▶ Effort: Reading ─▶ tenant of the key? ─▶ room? ─▶ Quotas ─▶ Gather ═══ SQS confirms ════▶ Taken
          └──────┴───────────────┴──────────────────┴────────┴────────┴──────────────────────▶ Refusal
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from processor.wire.beside import content_encodings
from producers.gateway import metrics
from producers.gateway.effort import ATTRIBUTE, ITEM, Effort
from producers.gateway.items import Caller, Item, Refusal, Why, Word
from producers.gateway.queue.gather import FULL, Gather, GatheredRequest
from producers.gateway.queue.sending import Sending
from producers.gateway.quotas import Quotas
from producers.gateway.reading import EventReader, ReadEvent, trace_of

BREATH_WEIGHT = 32 * 1024
"""Bytes of one request that are read before other requests have their turn."""

T = TypeVar("T")

_CLOSING = Refusal(Why.UNAVAILABLE, "the gateway is about to stop; send it again", retry_after_s=1)

# Looked up once: most requests have one item, and the lookup costs more than the increment.
_COUNTERS = {name: metrics.items.labels(word=name) for name in ("taken", *(why.word for why in Why))}


class QueueIntake:
    """Intake over one SQS queue. `start`, use and `close` it on one event loop."""

    def __init__(
        self,
        reading: EventReader,
        quotas: Quotas,
        senders: Sending,
        effort: Effort,
        byte_quotas: Quotas,
        *,
        linger_s: float,
        waiting_max: int,
        timeout_s: float,
    ) -> None:
        self._reading = reading
        self._quotas = quotas
        self._senders = senders
        self._effort = effort
        self._byte_quotas = byte_quotas
        self._linger_s = linger_s
        self._waiting_max = waiting_max
        self._timeout_s = timeout_s
        self._gather: Gather | None = None
        self._closing = False

    async def start(self) -> None:
        """Start the senders."""
        self._senders.start()
        self._gather = Gather(
            self._senders,
            linger_s=self._linger_s,
            waiting_max=self._waiting_max,
            timeout_s=self._timeout_s,
        )

    async def close(self) -> None:
        """Refuse new items, wait until all pending items have their result, and end the senders."""
        self._closing = True
        if self._gather is not None:
            with suppress(TimeoutError):
                # Each item has a result when its own timeout is over, even if a call hangs.
                await asyncio.wait_for(self._gather.drain(), self._timeout_s + 1)
        self._senders.stop()
        self._effort.close()

    def owing(self, caller: Caller) -> Refusal | None:
        """Return a refusal if a caller has exceeded its quota of bytes or of CPU time."""
        return self._owing_bytes(caller.tenant_id) or self._effort.owing(caller.holder)

    def charge(self, caller: Caller, size_bytes: int) -> None:
        """Charge bytes to the tenant of the key; without keys each event is charged to its own tenant."""
        if caller.tenant_id is not None:
            self._byte_quotas.charge(caller.tenant_id, size_bytes)

    async def do(self, caller: Caller, weight: int, work: Callable[[], T]) -> T | Refusal:
        """Do work on so many bytes for a caller, outside the event loop where it may be expensive."""
        return await self._effort.do(caller.holder, weight, work)

    async def finish(self, caller: Caller, weight: int, work: Callable[[], T]) -> T:
        """Do the same even if the caller has exceeded its quota."""
        return await self._effort.finish(caller.holder, weight, work)

    async def take(self, items: list[Item], caller: Caller) -> list[Word]:
        """Send the valid items, and return one result per item, in order."""
        gather = self._gather
        if gather is None or self._closing:
            return self._counted([_CLOSING] * len(items))
        request = GatheredRequest(len(items), asyncio.get_running_loop().create_future(), caller.holder)
        trace = trace_of(caller) if caller.trace else {}
        read = self._reading.read
        place = 0
        if len(items) == 1 and self._effort.is_light(request.holder, weight_of(items[0])):
            event = self._effort.here(request.holder, read, items[0], caller, trace)
            self._enter(event, caller, gather, request, 0)
            items = []
        for weight, some in _stretches(items):
            work = lambda some=some: [read(item, caller, trace) for item in some]  # noqa: E731
            found = await self._effort.do(caller.holder, weight, work)
            for event in [found] * len(some) if isinstance(found, Refusal) else found:
                self._enter(event, caller, gather, request, place)
                place += 1
        await gather.words(request)
        return self._counted([word for word in request.words if word is not None])

    def _enter(
        self, event: ReadEvent | Refusal, caller: Caller, gather: Gather, request: GatheredRequest, place: int
    ) -> None:
        if isinstance(event, Refusal):
            request.give(place, event)
        elif not gather.take_place(request.holder):
            request.give(place, FULL)
        elif (retry_after_s := self._quotas.take(event.tenant_id)) is not None:
            gather.give_place(request.holder)
            words = "the tenant sends more than it may"
            request.give(place, Refusal(Why.OVER_QUOTA, words, retry_after_s=retry_after_s))
        elif owing := None if caller.tenant_id else self._owing_bytes(event.tenant_id):
            gather.give_place(request.holder)
            request.give(place, owing)
        else:
            if caller.tenant_id is None:
                self._byte_quotas.charge(event.tenant_id, event.size_bytes)
            gather.add(event, request, place)

    def _owing_bytes(self, tenant_id: str | None) -> Refusal | None:
        if tenant_id is None or (retry_after_s := self._byte_quotas.debt_s(tenant_id)) is None:
            return None
        words = "the tenant sends more bytes than it may (GATEWAY_TENANT_BYTES)"
        return Refusal(Why.OVER_QUOTA, words, retry_after_s=retry_after_s)

    async def ready(self) -> str:
        """Describe why no items can be taken now; empty if they can."""
        if self._gather is None or self._closing:
            return "the gateway is starting or about to stop"
        if self._gather.full:
            return FULL.detail
        return await self._senders.trouble()

    def _counted(self, words: list[Word]) -> list[Word]:
        if len(words) == 1:
            _COUNTERS[_name(words[0])].inc()
        else:
            for name, count in Counter(map(_name, words)).items():
                _COUNTERS[name].inc(count)
        return words


def _stretches(items: Sequence[Item]) -> list[tuple[int, Sequence[Item]]]:
    """Split a request into parts that are read without a pause, each with its weight in bytes."""
    if len(items) == 1:
        return [(weight_of(items[0]), items)]
    found = []
    first = weight = 0
    for place, item in enumerate(items):
        weight += ITEM + weight_of(item)
        if weight >= BREATH_WEIGHT or place == len(items) - 1:
            found.append((weight, items[first : place + 1]))
            first, weight = place + 1, 0
    return found


def weight_of(item: Item) -> int:
    """Return how many bytes an item counts for; the size of compressed items is unknown."""
    if not item.attributes:
        return len(item.body)
    if content_encodings(item.attributes):
        return BREATH_WEIGHT
    return len(item.body) + sum(ATTRIBUTE + len(value) for value in item.attributes.values())


def _name(word: Word) -> str:
    return word.why.word if isinstance(word, Refusal) else "taken"
