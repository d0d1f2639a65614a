"""The processor's memory: with a small and a large backlog, and with bodies of SQS's maximum size."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.bench import events
from tests.bench.contestants import Contestant
from tests.bench.figures import measures
from tests.bench.figures.rounds import audit, running, wait_for_depth
from tests.bench.ground import Ground
from tests.bench.waiting import wait_until

MIB = 1024 * 1024
LARGE_BYTES = MIB - 64
"""A little below the limit: the digits of a number make some events longer than others."""

START_S = 60.0


@dataclass(frozen=True)
class Memory:
    """The greatest resident memory of a run, all its processes together."""

    name: str
    waiting: int
    body_bytes: int
    drained: int
    rss_peak_mib: float


def memory(
    ground: Ground,
    contestant: Contestant,
    *,
    many: int,
    large: int,
    seconds: int,
    say: Callable[[str], None] = print,
) -> list[Memory]:
    """Compare 1,000 waiting with `many`, which are drained for `seconds` only, and with `large` of 1 MiB."""
    cases = [
        (1_000, events.SIZE_BYTES, None),
        (many, events.SIZE_BYTES, seconds),
        (large, LARGE_BYTES, None),
    ]
    found = []
    for waiting, body_bytes, limit_s in cases:
        found.append(one := _peak(ground, contestant, waiting, body_bytes, limit_s))
        say(f"{waiting:>9,} waiting of {body_bytes:>9,} bytes: {one.rss_peak_mib:6.0f} MiB at the peak")
    return found


def _peak(
    ground: Ground, contestant: Contestant, waiting: int, body_bytes: int, limit_s: int | None
) -> Memory:
    with ground.arena("memory") as arena:
        # A message is made when it is received, so that a million cost this machine nothing.
        lazy = ground.queue.can_hide
        ground.queue.fill(arena.queue_url, events.template(body_bytes), 0, waiting, lazy=lazy)
        with running(ground, contestant, arena) as child:
            if limit_s is None:
                wait_for_depth(ground, child, arena, 0)
            else:
                wait_until(lambda: ground.queue.depth(arena.queue_url) < waiting, START_S, "the first delete")
                time.sleep(limit_s)
            drained = waiting - ground.queue.depth(arena.queue_url)
            peak = measures.rss_peak_mib(child.pid)
        audit(arena, waiting if limit_s is None else None)
    return Memory(contestant.name, waiting, body_bytes, drained, peak)
