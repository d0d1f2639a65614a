"""How a run ends: when idle, by a worker's death, by a stop; and how deliveries are held until then."""

import threading
import time
from collections.abc import Sequence

import pytest

from processor.errors import SourceUnavailable, StoreUnavailable
from processor.model import Delivery
from processor.pipeline.pipeline import Pipeline
from processor.sources.memory import MemorySource
from tests.pipeline.harness import Harness, StubStore, in_background, until, wait

# ── idle ──────────────────────────────────────────────────────────────────────────────────────────────


class SilentSource(MemorySource):
    """A queue that takes a poll and says nothing to it until told to."""

    def __init__(self) -> None:
        super().__init__()
        self.speak = threading.Event()
        self.asked = threading.Event()

    def receive(self, limit: int, wait_s: float) -> list[Delivery]:
        self.asked.set()
        wait(self.speak)
        return super().receive(limit, wait_s)


def _end_is_seen_within(pipeline: Pipeline, runner: threading.Thread, ticks: int) -> bool:
    """Whether the run has begun to end; a run that waits for its own poll has, too."""
    for _ in range(ticks):
        runner.join(0.1)
        if "stopping" in pipeline.trouble or not runner.is_alive():
            return True
    return False


def test_a_queue_that_has_never_answered_is_not_idle() -> None:
    source = SilentSource()
    harness = Harness(source=source)
    runner = in_background(harness.run_until_idle)
    assert source.asked.wait(5)

    assert not _end_is_seen_within(harness.pipeline, runner, 10)
    source.speak.set()
    runner.join(5)

    assert not runner.is_alive()


def test_a_queue_that_has_become_silent_is_not_idle() -> None:
    source = SilentSource()
    source.speak.set()
    harness = Harness(source=source)
    runner = in_background(lambda: harness.pipeline.run(harness.stop, until_idle_s=0.5))
    harness.send(5)
    until(lambda: harness.pipeline.tally.total == 5)
    source.speak.clear()

    assert not _end_is_seen_within(harness.pipeline, runner, 15)
    source.speak.set()
    runner.join(5)

    assert not runner.is_alive()


# ── a worker's death ──────────────────────────────────────────────────────────────────────────────────


class Panic(BaseException):
    """What a panic in a library written in Rust surfaces as: no Exception."""


@pytest.mark.parametrize("cause", [Panic("in Rust"), SystemExit(0)])
def test_whatever_a_worker_dies_of_ends_the_run_and_is_never_a_good_end(cause: BaseException) -> None:
    def die() -> None:
        raise cause

    harness = Harness(StubStore(before_save=die))
    harness.send(5)
    died: list[BaseException] = []

    def run() -> None:
        try:
            harness.run_until_idle()
        except RuntimeError as error:
            died.append(error)

    runner = in_background(run)
    runner.join(5)

    assert not runner.is_alive()
    assert [error.__cause__ for error in died] == [cause]
    assert harness.source.depth() == {"visible": 0, "in_flight": 5, "delayed": 0}


def test_a_pipeline_is_alive_before_and_while_it_works_and_not_after_a_death() -> None:
    blocked = threading.Event()

    def block_and_die() -> None:
        wait(blocked)
        raise ValueError

    harness = Harness(StubStore(before_save=block_and_die))
    alive_before = harness.pipeline.alive
    harness.send(1)

    def run() -> None:
        with pytest.raises(ValueError):  # noqa: PT011 - there is nothing more to it
            harness.run_until_idle()

    runner = in_background(run)
    until(lambda: harness.pipeline.held.size == 1)
    alive_while_working = harness.pipeline.alive
    blocked.set()
    runner.join(5)

    assert alive_before
    assert alive_while_working
    assert not harness.pipeline.alive


def test_a_pipeline_that_stops_as_it_should_stays_alive() -> None:
    harness = Harness()

    harness.run_until_idle()

    assert harness.pipeline.alive


