"""A pipeline over a queue in memory and a store that obeys the test, where only order and time matter."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from processor.errors import Stopped
from processor.model import Delivery, Outcome, Registry, Settlement, Verdict
from processor.pipeline.limits import PipelineLimits
from processor.pipeline.outcome_counts import OutcomeCounts
from processor.pipeline.pipeline import Pipeline
from processor.runtime.outages import OutageRetry
from processor.sources.memory import MemorySource
from processor.validation.validator import Schemas
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

    def probe(self) -> None:
        """Nothing to ask."""

    def unread(self, suspect: Delivery) -> Verdict | None:
        """Let everything be read."""

    def close(self) -> None:
        """Nothing to close."""


class Harness:
    """A pipeline over a queue in memory."""

    def __init__(
        self,
        store: StubStore | None = None,
        source: MemorySource | None = None,
        *,
        writers: int = 1,
        **limits: float,
    ) -> None:
        self.source = source or MemorySource()
        self.store = store or StubStore()
        self.left = ""
        self.stop, self.give_up = threading.Event(), threading.Event()
        self.database = OutageRetry("database", wait_s_max=0.02, stop=self.give_up)
        patient = _Patient(self.store, self.database)
        self.pipeline = Pipeline(
            self.source,
            schemas_of_acme(),
            [patient] * writers,
            limits=PipelineLimits(**({"receive_wait_s": 0.05, "stop_timeout_s": 5} | limits)),  # type: ignore[arg-type]
            database=self.database,
            broker=OutageRetry("queue", wait_s_max=0.02, stop=self.give_up),
            give_up=self.give_up,
        )

    def send(self, count: int) -> None:
        for _ in range(count):
            self.source.send(a_body())

    def run_until_idle(self) -> OutcomeCounts:
        return self.pipeline.run(self.stop, until_idle_s=0.1)

    def run_until_stopped(self, until_idle_s: float | None = None) -> None:
        """Run, and keep in `left` what it says if it ends with work left."""
        try:
            self.pipeline.run(self.stop, until_idle_s)
        except Stopped as stopped:
            self.left = str(stopped)


@dataclass
class _Patient:
    """A stub store behind retry, as the real one is."""

    store: StubStore
    retry: OutageRetry

    def save(self, verdicts: Sequence[Verdict]) -> list[Settlement]:
        return self.retry(lambda: self.store.save(verdicts))

    def probe(self) -> None:
        self.retry.probe(self.store.probe)

    def unread(self, suspect: Delivery) -> Verdict | None:
        return self.store.unread(suspect)

    def close(self) -> None:
        self.store.close()


def schemas_of_acme() -> Schemas:
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


def wait(event: threading.Event) -> None:
    event.wait(5)


def in_background(work: Callable[[], object]) -> threading.Thread:
    # A daemon: a failed assertion must not leave the test run waiting for it.
    runner = threading.Thread(target=work, daemon=True)
    runner.start()
    return runner


def until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.002)
