"""What an audit needs: a producer that says what it sends, and an audit that takes it at its word."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import psycopg
import pytest

from processor.model import Delivery
from processor.operations.audit import Report, audit
from processor.wire.manifest import Line, ManifestWriter, State, payload_digest


def wrong(report: Report) -> dict[str, int]:
    """What is wrong, and how often."""
    return {problem: number for problem, number in report.problems.items() if number}


def ids(report: Report, problem: str) -> list[str]:
    return [row["delivery_id"] for row in report.examples[problem]]


class Producer:
    """Says what it sends, in a manifest."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def intends(self, delivery: Delivery) -> Delivery:
        with ManifestWriter(self.path) as writer:
            writer.intend([self._line(delivery, None)])
        return delivery

    def is_answered(self, delivery: Delivery) -> None:
        """Note the delivery as accepted."""
        with ManifestWriter(self.path) as writer:
            writer.accept([self._line(delivery, delivery.delivery_id)])

    def sends(self, delivery: Delivery) -> Delivery:
        """Note the delivery as intended and accepted."""
        self.intends(delivery)
        self.is_answered(delivery)
        return delivery

    def _line(self, delivery: Delivery, delivery_id: str | None) -> Line:
        try:
            event = json.loads(delivery.body)
        except ValueError:
            event = {}
        digest = payload_digest(json.dumps(event["payload"])) if "payload" in event else None
        state: State = "intended" if delivery_id is None else "accepted"
        return Line(state, event.get("tenant_id"), event.get("id"), digest, delivery_id)


@pytest.fixture
def producer(tmp_path: Path) -> Producer:
    return Producer(tmp_path / "manifest.jsonl")


class Audited(Protocol):
    """Audits against the producer's manifest.

    `queued` is what the queue counts, or is called to count it; None: it is not asked. `wait` is called
    before the second look.
    """

    def __call__(
        self, queued: int | Callable[[], int] | None = 0, wait: Callable[[float], None] = ...
    ) -> Report: ...


@pytest.fixture
def audited(producer: Producer, database_url: str) -> Audited:
    def run(
        queued: int | Callable[[], int] | None = 0, wait: Callable[[float], None] = lambda _seconds: None
    ) -> Report:
        def depth() -> dict[str, int]:
            assert queued is not None
            return {"visible": queued() if callable(queued) else queued}

        with psycopg.connect(database_url, autocommit=True) as connection:
            return audit(connection, [producer.path], None if queued is None else depth, wait=wait)

    return run


@pytest.fixture
def write_many(producer: Producer) -> Callable[[int], Path]:
    """Writes a manifest of so many messages order-N of tenant acme, each as the delivery delivery-N."""

    def write(count: int) -> Path:
        digest = payload_digest('{"total": 1}')
        numbers = range(1, count + 1)
        with ManifestWriter(producer.path) as writer:
            writer.intend(Line("intended", "acme", f"order-{n}", digest) for n in numbers)
            writer.accept(Line("accepted", "acme", f"order-{n}", digest, f"delivery-{n}") for n in numbers)
        return producer.path

    return write
