"""The checks after all faults are over: audit, sums, totals, and no delete before its commit."""

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol

import psycopg

from processor.devstack.servers.sink import Receiver
from processor.devstack.servers.sqs import EmbeddedSqs
from processor.operations.audit import audit
from processor.sources.sqs.source import SqsSource
from tests.chaos.sink_books import sink_differences
from tests.chaos.traffic.http_proxy import Minutes
from tests.chaos.traffic.pulses import Key, differences
from tests.chaos.traffic.steady_load import Sent, SteadyLoad

# Of RabbitMQ's ids the part that whoever sends knows: what follows the tilde tells hand-overs apart.
_OUTCOMES = """
SELECT regexp_replace(delivery_id, '~[0-9a-f]{12}$', '') FROM (
  SELECT delivery_id FROM message WHERE stored_at >= to_timestamp(%(since)s)
  UNION ALL SELECT delivery_id FROM duplicate
  UNION ALL SELECT delivery_id FROM rejection WHERE rejected_at >= to_timestamp(%(since)s)
) AS outcome
"""

_SUM = """
SELECT coalesce(sum(amount), 0) FROM (
  SELECT coalesce(payload ->> 'total', payload ->> 'amount', payload ->> 'used_amount')::numeric AS amount
  FROM message
  WHERE (tenant_id, message_id) NOT IN (SELECT unnest(%(tenants)s::text[]), unnest(%(messages)s::text[]))
) AS amounts
"""

_AMOUNTS = """
SELECT tenant_id, message_id,
  coalesce(payload ->> 'total', payload ->> 'amount', payload ->> 'used_amount')::numeric
FROM message
"""

# A delivery that was replayed has its row by a later commit than the one its delete followed, which left no
# trace: it counts as committed at the beginning of time.
_COMMITTED = """
SELECT delivery_id, min(committed_at)::float8 FROM (
  SELECT delivery_id, extract(epoch FROM pg_xact_commit_timestamp(xmin)) FROM message
  UNION ALL SELECT delivery_id, extract(epoch FROM pg_xact_commit_timestamp(xmin)) FROM duplicate
  UNION ALL
  SELECT delivery_id,
    CASE replay_count WHEN 0 THEN extract(epoch FROM pg_xact_commit_timestamp(xmin)) ELSE 0 END
  FROM rejection
) AS outcome (delivery_id, committed_at)
GROUP BY delivery_id
"""

