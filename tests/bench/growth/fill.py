"""Tables of a given size, made once and kept: each kind of table grows in one database, copied at each size.

plain_random_growing ──▶ plain_random_0, plain_random_1000000, … and itself becomes the largest
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psycopg

from processor.database.migrations import migrate
from processor.operations import registry
from tests.bench.growth.named import named
from tests.bench.growth.samples import EVENT_TYPES, SAMPLES, SCHEMA, TENANTS, Ids, samples
from tests.bench.growth.server import FILLING, Connection, GrowthServer

ROWS_AT_ONCE = 100_000


@dataclass(frozen=True, slots=True)
class Grown:
    """One kind of table: which partitions, if any, and which ids."""

    table: str
    """plain, indexed, hash_8, hash_32 or range."""
    ids: Ids

    def database(self, rows: int | str) -> str:
        return f"{self.table}_{self.ids}_{rows}"

    @property
    def partitions(self) -> int:
        return int(self.table.partition("_")[2] or 0)


@dataclass
class Filler:
    """Fills databases side by side; an interrupt stops them all within a moment."""

    server: GrowthServer
    say: Callable[[str], None]
    _stopped: threading.Event = field(default_factory=threading.Event)
    _connections: list[Connection] = field(default_factory=list)

    def fill(self, kinds: Sequence[tuple[Grown, Sequence[int]]], at_once: int = 2) -> None:
        """Make every table in every size that is not there yet."""
        existing = self.server.databases()
        missing = [
            (grown, sizes)
            for grown, sizes in kinds
            if not {grown.database(rows) for rows in sizes} <= existing
        ]
        if not missing:
            return
        self.server.settings(FILLING)
        with ThreadPoolExecutor(at_once) as pool:
            try:
                for done in [pool.submit(self._grow, grown, sorted(sizes)) for grown, sizes in missing]:
                    done.result()
            except BaseException:
                self._stop()
                pool.shutdown(cancel_futures=True)
                raise
        self.server.settings({})

    def _stop(self) -> None:
        self._stopped.set()
        for connection in self._connections:
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=5)

    def _grow(self, grown: Grown, sizes: Sequence[int]) -> None:
        growing, began = grown.database("growing"), time.monotonic()
        for name in [growing, *map(grown.database, sizes)]:
            self.server.drop(name)
        self.server.create(growing)
        self._in(growing, lambda connection: prepare(connection, grown))
        ended_at, rows = datetime.now(UTC), 0
        for size in sizes:
            while rows < size and not self._stopped.is_set():
                last = min(rows + ROWS_AT_ONCE, size)
                stretch = {"first": rows + 1, "last": last, "rows_max": sizes[-1], "ended_at": ended_at}
                self._in(growing, lambda connection, stretch=stretch: extend(connection, grown, stretch))  # type: ignore[misc]
                rows = last
            if self._stopped.is_set():
                return
            self._in(growing, lambda connection: connection.execute("VACUUM (ANALYZE)"))
            if size == sizes[-1]:
                self.server.rename(growing, grown.database(size))
            else:
                self.server.create(grown.database(size), template=growing)
            self.say(f"{grown.database(size)} is there, {time.monotonic() - began:.0f} s after the start")

    def _in(self, database: str, work: Callable[[Connection], object]) -> None:
        with self.server.connect(database) as connection:
            self._connections.append(connection)
            try:
                work(connection)
            finally:
                self._connections.remove(connection)


def prepare(connection: Connection, grown: Grown) -> None:
    """Migrate, register tenants and event types, keep the samples and the rejections; partition if asked."""
    migrate(connection)
    for tenant_id in TENANTS:
        registry.add_tenant(connection, tenant_id)
    for event_type in EVENT_TYPES:
        registry.publish_schema(connection, event_type, SCHEMA)
    statements = named("fill")
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(statements["create_samples"])
        cursor.executemany(
            statements["insert_samples"],
            [
                {
                    "sample": number,
                    "tenant_id": sample.tenant_id,
                    "event_type": sample.event_type,
                    "producer": sample.producer,
                    "payload": sample.payload,
                }
                for number, sample in enumerate(samples())
            ],
        )
    connection.execute("ANALYZE growth_sample")
    connection.execute(statements["fill_rejections"], {"ended_at": datetime.now(UTC), "samples": SAMPLES})
    if grown.table != "plain":
        partition(connection, grown)


def partition(connection: Connection, grown: Grown) -> None:
    """Make the empty plain table what its kind says, by the statements of its file, as far as it has them."""
    statements = named(grown.table.partition("_")[0])
    with connection.transaction():
        connection.execute("SELECT set_config('growth.partitions', %s, true)", [str(grown.partitions)])
        for name in (
            "take_away",
            "create",
            "drop_plain",
            "create_partitions",
            "constrain",
            "index",
            "create_key",
        ):
            if name in statements:
                connection.execute(statements[name])


def extend(connection: Connection, grown: Grown, stretch: dict[str, object]) -> None:
    """Add a stretch of rows; triggers, of the foreign keys too, are off: the samples obey them."""
    given = stretch | {"ids": grown.ids, "samples": SAMPLES}
    statements = named("fill")
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")
        connection.execute("SET LOCAL synchronous_commit = off")
        connection.execute("SET LOCAL work_mem = '256MB'")
        connection.execute("SET LOCAL jit = off")
        connection.execute(statements["fill_messages"], given)
        # Else the plan for the stretch that was just stored is made for an empty table.
        connection.execute("SET LOCAL enable_seqscan = off")
        connection.execute(statements["fill_keys" if grown.table == "range" else "fill_duplicates"], given)
