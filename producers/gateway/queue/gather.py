"""Gathers the events of all requests into calls of ten, and gives each its word when SQS has answered.

    add ─▶ [lanes, bounded] ─▶ ten, or GATEWAY_LINGER_MS over, and a sender free ─▶ [sender threads] ─▶ SQS
                   ▲                                                                       │
                   └─── after a pause ── not taken, and still time ◀── again ──────────────┤
                                                          the request's word ◀── taken, refused, or too late

Everything here happens on the event loop but the call itself. Nothing is acknowledged that is not named as
accepted in an answer of SQS.
"""

import asyncio
import logging
import random
import re
from collections.abc import Hashable

from producers.gateway import metrics
from producers.gateway.items import Refusal, Taken, Why, Word
from producers.gateway.queue.lanes import Lanes
from producers.gateway.queue.sending import Sending, Sent
from producers.gateway.reading import ReadEvent
from producers.gateway.shares import Shares
from producers.publishers import Answer
from producers.publishers.publish import BATCH_BYTES_MAX, BATCH_SIZE_MAX

_PAUSE_S, _PAUSE_S_MAX = 0.05, 1.0
"""The pause before the second try, doubled for each further one, with jitter."""

_OUR_RIGHTS = re.compile(r"kms|accessdenied", re.IGNORECASE)
"""Codes that SQS calls the sender's fault, and which are ours: the event would be taken if we might more."""

FULL = Refusal(Why.OVER_QUOTA, "the gateway is at capacity; this event was not kept", retry_after_s=1)

log = logging.getLogger(__name__)


class GatheredRequest:
    """The words on the items of one request, who waits for them, and for whom they count."""

    __slots__ = ("done", "holder", "left", "timer", "words")

    def __init__(self, size: int, done: "asyncio.Future[None]", holder: Hashable) -> None:
        self.holder = holder
        self.words: list[Word | None] = [None] * size
        self.done = done
        # Of all its items, read or not: the first ones may have their word before the last ones are read.
        self.left = size
        self.timer: asyncio.TimerHandle | None = None

    def give(self, place: int, word: Word) -> None:
        """Put the word on one item; the first one holds."""
        if self.words[place] is not None:
            return
        self.words[place] = word
        self.left -= 1
        if self.left == 0:
            if self.timer is not None:
                self.timer.cancel()
            if not self.done.done():
                self.done.set_result(None)


class Entry:
    """One event on its way, and whose it is."""

    __slots__ = ("alone", "event", "place", "request", "tries")

    def __init__(self, event: ReadEvent, request: GatheredRequest, place: int) -> None:
        self.event = event
        self.request = request
        self.place = place
        self.tries = 0
        self.alone = False

    @property
    def holder(self) -> Hashable:
        """For whom it counts."""
        return self.request.holder

    @property
    def over(self) -> bool:
        """Whether there is a word on it already."""
        return self.request.words[self.place] is not None