# ── a stop ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stop_is_noticed_by_a_receiver_whose_call_was_taken_away_again() -> None:
    """Another receiver, at the end of its last poll, may clear what the stop has set."""
    harness = Harness(receivers=2)
    runner = in_background(harness.run_until_stopped)
    more = harness.pipeline._more
    more.set = lambda: None  # type: ignore[method-assign]

    harness.stop.set()
    runner.join(3)

    assert not runner.is_alive()


def test_giving_back_takes_no_longer_than_an_orchestrator_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    class SlowSource(MemorySource):
        def release(self, deliveries: Sequence[Delivery]) -> None:
            time.sleep(0.05 * len(deliveries))
            super().release(deliveries)

    monkeypatch.setattr("processor.pipeline.pipeline._RELEASE_S_MAX", 0.6)
    never = threading.Event()
    harness = Harness(StubStore(before_save=lambda: wait(never)), SlowSource(), stop_timeout_s=0.1)
    harness.send(200)
    runner = in_background(harness.run_until_stopped)
    until(lambda: harness.pipeline.held.size == 200)

    harness.stop.set()
    runner.join(15)

    assert not runner.is_alive()
    # All of them would have taken ten seconds.
    given_back = harness.source.depth()["visible"]
    assert 0 < given_back < 200


def test_a_release_that_fails_ends_the_run_well_and_is_left_to_the_queue() -> None:
    class FailingSource(MemorySource):
        def release(self, deliveries: Sequence[Delivery]) -> None:
            raise SourceUnavailable(f"away, with {len(deliveries)}")

    def fail() -> None:
        raise StoreUnavailable("away")

    harness = Harness(StubStore(before_save=fail), FailingSource(), stop_timeout_s=0.1)
    harness.send(5)
    runner = in_background(harness.run_until_stopped)
    until(lambda: not harness.database.working.is_set())

    harness.stop.set()
    runner.join(5)

    assert not runner.is_alive()
    assert harness.pipeline.held.size == 0


# ── what is held, until the end ───────────────────────────────────────────────────────────────────────


def test_a_failed_extension_keeps_no_other_delivery_from_being_extended() -> None:
    class PartlyFailing(MemorySource):
        unlucky = ""

        def extend(self, deliveries: Sequence[Delivery]) -> None:
            self.unlucky = self.unlucky or deliveries[0].delivery_id
            if any(delivery.delivery_id == self.unlucky for delivery in deliveries):
                raise SourceUnavailable("no answer")
            super().extend(deliveries)

    release = threading.Event()
    store = StubStore(before_save=lambda: wait(release))
    harness = Harness(store, PartlyFailing(visibility_timeout_s=0.6), visibility_timeout_s=0.6)
    harness.send(40)
    runner = in_background(harness.run_until_idle)
    until(lambda: harness.pipeline.held.oldest_s() > 1.5)
    invisible = harness.source.depth()["in_flight"]
    release.set()
    runner.join(5)

    came_twice = {delivery.delivery_id for delivery in store.saved if delivery.receive_count > 1}
    assert invisible >= 30
    assert len(came_twice) <= 10, "those of the call that failed, and no other"


def test_an_extension_that_failed_once_is_tried_again_before_the_message_comes_back() -> None:
    class FailingOnce(MemorySource):
        failures = 1

        def extend(self, deliveries: Sequence[Delivery]) -> None:
            if self.failures:
                self.failures -= 1
                raise SourceUnavailable("no answer")
            super().extend(deliveries)

    release = threading.Event()
    store = StubStore(before_save=lambda: wait(release))
    harness = Harness(store, FailingOnce(visibility_timeout_s=1.5), visibility_timeout_s=1.5)
    harness.send(5)
    runner = in_background(harness.run_until_idle)
    until(lambda: harness.pipeline.held.oldest_s() > 2)
    release.set()
    runner.join(5)

    assert {delivery.receive_count for delivery in store.saved} == {1}


def test_a_batch_is_never_larger_than_its_bound_even_where_that_is_below_one_receive() -> None:
    store = StubStore()
    harness = Harness(store, batch_size_max=3)
    harness.send(40)

    tally = harness.run_until_idle()

    assert tally.outcomes == {"stored": 40}
    assert max(store.batches) == 3
