"""Sends messages to a queue, and yields a receipt for each.

    messages ─▶ batches of ten, under 1 MiB ─▶ [bounded] ─▶ senders: intended ─▶ send ─▶ accepted ─▶ receipts
                                                                        ▲         │
                                                                        └ again ──┤ not the message's fault
                                                              Refused ◀───────────┘ the message's fault

The manifest, if there is one, has each message before it is sent. A lost reply causes a retry, so the queue
may hold a message twice: therefore each message has its own id.

An unreachable queue is an outage, for every publisher: a batch is retried for `outage_s_max` seconds, then
the run gives up. A message that the queue answers with "try later" is sent at most ATTEMPTS_MAX times.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TypeAlias

from processor.errors import ProcessorError, SourceUnavailable
from processor.wire.manifest import ManifestLine, ManifestWriter, State
from producers.publishers import UNAVAILABLE, Answer, CallFailed, Publisher
from producers.publishers.outgoing import Outgoing

BATCH_SIZE_MAX = 10
BATCH_BYTES_MAX = 1024 * 1024
"""SQS's limit for one message and for one batch, including attributes."""

ATTEMPTS_MAX = 7
"""Attempts for a message that the queue answers with "try later". After the last one it counts as refused."""

OUTAGE_S_MAX = 60.0
"""The default time for retries during an outage, in seconds. A restart of a queue takes less."""

_PAUSE_S = 0.25
"""The upper limit of the first backoff; it doubles with each attempt."""

_OUTAGE_PAUSE_S_MAX = 2.0
"""The longest backoff in an outage: a broker that is back only for seconds must not be missed."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AcceptedMessage:
    """The queue has the message; `delivery_id` is the queue's id."""

    message: Outgoing
    delivery_id: str


@dataclass(frozen=True, slots=True)
class RefusedMessage:
    """The queue refused the message: its code and reason; the code `too_large` is our own check."""

    message: Outgoing
    code: str
    reason: str


Receipt: TypeAlias = AcceptedMessage | RefusedMessage


