"""The cost of a batch of rows: time, CPU on both sides, WAL, buffers; measured around the saves only."""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.bench.growth.named import named
from tests.bench.growth.server import Connection, GrowthServer


@dataclass(frozen=True, slots=True)
class Cost:
    """Per row, but for the rate; `blocks_read` came from the kernel or the disk, `blocks_hit` did not."""

    rows_per_s: float
    client_cpu_us: float
    database_cpu_us: float
    wal_bytes: float
    blocks_hit: float
    blocks_read: float


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and what it lies between."""

    median: float
    low: float
    high: float


def spreads(costs: Sequence[Cost]) -> dict[str, Spread]:
    """Give each figure's spread over the rounds."""
    rows = [asdict(cost) for cost in costs]
    return {name: spread([row[name] for row in rows]) for name in rows[0]}


def spread(figures: Sequence[float]) -> Spread:
    return Spread(statistics.median(figures), min(figures), max(figures))


def measured(
    server: GrowthServer,
    connection: Connection,
    slices: Iterable[Sequence[Any]],
    save: Callable[[Sequence[Any]], object],
) -> Cost:
    """Save the slices one by one on this connection; what makes the slices is not on the clock."""
    rows, wall_s, client_s = 0, 0.0, 0.0
    with server.connect(connection.info.dbname) as watch:
        before, cpu_before_s = _counters(watch, connection), server.cpu_s()
        for part in slices:
            client_began_s, began_s = time.process_time(), time.perf_counter()
            save(part)
            wall_s += time.perf_counter() - began_s
            client_s += time.process_time() - client_began_s
            rows += len(part)
        cpu_s, after = server.cpu_s() - cpu_before_s, _counters(watch, connection)
    wal_bytes, hit, read = (int(later - sooner) for later, sooner in zip(after, before, strict=True))
    return Cost(
        rows / wall_s, client_s / rows * 1e6, cpu_s / rows * 1e6, wal_bytes / rows, hit / rows, read / rows
    )


def _counters(watch: Connection, connection: Connection) -> tuple[Any, ...]:
    statements = named("measure")
    connection.execute(statements["flush_statistics"])
    row = watch.execute(statements["counters"]).fetchone()
    assert row is not None
    return tuple(row)
