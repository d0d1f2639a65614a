"""The cost of meters: the same pulses with and without a meter, over 90,000 totals, and over a single one.

Then four concurrent processes with the meter, and a million pulses: deadlocks, totals locked per commit, and
the size of the table. All pulses of a run fall into one window, as an hour's pulses do.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import psycopg

from processor.operations import registry
from tests.bench import events
from tests.bench.contestants import ours
from tests.bench.faults import LoadError
from tests.bench.figures.rounds import (
    WARM_UP,
    Figures,
    Stream,
    audit,
    clock,
    drain,
    running,
    tag,
    wait_for_depth,
)
from tests.bench.ground import Arena, Ground
from tests.bench.race import Entry, Race, race

PROCESSES = 4
ALL_TOTALS = f"{events.METERED_TENANTS * events.SKUS * len(events.UNITS):,} totals"
BEGUN = f"{ALL_TOTALS}, begun"
HOT_TOTAL = "one hot total"
NO_METER = {ALL_TOTALS: f"{ALL_TOTALS}, no meter", HOT_TOTAL: f"{HOT_TOTAL}, no meter"}
COMPARED = {
    ALL_TOTALS: NO_METER[ALL_TOTALS],
    BEGUN: NO_METER[ALL_TOTALS],
    HOT_TOTAL: NO_METER[HOT_TOTAL],
}
"""Who has the meter, and who drains the same pulses without it. Totals that are begun are raised alone."""

METER = """
INSERT INTO meter (meter, event_type, aggregation, value_pointer, group_names, group_pointers)
VALUES ('pulse', 'pulse', 'sum', '/used_amount', '{product_sku,use_unity}', '{/product_sku,/use_unity}')
"""

BEGIN = """
INSERT INTO total (
  tenant_id, meter_id, window_start, group_key, slot, value, messages, first_at, last_at, closes_at)
SELECT
  'busy-' || tenant, meter_id, hour,
  jsonb_build_object('product_sku', 'sku-' || sku, 'use_unity', unit)::text,
  0, 0, 0, now(), now(), hour + interval '75 minutes'
FROM meter, date_trunc('hour', now(), 'UTC') AS hour, generate_series(1, %(tenants)s) AS tenant,
  generate_series(0, %(skus)s - 1) AS sku, unnest(%(units)s::text[]) AS unit
"""


@dataclass(frozen=True)
class Totals:
    """What so many messages of one shape have done to the table of totals; bytes as they are on the disk."""

    name: str
    processes: int
    messages: int
    rate_per_s: float
    deadlocks: int
    rows: int
    locked_per_commit: float
    messages_per_commit: float
    table_bytes: int
    index_bytes: int


@dataclass
class Usage:
    """The race of those with the meter against those without, and the table of totals after many messages."""

    race: Race = field(default_factory=Race)
    totals: list[Totals] = field(default_factory=list)

    def kept(self, shape: str) -> float | None:
        """Give the part of the speed that the meter leaves: the median of the ratios within each round."""
        return self.race.ratio(shape, COMPARED[shape])


def usage(ground: Ground, rounds: int, messages: int, many: int, say: Callable[[str], None] = print) -> Usage:
    """Race with the meter and without it, then let four processes drain `many` pulses of each shape."""
    entries = [_entry(name) for name in dict.fromkeys([*NO_METER.values(), *COMPARED])]
    found = Usage(race(ground, entries, rounds, messages, say))
    for shape in NO_METER:
        found.totals.append(one := totals(ground, shape, many))
        say(
            f"{shape}, {PROCESSES} processes: {one.rate_per_s:,.0f} messages/s, {one.deadlocks} deadlocks, "
            f"{one.locked_per_commit:.0f} totals locked for {one.messages_per_commit:.0f} messages"
        )
    return found


def _entry(name: str) -> Entry:
    prepare = partial(_prepare, metered=name in COMPARED, begun=name == BEGUN)
    stream = Stream(events.pulses(hot=name.startswith(HOT_TOTAL)), prepare)

    def run(ground: Ground, messages: int) -> Figures:
        return drain(ground, ours(), messages, stream=stream)

    return Entry(name, run)


def _prepare(arena: Arena, *, metered: bool, begun: bool = False) -> None:
    """Add the tenants, the schema of a pulse and, if asked for, the meter."""
    with psycopg.connect(arena.database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO tenant (tenant_id, name)"
            " SELECT 'busy-' || number, 'busy' FROM generate_series(1, %s) AS number",
            (events.METERED_TENANTS,),
        )
        registry.publish_schema(connection, events.PULSE, events.PULSE_SCHEMA)
        if metered:
            connection.execute(METER)
        if begun:
            connection.execute(
                BEGIN, {"tenants": events.METERED_TENANTS, "skus": events.SKUS, "units": [*events.UNITS]}
            )
        connection.execute("VACUUM ANALYZE")


def totals(ground: Ground, shape: str, messages: int) -> Totals:
    """Let four processes with the meter drain so many pulses; gives what the table is like then."""
    with ground.arena(f"totals-{tag(shape)}") as arena:
        _prepare(arena, metered=True)
        pulses = events.pulses(hot=shape == HOT_TOTAL)
        ground.queue.fill(arena.queue_url, pulses, 0, WARM_UP)
        with running(ground, ours(PROCESSES), arena) as child:
            wait_for_depth(ground, child, arena, 0)
            # Made when they are received: so many would fill the memory of this machine.
            ground.queue.fill(arena.queue_url, pulses, WARM_UP, messages, lazy=True)
            wait_for_depth(ground, child, arena, 0)
        audit(arena, WARM_UP + messages)
        ticked = clock(arena, None, WARM_UP)
        rows, locked, commits, counted, table_bytes, index_bytes = _look(arena)
    if counted != WARM_UP + messages:
        raise LoadError(f"{counted} of {WARM_UP + messages} messages are in the totals")
    return Totals(
        name=shape,
        processes=PROCESSES,
        messages=messages,
        rate_per_s=messages / ticked.seconds,
        deadlocks=ticked.deadlocks,
        rows=rows,
        locked_per_commit=locked / commits,
        messages_per_commit=(WARM_UP + messages) / commits,
        table_bytes=table_bytes,
        index_bytes=index_bytes,
    )


def _look(arena: Arena) -> tuple[int, ...]:
    """Ask for rows, rows written since the beginning, commits, messages in them, and bytes on the disk."""
    with psycopg.connect(arena.database_url) as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM total), n_tup_ins + n_tup_upd,"
            " (SELECT count(DISTINCT xmin::text) FROM message), (SELECT sum(messages)::bigint FROM total),"
            " pg_table_size('total'), pg_indexes_size('total')"
            " FROM pg_stat_user_tables WHERE relname = 'total'"
        ).fetchone()
    assert row is not None, "PostgreSQL keeps statistics of each table"
    return tuple(int(value) for value in row)
