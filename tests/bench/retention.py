"""The speed of retention, and its cost for a concurrent writer: `python -m tests.bench.retention`.

One table is filled, half of it with old rows. While one writer saves continuously, old rows are removed for
some seconds and then not, in turns, with several pauses between two steps. The writer's throughput during
removal is compared with that just before and after. The remaining rows are removed without a writer.
"""

import argparse
import itertools
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Self

import psycopg

from processor.database.connection import connect
from processor.devstack.servers.postgres import EmbeddedPostgres
from processor.model import Delivery
from processor.operations.retention import Ages, apply
from processor.runtime.outages import OutageRetry
from processor.store.store import Store
from processor.validation.validator import Schemas
from tests.bench.events import body, template
from tests.bench.ground import furnish

FILL = """
    INSERT INTO message (tenant_id, message_id, producer, event_type, schema_id, sent_at, stored_at, payload,
      queue, delivery_id, receive_count)
    SELECT 'tenant-' || n %% 10, md5(n::text), 'shop', 'order.created', 1, moment, moment,
      jsonb_build_object('order_id', 'o-' || n, 'total', n / 100.0, 'currency', 'EUR', 'items', '[]'::jsonb,
        'note', repeat(md5(n::text), 10)), 'events', gen_random_uuid(), 1
    FROM (
      SELECT n, now() - %(days)s * interval '1 day' + n * interval '1 millisecond' AS moment
      FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
    ) AS rows
"""
PAUSES_MS = (0, 20, 100)
TEMPLATE = template()


def fill(url: str, messages: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        part = messages // 20
        for start in range(1, 20 * part + 1, part):
            end = start + part - 1
            days = 100 if end <= messages // 2 else 1
            connection.execute(FILL, {"days": days, "first": start, "last": end})
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


class Writer:
    """Saves batches until told to end, and counts rows and the slowest save."""

    def __init__(self, url: str, batch_size: int) -> None:
        schemas = Schemas(body_bytes_max=1024 * 1024, json_depth_max=64)
        retry = OutageRetry("database", wait_s_max=1, stop=threading.Event())
        self._store = Store(lambda: connect(url, timeout_s=30), schemas, retry, timeout_s=30)
        self._store.load_registry()
        self._schemas = schemas
        self._batch_size = batch_size
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.saved = 0
        self.slowest_s = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_details: object) -> None:
        self._stop.set()
        self._thread.join(60)
        self._store.close()

    def _work(self) -> None:
        numbers = itertools.count(1_000_000_000)
        while not self._stop.is_set():
            now = datetime.now(UTC)
            verdicts = [
                self._schemas.validate(
                    Delivery("events", f"delivery-{number}", body(number, TEMPLATE).encode(), "", 1, now, now)
                )
                for number in itertools.islice(numbers, self._batch_size)
            ]
            began = time.monotonic()
            self.saved += len(self._store.save(verdicts))
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)


def remove(url: str, options: argparse.Namespace, pause_ms: int, removed: list[int]) -> None:
    """Remove old messages for some seconds, or to the end where it is not the first; notes how many."""
    stop = threading.Event()
    timer = threading.Timer(options.seconds if removed == [] else 600, stop.set)
    timer.start()
    with psycopg.connect(url, autocommit=True) as connection:
        found = apply(
            connection,
            Ages(message=40, duplicate=None, rejection=None, key=35),
            step_size=options.step_size,
            pause_s=pause_ms / 1000,
            stop=stop,
            statement_timeout_s=30,
        )
    timer.cancel()
    removed.append(found["message"])


def measure(url: str, options: argparse.Namespace) -> None:
    results: dict[int, list[tuple[float, ...]]] = {pause_ms: [] for pause_ms in PAUSES_MS}
    with Writer(url, options.batch_size) as writer:

        def rate_per_s(work: Callable[[], object]) -> float:
            saved, began = writer.saved, time.monotonic()
            writer.slowest_s = 0.0
            work()
            return (writer.saved - saved) / (time.monotonic() - began)

        before = rate_per_s(partial(time.sleep, options.seconds))
        for _ in range(options.rounds):
            for pause_ms in PAUSES_MS:
                removed: list[int] = []
                began = time.monotonic()
                beside = rate_per_s(partial(remove, url, options, pause_ms, removed))
                removed_per_s = removed[0] / (time.monotonic() - began)
                slowest_ms = writer.slowest_s * 1000
                after = rate_per_s(partial(time.sleep, options.seconds))
                results[pause_ms].append((2 * beside / (before + after), removed_per_s, slowest_ms))
                print(
                    f"pause {pause_ms:3} ms: writer {before:.0f} rows/s before, {beside:.0f} beside, "
                    f"{after:.0f} after, slowest save {slowest_ms:.0f} ms; {removed[0]} removed",
                    flush=True,
                )
                before = after
    for pause_ms, pairs in results.items():
        ratio, removed_per_s, slowest_ms = map(statistics.median, zip(*pairs, strict=True))
        print(
            f"median, pause {pause_ms:3} ms: writer at {ratio:.2f}, {removed_per_s:.0f} removed/s, "
            f"slowest save {slowest_ms:.0f} ms"
        )
    began, rest = time.monotonic(), [0]
    remove(url, options, 0, rest)
    print(f"alone, no pause: {rest[1]} removed, {rest[1] / (time.monotonic() - began):.0f}/s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=2_000_000)
    parser.add_argument("--step-size", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--fill-only", type=Path, metavar="DIRECTORY", help="make the table there, and end")
    parser.add_argument("--filled", type=Path, metavar="DIRECTORY", help="where --fill-only made it; used up")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory = options.fill_only or options.filled or Path(folder) / "postgres"
        with EmbeddedPostgres(directory) as postgres:
            url = postgres.url("retention")
            if not options.filled:
                with psycopg.connect(postgres.url(), autocommit=True) as admin:
                    admin.execute("CREATE DATABASE retention")
                furnish(url)
                began = time.monotonic()
                fill(url, options.messages)
                print(f"filled {options.messages} in {time.monotonic() - began:.0f} s", flush=True)
            if not options.fill_only:
                measure(url, options)


if __name__ == "__main__":
    main()
