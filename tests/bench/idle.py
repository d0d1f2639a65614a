"""The cost of an idle queue: billed receive calls, and CPU time."""

import time
from dataclasses import dataclass

from tests.bench.contestants import Contestant
from tests.bench.figures import measures
from tests.bench.figures.rounds import running
from tests.bench.ground import Ground
from tests.bench.waiting import wait_until

START_S = 30.0


@dataclass(frozen=True)
class Idle:
    """Receives and CPU of one contestant while nothing comes."""

    name: str
    seconds: int
    receives: int
    receives_per_s: float
    parked: int
    client_cpu_s_per_hour: float


def idle(ground: Ground, contestant: Contestant, seconds: int) -> Idle:
    """Count the receives of `seconds` seconds on an empty queue, after the first one has come."""
    with ground.arena("idle") as arena, running(ground, contestant, arena) as child:
        wait_until(lambda: ground.queue.parked(arena.queue_url) > 0, START_S, f"{contestant.name} to receive")
        before, cpu_s = ground.queue.calls(arena.queue_url)["ReceiveMessage"], measures.cpu_s(child.pid)
        # The time that passes is the measurement itself.
        time.sleep(seconds)
        receives = ground.queue.calls(arena.queue_url)["ReceiveMessage"] - before
        return Idle(
            contestant.name,
            seconds,
            receives,
            receives / seconds,
            ground.queue.parked(arena.queue_url),
            (measures.cpu_s(child.pid) - cpu_s) / seconds * 3600,
        )
