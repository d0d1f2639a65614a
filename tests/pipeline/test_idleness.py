"""When a run may end by itself, what keeps it from that, and what it says if it is ended sooner."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from processor.errors import SourceUnavailable, Stopped, StoreUnavailable
from processor.model import Delivery, Outcome, Settlement
from processor.pipeline.idleness import IdleDetector, NoPeers
from processor.runtime.outages import OutageRetry
from processor.sources.memory import MemorySource
from tests.pipeline.harness import Harness, StubStore, in_background, until

# ── idle ──────────────────────────────────────────────────────────────────────────────────────────────


class CountedSource(MemorySource):
    """Counts as the test says, where it says something, and remembers how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.answer: Callable[[], dict[str, int]] | None = None

    def depth(self) -> dict[str, int]:
        self.asked += 1
        return super().depth() if self.answer is None else self.answer()


@dataclass
class Two:
    """One other process, which is quiet when the test says so."""

    other: bool = False
    said: list[bool] = field(default_factory=list)

    def say_quiet(self, quiet: bool) -> None:
        if not self.said or self.said[-1] != quiet:
            self.said.append(quiet)

    def others_quiet(self) -> bool:
        return self.other


def asked_again(source: CountedSource, runner: threading.Thread, times: int = 3) -> bool:
    """Whether the queue is counted again and again, and the run goes on."""
    asked = source.asked
    until(lambda: source.asked >= asked + times or not runner.is_alive())
    return runner.is_alive()


def test_what_another_process_holds_is_waited_for_and_counted_if_it_comes_back() -> None:
    source = CountedSource()
    harness = Harness(source=source)
    harness.send(2)
    one, two = source.receive(2, 0)
    runner = in_background(harness.run_until_idle)
    assert asked_again(source, runner)

    source.settle([Settlement(one, Outcome.STORED)])
    assert asked_again(source, runner)
    source.release([two])
    runner.join(5)

    assert not runner.is_alive()
    assert harness.pipeline.tally.outcomes == {"stored": 1}


def test_no_answer_is_taken_for_a_later_one_because_its_thread_was_slower() -> None:
    """Else the run counts as quiet from before its last message on."""
    ticks = iter([1.0, 2.0])
    others: list[threading.Thread] = []

    def clock() -> float:
        now = next(ticks)
        if not others:
            # Another receiver gets its answer just now.
            others.append(in_background(lambda: idleness.answered(empty=False)))
            others[0].join(0.2)
        return now

    idleness = IdleDetector(
        10, dict, calm=lambda: True, calm_since=lambda: 0.0, company=NoPeers(), clock=clock
    )
    idleness.answered(empty=False)
    others[0].join(5)

    assert idleness._since == 2.0


def test_a_queue_that_counts_nothing_once_is_asked_again() -> None:
    """On AWS counts are approximate: one of nothing may be wrong."""
    counts = iter([{"visible": 0}, {"visible": 3}, {"visible": 0}, {"visible": 0}])
    source = CountedSource()
    source.answer = lambda: next(counts, {"visible": 0})

    Harness(source=source).run_until_idle()

    assert source.asked >= 4, "twice in a row after the last that was not of nothing"


def test_a_queue_that_cannot_be_counted_is_not_idle_and_the_log_says_so_once() -> None:
    def fail() -> dict[str, int]:
        raise SourceUnavailable("SQS refuses to count: AccessDenied")

    source = CountedSource()
    source.answer = fail
    harness = Harness(source=source)
    with capture_logs() as logs:
        runner = in_background(harness.run_until_idle)
        assert asked_again(source, runner)
        source.answer = None
        runner.join(5)

    assert not runner.is_alive()
    assert [entry["trouble"] for entry in logs if entry["event"] == "not_idle"] == [
        "SQS refuses to count: AccessDenied"
    ]


def test_no_process_ends_before_all_are_quiet_and_a_message_makes_it_busy_again() -> None:
    source, company = CountedSource(), Two()
    harness = Harness(source=source)
    runner = in_background(lambda: harness.pipeline.run(harness.stop, 0.1, company))
    until(lambda: company.said[-1:] == [True])
    assert asked_again(source, runner)

    harness.send(1)
    until(lambda: company.said[-3:] == [True, False, True])
    company.other = True
    runner.join(5)

    assert not runner.is_alive()
    assert harness.pipeline.tally.outcomes == {"stored": 1}


# ── a stop with work left ─────────────────────────────────────────────────────────────────────────────


