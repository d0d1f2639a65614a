"""One run of one contestant, from an empty table to an empty queue, with the audit that validates it.

    fill (warm-up visible, the rest hidden) ─▶ start ─▶ warm-up drained ─▶ sample, reveal
                                                                     ═▶ all drained ─▶ sample ─▶ audit

The clock runs from the moment when the messages become visible to PostgreSQL's timestamp of the last commit.
Start-up and warm-up are not counted. A queue server that can't hide messages is filled before the start; the
clock then runs from the commit that ends the warm-up.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psycopg

from processor.devstack.servers.children import Child, spawn, uninterrupted
from tests.bench import events
from tests.bench.contestants import Contestant
from tests.bench.faults import AuditFailed, LoadError
from tests.bench.figures import measures
from tests.bench.ground import Arena, Ground

WARM_UP = 2_000
POLL_S = 0.02
STUCK_S = 60.0
STOP_S = 1.0


@dataclass(frozen=True)
class Figures:
    """What one run has shown. CPU seconds, calls and transactions are per 1,000 messages; None: not known."""

    messages: int
    rate_per_s: float
    client_cpu_s: float
    database_cpu_s: float | None = None
    queue_cpu_s: float | None = None
    rss_peak_mib: float | None = None
    transactions: float | None = None
    sqs_calls: float | None = None
    deadlocks: int | None = None


@dataclass(frozen=True)
class Stream:
    """What is drained: events of one template, in a database that was made fit for them."""

    text: str
    prepare: Callable[[Arena], None] = lambda _: None


ORDERS = Stream(events.template())


@dataclass(frozen=True)
class _Sample:
    client_cpu_s: float
    database_cpu_s: float
    queue_cpu_s: float
    left: int

    @classmethod
    def take(cls, ground: Ground, child: Child, left: int) -> "_Sample":
        return cls(
            measures.cpu_s(child.pid),
            measures.cpu_s(ground.postgres.pid or 0),
            measures.cpu_s(ground.queue.pid),
            left,
        )


def drain(
    ground: Ground,
    contestant: Contestant,
    messages: int,
    warm_up: int = WARM_UP,
    stream: Stream = ORDERS,
) -> Figures:
    """Let a contestant drain `messages` after a warm-up. Raises AuditFailed, and then there is no figure."""
    with ground.arena(tag(contestant.name)) as arena:
        text = stream.text
        stream.prepare(arena)
        queue, url = ground.queue, arena.queue_url
        if queue.can_hide:
            queue.fill(url, text, warm_up, messages, hidden=True)
            queue.fill(url, text, 0, warm_up)
        else:
            queue.fill(url, text, 0, warm_up + messages)
        with running(ground, contestant, arena) as child:
            left = wait_for_depth(ground, child, arena, 0 if queue.can_hide else messages)
            calls_before = _calls(ground, arena)
            before = _Sample.take(ground, child, left or messages)
            shown_at = queue.reveal(url) if queue.can_hide else None
            wait_for_depth(ground, child, arena, 0)
            after = _Sample.take(ground, child, 0)
            calls = _calls(ground, arena) - calls_before
            rss_peak_mib = measures.rss_peak_mib(child.pid)
        audit(arena, warm_up + messages)
        ticked = clock(arena, shown_at, warm_up)
    known_calls = calls if ground.queue.can_hide else None
    return _figures(messages, before, after, ticked, known_calls, rss_peak_mib)


def _figures(
    messages: int,
    before: _Sample,
    after: _Sample,
    ticked: "Clock",
    calls: int | None,
    rss_peak_mib: float,
) -> Figures:
    thousands = before.left / 1000
    return Figures(
        messages=messages,
        rate_per_s=messages / ticked.seconds,
        client_cpu_s=(after.client_cpu_s - before.client_cpu_s) / thousands,
        database_cpu_s=(after.database_cpu_s - before.database_cpu_s) / thousands,
        queue_cpu_s=(after.queue_cpu_s - before.queue_cpu_s) / thousands,
        rss_peak_mib=rss_peak_mib,
        transactions=ticked.transactions / messages * 1000,
        sqs_calls=None if calls is None else calls / messages * 1000,
        deadlocks=ticked.deadlocks,
    )


def tag(name: str) -> str:
    """Give a name fit for a queue and a database."""
    return "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in name)


def _calls(ground: Ground, arena: Arena) -> int:
    """Count the calls so far; questions after the depth are our own and not the contestant's."""
    calls = ground.queue.calls(arena.queue_url)
    return sum(count for operation, count in calls.items() if operation != "GetQueueAttributes")


