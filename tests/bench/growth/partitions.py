"""Partitioning of `message`: the plain table compared with hash by tenant and range by time."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from processor.model import Message, Verdict
from tests.bench.growth.cost import Saver, a_saver
from tests.bench.growth.fill import Grown
from tests.bench.growth.meter import Cost, Spread, measured, spread
from tests.bench.growth.named import named
from tests.bench.growth.server import Connection, GrowthServer

TABLES = ("plain", "indexed", "hash_8", "hash_32", "range")
ROWS, BATCH = 20_000, 500
STEP_PAGES = 400
"""About five thousand messages."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Planning:
    """What one question costs before it runs: planning time, and the locks that a statement takes."""

    key_ms: Spread
    all_ms: Spread
    insert_locks: int
    insert_locks_shared: int


@dataclass(frozen=True, slots=True)
class Removal:
    """What it took to remove the oldest rows; `dropped_s` is the DROP, if there was one."""

    rows: int
    dropped_s: float
    deleted_s: float
    step_s_max: float
    wal_bytes: int
    vacuum_s: float


def measure_inserts(
    server: GrowthServer, sizes: Sequence[int], rounds: int, say: Say
) -> dict[tuple[str, int], list[Cost]]:
    """Insert the same way into each kind of table, in turn, each time right after a checkpoint."""
    costs: dict[tuple[str, int], list[Cost]] = {}
    chance = random.Random()
    for place in range(rounds):
        for size in sizes:
            for table in TABLES:
                with a_saver(server, Grown(table, "random").database(size), chance) as saver:
                    insert = _insert(saver, table)
                    for verdicts in saver.verdicts(2 * BATCH, BATCH, "random"):
                        insert(verdicts)
                    with server.connect() as admin:
                        admin.execute("CHECKPOINT")
                    cost = measured(server, saver.connection, saver.verdicts(ROWS, BATCH, "random"), insert)
                    costs.setdefault((table, size), []).append(cost)
        say(f"partitions: round {place + 1} of {rounds}")
    return costs


def _insert(saver: Saver, table: str) -> Callable[[Sequence[Verdict]], object]:
    statement = named("range" if table == "range" else "plain")["insert_messages"]

    def insert(verdicts: Sequence[Verdict]) -> None:
        with saver.connection.transaction():
            saver.connection.execute("SELECT registry_version_held()")
            done = saver.connection.execute(statement, _columns(verdicts))
            assert done.rowcount == len(verdicts)

    return insert


def _columns(verdicts: Sequence[Verdict]) -> dict[str, list[Any]]:
    messages = [verdict for verdict in verdicts if isinstance(verdict, Message)]
    assert len(messages) == len(verdicts), "a sample breaks its schema"
    names = ("tenant_id", "message_id", "producer", "event_type", "schema_id", "occurred_at", "payload")
    columns = {name: [getattr(message, name) for message in messages] for name in names}
    return columns | {
        name: [getattr(message.delivery, name) for message in messages]
        for name in ("sent_at", "queue", "delivery_id")
    }


def measure_planning(server: GrowthServer, size: int) -> dict[str, Planning]:
    """Ask for plans of a question by key and of one over all tenants, and count the locks of one batch."""
    return {table: _planning(server, table, Grown(table, "random").database(size)) for table in TABLES}


def _planning(server: GrowthServer, table: str, database: str) -> Planning:
    by_key = "SELECT payload FROM message WHERE tenant_id = 'acme' AND message_id = 'order-1'"
    with server.connect(database) as connection:
        key_ms = spread([_plan_ms(connection, by_key) for _ in range(20)][1:])
        all_ms = spread([_plan_ms(connection, "SELECT count(*) FROM message") for _ in range(20)][1:])
    with a_saver(server, database, random.Random()) as saver, saver.connection.transaction():
        [verdicts] = saver.verdicts(BATCH, BATCH, "random")
        statement = named("range" if table == "range" else "plain")["insert_messages"]
        saver.connection.execute(statement, _columns(verdicts))
        locks = saver.connection.execute(named("measure")["locks"]).fetchone()
        assert locks is not None
    return Planning(key_ms, all_ms, *locks)


def _plan_ms(connection: Connection, question: str) -> float:
    row = connection.execute(f"EXPLAIN (SUMMARY, FORMAT JSON) {question}".encode()).fetchone()
    assert row is not None
    return float(row[0][0]["Planning Time"])


def measure_removal(server: GrowthServer, size: int, say: Say) -> dict[str, Removal]:
    """Remove the oldest whole month of the table by range, and as many rows of the plain one, on copies."""
    removals: dict[str, Removal] = {}
    with server.connect(Grown("range", "random").database(size)) as connection:
        oldest = connection.execute(named("range")["oldest_partition"]).fetchone()
        assert oldest is not None
        counted = connection.execute(f"SELECT count(*) FROM {oldest[0]}".encode()).fetchone()
        assert counted is not None
    for table in ("plain", "range"):
        copy = Grown(table, "random").database("removal")
        server.drop(copy)
        server.create(copy, template=Grown(table, "random").database(size))
        with server.connect(copy) as connection:
            connection.execute("CHECKPOINT")
            removals[table] = _remove(connection, table, str(oldest[0]), int(counted[0]))
        server.drop(copy)
        say(f"partitions: removed {removals[table].rows:,} old rows from {table}")
    return removals


def _remove(connection: Connection, table: str, partition: str, rows: int) -> Removal:
    statements, kept_in = named(table), "message_key" if table == "range" else "message"
    until = _moment_of_row(connection, kept_in, partition if table == "range" else None, rows)
    wal_before, dropped_s = _wal(connection), 0.0
    if table == "range":
        dropped_s = _timed(lambda: connection.execute(f"DROP TABLE {partition}".encode()))
    steps = [
        _timed(partial(connection.execute, statements["delete_old"], step))
        for step in _steps(connection, statements["pages"], until)
    ]
    left = connection.execute(
        f"SELECT count(*) FROM {kept_in} WHERE stored_at < %s".encode(), [until]
    ).fetchone()
    assert left == (0,), "rows older than the end were left"
    wal_bytes = int(_wal(connection) - wal_before)
    vacuum_s = _timed(lambda: connection.execute(f"VACUUM {kept_in}".encode()))
    return Removal(rows, dropped_s, sum(steps), max(steps), wal_bytes, vacuum_s)


def _moment_of_row(connection: Connection, table: str, partition: str | None, rows: int) -> Any:
    """Give the moment up to which the table keeps so many rows, or up to which the partition goes."""
    if partition is not None:
        row = connection.execute(
            f"SELECT max(stored_at) + interval '1 microsecond' FROM {partition}".encode()
        )
    else:
        row = connection.execute(
            f"SELECT stored_at FROM {table} ORDER BY stored_at LIMIT 1 OFFSET {rows}".encode()
        )
    found = row.fetchone()
    assert found is not None
    return found[0]


def _steps(connection: Connection, pages: Any, until: object) -> Iterator[dict[str, object]]:
    """Go through the table's pages from the oldest on, until a step finds that all is younger."""
    found = connection.execute(pages).fetchone()
    assert found is not None
    for first in range(0, int(found[0]), STEP_PAGES):
        yield {"from": f"({first},0)", "to": f"({first + STEP_PAGES},0)", "until": until}


def _wal(connection: Connection) -> Any:
    row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
    assert row is not None
    return row[0]


def _timed(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s
