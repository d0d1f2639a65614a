"""The dispatcher: each round closes due windows, makes batches, and sends the batches that are due.

    round: close ─▶ make batches ─▶ send, one by one, until none is due or the sink fails ─▶ pause

Closing does not wait for the sink. During an outage of the sink the rounds go on with backoff, and the first
accepted batch ends the outage. A batch that is refused for its content has a backoff of its own, and delays
no other batch.
"""

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import psycopg
import structlog

from processor.handover import batches
from processor.handover.batches import Batch, Waiting
from processor.handover.lines import Amounts, array_of
from processor.handover.place import require_place
from processor.handover.sink import AllAccepted, Answer, BatchRefused, PartlyAccepted, Sink, SinkUnavailable
from processor.handover.windows import close_due, count_due
from processor.runtime import metrics

log = structlog.get_logger(__name__)

Connection: TypeAlias = psycopg.Connection[Any]
Transact = Callable[[Callable[[Connection], Any]], Any]
"""Runs a function on a connection in autocommit mode, and retries it until the database is back."""

_PROBE_EVERY_S = 2.0
_REFUSED_WAIT_S_MIN = 1.0
_OUTAGE_WAIT_S_MIN = 0.1
_ATTEMPTS_OF_ONCE = 3

_REFUSALS_IN_A_ROW_MAX = 16
"""Fewer splits isolate a bad line among thousands; after so many refusals the sink refuses everything."""

_SERVER_ERROR = 500
_ERRORS_BEFORE_SPLIT = 3
"""A 500 may come from one bad line or from a broken sink. Only after so many is the batch split."""


_OUTCOMES = {
    AllAccepted: "accepted",
    PartlyAccepted: "in_part",
    BatchRefused: "refused",
    SinkUnavailable: "failed",
}


@dataclass(frozen=True, slots=True)
class DispatchLimits:
    """The batch size, the JSON type of amounts, and the upper bounds of the backoffs in seconds."""

    lines_max: int
    amounts: Amounts
    outage_wait_s_max: float
    refused_wait_s_max: float


@dataclass(slots=True)
class DispatchCounts:
    """Counts of a dispatcher since its start; `trouble` is the sink's last error, '' after a success."""

    totals_closed: int = 0
    lines_written: int = 0
    lines_accepted: int = 0
    requests: int = 0
    trouble: str = ""
    reached: bool = True


