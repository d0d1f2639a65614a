"""The latency of a message at a constant rate: from its due time in the timetable to its commit.

The time of a commit is PostgreSQL's commit timestamp, taken just before the commit is flushed to disk. The
average duration of a flush is reported beside it.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg

from processor.devstack.servers.children import spawn, uninterrupted
from tests.bench import events
from tests.bench.contestants import Contestant
from tests.bench.faults import LoadError
from tests.bench.figures.rounds import WARM_UP, audit, running, tag, wait_for_depth
from tests.bench.ground import Arena, Ground
from tests.bench.queue.sender import Timetable

RATES = (500, 1_000, 2_000)
SETTLE_S = 2
"""Seconds of each rate that are sent but not counted."""

GRACE_S = 30.0
"""Seconds that a sender may be late in the end before we give up."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds of all counted messages of one contestant at one rate."""

    name: str
    rate_per_s: int
    messages: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    flush_ms: float
    sender_late_ms_max: float

    @classmethod
    def of(
        cls,
        name: str,
        rate_per_s: int,
        latencies_ms: Sequence[float],
        flush_ms: float,
        sender_late_ms_max: float,
    ) -> "Latency":
        """Sum up; needs at least one message."""
        ordered = sorted(latencies_ms)
        if not ordered:
            raise LoadError(
                f"no message of {name} at {rate_per_s}/s was late enough to count; send for longer"
            )
        return cls(
            name,
            rate_per_s,
            len(ordered),
            percentile(ordered, 50),
            percentile(ordered, 99),
            ordered[-1],
            flush_ms,
            sender_late_ms_max,
        )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Give the least value that at least `percent` of all values don't exceed."""
    return ordered[max(0, -(-len(ordered) * percent // 100).__trunc__() - 1)]


def latency(
    ground: Ground, contestant: Contestant, rate_per_s: int, seconds: int, warm_up: int = WARM_UP
) -> Latency:
    """Send at this rate to a warm contestant and look when each message was committed."""
    with ground.arena(f"late-{tag(contestant.name)}-{rate_per_s}") as arena:
        text = events.template()
        count = rate_per_s * (SETTLE_S + seconds)
        # The warm-up's ids must not meet those of the sender.
        ground.queue.fill(arena.queue_url, text, count, warm_up)
        with running(ground, contestant, arena) as child:
            wait_for_depth(ground, child, arena, 0)
            flushes = Flushes.so_far(ground)
            sent = send(ground, arena, rate_per_s, count, text, events.TENANTS)
            wait_for_depth(ground, child, arena, 0)
            flush_ms = Flushes.so_far(ground).mean_ms_since(flushes)
        audit(arena, warm_up + count)
        timetable = Timetable.of(rate_per_s, sent.began_at)
        skipped = rate_per_s * SETTLE_S
        latencies_ms = [
            (at - timetable.due_at(number)) * 1000
            for number, at in committed(arena)
            if skipped <= number < count
        ]
    return Latency.of(contestant.name, rate_per_s, latencies_ms, flush_ms, sent.late_ms_max)


def latencies(
    ground: Ground,
    contestants: Sequence[Contestant],
    rates: Sequence[int],
    seconds: int,
    say: Callable[[str], None] = print,
) -> list[Latency]:
    """Measure everybody who is here at every rate."""
    found = []
    for rate in rates:
        for contestant in contestants:
            if not contestant.missing:
                found.append(one := latency(ground, contestant, rate, seconds))
                say(
                    f"{one.rate_per_s:>5}/s  {one.name:20} p50 {one.p50_ms:.1f} ms  p99 {one.p99_ms:.1f} ms  "
                    f"max {one.max_ms:.0f} ms"
                )
    return found


def committed(arena: Arena) -> list[tuple[int, float]]:
    """Give the number and the moment of commit of every stored message."""
    with psycopg.connect(arena.database_url) as connection:
        return connection.execute(
            "SELECT substr(message_id, 7)::int, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 "
            "FROM message"
        ).fetchall()


@dataclass(frozen=True)
class Flushes:
    """How often PostgreSQL has flushed its log to the disk so far, and for how long in all."""

    count: int
    ms: float

    @classmethod
    def so_far(cls, ground: Ground) -> "Flushes":
        with psycopg.connect(ground.postgres.url()) as connection:
            row = connection.execute(
                "SELECT coalesce(sum(fsyncs), 0)::int8, coalesce(sum(fsync_time), 0)::float8 "
                "FROM pg_stat_io WHERE object = 'wal'"
            ).fetchone()
        return cls(*row) if row else cls(0, 0.0)

    def mean_ms_since(self, before: "Flushes") -> float:
        """Give the mean of the flushes between two looks; 0 where there was none."""
        return (self.ms - before.ms) / max(1, self.count - before.count)


@dataclass(frozen=True)
class Sent:
    """When the timetable began (Unix time), and how late the sender was at the worst."""

    began_at: float
    late_ms_max: float


def send(ground: Ground, arena: Arena, rate_per_s: int, count: int, text: str, tenants: int) -> Sent:
    """Let the sender work through its timetable, and come back when it is done."""
    template, answer = (ground.folder / f"{arena.name}-sender.{kind}" for kind in ("template", "json"))
    template.write_text(text)
    words = (ground.queue.endpoint_url, arena.queue_url, rate_per_s, count, tenants, template)
    with answer.open("wb") as output:
        with uninterrupted():
            child = spawn(
                "the sender",
                [sys.executable, "-m", "tests.bench.queue.sender", *map(str, words)],
                environment=arena.environment,
                directory=ground.folder,
                stdout=output,
            )
        try:
            code = child.process.wait(count / rate_per_s + GRACE_S)
        except subprocess.TimeoutExpired:
            raise LoadError(
                f"the sender did not keep {rate_per_s} messages/s: this machine is too busy; try a lower rate"
            ) from None
        finally:
            child.stop((signal.SIGTERM, 1.0))
    if code:
        raise LoadError(f"the sender ended with {code}; what it said stands above")
    return Sent(**json.loads(answer.read_text()))
