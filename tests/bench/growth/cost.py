"""The cost of a message by the size of the table: `Store.save` itself, on every size in turn."""

import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import product
from typing import Any

from processor.database.connection import connect
from processor.model import Verdict
from processor.runtime.outages import OutageRetry
from processor.store.store import Store
from processor.validation.validator import Schemas
from tests.bench.growth.fill import Grown
from tests.bench.growth.meter import Cost, measured
from tests.bench.growth.samples import Ids, deliveries
from tests.bench.growth.server import Connection, GrowthServer

BATCHES: Mapping[int, int] = {500: 20_000, 50: 5_000}
"""Rows saved a round, by the size of a batch."""

SUSTAINED_ROWS_MAX = 200_000
ROOMY: dict[str, str] = {"max_wal_size": "16GB", "shared_buffers": "4GB"}
SETTINGS: Sequence[dict[str, str]] = (
    {},
    {"wal_compression": "pglz"},
    {"max_wal_size": "16GB"},
    ROOMY,
)

Say = Callable[[str], None]


class Saver:
    """A store of one database, with its registry, and its connection to ask what it has done."""

    def __init__(self, url: str, chance: random.Random) -> None:
        self._chance = chance
        self._connections: list[Connection] = []
        self.schemas = Schemas(body_bytes_max=1024 * 1024, json_depth_max=64)

        def opened() -> Connection:
            self._connections.append(connect(url, timeout_s=120))
            return self._connections[-1]

        retry = OutageRetry("database", wait_s_max=1, stop=threading.Event())
        self.store = Store(opened, self.schemas, retry, timeout_s=120)
        self.store.load_registry()

    @property
    def connection(self) -> Connection:
        return self._connections[-1]

    def verdicts(self, rows: int, batch: int, ids: Ids) -> Iterator[list[Verdict]]:
        """Give new messages in batches."""
        for _ in range(rows // batch):
            yield [self.schemas.validate(delivery) for delivery in deliveries(batch, ids, self._chance)]


@contextmanager
def a_saver(server: GrowthServer, database: str, chance: random.Random) -> Iterator[Saver]:
    saver = Saver(server.url(database), chance)
    try:
        yield saver
    finally:
        saver.store.close()


def measure_cost(
    server: GrowthServer, sizes: Sequence[int], ids: Sequence[Ids], rounds: int, say: Say
) -> dict[tuple[Ids, int, int], list[Cost]]:
    """Save into a table of each size, round by round, each time right after a checkpoint.

    That is a message's dearest moment: a page's first change after a checkpoint puts all of it into the WAL.
    """
    costs: dict[tuple[Ids, int, int], list[Cost]] = {}
    chance = random.Random()
    for place in range(rounds):
        for rows, kind in product(sizes, ids):
            database = Grown("plain", kind).database(rows)
            with a_saver(server, database, chance) as saver:
                if rows == 0:
                    _empty(server, database)
                _save_some(saver, kind)
                for batch, count in BATCHES.items():
                    _checkpoint(server)
                    cost = measured(
                        server, saver.connection, saver.verdicts(count, batch, kind), saver.store.save
                    )
                    costs.setdefault((kind, rows, batch), []).append(cost)
        say(f"cost: round {place + 1} of {rounds}")
    return costs


def measure_sustained(
    server: GrowthServer,
    sizes: Sequence[int],
    ids: Sequence[Ids],
    settings: Sequence[dict[str, str]],
    say: Say,
) -> list[dict[str, Any]]:
    """Save without a pause, checkpoints coming as they do, by settings of the server."""
    found: list[dict[str, Any]] = []
    chance = random.Random()
    try:
        for changes, rows, kind in product(settings, sizes, ids):
            server.settings(changes)
            database = Grown("plain", kind).database(rows)
            if rows == 0:
                _empty(server, database)
            with a_saver(server, database, chance) as saver:
                _save_some(saver, kind)
                verdicts = saver.verdicts(min(SUSTAINED_ROWS_MAX, max(sizes)), 500, kind)
                cost = measured(server, saver.connection, verdicts, saver.store.save)
            name = ", ".join(f"{name} {value}" for name, value in changes.items()) or "as PostgreSQL has them"
            found.append({"ids": kind, "rows": rows, "settings": name} | asdict(cost))
            say(f"sustained: {cost.rows_per_s:,.0f} rows/s, {rows:,} rows, {kind} ids, settings {name}")
    finally:
        server.settings({})
    return found


def _save_some(saver: Saver, ids: Ids) -> None:
    """Let the session plan its statements and read its catalogs before the clock runs."""
    for verdicts in saver.verdicts(1000, 500, ids):
        saver.store.save(verdicts)


def _empty(server: GrowthServer, database: str) -> None:
    with server.connect(database) as connection:
        connection.execute("TRUNCATE message")


def _checkpoint(server: GrowthServer) -> None:
    with server.connect() as admin:
        admin.execute("CHECKPOINT")
