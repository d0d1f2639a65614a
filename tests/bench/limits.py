"""The two upper limits: the throughput of the queue alone and of the database alone on this machine."""

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial

from tests.bench import events
from tests.bench.contestants import Contestant
from tests.bench.faults import LoadError
from tests.bench.figures import measures
from tests.bench.figures.rounds import Figures, audit, running, wait_for_depth
from tests.bench.ground import Ground
from tests.bench.race import Entry
from tests.bench.waiting import wait_until

QUEUE_LIMITS = {"queue alone, 1 client": 1, "queue alone, 2 clients": 2}
DATABASE_LIMITS = {"database alone, COPY": "copy", "database alone, INSERT": "insert"}
START_S = 20.0
SHARE = 2.0
"""Walls are fast: with more messages than the others they are measured for about as long."""


def entries() -> list[Entry]:
    """Give the limits as entries of a race."""
    queue = [Entry(name, partial(queue_limit, clients=n), SHARE) for name, n in QUEUE_LIMITS.items()]
    database = [Entry(name, partial(database_limit, how=how), SHARE) for name, how in DATABASE_LIMITS.items()]
    return queue + database


def queue_limit(ground: Ground, messages: int, clients: int) -> Figures:
    """Let `clients` processes receive and delete everything, as fast as they can."""
    queue = ground.queue
    client = Contestant("queue alone", (sys.executable, "-m", "tests.bench.contestants.queue_limit"))
    with ground.arena("queue-limit") as arena, ExitStack() as stack:
        queue.fill(arena.queue_url, events.template(), 0, messages, hidden=queue.can_hide)
        children = [stack.enter_context(running(ground, client, arena)) for _ in range(clients)]
        if queue.can_hide:
            parked = lambda: ground.queue.parked(arena.queue_url) == clients  # noqa: E731
            wait_until(parked, START_S, "the clients of the queue's limit")
        left = wait_for_depth(ground, children[0], arena, 0 if queue.can_hide else messages - 1) or messages
        cpu_s = sum(measures.cpu_s(child.pid) for child in children)
        queue_cpu_s, began_at = measures.cpu_s(queue.pid), time.monotonic()
        if queue.can_hide:
            queue.reveal(arena.queue_url)
        wait_for_depth(ground, children[0], arena, 0)
        seconds, thousands = time.monotonic() - began_at, left / 1000
        return Figures(
            messages=left,
            rate_per_s=left / seconds,
            client_cpu_s=(sum(measures.cpu_s(child.pid) for child in children) - cpu_s) / thousands,
            queue_cpu_s=(measures.cpu_s(queue.pid) - queue_cpu_s) / thousands,
            rss_peak_mib=sum(measures.rss_peak_mib(child.pid) for child in children),
        )


def database_limit(ground: Ground, messages: int, how: str) -> Figures:
    """Let one connection store the rows of as many messages, by COPY or by INSERT."""
    with ground.arena(f"database-limit-{how}") as arena:
        cpu_s = measures.cpu_s(ground.postgres.pid or 0)
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.contestants.database_limit", how, str(messages)],
            env=arena.environment,
            cwd=ground.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise LoadError(f"the database's limit could not be measured: {done.stderr.strip()[-500:]}")
        said = json.loads(done.stdout)
        stored = messages + said["warm_up"]
        database_cpu_s = measures.cpu_s(ground.postgres.pid or 0) - cpu_s
        audit(arena, stored)
        return Figures(
            messages=messages,
            rate_per_s=messages / said["seconds"],
            client_cpu_s=said["cpu_s"] / messages * 1000,
            database_cpu_s=database_cpu_s / stored * 1000,
        )
