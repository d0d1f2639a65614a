"""What the workers promise that overlap the steps of the spine. A queue in memory, a store that obeys."""

import threading
import time
from collections.abc import Sequence
from typing import ClassVar

import pytest

from processor.errors import MustWait, SourceUnavailable, StoreFault, StoreUnavailable
from processor.model import Delivery, Settlement, Verdict
from processor.sources.memory import MemorySource
from processor.validation.validator import Schemas
from tests.builders import a_body
from tests.pipeline.harness import Harness, StubStore, WatchedSource, in_background, until, wait


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
    runner = in_background(harness.run_until_idle)
    # A poll that was under way when the outage began ends by itself; no new one may begin.
    until(lambda: bool(harness.pipeline.trouble) and source.polling == 0)
    harness.send(100)
    attempts.clear()
    held = harness.pipeline.held.size
    until(lambda: len(attempts) > 8)

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


def test_a_source_says_how_many_deliveries_a_call_takes() -> None:
    class SmallCalls(MemorySource):
        call_size = 3
        sizes: ClassVar[dict[str, int]] = {"receive": 0, "settle": 0, "extend": 0}

        def receive(self, limit: int, wait_s: float) -> list[Delivery]:
            self._note("receive", limit)
            return super().receive(limit, wait_s)

        def settle(self, settlements: Sequence[Settlement]) -> None:
            self._note("settle", len(settlements))
            super().settle(settlements)

        def extend(self, deliveries: Sequence[Delivery]) -> None:
            self._note("extend", len(deliveries))
            super().extend(deliveries)

        def _note(self, call: str, size: int) -> None:
            self.sizes[call] = max(self.sizes[call], size)

    source = SmallCalls(visibility_timeout_s=0.3)
    store = StubStore(before_save=lambda: until(lambda: source.sizes["extend"] > 0))
    harness = Harness(store, source, visibility_timeout_s=0.3)
    harness.send(40)

    tally = harness.run_until_idle()

    assert tally.outcomes == {"stored": 40}
    assert source.sizes == {"receive": 3, "settle": 3, "extend": 3}


def test_what_is_held_is_kept_invisible_for_longer_than_the_visibility_timeout() -> None:
    release = threading.Event()
    store = StubStore(before_save=lambda: wait(release))
    harness = Harness(store, MemorySource(visibility_timeout_s=0.3), visibility_timeout_s=0.3)
    harness.send(10)
    runner = in_background(harness.run_until_idle)
    until(lambda: harness.pipeline.held.oldest_s() > 0.8)

    release.set()
    runner.join(5)

    assert harness.pipeline.tally.outcomes == {"stored": 10}
    assert {delivery.receive_count for delivery in store.saved} == {1}


def test_the_buffer_is_bounded_by_number_and_by_bytes() -> None:
    blocked = threading.Event()
    for name, bound in (("buffer_size_max", 30), ("buffer_bytes_max", 30 * len(a_body()))):
        blocked.clear()
        harness = Harness(StubStore(before_save=lambda: wait(blocked)), None, **{name: bound})
        harness.send(200)
        runner = in_background(harness.run_until_idle)
        # By bytes the last place may stay free: what comes next is guessed to be as long as what came.
        until(lambda harness=harness: harness.pipeline.held.ratio > 0.95)  # type: ignore[misc]

        assert 29 <= harness.pipeline.held.size <= 30 + 3 * 10, "at most one receive of each receiver beyond"
        blocked.set()
        runner.join(5)
        assert harness.pipeline.tally.total == 200


def test_a_stop_finishes_what_is_held() -> None:
    harness = Harness(StubStore(before_save=lambda: time.sleep(0.05)))
    harness.send(300)
    runner = in_background(harness.run_until_stopped)
    until(lambda: harness.pipeline.held.size > 10)

    harness.stop.set()
    runner.join(5)

    stored = harness.pipeline.tally.total
    assert harness.source.depth() == {"visible": 300 - stored, "in_flight": 0, "delayed": 0}


