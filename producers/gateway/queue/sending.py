"""Makes the calls to SQS, several at a time, and distinguishes an outage, a faulty event and a refusal.

batch ─▶ [thread] ─▶ Publisher.send ─▶ Answer │ Failure ─▶ back on the event loop
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from processor.errors import SettingsError
from producers.gateway.items import Refusal, Why
from producers.gateway.reading import ReadEvent
from producers.publishers import Answer, CallFailed, Publisher

PROBE_AFTER_S = 2.0
"""A queue that accepted an event so recently is not probed."""

BELIEVED_FOR_S = 10.0
"""How long a failed call counts, whatever a probe says: the right to probe is not the right to send."""

log = logging.getLogger(__name__)


class Sendable(Protocol):
    """An entry of a batch."""

    event: ReadEvent


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed call: no event of it is known to be on the queue.

    `outage`: a retry may work. `hopeless`: a retry does not help now. Neither: some event in it is at fault.
    """

    word: Refusal
    outage: bool = False
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class Sent:
    """The result of a call, and its duration."""

    answer: Answer | Failure
    took_s: float


Told = Callable[[Any, Sent], None]


class Sending(Protocol):
    """Sends batches, up to `count` at a time; on an `ordered` queue one after the other."""

    count: int
    ordered: bool

    def start(self) -> None:
        """Start, on the running event loop."""

    def send(self, batch: Sequence[Sendable], told: Told) -> None:
        """Send a batch, then call `told` with the batch and its result, on the event loop."""

    def stop(self) -> None:
        """Stop sending."""

    async def trouble(self) -> str:
        """Describe why sending fails; empty if it works."""


class Senders:
    """Threads that send. `look` probes the queue, and raises boto3's exceptions."""

    def __init__(
        self,
        publisher: Publisher,
        count: int,
        look: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher = publisher
        self.ordered = publisher.ordered
        self.count = 1 if publisher.ordered else count
        self._look = look
        self._clock = clock
        self._jobs: SimpleQueue[tuple[Sequence[Sendable], Told] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._trouble = ""
        self._failed_at: float | None = None
        self._good_at: float | None = None

    def start(self) -> None:
        """Start the threads; they report results on the running event loop."""
        self._loop = asyncio.get_running_loop()
        for number in range(self.count):
            thread = threading.Thread(target=self._work, name=f"sender-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def send(self, batch: Sequence[Sendable], told: Told) -> None:
        """Send a batch as soon as a thread is free, then call `told` on the event loop."""
        self._jobs.put((batch, told))

    def stop(self) -> None:
        """End each thread after its current call, without waiting for it."""
        for _ in self._threads:
            self._jobs.put(None)
        self._threads.clear()

    async def trouble(self) -> str:
        """Describe why sending fails; if no event was sent lately, probe the queue."""
        now = self._clock()
        if self._good_at is not None and now - self._good_at < PROBE_AFTER_S and not self._trouble:
            return ""
        if self._failed_at is not None and now - self._failed_at < BELIEVED_FOR_S and self._trouble:
            return self._trouble
        return await asyncio.get_running_loop().run_in_executor(None, self._probe)

    def worked(self) -> None:
        """Note a call that succeeded outside these threads."""
        if self._trouble:
            self._note("")
        else:
            self._good_at = self._clock()

    def timed_out(self) -> Failure:
        """Note a call outside these threads that got no answer in time, and return its failure."""
        return self._call_failed(CallFailed("ReadTimeoutError", "no answer in time", outage=True))

    # ── in the threads ────────────────────────────────────────────────────────────────────────────────

    def _work(self) -> None:
        loop = self._loop
        assert loop is not None  # noqa: S101 - `start` has set it
        while (job := self._jobs.get()) is not None:
            batch, told = job
            began = time.perf_counter()
            answer = self._call(batch)
            sent = Sent(answer, time.perf_counter() - began)
            try:
                loop.call_soon_threadsafe(told, batch, sent)
            except RuntimeError:
                # The event loop was closed: no caller waits any more.
                return

    def _call(self, batch: Sequence[Sendable]) -> Answer | Failure:
        try:
            answer = self._publisher.send({index: entry.event.outgoing for index, entry in enumerate(batch)})
        except CallFailed as error:
            return self._call_failed(error)
        except SettingsError as error:
            trouble = _refused(error)
            self._note(trouble)
            return Failure(_unavailable(trouble), hopeless=True)
        except Exception as error:  # noqa: BLE001 - the callers must get a result
            # The text of the exception is not logged, as it may quote events.
            log.error("a bug kept a call from being made: %s", type(error).__name__)  # noqa: TRY400
            return Failure(_unavailable("a bug of ours keeps it from being sent"), hopeless=True)
        self._note("" if answer.accepted else self._trouble)
        return answer

    def _call_failed(self, error: CallFailed) -> Failure:
        if error.outage:
            trouble = f"the queue can't be reached or does not work: {error.code}"
            self._note(trouble)
            return Failure(_unavailable(trouble), outage=True)
        return Failure(Refusal(Why.INVALID, f"the queue rejects it: {error.code}: {error.reason[:200]}"))

    def _probe(self) -> str:
        try:
            self._look()
        except ClientError as error:
            code = _code(error)
            # Sending and probing need different rights. Without the right to probe nothing is known.
            trouble = "" if "AccessDenied" in code else f"the queue denies access: {code}"
        except BotoCoreError as error:
            trouble = f"the queue can't be reached: {type(error).__name__}"
        else:
            trouble = ""
        self._note(trouble, looked=True)
        return trouble

    def _note(self, trouble: str, *, looked: bool = False) -> None:
        """Remember the trouble, and log its start and its end."""
        with self._lock:
            before, self._trouble = self._trouble, trouble
            if trouble and not looked:
                self._failed_at = self._clock()
            elif not trouble:
                self._good_at = self._clock()
        if trouble and not before:
            log.error("%s; until it is over, events are answered as unavailable", trouble)
        elif before and not trouble:
            log.warning("the queue works again")


def _refused(error: SettingsError) -> str:
    """Give the error code only: the text of a rejected signature quotes headers, including a token."""
    cause = error.__cause__
    code = _code(cause) if isinstance(cause, ClientError) else type(cause).__name__
    return f"the queue is missing or denies access: {code}; see SQS_QUEUE_URL and the AWS_* settings"


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def _unavailable(words: str) -> Refusal:
    return Refusal(Why.UNAVAILABLE, words, retry_after_s=1)