_LOOK_EVERY_S = 0.1
_NAMED_MAX = 10
_PROBLEMS = ("lost", "unexpected", "twice", "altered")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the oracle says; every figure of `faults_found` must be 0."""

    messages: int
    faults_found: Mapping[str, int]
    text: str

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not any(self.faults_found.values())


class Depths(Protocol):
    """What a queue says that it still has."""

    def depth(self) -> dict[str, int]:
        """Count messages by state."""

    def depth_with_dead_letters(self) -> dict[str, int]:
        """Count those in its dead-letter queue, too."""


def judge(
    connection: psycopg.Connection[Any],
    source: Depths,
    load: SteadyLoad,
    minutes: Minutes,
    *,
    dead_letters: bool = False,
    sink: Receiver | None = None,
) -> Judgement:
    """Ask the audit message by message, compare sums and totals, and look for deletes before their commits.

    With a sink, what it has come to have must be what the totals are.

    Dead letters are faults as well, unless `dead_letters` says that they were meant to be.
    """
    report = audit(connection, [load.manifest, *load.more_manifests], source.depth_with_dead_letters)
    found = {problem: report.problems.get(problem, 0) for problem in _PROBLEMS}
    found["other"] = sum(count for problem, count in report.problems.items() if problem not in _PROBLEMS)
    text = report.text()
    found["sums"] = int(sum_stored(connection, list(load.sent.rivals)) != load.sent.total())
    if found["sums"]:
        text += "\n" + _other_amounts(connection, load.sent)
    pulses = load.sent.pulses
    wrong_totals = differences(connection, pulses.rows(), pulses.open_rivals())
    found["usage"] = len(wrong_totals)
    text = "\n".join([text, *wrong_totals[:_NAMED_MAX]])
    if sink is not None:
        wrong_lines = sink_differences(connection, sink.books, sink.requests)
        found["sink"] = len(wrong_lines)
        text = "\n".join([text, *wrong_lines[:_NAMED_MAX]])
    found["early deletes"] = _early_deletes(connection, minutes)
    if not dead_letters:
        found["dead letters"] = source.depth_with_dead_letters().get("dead_lettered", 0)
    accepted = (report.accepted or {}).get("accepted", 0)
    return Judgement(accepted, found, text)


def known_outcomes(connection: psycopg.Connection[Any], since: float = 0) -> set[str]:
    """Give the ids, as their sender knows them, of all that has an outcome since a moment (Unix time)."""
    return {delivery_id for (delivery_id,) in connection.execute(_OUTCOMES, {"since": since})}


def sum_stored(connection: psycopg.Connection[Any], rivals: Sequence[Key]) -> Decimal:
    """Sum the amounts of all messages but those with these keys."""
    row = connection.execute(
        _SUM, {"tenants": [tenant for tenant, _ in rivals], "messages": [message for _, message in rivals]}
    ).fetchone()
    assert row is not None
    return Decimal(row[0])


def _other_amounts(connection: psycopg.Connection[Any], sent: Sent) -> str:
    """Name the first messages whose amount is not the one that was sent."""
    stored = {
        (tenant_id, message_id): amount
        for tenant_id, message_id, amount in connection.execute(_AMOUNTS)
        if amount is not None and (tenant_id, message_id) not in sent.rivals
    }
    wrong = [
        f"{key}: sent {sent.amounts.get(key)}, stored {stored.get(key)}"
        for key in stored.keys() | (sent.amounts.keys() - sent.rivals)
        if stored.get(key) != sent.amounts.get(key)
    ]
    return "\n".join(wrong[:_NAMED_MAX])


def _early_deletes(connection: psycopg.Connection[Any], minutes: Minutes) -> int:
    """Count deliveries whose first delete was asked for before their row was committed, or without a row."""
    committed_at: dict[str, float] = dict(connection.execute(_COMMITTED).fetchall())
    return sum(
        committed_at.get(delivery_id, float("inf")) > asked_at
        for delivery_id, asked_at in minutes.delete_asked_at.items()
    )


@dataclass(slots=True)
class _Fault:
    over_at: float
    waiting_for: set[str]


@dataclass
class Recovery:
    """Measures, for each fault, how long after its end all that was accepted before has its row."""

    database_url: str
    sent: Sent
    times_s: list[float] = field(default_factory=list)
    _faults: list[_Fault] = field(default_factory=list)
    _known: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _looked_at: float = field(default_factory=time.time)

    def start(self) -> None:
        """Begin to watch the tables."""
        self._thread = threading.Thread(target=self._watch, name="recovery", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def fault_is_over(self) -> None:
        """Note the end of a fault."""
        with self._lock:
            self._faults.append(_Fault(time.time(), set(self.sent.accepted_at.copy()) - self._known))

    @property
    def pending(self) -> int:
        """Faults that have not been recovered from."""
        return len(self._faults)

    def _watch(self) -> None:
        while not self._stop.is_set():
            with (
                contextlib.suppress(psycopg.Error),
                psycopg.connect(self.database_url, autocommit=True, connect_timeout=2) as connection,
            ):
                while not self._stop.wait(_LOOK_EVERY_S):
                    self._look(connection)

    def _look(self, connection: psycopg.Connection[Any]) -> None:
        # Long before any transaction that was open at the last look, which may be an outage ago: a row has
        # the date of its transaction's begin.
        began_at = time.time()
        rows = known_outcomes(connection, since=self._looked_at - 120)
        now, self._looked_at = time.time(), began_at
        with self._lock:
            self._known |= rows
            for fault in self._faults:
                fault.waiting_for -= self._known
            self.times_s += [now - fault.over_at for fault in self._faults if not fault.waiting_for]
            self._faults = [fault for fault in self._faults if fault.waiting_for]


def dead_letters(sqs: EmbeddedSqs, queue_url: str) -> int:
    """Count what is in the dead-letter queue."""
    source = SqsSource(sqs.client(), queue_url, "events", visibility_timeout_s=1)
    return source.depth_with_dead_letters().get("dead_lettered", 0)