class Gather:
    """Sends events in as few calls as their haste allows. Used on one event loop alone."""

    def __init__(self, senders: Sending, *, linger_s: float, waiting_max: int, timeout_s: float) -> None:
        self._senders = senders
        self._free = senders.count
        self._linger_s = linger_s
        self._places = Shares(waiting_max)
        self._timeout_s = timeout_s
        self._pending: Lanes[Entry] = Lanes()
        self._due = False
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._drained: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        metrics.waiting.set_function(lambda: self._waiting)

    @property
    def full(self) -> bool:
        """Whether no further event may be added, whosever it is."""
        return self._waiting >= self._places.total

    @property
    def _waiting(self) -> int:
        return self._places.taken

    def take_place(self, holder: Hashable) -> bool:
        """Take a place for one event; False where its holder has as many as it may."""
        return self._places.take(holder)

    def give_place(self, holder: Hashable, number: int = 1) -> None:
        """Give places back: of events that were not added, or are over."""
        self._places.give_back(holder, number)
        if self._waiting == 0 and self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def add(self, event: ReadEvent, request: GatheredRequest, place: int) -> None:
        """Take one event in that has a place.

        Its request gets a word on it, at the latest when `timeout_s` is over.
        """
        if request.timer is None:
            # Not the waiter's: who goes away leaves events behind that must not be tried for ever.
            request.timer = self._loop.call_later(self._timeout_s, self._time_over, request)
        self._pending.append(Entry(event, request, place))
        if len(self._pending) >= BATCH_SIZE_MAX:
            self._flush()
        elif self._timer is None and not self._due:
            self._timer = self._loop.call_later(self._linger_s, self._linger_over)

    async def words(self, request: GatheredRequest) -> None:
        """Come back when there is a word on every item of the request."""
        if request.left:
            await request.done

    async def drain(self) -> None:
        """Come back when everything that was taken in has its word."""
        if self._waiting:
            self._drained = self._loop.create_future()
            await self._drained

    # ── on the way out ────────────────────────────────────────────────────────────────────────────────

    def _linger_over(self) -> None:
        self._timer = None
        self._due = True
        self._flush()

    def _flush(self) -> None:
        if self._paused:
            return
        while self._free and self._pending and (self._due or len(self._pending) >= BATCH_SIZE_MAX):
            batch = self._next_batch()
            if batch:
                self._free -= 1
                metrics.batch_size.observe(len(batch))
                self._senders.send(batch, self._sent)
        if not self._pending:
            self._due = False
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _next_batch(self) -> list[Entry]:
        batch: list[Entry] = []
        size_bytes = 0
        while self._pending and len(batch) < BATCH_SIZE_MAX:
            entry = self._pending.head()
            if entry.over:
                # Its time was over before it was sent: nobody waits for it any more.
                self.give_place(self._pending.pop().holder)
                continue
            size_bytes += entry.event.size_bytes
            if batch and (size_bytes > BATCH_BYTES_MAX or entry.alone or batch[0].alone):
                break
            batch.append(self._pending.pop())
        return batch

    def _again(self, entries: list[Entry]) -> None:
        """Try these once more, before all others, as they have waited longest."""
        self._paused = False
        self._pending.put_first(entries)
        self._due = True
        self._flush()

    # ── on the way back ───────────────────────────────────────────────────────────────────────────────

    def _sent(self, batch: list[Entry], sent: Sent) -> None:
        self._free += 1
        metrics.send_seconds.observe(sent.took_s)
        if isinstance(sent.answer, Answer):
            self._answered(batch, sent.answer)
        elif sent.answer.outage:
            metrics.send_failures.inc()
            self._later(batch)
        elif sent.answer.hopeless or len(batch) == 1:
            metrics.send_failures.inc()
            for entry in batch:
                self._end(entry, sent.answer.word)
        else:
            # One of them is at fault, and nobody says which: sent one by one, only the guilty is refused.
            for entry in batch:
                entry.alone = True
            self._again(batch)
        self._flush()

    def _answered(self, batch: list[Entry], answer: Answer) -> None:
        again = []
        for index, entry in enumerate(batch):
            delivery_id = answer.accepted.get(index)
            if delivery_id is not None:
                event = entry.event
                self._end(entry, Taken(event.message_id, delivery_id, event.tenant_id, event.made_id))
            elif index in answer.refused and not _OUR_RIGHTS.search(answer.refused[index][0]):
                self._end(entry, refused_by_queue(*answer.refused[index]))
            else:
                # Also what the answer does not name: nothing is known of it.
                again.append(entry)
        if again:
            self._later(again)

    def _later(self, entries: list[Entry]) -> None:
        for entry in entries:
            entry.tries += 1
        # Where an order is kept, nothing may overtake what is to be tried again.
        self._paused = self._senders.ordered
        pause_s = min(_PAUSE_S_MAX, _PAUSE_S * 2 ** (entries[0].tries - 1)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self._loop.call_later(pause_s, self._again, entries)

    def _time_over(self, request: GatheredRequest) -> None:
        late = Refusal(
            Why.UNAVAILABLE,
            f"the queue has not said yes within {self._timeout_s:g} s; the event may be on it all the same: "
            "send it again with the same id",
            retry_after_s=1,
        )
        for place, word in enumerate(request.words):
            if word is None:
                request.give(place, late)
        request.timer = None
        if gone := self._pending.drop_over(request.holder):
            self.give_place(request.holder, gone)

    def _end(self, entry: Entry, word: Word) -> None:
        self.give_place(entry.holder)
        entry.request.give(entry.place, word)


def refused_by_queue(code: str, reason: str) -> Refusal:
    """Say why SQS does not take an event that it could judge."""
    too_large = "TooLong" in code or "TooLarge" in code or "must be shorter" in reason
    return Refusal(
        Why.TOO_LARGE if too_large else Why.INVALID, f"the queue does not take it: {code}: {reason[:200]}"
    )
