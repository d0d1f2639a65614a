"""Gathers the events of all requests into batches of ten, and sets each result when SQS has answered.

    add ─▶ [lanes, bounded] ─▶ ten, or GATEWAY_LINGER_MS over, and a sender free ─▶ [sender threads] ─▶ SQS
                   ▲                                                                       │
                   └─── backoff ── not taken, and before the timeout ◀─── retry ───────────┤
                                                              result ◀── taken, refused, or timed out

All code here runs on the event loop, except the call itself. An event is acknowledged only if an answer of
SQS names it as accepted.
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
"""The backoff before the second attempt, doubled for each further one, with jitter."""

_OUR_RIGHTS = re.compile(r"kms|accessdenied", re.IGNORECASE)
"""Codes that SQS reports as the sender's fault, but which mean missing rights of the gateway itself."""

FULL = Refusal(Why.OVER_QUOTA, "the gateway is at capacity; this event was not kept", retry_after_s=1)

log = logging.getLogger(__name__)


class GatheredRequest:
    """The results of one request's items, the future of its waiter, and the holder of their places."""

    __slots__ = ("done", "holder", "left", "timer", "words")

    def __init__(self, size: int, done: "asyncio.Future[None]", holder: Hashable) -> None:
        self.holder = holder
        self.words: list[Word | None] = [None] * size
        self.done = done
        # Counts all items, parsed or not: the first ones may have a result before the last ones are parsed.
        self.left = size
        self.timer: asyncio.TimerHandle | None = None

    def give(self, place: int, word: Word) -> None:
        """Set the result of one item; the first result stays."""
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
    """One event to send, and its place in its request."""

    __slots__ = ("alone", "event", "place", "request", "tries")

    def __init__(self, event: ReadEvent, request: GatheredRequest, place: int) -> None:
        self.event = event
        self.request = request
        self.place = place
        self.tries = 0
        self.alone = False

    @property
    def holder(self) -> Hashable:
        """The holder of its place."""
        return self.request.holder

    @property
    def over(self) -> bool:
        """Whether it has a result already."""
        return self.request.words[self.place] is not None


class Gather:
    """Sends events in as few calls as the linger time allows. Used on one event loop."""

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
        """Whether all places are taken, for any holder."""
        return self._waiting >= self._places.total

    @property
    def _waiting(self) -> int:
        return self._places.taken

    def take_place(self, holder: Hashable) -> bool:
        """Take a place for one event; False if its holder has its full share."""
        return self._places.take(holder)

    def give_place(self, holder: Hashable, number: int = 1) -> None:
        """Return the places of events that were not added, or are finished."""
        self._places.give_back(holder, number)
        if self._waiting == 0 and self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def add(self, event: ReadEvent, request: GatheredRequest, place: int) -> None:
        """Add one event that has a place.

        Its request gets a result for it, at the latest after `timeout_s`.
        """
        if request.timer is None:
            # The timer outlives the waiter: events of a client that disconnects must not be retried for ever.
            request.timer = self._loop.call_later(self._timeout_s, self._time_over, request)
        self._pending.append(Entry(event, request, place))
        if len(self._pending) >= BATCH_SIZE_MAX:
            self._flush()
        elif self._timer is None and not self._due:
            self._timer = self._loop.call_later(self._linger_s, self._linger_over)

    async def words(self, request: GatheredRequest) -> None:
        """Wait until every item of the request has a result."""
        if request.left:
            await request.done

    async def drain(self) -> None:
        """Wait until every added event has a result."""
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
                # It timed out before it was sent.
                self.give_place(self._pending.pop().holder)
                continue
            size_bytes += entry.event.size_bytes
            if batch and (size_bytes > BATCH_BYTES_MAX or entry.alone or batch[0].alone):
                break
            batch.append(self._pending.pop())
        return batch

    def _again(self, entries: list[Entry]) -> None:
        """Retry these events before all others, as they have waited longest."""
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
            # SQS does not say which event is at fault: sent one by one, only the faulty one is refused.
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
                # This includes entries that the answer does not name: their state is unknown.
                again.append(entry)
        if again:
            self._later(again)

    def _later(self, entries: list[Entry]) -> None:
        for entry in entries:
            entry.tries += 1
        # On an ordered queue no event may overtake a retry.
        self._paused = self._senders.ordered
        pause_s = min(_PAUSE_S_MAX, _PAUSE_S * 2 ** (entries[0].tries - 1)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self._loop.call_later(pause_s, self._again, entries)

    def _time_over(self, request: GatheredRequest) -> None:
        late = Refusal(
            Why.UNAVAILABLE,
            f"the queue did not confirm within {self._timeout_s:g} s; the event may be on it nevertheless: "
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
    """Make the refusal of an event that SQS has rejected."""
    too_large = "TooLong" in code or "TooLarge" in code or "must be shorter" in reason
    return Refusal(
        Why.TOO_LARGE if too_large else Why.INVALID, f"the queue rejects it: {code}: {reason[:200]}"
    )
