"""On a FIFO queue a group's messages are committed in the order of their sending, whatever goes wrong."""

import itertools
import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence

import pytest

from processor.errors import StoreUnavailable
from processor.model import Delivery, Outcome, Settlement, Verdict
from tests.builders import a_body
from tests.pipeline.fifo import FifoSource
from tests.pipeline.harness import Harness, StubStore, WatchedSource, in_background, until, wait


class Ledger(StubStore):
    """Notes in which transaction each delivery got its outcome; is slow or away by chance."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance
        self._lock = threading.Lock()
        self._transactions = itertools.count(1)
        self.committed: dict[str, int] = {}

    def save(self, verdicts: Sequence[Verdict]) -> list[Settlement]:
        lot = self._chance.random()
        if lot < 0.1:
            raise StoreUnavailable("away")
        # Now and then for longer than the visibility timeout.
        time.sleep(0.4 if lot < 0.15 else self._chance.uniform(0, 0.004))
        with self._lock:
            transaction = next(self._transactions)
            for verdict in verdicts:
                self.committed.setdefault(verdict.delivery.delivery_id, transaction)
            self.batches.append(len(verdicts))
        if lot > 0.95:
            raise StoreUnavailable("the reply of COMMIT is lost")
        return [Settlement(verdict.delivery, Outcome.STORED) for verdict in verdicts]


def neighbours(source: FifoSource) -> Iterator[tuple[str, str]]:
    """Each message with the next of its group."""
    by_group: dict[str, list[str]] = defaultdict(list)
    for delivery_id, group in source.groups.items():
        by_group[group].append(delivery_id)
    return itertools.chain.from_iterable(itertools.pairwise(names) for names in by_group.values())


@pytest.mark.parametrize("seed", range(3))
def test_a_groups_outcomes_are_committed_in_the_order_of_its_messages(seed: int) -> None:
    """Two processes of three writers; suspects, outages, lost replies, lost receipts and a stop."""
    chance = random.Random(seed)
    source, ledger = FifoSource(visibility_timeout_s=0.3), Ledger(chance)
    source.deaf = {"g0", "g1"}
    for _ in range(150):
        source.post(f"g{chance.randrange(8)}", size_bytes=chance.choice((0, 100, 600)))
    for _ in range(2):
        # The first messages of some groups come for the third time.
        source.release(source.receive(12, 0))

    def a_process() -> Harness:
        return Harness(
            ledger,
            source,
            writers=3,
            visibility_timeout_s=0.3,
            batch_bytes_max=2000,
            batch_size_max=8,
            stop_timeout_s=0.2,
        )

    stopped, other = a_process(), a_process()
    runners = [in_background(lambda each=each: each.run_until_stopped(0.1)) for each in (stopped, other)]  # type: ignore[misc]
    until(lambda: len(ledger.committed) > 40)
    stopped.stop.set()
    for runner in runners:
        runner.join(20)
    a_process().run_until_idle()

    assert not any(runner.is_alive() for runner in runners)
    assert len(ledger.committed) == 150
    turned_round = [
        (earlier, later)
        for earlier, later in neighbours(source)
        if ledger.committed[earlier] > ledger.committed[later]
    ]
    assert turned_round == []


def test_what_comes_after_a_suspect_of_its_group_waits_for_it_and_other_groups_do_not() -> None:
    source = FifoSource()
    for _ in range(2):
        source.post("a")
        source.release(source.receive(10, 0))
    later = [source.post("a"), source.post("b"), source.post("a")]
    # The first has come twice, the second once: with this receive only the first is a suspect.
    store = StubStore()
    harness = Harness(store, source, receivers=1)

    harness.run_until_idle()

    names = [delivery.delivery_id for delivery in store.saved]
    assert names == [later[1], *sorted(set(names) - {later[1]})]
    assert store.batches == [1, 1, 3]


def test_of_a_standard_queue_the_suspects_come_last() -> None:
    source = WatchedSource()
    suspect = source.send(a_body())
    for _ in range(2):
        source.release(source.receive(1, 0))
    harness = Harness(source=source, writers=2)
    harness.send(9)

    harness.run_until_idle()

    assert harness.store.saved[-1].delivery_id == suspect


def test_no_delivery_is_given_back_before_the_later_ones_of_its_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given_back: list[str] = []

    class SlowSource(FifoSource):
        def release(self, deliveries: Sequence[Delivery]) -> None:
            time.sleep(0.03 * len(deliveries))
            super().release(deliveries)
            given_back.extend(delivery.delivery_id for delivery in deliveries)

    monkeypatch.setattr("processor.pipeline.pipeline._RELEASE_S_MAX", 0.6)
    never = threading.Event()
    source = SlowSource()
    for number in range(95):
        # Two groups in each receive of ten; the calls that give back don't part where the receives did.
        source.post(f"g{number // 10}-{number % 2}")
    harness = Harness(StubStore(before_save=lambda: wait(never)), source, receivers=1, stop_timeout_s=0.1)
    runner = in_background(harness.run_until_stopped)
    until(lambda: harness.pipeline.held.size == 95)

    harness.stop.set()
    runner.join(15)

    place = {name: number for number, name in enumerate(given_back)}
    assert 0 < len(place) < 95, "it broke off"
    turned_round = [
        (earlier, later)
        for earlier, later in neighbours(source)
        if earlier in place and place[earlier] < place.get(later, 95)
    ]
    assert turned_round == []