def test_a_stop_during_an_outage_gives_back_what_is_held() -> None:
    def fail() -> None:
        raise StoreUnavailable("away")

    harness = Harness(StubStore(before_save=fail), stop_timeout_s=0.1)
    harness.send(5)
    runner = in_background(harness.run_until_stopped)
    until(lambda: not harness.database.working.is_set())

    harness.stop.set()
    runner.join(5)

    assert not runner.is_alive()
    assert harness.source.depth() == {"visible": 5, "in_flight": 0, "delayed": 0}
    assert (
        "database: away; 5 deliveries were given back unsettled; the queue counts 5 visible" in harness.left
    )


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


def test_what_takes_time_to_judge_holds_up_nothing_that_is_judged_at_once() -> None:
    """More of it than there are receivers, and all of it before the rest."""
    harness = Harness(receivers=3)
    dear = {harness.source.send(a_body()) for _ in range(20)}
    harness.send(50)

    class DearSchemas(Schemas):
        def validate(self, delivery: Delivery, *, may_wait: bool = True) -> Verdict:
            if delivery.delivery_id in dear:
                if not may_wait:
                    raise MustWait
                until(lambda: len(harness.store.saved) >= 50)
            return super().validate(delivery, may_wait=may_wait)

    harness.pipeline._validator = DearSchemas(body_bytes_max=1024, json_depth_max=64)

    tally = harness.run_until_idle()

    assert tally.outcomes == {"stored": 70}
    assert {delivery.delivery_id for delivery in harness.store.saved[:50]}.isdisjoint(dear)
    assert harness.pipeline.held.size == 0


def test_a_suspect_is_not_even_read_before_what_came_with_it_is_saved() -> None:
    """Reading it may be what killed the process twice; on its third receive nothing else hangs on it."""
    source = MemorySource()
    suspect = source.send(a_body())
    for _ in range(2):
        source.release(source.receive(1, 0))
    harness = Harness(source=source)
    harness.send(9)
    saved_when_read = []

    class WatchedSchemas(Schemas):
        def validate(self, delivery: Delivery, *, may_wait: bool = True) -> Verdict:
            if delivery.delivery_id == suspect:
                saved_when_read.append(len(harness.store.saved))
            return super().validate(delivery, may_wait=may_wait)

    harness.pipeline._validator = WatchedSchemas(body_bytes_max=1024, json_depth_max=64)

    tally = harness.run_until_idle()

    assert tally.outcomes == {"stored": 10}
    assert saved_when_read == [9]
    assert harness.store.batches == [9, 1]


def a_suspect_first(source: MemorySource) -> str:
    """Put one message on the queue that has come twice."""
    suspect = source.send(a_body())
    for _ in range(2):
        source.release(source.receive(1, 0))
    return suspect


def test_a_suspect_that_kills_the_process_comes_back_before_what_was_held_beside_it() -> None:
    """Else its neighbours would be beside it at each of its receives, down to the dead-letter queue."""
    source = MemorySource()
    suspect = a_suspect_first(source)
    # The queue's own 60 s are what the neighbours have; of four, a suspect has one.
    harness = Harness(source=source, visibility_timeout_s=4)
    harness.send(9)

    class DeadlySchemas(Schemas):
        def validate(self, delivery: Delivery, *, may_wait: bool = True) -> Verdict:
            if delivery.delivery_id == suspect:
                raise SystemExit("killed")
            return super().validate(delivery, may_wait=may_wait)

    harness.pipeline._validator = DeadlySchemas(body_bytes_max=1024, json_depth_max=64)
    with pytest.raises(RuntimeError):
        harness.run_until_idle()

    [again] = source.receive(10, 8)
    assert (again.delivery_id, again.receive_count) == (suspect, 4)


def test_a_suspect_that_takes_long_to_save_stays_ours() -> None:
    source = MemorySource(visibility_timeout_s=4)
    a_suspect_first(source)
    release = threading.Event()
    harness = Harness(StubStore(before_save=lambda: wait(release)), source, visibility_timeout_s=4)
    runner = in_background(harness.run_until_idle)
    until(lambda: harness.pipeline.held.oldest_s() > 1.5)

    in_flight = source.depth()["in_flight"]
    release.set()
    runner.join(5)

    assert in_flight == 1
    assert [delivery.receive_count for delivery in harness.store.saved] == [3]
