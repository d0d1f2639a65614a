"""The inside of the gateway: reads items, holds tenants to their quotas, and has SQS take what is left.

Item ─▶ Reading ─▶ tenant of the key? ─▶ room? ─▶ Quotas ─▶ Gather ═══ SQS says yes ═══▶ Taken
          └──────────────┴──────────────────┴────────┴────────┴──────────────────────▶ Refusal
"""

import asyncio
from collections import Counter
from contextlib import suppress

from producers.gateway import metrics
from producers.gateway.gather import FULL, Gather, Request
from producers.gateway.items import Caller, Item, Refusal, Why, Word
from producers.gateway.quotas import Quotas
from producers.gateway.reading import Reading, trace_of
from producers.gateway.sending import Sending

BREATH_EVERY = 50
"""Items of one request that are read at a stretch, before others have their turn."""

_CLOSING = Refusal(Why.UNAVAILABLE, "the gateway is about to stop; send it again", retry_after_s=1)

# Looked up once: with one item in a request, as most have, that costs more than to count.
_COUNTERS = {name: metrics.items.labels(word=name) for name in ("taken", *(why.word for why in Why))}


class QueueIntake:
    """Intake over one SQS queue. `start` it on the event loop on which it is used, and `close` it there."""

    def __init__(
        self,
        reading: Reading,
        quotas: Quotas,
        senders: Sending,
        *,
        linger_s: float,
        waiting_max: int,
        timeout_s: float,
    ) -> None:
        self._reading = reading
        self._quotas = quotas
        self._senders = senders
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
        """Take nothing more, let everything that was taken in get its word, and end the senders."""
        self._closing = True
        if self._gather is not None:
            with suppress(TimeoutError):
                # Each has its word when its own time is over; a call that hangs is not waited for.
                await asyncio.wait_for(self._gather.drain(), self._timeout_s + 1)
        self._senders.stop()

    async def take(self, items: list[Item], caller: Caller) -> list[Word]:
        """Send what can be sent, and give a word on each item in order."""
        gather = self._gather
        if gather is None or self._closing:
            return self._counted([_CLOSING] * len(items))
        request = Request([None] * len(items), asyncio.get_running_loop().create_future())
        trace = trace_of(caller) if caller.trace else {}
        for place, item in enumerate(items):
            if place and place % BREATH_EVERY == 0:
                await asyncio.sleep(0)
            event = self._reading.read(item, caller, trace)
            if isinstance(event, Refusal):
                request.words[place] = event
            elif gather.full:
                request.words[place] = FULL
            elif (retry_after_s := self._quotas.take(event.tenant_id)) is not None:
                request.words[place] = Refusal(
                    Why.OVER_QUOTA, "the tenant sends more than it may", retry_after_s=retry_after_s
                )
            else:
                gather.add(event, request, place)
        await gather.words(request)
        return self._counted([word for word in request.words if word is not None])

    async def ready(self) -> str:
        """Say in words what is in the way of taking anything now; empty when nothing is."""
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


def _name(word: Word) -> str:
    return word.why.word if isinstance(word, Refusal) else "taken"
