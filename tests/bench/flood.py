"""The effect of a noisy tenant on quiet ones: the time from receive to commit, with the flood and without.

The queue server delivers sent messages before filled ones, as SQS's fair queues let quiet groups overtake a
noisy one. So only our part is compared: how long a quiet tenant's message waits behind the flood in the
processor.
"""

from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from tests.bench import events
from tests.bench.contestants import Contestant
from tests.bench.figures.latency import percentile, send
from tests.bench.figures.rounds import WARM_UP, audit, running, tag, wait_for_depth
from tests.bench.ground import FLOODING_TENANT, QUIET_TENANTS, Arena, Ground
from tests.bench.waiting import wait_until

PER_TENANT_PER_S = 10
SETTLE_S = 2
STORED_S = 60.0


@dataclass(frozen=True)
class Quiet:
    """Milliseconds from receive to commit of the quiet tenants' messages."""

    name: str
    flood: int
    flood_left: int
    messages: int
    p50_ms: float
    p99_ms: float
    max_ms: float


def flood(
    ground: Ground, contestant: Contestant, messages: int, seconds: int, say: Callable[[str], None] = print
) -> list[Quiet]:
    """Measure the quiet tenants on a calm queue, then beside a flood of so many messages."""
    found = []
    for size in (0, messages):
        found.append(one := _quiet(ground, contestant, size, seconds))
        say(
            f"{contestant.name}, beside {size:,}: p50 {one.p50_ms:.1f} ms, p99 {one.p99_ms:.1f} ms "
            f"from receive to commit"
        )
    return found


def _quiet(ground: Ground, contestant: Contestant, size: int, seconds: int) -> Quiet:
    rate = PER_TENANT_PER_S * QUIET_TENANTS
    count = rate * (SETTLE_S + seconds)
    with ground.arena(f"flood-{tag(contestant.name)}") as arena:
        ground.queue.fill(arena.queue_url, events.template(), count, WARM_UP)
        with running(ground, contestant, arena) as child:
            wait_for_depth(ground, child, arena, 0)
            if size:
                flooding = events.template(tenant=FLOODING_TENANT)
                ground.queue.fill(arena.queue_url, flooding, 0, size, lazy=True)
            text = events.template(tenant="quiet-%(tenant)d")
            sent = send(ground, arena, rate, count, text, QUIET_TENANTS)
            left = ground.queue.depth(arena.queue_url)
            wait_until(lambda: _stored(arena) >= count, STORED_S, "the quiet tenants' messages")
            received = ground.queue.handovers(arena.queue_url)
            committed = _committed(arena)
        audit(arena, None)
    first_at = sent.began_at + SETTLE_S
    waits_ms = sorted(
        (at - received[delivery_id]) * 1000
        for delivery_id, at in committed.items()
        if delivery_id in received and received[delivery_id] >= first_at
    )
    return Quiet(
        contestant.name,
        size,
        left,
        len(waits_ms),
        percentile(waits_ms, 50),
        percentile(waits_ms, 99),
        waits_ms[-1],
    )


def _stored(arena: Arena) -> int:
    with psycopg.connect(arena.database_url) as connection:
        row = connection.execute("SELECT count(*) FROM message WHERE tenant_id LIKE 'quiet-%'").fetchone()
    return 0 if row is None else int(row[0])


def _committed(arena: Arena) -> dict[str, float]:
    """Give, by delivery id, when each message of a quiet tenant was committed."""
    with psycopg.connect(arena.database_url) as connection:
        rows = connection.execute(
            "SELECT delivery_id, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 "
            "FROM message WHERE tenant_id LIKE 'quiet-%'"
        ).fetchall()
    return dict(rows)
