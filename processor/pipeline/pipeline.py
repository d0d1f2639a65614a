"""Run the pipeline: receive, validate, save and settle, in worker threads joined by queues.

    receivers ─▶ verdicts (bounded by InFlight) ─▶ writers ══COMMIT══▶ settlements ─▶ settlers
        ▲  └─▶ expensive payloads ─▶ judge ─▶ verdicts                               │
        └──────────── heartbeat extends the visibility timeout of deliveries ◀───────┘

`once` does the same in one thread, in the same order. The threads only overlap waiting.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol, TypeAlias

import structlog

from processor.errors import MustWait, SourceUnavailable, Stopped
from processor.model import Delivery, Settlement, Verdict
from processor.pipeline.ending import join_all, left_behind
from processor.pipeline.idleness import IdleDetector, NoPeers, Peers
from processor.pipeline.in_flight import InFlight
from processor.pipeline.limits import PipelineLimits
from processor.pipeline.outcome_counts import OutcomeCounts, count_outcomes
from processor.pipeline.write_queue import WriteQueue
from processor.runtime import metrics
from processor.runtime.outages import OutageRetry
from processor.sources import RunningSource, Source

log = structlog.get_logger(__name__)

_TICK_S = 0.2

_SUSPECT_HOLD_S_MAX = 5
"""The longest visibility timeout of a suspect while it is read: short, to return soon after a crash."""

_PROBE_EVERY_S = 2.0
"""The interval between probes of an idle database."""

_RELEASE_S_MAX = 3.0
"""The time limit for releasing deliveries at a stop. The others return after their visibility timeout."""

OnCommit: TypeAlias = Callable[[Sequence[Verdict], Sequence[Settlement]], object]


class PipelineValidator(Protocol):
    """The validator, as the pipeline uses it."""

    def validate(self, delivery: Delivery, *, may_wait: bool = True) -> Verdict: ...  # noqa: D102


class PipelineStore(Protocol):
    """The store, as the pipeline uses it."""

    def save(self, verdicts: Sequence[Verdict]) -> list[Settlement]: ...  # noqa: D102
    def unread(self, suspect: Delivery) -> Verdict | None: ...  # noqa: D102
    def probe(self) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


def once(
    source: Source, validator: PipelineValidator, store: PipelineStore, *, limit: int, wait_s: float
) -> list[Settlement]:
    """Take one batch through all four steps, the whole program in short, and return its settlements."""
    deliveries = source.receive(limit, wait_s)
    verdicts = [validator.validate(delivery) for delivery in deliveries]
    settlements = store.save(verdicts) if verdicts else []
    # A crash above this line costs a redelivery, a crash below it nothing. No event is lost either way.
    source.settle(settlements)
    count_outcomes(settlements)
    return settlements


class Pipeline:
    """One run of the pipeline over one source. Workers are threads, and each writer has its own store.

    `database` and `broker` retry outages. `give_up` ends both retries; the pipeline sets it when a stop takes
    longer than `stop_timeout_s`. `on_commit` is called after the commit of each batch.
    """

    def __init__(
        self,
        source: RunningSource,
        validator: PipelineValidator,
        stores: Sequence[PipelineStore],
        *,
        limits: PipelineLimits,
        database: OutageRetry,
        broker: OutageRetry,
        give_up: threading.Event,
        on_commit: OnCommit = lambda _verdicts, _settlements: None,
    ) -> None:
        self._source = source
        self._validator = validator
        self._stores = stores
        self._limits = limits
        self._database, self._broker, self._give_up = database, broker, give_up
        self._on_commit = on_commit
        self._stop_receiving = threading.Event()
        self._finished = threading.Event()
        self._more = threading.Event()
        self._batches = WriteQueue(
            size_max=limits.batch_size_max,
            bytes_max=limits.batch_bytes_max,
            linger_s=limits.linger_s,
            piece_size_max=source.call_size,
        )
        self._unjudged: queue.SimpleQueue[Delivery | None] = queue.SimpleQueue()
        self._settlements: queue.SimpleQueue[list[Settlement] | None] = queue.SimpleQueue()
        self._workers: list[threading.Thread] = []
        self._failure: BaseException | None = None
        self._idleness: IdleDetector | None = None
        self._counting = threading.Lock()
        self.held = InFlight(
            size_max=limits.buffer_size_max,
            bytes_max=limits.buffer_bytes_max,
            extend_after_s=limits.visibility_timeout_s / 3,
            call_size=source.call_size,
        )
        self.tally = OutcomeCounts()

    # ── the run, from outside ─────────────────────────────────────────────────────────────────────────

    def run(
        self, stop: threading.Event, until_idle_s: float | None = None, company: Peers | None = None
    ) -> OutcomeCounts:
        """Work until `stop` is set, or the queue is idle for `until_idle_s` in all processes of `company`.

        The stop is clean: received deliveries are saved and settled, or released after `stop_timeout_s`.
        Raises the exception that ended a worker (RuntimeError if it was no Exception); its deliveries stay in
        the queue. Raises Stopped if the run ends during an outage or deliveries were released.
        """
        idleness = None if until_idle_s is None else self._idle_after(until_idle_s, company or NoPeers())
        self._idleness = idleness
        receivers = [
            self._worker(f"receiver-{place}", lambda place=place: self._receive(place))  # type: ignore[misc]
            for place in range(self._limits.receivers)
        ]
        judge = self._worker("judge", self._judge)
        writers = [
            self._worker(f"writer-{place}", lambda store=store: self._write(store))  # type: ignore[misc]
            for place, store in enumerate(self._stores)
        ]
        settlers = [self._worker(f"settler-{place}", self._settle) for place in range(self._limits.settlers)]
        heartbeat = self._worker("heartbeat", self._keep)
        workers = [*receivers, judge, *writers, *settlers, heartbeat]
        if idleness is not None:
            workers.append(self._worker("idleness", lambda: self._look_at(idleness)))
        for worker in workers:
            worker.start()
        self._workers = workers
        while not (stop.is_set() or self._failure or (idleness is not None and idleness.reached.is_set())):
            stop.wait(_TICK_S)
            self._observe()
        given_back = self._wind_up(receivers, judge, writers, settlers, heartbeat)
        if isinstance(self._failure, Exception):
            raise self._failure
        if self._failure is not None:
            # Wrapped, because a SystemExit would end the program with exit code 0.
            raise RuntimeError(f"a worker died of {type(self._failure).__name__}") from self._failure
        self._require_done(given_back, asking=any(receiver.is_alive() for receiver in receivers))
        return self.tally

    @property
    def alive(self) -> bool:
        """Whether every worker still runs. A dead worker is not restarted."""
        if self._failure is not None:
            return False
        # During a stop, workers end one after the other.
        return self._stop_receiving.is_set() or all(worker.is_alive() for worker in self._workers)

    @property
    def trouble(self) -> str:
        """The reason why nothing is being received now, as text; empty when all is well."""
        troubles = [
            f"{retry.dependency}: {retry.trouble or 'unavailable'}"
            for retry in (self._database, self._broker)
            if not retry.working.is_set()
        ]
        if self._stop_receiving.is_set():
            troubles.append("stopping")
        return "; ".join(troubles)

    def _idle_after(self, until_idle_s: float, company: Peers) -> IdleDetector:
        return IdleDetector(
            until_idle_s,
            self._source.depth,
            calm=lambda: not self.held.size and not self.trouble,
            calm_since=lambda: max(self._database.recovered_at, self._broker.recovered_at),
            company=company,
        )

    def _require_done(self, given_back: int, *, asking: bool) -> None:
        """Raise Stopped unless all is done. `asking` means that a receive call has not returned."""
        left = left_behind(
            [self._database, self._broker],
            self._source.depth,
            given_back=given_back,
            asked_for_s=self._limits.receive_wait_s if asking else None,
        )
        if left:
            raise Stopped(f"ended before all was done: {left}")

    def _wind_up(
        self,
        receivers: Sequence[threading.Thread],
        judge: threading.Thread,
        writers: Sequence[threading.Thread],
        settlers: Sequence[threading.Thread],
        heartbeat: threading.Thread,
    ) -> int:
        """Stop the workers in the order of the flow, so that each step finishes its input.

        Returns the number of released deliveries.
        """
        log.info("stopping", held=self.held.size, waits_for_poll_s=self._limits.receive_wait_s)
        self._stop_receiving.set()
        self._more.set()
        hard_stop = threading.Timer(self._limits.stop_timeout_s, self._give_up.set)
        hard_stop.name, hard_stop.daemon = "hard stop", True
        hard_stop.start()
        if self._failure is not None:
            self._give_up.set()
        join_all(receivers, self._give_up)
        self._unjudged.put(None)
        join_all([judge], self._give_up)
        for _ in writers:
            self._batches.end()
        join_all(writers, self._give_up)
        for _ in settlers:
            self._settlements.put(None)
        join_all(settlers, self._give_up)
        hard_stop.cancel()
        self._finished.set()
        heartbeat.join(_TICK_S * 5)
        # After a failure nothing is released: a process that is restarted at once would use up the receive
        # count of its messages. The visibility timeout sets the pace instead.
        given_back = self._release_held() if self._failure is None else 0
        self._observe()
        for store in self._stores:
            store.close()
        return given_back

    def _release_held(self) -> int:
        """Release all deliveries in flight, within _RELEASE_S_MAX, since an orchestrator may be waiting."""
        left = self.held.all()
        if not left:
            return 0
        log.warning("given_back", count=len(left), consequence="the queue hands them over again")
        # In a thread, because one call to a silent queue can take longer than the time limit.
        releaser = self._worker(
            "releaser", lambda: self.held.give_back(self._source.release, within_s=_RELEASE_S_MAX)
        )
        releaser.start()
        releaser.join(_RELEASE_S_MAX)
        self.held.drop(left)
        return len(left)

    def _observe(self) -> None:
        metrics.held.set(self.held.size)
        metrics.held_bytes.set(self.held.size_bytes)
        metrics.held_ratio.set(self.held.ratio)
        metrics.oldest_held_seconds.set(self.held.oldest_s())

    # ── the workers ───────────────────────────────────────────────────────────────────────────────────

    def _worker(self, name: str, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except Stopped:
                log.info("worker_called_off", worker=name)
            except BaseException as error:  # noqa: BLE001 - the one place: a worker's death is the program's
                # BaseException, because a SystemExit or a panic in Rust ends the worker too.
                self._failure = self._failure or error
                log.critical("worker_died", worker=name, error=type(error).__name__)

        return threading.Thread(target=guarded, name=name, daemon=True)

    def _receive(self, place: int) -> None:
        # The first receiver always polls. The others join under load only, so that an idle queue is polled,
        # and billed, for one receiver.
        receiving = place == 0
        while not self._stop_receiving.is_set():
            if not receiving:
                # With a timeout, because another receiver may clear the event, even the one set by a stop.
                receiving = self._more.wait(_TICK_S)
                continue
            # Nothing is received during an outage of the database: each receive raises the receive count,
            # which moves a message to the dead-letter queue in the end.
            if not self._database.wait_until_working(_TICK_S):
                continue
            with self.held.room(self._source.call_size, _TICK_S) as limit:
                if not limit:
                    continue
                deliveries = self._broker(lambda limit=limit: self._receive_once(limit))  # type: ignore[misc]
            if len(deliveries) == limit:
                self._more.set()
            elif not deliveries and place != 0:
                self._more.clear()
                receiving = False

    def _receive_once(self, limit: int) -> list[Delivery]:
        if self._stop_receiving.is_set():
            # Not an empty list: that would count as an answer and end a continuing outage.
            raise Stopped("told to stop")
        deliveries = self._source.receive(limit, self._limits.receive_wait_s)
        if self._idleness is not None:
            self._idleness.answered(empty=not deliveries)
        if not deliveries:
            return deliveries
        metrics.received.inc(len(deliveries))
        self.held.add(deliveries)
        # One piece for a group: with two writers, a later delivery could be committed before an earlier one.
        together = deliveries[0].group is not None
        items: list[Verdict | Delivery] = []
        for delivery in deliveries:
            try:
                # A suspect is not validated beside others, because reading it may kill the process.
                items.append(
                    delivery if delivery.suspect else self._validator.validate(delivery, may_wait=together)
                )
            except MustWait:
                self._unjudged.put(delivery)
        self._batches.put(items, together=together)
        return deliveries

    def _judge(self) -> None:
        """Validate expensive payloads one after the other, so that cheap ones don't wait for them."""
        while (delivery := self._unjudged.get()) is not None:
            self._batches.put([self._validator.validate(delivery)])

    def _write(self, store: PipelineStore) -> None:
        last = False
        while not last:
            items, last = self._batches.take(_PROBE_EVERY_S)
            if not items and not last:
                self._probe(store)
            for batch in self._batches.in_turn(items):
                self._save(
                    store,
                    [self._read_alone(store, item) if isinstance(item, Delivery) else item for item in batch],
                )

    def _probe(self, store: PipelineStore) -> None:
        """Probe the database, unless it has answered within _PROBE_EVERY_S."""
        answered_at = self._database.answered_at
        if answered_at is None or time.monotonic() - answered_at >= _PROBE_EVERY_S:
            store.probe()

    def _read_alone(self, store: PipelineStore, delivery: Delivery) -> Verdict:
        """Validate a suspect with a short visibility timeout, so that after a crash it is redelivered alone.

        Else the deliveries beside it would share its remaining receives and end in the dead-letter queue.
        """
        if self._broker.working.is_set():
            hold_s = max(1, min(_SUSPECT_HOLD_S_MAX, int(self._limits.visibility_timeout_s / 4)))
            with suppress(SourceUnavailable):
                self._source.hold_for([delivery], hold_s)
            self.held.extend_in(hold_s / 2, delivery)
        return store.unread(delivery) or self._validator.validate(delivery)

    def _save(self, store: PipelineStore, verdicts: list[Verdict]) -> None:
        began = time.monotonic()
        settlements = store.save(verdicts)
        # Only here, after the commit, are deliveries passed on to be deleted.
        self._committed(settlements, time.monotonic() - began)
        for start in range(0, len(settlements), self._source.call_size):
            self._settlements.put(settlements[start : start + self._source.call_size])
        self._on_commit(verdicts, settlements)

    def _committed(self, settlements: Sequence[Settlement], save_s: float) -> None:
        outcomes = count_outcomes(settlements)
        with self._counting:
            self.tally.outcomes.update(outcomes)
        metrics.batch_size.observe(len(settlements))
        metrics.save_seconds.observe(save_s)
        now = datetime.now(UTC)
        for settlement in settlements:
            metrics.commit_latency_seconds.observe((now - settlement.delivery.received_at).total_seconds())

    def _settle(self) -> None:
        while (settlements := self._settlements.get()) is not None:
            try:
                self._broker(lambda settlements=settlements: self._source.settle(settlements))  # type: ignore[misc]
                if settlements[0].delivery.group is not None and self._idleness is not None:
                    # An ordered queue may have withheld later messages of the group until now.
                    self._idleness.disturb()
            finally:
                self.held.drop([settlement.delivery for settlement in settlements])

    def _look_at(self, idleness: IdleDetector) -> None:
        while not self._stop_receiving.wait(_TICK_S):
            idleness.look()

    def _keep(self) -> None:
        while not self._finished.wait(min(_TICK_S, self._limits.visibility_timeout_s / 3)):
            self.held.keep(self._source.extend, hold_s_max=self._limits.hold_s_max, stop=self._finished)
