"""Makes the calls to SQS, several at a time, and tells an outage, a fault and a refusal apart.

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
"""A queue that has taken something so lately is not asked whether it is there."""

BELIEVED_FOR_S = 10.0
"""How long a failed call counts, whatever a look at the queue says: who may look need not be who may send."""

log = logging.getLogger(__name__)


class Sendable(Protocol):
    """What is sent: something with an event."""

    event: ReadEvent


@dataclass(frozen=True, slots=True)
class Failure:
    """A call of which nothing is known to have been taken.

    `outage`: another try may work. `hopeless`: no other try helps now. Neither: some event in it is at fault.
    """

    word: Refusal
    outage: bool = False
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class Sent:
    """How a call ended, and after how long."""

    answer: Answer | Failure
    took_s: float


Told = Callable[[Any, Sent], None]


class Sending(Protocol):
    """Whoever sends batches, up to `count` at a time; on an `ordered` queue one after the other."""

    count: int
    ordered: bool

    def start(self) -> None:
        """Get ready, on the event loop that runs now."""

    def send(self, batch: Sequence[Sendable], told: Told) -> None:
        """Send this, then call `told` with it and with what came of it, on the event loop."""

    def stop(self) -> None:
        """Send no more."""

    async def trouble(self) -> str:
        """Say what is in the way of sending; empty when nothing is."""


class Senders:
    """Threads that send. `look` asks the queue whether it is there, and raises what boto3 raises."""

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
        """Start the threads; they tell what came of a batch on the event loop that runs now."""
        self._loop = asyncio.get_running_loop()
        for number in range(self.count):
            thread = threading.Thread(target=self._work, name=f"sender-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def send(self, batch: Sequence[Sendable], told: Told) -> None:
        """Send this as soon as a thread is free, then call `told` with it on the event loop."""
        self._jobs.put((batch, told))

    def stop(self) -> None:
        """Let what is being sent come to its end, and end the threads without waiting for them."""
        for _ in self._threads:
            self._jobs.put(None)
        self._threads.clear()

    async def trouble(self) -> str:
        """Say what is in the way of sending; where nothing was sent lately, look at the queue."""
        now = self._clock()
        if self._good_at is not None and now - self._good_at < PROBE_AFTER_S and not self._trouble:
            return ""
        if self._failed_at is not None and now - self._failed_at < BELIEVED_FOR_S and self._trouble:
            return self._trouble
        return await asyncio.get_running_loop().run_in_executor(None, self._probe)

    def worked(self) -> None:
        """Note that somebody else has sent something."""
        if self._trouble:
            self._note("")
        else:
            self._good_at = self._clock()

    def timed_out(self) -> Failure:
        """Note, and say, that the queue let somebody else in and then did not answer in time."""
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
                # The loop was closed under us: nobody is there to be told.
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
        except Exception as error:  # noqa: BLE001 - else those who wait would wait for ever
            # Its text may quote what we were about to send.
            log.error("a bug kept a call from being made: %s", type(error).__name__)  # noqa: TRY400
            return Failure(_unavailable("a bug of ours keeps it from being sent"), hopeless=True)
        self._note("" if answer.accepted else self._trouble)
        return answer

    def _call_failed(self, error: CallFailed) -> Failure:
        if error.outage:
            trouble = f"the queue can't be reached or does not work: {error.code}"
            self._note(trouble)
            return Failure(_unavailable(trouble), outage=True)
        return Failure(
            Refusal(Why.INVALID, f"the queue does not take it: {error.code}: {error.reason[:200]}")
        )

    def _probe(self) -> str:
        try:
            self._look()
        except ClientError as error:
            code = _code(error)
            # To send is one right, to look another: whoever may not look can't be told more.
            trouble = "" if "AccessDenied" in code else f"the queue denies access: {code}"
        except BotoCoreError as error:
            trouble = f"the queue can't be reached: {type(error).__name__}"
        else:
            trouble = ""
        self._note(trouble, looked=True)
        return trouble

    def _note(self, trouble: str, *, looked: bool = False) -> None:
        """Remember what is in the way, and log it when it begins and when it is over."""
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
    """Name the code alone: the text of a refused signature quotes headers, a token among them."""
    cause = error.__cause__
    code = _code(cause) if isinstance(cause, ClientError) else type(cause).__name__
    return f"the queue is missing or denies access: {code}; see SQS_QUEUE_URL and the AWS_* settings"


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def _unavailable(words: str) -> Refusal:
    return Refusal(Why.UNAVAILABLE, words, retry_after_s=1)