def test_a_stop_in_an_outage_of_the_queue_ends_no_outage_and_says_since_when() -> None:
    class AwaySource(MemorySource):
        def receive(self, limit: int, wait_s: float) -> list[Delivery]:  # noqa: ARG002 - as Source has it
            raise SourceUnavailable("it answers no more")

    harness = Harness(source=AwaySource())
    with capture_logs() as logs:
        runner = in_background(lambda: harness.run_until_stopped(0.1))
        until(lambda: bool(harness.pipeline.trouble))
        harness.stop.set()
        runner.join(5)

    assert "queue: it answers no more; the queue has not answered since the start" in harness.left
    assert [entry["event"] for entry in logs if "outage" in entry["event"]] == ["outage"]


def test_a_stop_while_the_queue_answers_no_poll_says_since_when() -> None:
    class SilentSource(MemorySource):
        asked = threading.Event()

        def receive(self, limit: int, wait_s: float) -> list[Delivery]:  # noqa: ARG002 - as Source has it
            self.asked.set()
            threading.Event().wait(20)
            return []

    source = SilentSource()
    harness = Harness(source=source, stop_timeout_s=2.2)
    runner = in_background(harness.run_until_stopped)
    assert source.asked.wait(5)

    harness.stop.set()
    runner.join(10)

    assert "the queue has not answered since the start" in harness.left


def test_a_stop_of_a_run_that_works_leaves_nothing_to_say() -> None:
    harness = Harness()
    harness.send(20)
    runner = in_background(lambda: harness.pipeline.run(harness.stop))
    until(lambda: harness.pipeline.tally.total == 20)

    harness.stop.set()
    runner.join(5)

    assert not runner.is_alive()
    assert harness.left == ""


# ── the database, while nothing comes ─────────────────────────────────────────────────────────────────


class ProbedStore(StubStore):
    """Fails to answer probes while it is away."""

    away = False
    asked = 0

    def probe(self) -> None:
        self.asked += 1
        if self.away:
            raise StoreUnavailable("the database can't be reached")


def test_an_idle_database_that_goes_away_shows_and_stops_receiving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("processor.pipeline.pipeline._PROBE_EVERY_S", 0.02)
    store = ProbedStore()
    harness = Harness(store)
    in_background(harness.run_until_stopped)
    until(lambda: store.asked > 0)

    store.away = True
    until(lambda: harness.pipeline.trouble == "database: the database can't be reached")
    # A poll that was under way when the outage began may still take what comes.
    until(lambda: store.asked > 20)
    harness.send(1)
    asked = store.asked
    until(lambda: store.asked > asked + 5)
    received_meanwhile = harness.pipeline.held.size + harness.pipeline.tally.total
    store.away = False
    until(lambda: harness.pipeline.tally.total == 1)

    assert received_meanwhile == 0
    assert harness.pipeline.trouble == ""
    harness.stop.set()


def test_a_database_that_saves_all_the_time_is_not_asked_besides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("processor.pipeline.pipeline._PROBE_EVERY_S", 60)
    store = ProbedStore()
    harness = Harness(store)
    harness.send(50)

    harness.run_until_idle()

    assert store.asked == 0


# ── outages ──────────────────────────────────────────────────────────────────────────────────────────


def test_an_answer_to_what_was_asked_before_the_outage_does_not_end_it() -> None:
    retry = OutageRetry("queue", wait_s_max=0.01, stop=threading.Event())
    asked, go_on = threading.Event(), threading.Event()

    def ask_long() -> None:
        asked.set()
        go_on.wait(5)

    def fail() -> None:
        raise SourceUnavailable("away")

    early = in_background(lambda: retry(ask_long))
    assert asked.wait(5)
    retry.probe(fail)
    go_on.set()
    early.join(5)

    assert retry.trouble == "away"
    retry.probe(lambda: None)
    assert retry.working.is_set()


def test_one_outage_is_told_once_however_many_wait_for_its_end() -> None:
    retry = OutageRetry("queue", wait_s_max=0.01, stop=threading.Event())
    failures = iter(range(30))

    def attempt() -> None:
        if next(failures, None) is not None:
            raise SourceUnavailable("away")

    with capture_logs() as logs:
        for waiting in [in_background(lambda: retry(attempt)) for _ in range(4)]:
            waiting.join(5)

    assert [entry["event"] for entry in logs] == ["outage", "outage_over"]


def test_where_nothing_is_waited_for_an_outage_is_raised_as_it_is() -> None:
    patience = OutageRetry("database", stop=None)

    def fail() -> None:
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable, match="away"):
        patience(fail)


def test_a_wait_that_is_called_off_ends_no_outage() -> None:
    stop = threading.Event()
    retry = OutageRetry("queue", wait_s_max=0.01, stop=stop)

    def fail() -> None:
        stop.set()
        raise SourceUnavailable("away")

    with capture_logs() as logs, pytest.raises(Stopped):
        retry(fail)

    assert not retry.working.is_set()
    assert "outage_over" not in [entry["event"] for entry in logs]