class PublishRun:
    """Sends messages in batches from several threads, with bounded waiting, memory and retries.

    `senders` threads send at once; an ordered publisher has one. `wait_s_max` limits the backoff between two
    attempts. No attempt starts later than `outage_s_max` after the start of an outage.
    """

    def __init__(
        self,
        publisher: Publisher,
        manifest: ManifestWriter | None = None,
        *,
        senders: int = 4,
        wait_s_max: float = 30.0,
        outage_s_max: float = OUTAGE_S_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher = publisher
        self._manifest = manifest
        self._senders = 1 if publisher.ordered else senders
        self._wait_s_max = wait_s_max
        self._outage_s_max = outage_s_max
        self._clock = clock
        self._outage = _Outage(publisher.name, outage_s_max)
        self._halted = threading.Event()

    def stop(self) -> None:
        """Finish the current calls without retries; send no further messages."""
        self._halted.set()

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until `stop` is called; return whether it was called."""
        return self._halted.wait(seconds)

    def publish(
        self, messages: Iterable[Outgoing], batch_size_max: int = BATCH_SIZE_MAX
    ) -> Iterator[Receipt]:
        """Send all messages, read as fast as the queue accepts them, and yield receipts in any order.

        `batch_size_max` is up to ten; with less, slow input is sent sooner.
        Raises SourceUnavailable if the outage lasts too long and SettingsError if the queue doesn't exist,
        both only after the receipts of the current calls. A message without a receipt may or may not be on
        the queue: send it again, with the same id.
        """
        room = self._senders * 2
        failure: ProcessorError | None = None
        working: set[Future[_SentBatch]] = set()
        with ThreadPoolExecutor(self._senders, thread_name_prefix="sender") as pool:
            for batch in _batches(messages, batch_size_max):
                if self._halted.is_set():
                    break
                working.add(pool.submit(self._send, batch))
                done, working = wait(working, 0 if len(working) < room else None, FIRST_COMPLETED)
                for future in done:
                    yield from future.result().receipts
                    failure = failure or future.result().failure
                if failure is not None:
                    # The other threads would only repeat the same failure for minutes.
                    self.stop()
                    break
            for future in wait(working).done:
                yield from future.result().receipts
                failure = failure or future.result().failure
        if failure is not None:
            raise failure

    def _send(self, batch: list[Outgoing]) -> "_SentBatch":
        """Send one batch until each message has a receipt, or the failure explains why some have none."""
        sent = _SentBatch(dict(enumerate(batch)))
        for index, message in enumerate(batch):
            if (size := message.size_bytes()) > BATCH_BYTES_MAX:
                sent.refuse(
                    index, "too_large", f"{size} bytes with its attributes; SQS takes {BATCH_BYTES_MAX}"
                )
        try:
            if self._manifest is not None:
                # The manifest's guarantee depends on this order: a message is in the file before it is sent.
                self._manifest.intend([_line(message) for message in sent.pending.values()])
            self._retry(sent)
        except ProcessorError as error:
            sent.failure = error
        return sent

    def _retry(self, sent: "_SentBatch") -> None:
        """Send until each message has a result, or an outage or "try later" has lasted too long."""
        tries = _Tries(self._outage_s_max, self._wait_s_max)
        while True:
            began_at_s = self._clock()
            try:
                self._attempt(sent)
            except _TryAgain as error:
                failed = error
            else:
                self._outage.ends()
                return
            pause_s = tries.pause_s(failed, began_at_s, self._clock())
            if pause_s is None or self._halted.is_set():
                break
            self._say(failed)
            if self._halted.wait(pause_s):
                break
        self._give_up(sent, failed)

    def _say(self, failed: "_TryAgain") -> None:
        if failed.outage:
            self._outage.begins(failed)
        else:
            self._outage.ends()
            log.warning("%s; trying again", failed)

    def _give_up(self, sent: "_SentBatch", failed: "_TryAgain") -> None:
        if failed.outage:
            why = "stopped" if self._halted.is_set() else f"gave up after {self._outage_s_max:g} s (--wait)"
            raise SourceUnavailable(
                f"the queue {self._publisher.name} can't be reached: {failed}; {why}"
            ) from failed
        for index, (code, reason) in failed.refusals.items():
            sent.refuse(index, code, reason)

    def _attempt(self, sent: "_SentBatch") -> None:
        """Send the messages without a receipt in one call."""
        if not sent.pending:
            return
        try:
            answer = self._publisher.send(sent.pending)
        except CallFailed as error:
            self._whole_call_failed(sent, error)
            return
        self._accept(sent, answer)
        for index, (code, reason) in answer.refused.items():
            sent.refuse(index, code, reason)
        if answer.again:
            code, reason = next(iter(answer.again.values()))
            words = f"{len(answer.again)} of a batch have not been taken ({code}: {reason})"
            # With this code a gateway reports that the queue behind it is unavailable.
            away = any(code == UNAVAILABLE for code, _ in answer.again.values())
            raise _TryAgain(words, answer.again, outage=away, wait_s=answer.wait_s)
        if sent.pending:
            # The state of a message that is missing in the answer is unknown.
            raise _TryAgain("the answer does not name every message", outage=True)

    def _accept(self, sent: "_SentBatch", answer: Answer) -> None:
        accepted = [sent.accept(index, delivery_id) for index, delivery_id in answer.accepted.items()]
        if self._manifest is not None:
            self._manifest.accept([_line(receipt.message, receipt.delivery_id) for receipt in accepted])

    def _whole_call_failed(self, sent: "_SentBatch", failed: CallFailed) -> None:
        if failed.outage:
            raise _TryAgain(str(failed), outage=True, wait_s=failed.wait_s)
        if len(sent.pending) == 1:
            sent.refuse(next(iter(sent.pending)), failed.code, failed.reason)
            return
        # The faulty message is unknown: sent one by one, only that one is refused.
        for index, message in list(sent.pending.items()):
            alone = _SentBatch({index: message})
            try:
                self._retry(alone)
            finally:
                sent.receipts += alone.receipts
                if not alone.pending:
                    del sent.pending[index]


class _TryAgain(Exception):
    """Messages are not on the queue, or their state is unknown; `refusals` has the queue's codes by index."""

    def __init__(
        self,
        text: str,
        refusals: dict[int, tuple[str, str]] | None = None,
        *,
        outage: bool = False,
        wait_s: float = 0.0,
    ) -> None:
        super().__init__(text)
        self.refusals = refusals or {}
        self.outage = outage
        self.wait_s = wait_s


class _Tries:
    """The retry state of one batch: its attempts, and the start of the outage."""

    def __init__(self, outage_s_max: float, wait_s_max: float) -> None:
        self._outage_s_max = outage_s_max
        self._wait_s_max = wait_s_max
        self._number = 0
        self._put_off = 0
        self._away_since_s: float | None = None

    def pause_s(self, failed: _TryAgain, began_at_s: float, now_s: float) -> float | None:
        """Return the backoff before the next attempt; None: give up.

        The backoff is random, grows with each attempt, and is at least what the queue asked for. It is cut at
        the end of `outage_s_max`, so that the last attempt is made then.
        """
        self._number += 1
        if failed.outage:
            # The failed call itself may have taken long.
            self._away_since_s = began_at_s if self._away_since_s is None else self._away_since_s
            left_s = self._away_since_s + self._outage_s_max - now_s
            longest_s = min(self._wait_s_max, _OUTAGE_PAUSE_S_MAX)
        else:
            self._put_off, self._away_since_s = self._put_off + 1, None
            left_s = self._wait_s_max if self._put_off < ATTEMPTS_MAX else 0.0
            longest_s = self._wait_s_max
        if left_s <= 0:
            return None
        grown_s = random.uniform(0, min(longest_s, _PAUSE_S * 2 ** min(self._number, 20)))  # noqa: S311 - no secret
        return min(max(grown_s, min(failed.wait_s, self._wait_s_max)), left_s)


class _Outage:
    """Logs the start and the end of an outage once for all senders."""

    def __init__(self, name: str, s_max: float) -> None:
        self._name = name
        self._s_max = s_max
        self._lock = threading.Lock()
        self._said = False

    def begins(self, failed: _TryAgain) -> None:
        with self._lock:
            if not self._said:
                self._said = True
                log.warning(
                    "the queue %s can't be reached: %s; trying again for up to %g s (--wait)",
                    self._name,
                    failed,
                    self._s_max,
                )

    def ends(self) -> None:
        with self._lock:
            if self._said:
                self._said = False
                log.warning("the queue %s answers again", self._name)


@dataclass(slots=True)
class _SentBatch:
    """A batch in progress: the messages without a receipt, by index, and the receipts."""

    pending: dict[int, Outgoing]
    receipts: list[Receipt] = field(default_factory=list)
    failure: ProcessorError | None = None

    def accept(self, index: int, delivery_id: str) -> AcceptedMessage:
        receipt = AcceptedMessage(self.pending.pop(index), delivery_id)
        self.receipts.append(receipt)
        return receipt

    def refuse(self, index: int, code: str, reason: str) -> None:
        self.receipts.append(RefusedMessage(self.pending.pop(index), code, reason))


def _batches(messages: Iterable[Outgoing], size_max: int) -> Iterator[list[Outgoing]]:
    """Split messages into batches within SQS's limits; an oversized message gets its own batch."""
    batch: list[Outgoing] = []
    batch_bytes = 0
    for message in messages:
        size = message.size_bytes()
        if batch and (len(batch) == size_max or batch_bytes + size > BATCH_BYTES_MAX):
            yield batch
            batch, batch_bytes = [], 0
        batch.append(message)
        batch_bytes += size
    if batch:
        yield batch


def _line(message: Outgoing, delivery_id: str | None = None) -> ManifestLine:
    state: State = "intended" if delivery_id is None else "accepted"
    return ManifestLine(state, message.tenant_id, message.message_id, message.digest, delivery_id)
