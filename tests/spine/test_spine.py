"""The five lines that the program is about, and the promises of the workers that overlap them. No I/O."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from processor.errors import SourceUnavailable, StoreFault, StoreUnavailable
from processor.model import Delivery, Outcome, Registry, Settlement, Verdict
from processor.patience import Patience
from processor.pipeline import Limits, Pipeline, Tally, once
from processor.schemas import Schemas
from processor.sources.memory import MemorySource
from tests.builders import a_body


@dataclass
class StubStore:
    """Says "stored" to everything, or fails on cue; the order of calls is all that matters here."""

    before_save: Callable[[], None] = lambda: None
    saved: list[Delivery] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)

    def save(self, verdicts: Sequence[Verdict]) -> list[Settlement]:
        self.before_save()
        self.saved += [verdict.delivery for verdict in verdicts]
        self.batches.append(len(verdicts))
        return [Settlement(verdict.delivery, Outcome.STORED) for verdict in verdicts]

    def close(self) -> None:
        """Nothing to close."""


class Harness:
    """A pipeline over a queue in memory."""

    def __init__(
        self, store: StubStore | None = None, source: MemorySource | None = None, **limits: float
    ) -> None:
        self.source = source or MemorySource()
        self.store = store or StubStore()
        self.stop, self.give_up = threading.Event(), threading.Event()
        self.database = Patience("database", wait_s_max=0.02, stop=self.give_up)
        patient = _Patient(self.store, self.database)
        self.pipeline = Pipeline(
            self.source,
            _schemas(),
            [patient],
            limits=Limits(**({"receive_wait_s": 0.05, "stop_timeout_s": 5} | limits)),  # type: ignore[arg-type]
            database=self.database,
            broker=Patience("queue", wait_s_max=0.02, stop=self.give_up),
            give_up=self.give_up,
        )

    def send(self, count: int) -> None:
        for _ in range(count):
            self.source.send(a_body())

    def run_until_idle(self) -> Tally:
        return self.pipeline.run(self.stop, until_idle_s=0.1)


@dataclass
class _Patient:
    """A stub store behind patience, as the real one is."""

    store: StubStore
    patience: Patience

    def save(self, verdicts: Sequence[Verdict]) -> list[Settlement]:
        return self.patience(lambda: self.store.save(verdicts))

    def close(self) -> None:
        self.store.close()


def _schemas() -> Schemas:
    schemas = Schemas(body_bytes_max=1024 * 1024, json_depth_max=64)
    schemas.install(Registry(1, {"acme": False}, ()))
    return schemas


class WatchedSource(MemorySource):
    """Counts the polls under way, and remembers who asked."""

    def __init__(self) -> None:
        super().__init__()
        self.polling = 0
        self.asking: set[str] = set()

    def receive(self, limit: int, wait_s: float) -> list[Delivery]:
        self.polling += 1
        self.asking.add(threading.current_thread().name)
        try:
            return super().receive(limit, wait_s)
        finally:
            self.polling -= 1


def _wait(event: threading.Event) -> None:
    event.wait(5)


def _in_background(work: Callable[[], object]) -> threading.Thread:
    # A daemon: a failed assertion must not leave the test run waiting for it.
    runner = threading.Thread(target=work, daemon=True)
    runner.start()
    return runner


def _until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.002)


# ── one thread ────────────────────────────────────────────────────────────────────────────────────────


def test_the_spine_receives_validates_saves_and_only_then_settles() -> None:
    source = MemorySource()
    source.send(a_body())
    depth_at_save = []
    store = StubStore(before_save=lambda: depth_at_save.append(source.depth()))

    settlements = once(source, _schemas(), store, limit=10, wait_s=0)

    assert [settlement.outcome for settlement in settlements] == ["stored"]
    assert depth_at_save == [{"visible": 0, "in_flight": 1, "delayed": 0}]
    assert source.depth() == {"visible": 0, "in_flight": 0, "delayed": 0}


def test_a_save_that_fails_settles_nothing() -> None:
    source = MemorySource()
    source.send(a_body())

    def fail() -> None:
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable):
        once(source, _schemas(), StubStore(before_save=fail), limit=10, wait_s=0)

    assert source.depth() == {"visible": 0, "in_flight": 1, "delayed": 0}


# ── the workers ───────────────────────────────────────────────────────────────────────────────────────


def test_everything_that_was_sent_is_saved_and_settled_before_an_idle_end() -> None:
    harness = Harness()
    harness.send(333)

    tally = harness.run_until_idle()

    assert tally.outcomes == {"stored": 333}
    assert len({delivery.delivery_id for delivery in harness.store.saved}) == 333
    assert harness.source.depth() == {"visible": 0, "in_flight": 0, "delayed": 0}
    assert harness.pipeline.held.size == 0


def test_a_writer_that_was_busy_commits_whatever_waits_up_to_the_batch_size() -> None:
    store = StubStore(before_save=lambda: None if store.batches else time.sleep(0.2))
    harness = Harness(store, batch_size_max=50)
    harness.send(200)

    harness.run_until_idle()

    assert max(store.batches[1:]) > 10
    assert max(store.batches) <= 50


def test_a_batch_stays_in_flight_while_the_store_is_away_and_nothing_is_received_meanwhile() -> None:
    away = threading.Event()
    attempts = []

    def fail_while_away() -> None:
        attempts.append(1)
        if not away.is_set():
            raise StoreUnavailable("away")

    source = WatchedSource()
    harness = Harness(StubStore(before_save=fail_while_away), source)
    harness.send(5)
    runner = _in_background(harness.run_until_idle)
    # A poll that was under way when the outage began ends by itself; no new one may begin.
    _until(lambda: bool(harness.pipeline.trouble) and source.polling == 0)
    harness.send(100)
    attempts.clear()
    held = harness.pipeline.held.size
    _until(lambda: len(attempts) > 8)

    assert harness.pipeline.trouble == "database: away"
    assert harness.pipeline.held.size == held, "nothing more was received"
    away.set()
    runner.join(5)
    assert harness.pipeline.tally.outcomes == {"stored": 105}
    assert {delivery.receive_count for delivery in harness.store.saved} == {1}


def test_an_outage_of_the_queue_is_waited_out() -> None:
    class FlakySource(MemorySource):
        outages = 5

        def receive(self, limit: int, wait_s: float) -> list[Delivery]:
            if self.outages:
                self.outages -= 1
                raise SourceUnavailable("refused")
            return super().receive(limit, wait_s)

    harness = Harness(source=FlakySource())
    harness.send(20)

    assert harness.run_until_idle().outcomes == {"stored": 20}


def test_what_is_held_is_kept_invisible_for_longer_than_the_visibility_timeout() -> None:
    release = threading.Event()
    store = StubStore(before_save=lambda: _wait(release))
    harness = Harness(store, MemorySource(visibility_timeout_s=0.3), visibility_timeout_s=0.3)
    harness.send(10)
    runner = _in_background(harness.run_until_idle)
    _until(lambda: harness.pipeline.held.oldest_s() > 0.8)

    release.set()
    runner.join(5)

    assert harness.pipeline.tally.outcomes == {"stored": 10}
    assert {delivery.receive_count for delivery in store.saved} == {1}


def test_the_buffer_is_bounded_by_number_and_by_bytes() -> None:
    blocked = threading.Event()
    for name, bound in (("buffer_size_max", 30), ("buffer_bytes_max", 30 * len(a_body()))):
        blocked.clear()
        harness = Harness(StubStore(before_save=lambda: _wait(blocked)), None, **{name: bound})
        harness.send(200)
        runner = _in_background(harness.run_until_idle)
        _until(lambda harness=harness: harness.pipeline.held.ratio >= 1)  # type: ignore[misc]

        assert 30 <= harness.pipeline.held.size <= 30 + 3 * 10, "at most one receive of each receiver beyond"
        blocked.set()
        runner.join(5)
        assert harness.pipeline.tally.total == 200


def test_a_stop_finishes_what_is_held() -> None:
    harness = Harness(StubStore(before_save=lambda: time.sleep(0.05)))
    harness.send(300)
    runner = _in_background(lambda: harness.pipeline.run(harness.stop))
    _until(lambda: harness.pipeline.held.size > 10)

    harness.stop.set()
    runner.join(5)

    stored = harness.pipeline.tally.total
    assert harness.source.depth() == {"visible": 300 - stored, "in_flight": 0, "delayed": 0}


def test_a_stop_during_an_outage_gives_back_what_is_held() -> None:
    def fail() -> None:
        raise StoreUnavailable("away")

    harness = Harness(StubStore(before_save=fail), stop_timeout_s=0.1)
    harness.send(5)
    runner = _in_background(lambda: harness.pipeline.run(harness.stop))
    _until(lambda: not harness.database.working.is_set())

    harness.stop.set()
    runner.join(5)

    assert not runner.is_alive()
    assert harness.source.depth() == {"visible": 5, "in_flight": 0, "delayed": 0}


def test_a_bug_in_a_worker_ends_the_run_and_settles_nothing_of_it() -> None:
    def fail() -> None:
        raise StoreFault("a missing right")

    harness = Harness(StubStore(before_save=fail))
    harness.send(5)

    with pytest.raises(StoreFault):
        harness.run_until_idle()

    assert harness.source.depth() == {"visible": 0, "in_flight": 5, "delayed": 0}


def test_an_idle_queue_is_asked_by_one_receiver() -> None:
    source = WatchedSource()
    harness = Harness(source=source)
    harness.send(9)

    harness.run_until_idle()

    assert source.asking == {"receiver-0"}