@dataclass(slots=True)
class Dispatcher:
    """Hands lines over to one sink. Several dispatchers, in one process or many, share the work.

    `probe` checks the database while the dispatcher pauses, so that /readyz and metrics show an outage.
    """

    transact: Transact
    sink: Sink
    limits: DispatchLimits
    stop: threading.Event = field(default_factory=threading.Event)
    tally: DispatchCounts = field(default_factory=DispatchCounts)
    probe: Callable[[], object] = lambda: None
    _failures: int = 0
    _refusals: int = 0

    @property
    def trouble(self) -> str:
        """The sink's error at the last attempt; empty after a success."""
        return f"sink: {self.tally.trouble}" if self.tally.trouble else ""

    def run(self, every_s: float) -> None:
        """Run rounds until `stop` is set; a request in progress is finished first."""
        while not self.stop.is_set():
            self.prepare()
            failed = self._send_due()
            self.count_waiting()
            self._rest(every_s if failed is None else self._pause_s(failed))

    def _rest(self, wait_s: float) -> None:
        """Wait, and probe the database meanwhile, so that an outage shows without work to do."""
        until = time.monotonic() + wait_s
        while (left_s := until - time.monotonic()) > 0:
            if self.stop.wait(min(left_s, _PROBE_EVERY_S)):
                return
            self.probe()

    def run_once(self) -> Waiting:
        """Close due windows and send all batches, each with bounded retries; returns the lines left."""
        self.prepare()
        refused: list[int] = []
        while not self.stop.is_set():
            batch_id, answer = self._send_one(any_time=True, but=refused)
            if batch_id is None:
                break
            if isinstance(answer, SinkUnavailable):
                asked_s = answer.retry_after_s or 0
                if self._failures >= _ATTEMPTS_OF_ONCE or asked_s > self.limits.outage_wait_s_max:
                    break
                self.stop.wait(self._pause_s(answer))
            elif not isinstance(answer, AllAccepted):
                # Its halves or its remaining lines are new batches with ids of their own.
                refused.append(batch_id)
        return self.count_waiting()

    def export(self, write: Callable[[Connection], int]) -> None:
        """Let `write` hand over all waiting lines in one transaction; `write` returns their number."""
        self.tally.lines_accepted = self.transact(write)

    def prepare(self) -> None:
        """Close due windows, and put every waiting line into a batch."""
        self.transact(require_place)
        self.close_round()
        lines_max = self.limits.lines_max
        while not self.stop.is_set() and self.transact(
            lambda connection: batches.make_batch(connection, lines_max)
        ):
            pass

    def close_round(self) -> None:
        """Close each total that is due now, once."""
        # Only the slots that are due now. Late events that keep coming wait for the next round, in one
        # revision each, and do not delay sending.
        due = self.transact(count_due)
        while due > 0 and not self.stop.is_set():
            closed = self.transact(close_due)
            if closed is None or closed.slots == 0:
                break
            due -= closed.slots
            self.tally.totals_closed += closed.totals
            self.tally.lines_written += closed.lines
            metrics.usage_lines_written.inc(closed.lines)

    def count_waiting(self) -> Waiting:
        """Count the lines that are still to be handed over, and set the metrics."""
        waiting: Waiting = self.transact(batches.count_waiting)
        metrics.usage_lines_waiting.labels(state="refused").set(waiting.refused)
        metrics.usage_lines_waiting.labels(state="waiting").set(waiting.lines - waiting.refused)
        metrics.usage_oldest_waiting_seconds.set(waiting.oldest_s)
        return waiting

    def _send_due(self) -> SinkUnavailable | None:
        while not self.stop.is_set():
            batch_id, answer = self._send_one()
            if batch_id is None:
                return None
            if isinstance(answer, SinkUnavailable):
                return answer
        return None

    def _send_one(self, *, any_time: bool = False, but: Sequence[int] = ()) -> tuple[int | None, Answer]:
        """Send one batch under its row lock and commit the outcome; the id is None if no batch was due."""

        def work(connection: Connection) -> tuple[Batch | None, Answer]:
            while (batch_id := batches.find(connection, any_time=any_time, but=but)) is not None:
                with connection.transaction():
                    # Empty if another dispatcher was faster.
                    for batch in batches.claim(connection, [batch_id]):
                        answer = self._ask(batch)
                        self._settle(connection, batch, answer)
                        return batch, answer
            return None, AllAccepted()

        batch, answer = self.transact(work)
        if batch is None:
            return None, answer
        # After the commit: a rollback would make the counts wrong.
        self._learn(batch, answer)
        return batch.batch_id, answer

    def _ask(self, batch: Batch) -> Answer:
        if not batch.lines:
            # An operator has marked them manually.
            return AllAccepted()
        body = array_of(batch.lines, self.limits.amounts)
        return self.sink.send(body, key=batch.key, line_keys=[line.key for line in batch.lines])

    def _settle(self, connection: Connection, batch: Batch, answer: Answer) -> None:
        wait_s = self._refused_wait_s(batch)
        match answer:
            case AllAccepted():
                batches.accept(connection, batch)
            case PartlyAccepted(troubles):
                batches.accept_in_part(connection, batch, troubles, wait_s)
            case BatchRefused(trouble, for_content):
                self._refuse(connection, batch, trouble, wait_s, may_split=for_content)
            case SinkUnavailable(trouble, status=status) if (
                status == _SERVER_ERROR and batch.attempt_count >= _ERRORS_BEFORE_SPLIT
            ):
                self._refuse(connection, batch, trouble, wait_s, may_split=True)
            case SinkUnavailable(trouble):
                # It goes to the end of the line without a backoff of its own: the sink's applies to all.
                batches.postpone(connection, batch, trouble, 0)

    def _refuse(
        self, connection: Connection, batch: Batch, trouble: str, wait_s: float, *, may_split: bool
    ) -> None:
        if len(batch.lines) == 1:
            batches.refuse_alone(connection, batch, trouble, wait_s)
        elif may_split and self._refusals < _REFUSALS_IN_A_ROW_MAX:
            batches.split(connection, batch, trouble, 0)
        else:
            batches.postpone(connection, batch, trouble, wait_s)

    def _learn(self, batch: Batch, answer: Answer) -> None:
        """Record an answer in the metrics, in the log, and in the state of the backoff."""
        self.tally.requests += 1
        metrics.usage_batches.labels(outcome=_OUTCOMES[type(answer)]).inc()
        of = {"lines": len(batch.lines), "batch": batch.batch_id}
        match answer:
            case AllAccepted():
                self._worked(len(batch.lines))
            case PartlyAccepted(troubles):
                log.warning("lines_refused", refused=len(troubles), **of)
                self._worked(len(batch.lines) - len(troubles))
            case BatchRefused(trouble):
                log.warning("batch_refused", trouble=trouble, **of)
                self._refusals += 1
                self._worked(0)
            case SinkUnavailable(trouble):
                self._failures += 1
                self.tally.trouble, self.tally.reached = trouble, answer.reached
                log.warning("outage", dependency="sink", trouble=trouble, attempt=self._failures)

    def _worked(self, lines: int) -> None:
        if self.tally.trouble:
            log.info("outage_over", dependency="sink")
        self.tally.trouble, self.tally.reached = "", True
        self._failures = 0
        if lines:
            self._refusals = 0
            self.tally.lines_accepted += lines
            metrics.usage_lines_handed_over.inc(lines)

    def _pause_s(self, answer: SinkUnavailable) -> float:
        """Exponential backoff with jitter, in seconds, or the sink's Retry-After if that is longer."""
        longest = min(_OUTAGE_WAIT_S_MIN * 2 ** min(self._failures, 30), self.limits.outage_wait_s_max)
        return max(random.uniform(longest / 2, longest), answer.retry_after_s or 0)  # noqa: S311 - jitter

    def _refused_wait_s(self, batch: Batch) -> float:
        longest = min(_REFUSED_WAIT_S_MIN * 2 ** min(batch.attempt_count, 30), self.limits.refused_wait_s_max)
        return random.uniform(longest / 2, longest)  # noqa: S311 - jitter