@contextmanager
def running(ground: Ground, contestant: Contestant, arena: Arena) -> Iterator[Child]:
    """Start a contestant in a session of its own; afterwards neither it nor a child of it is left."""
    with uninterrupted():
        child = spawn(
            contestant.name,
            contestant.command,
            environment=arena.environment | contestant.environment,
            # Not the checkout, whose .env would set what the contestant is.
            directory=ground.folder,
            log=ground.folder / f"{arena.name}.log",
        )
    try:
        yield child
    finally:
        # Whoever waits for messages may take the whole of a long poll to stop. Its work is done, or does not
        # matter any more, so nobody waits for that.
        members = measures.tree(child.pid)
        child.stop((signal.SIGTERM, STOP_S))
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def wait_for_depth(ground: Ground, child: Child, arena: Arena, wanted: int) -> int:
    """Wait until no more than `wanted` messages are left on the queue; gives how many there are."""
    least, moved_at = sys.maxsize, time.monotonic()
    while (depth := ground.queue.depth(arena.queue_url)) > wanted:
        if child.exit_code() is not None:
            raise LoadError(
                f"{child.name} ended with {child.exit_code()} and {depth} messages left; "
                f"it said:{child.log_tail()}"
            )
        if depth < least:
            least, moved_at = depth, time.monotonic()
        elif time.monotonic() - moved_at > STUCK_S:
            raise LoadError(
                f"{child.name} has not moved for {STUCK_S:.0f} s, with {depth} messages left; "
                f"it said:{child.log_tail()}"
            )
        time.sleep(POLL_S)
    return depth


def audit(arena: Arena, messages: int | None) -> None:
    """Let the books prove that exactly so many messages were stored, and nothing else happened.

    None: the run was cut short, so the books must hold, whatever they say. Raises AuditFailed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "processor", "audit", "--json"],
        env=arena.environment,
        cwd=arena.environment["PYTHONPATH"],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        report = json.loads(done.stdout)
    except ValueError:
        raise AuditFailed(
            f"the audit of {arena.name} could not be made: {done.stderr.strip()[-500:]}"
        ) from None
    outcomes = {name: count for name, count in report["outcomes"].items() if count}
    whole = outcomes == {"message": messages} and not any((report["queued"] or {}).values())
    if done.returncode or not (messages is None or whole):
        raise AuditFailed(
            f"the audit of {arena.name} does not hold, so there is no figure: expected {messages} messages "
            f"and an empty queue, found {outcomes} and {report['queued']}; problems: {report['problems']}"
        )


@dataclass(frozen=True)
class Clock:
    """What PostgreSQL says of the measured messages: seconds, transactions, deadlocks."""

    seconds: float
    transactions: int
    deadlocks: int


def clock(arena: Arena, shown_at: float | None, warm_up: int) -> Clock:
    """Ask when each transaction was committed; the clock starts at `shown_at`, or where the warm-up ends."""
    with psycopg.connect(arena.database_url) as connection:
        rows = connection.execute(
            "SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 AS at, count(*) "
            "FROM message GROUP BY xmin ORDER BY at"
        ).fetchall()
        deadlocks = connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    stored, warm_at, transactions = 0, 0.0, 0
    for at, count in rows:
        if stored + count <= warm_up:
            warm_at = at
        else:
            transactions += 1
        stored += count
    return Clock(rows[-1][0] - (shown_at or warm_at), transactions, (deadlocks or (0,))[0])
