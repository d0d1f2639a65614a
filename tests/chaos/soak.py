"""`make soak`: a million messages, and a thousand processes killed while they are at work."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from processor.database.migrations import migrate
from processor.devstack.seed import seed as seed_registry
from processor.devstack.servers.postgres import EmbeddedPostgres
from processor.operations.audit import AuditReport, audit
from tests.bench.ground import TOOLS
from tests.bench.queue.queues import QueueServer
from tests.chaos.oracle import sum_stored
from tests.chaos.traffic.pulses import differences
from tests.chaos.traffic.soak_load import expected_sums, expected_usage

PROCESSES = 4
DRAIN_S_MAX = 300.0
_NAMED_MAX = 10
_END_S = 40.0

_SETTINGS = {
    "VISIBILITY_TIMEOUT_S": "4",
    "RECEIVE_WAIT_S": "1",
    "RETRY_WAIT_S_MAX": "0.5",
    # A kill costs a redelivery of all that was held: so much that many are redelivered, and few for ever.
    "BUFFER_SIZE_MAX": "200",
    "BATCH_SIZE_MAX": "100",
    "HTTP_PORT": "0",
    "LOG_LEVEL": "WARNING",
}

_SPREAD = """
SELECT count(*), sum((receive_count > 1)::int), max(receive_count), sum(receive_count - 1) FROM (
  SELECT receive_count FROM message UNION ALL SELECT receive_count FROM duplicate
  UNION ALL SELECT receive_count FROM rejection
) AS outcomes
"""


@dataclass(frozen=True, slots=True)
class Soaked:
    """What a soak showed; times are seconds."""

    seed: int
    kills: int
    took_s: float
    outcomes: int
    redelivered: int
    receives_max: int
    receives_beyond_first: int
    sums_equal: bool
    wrong_totals: list[str]
    audit_s: float
    report: AuditReport

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return self.report.holds and self.sums_equal and not self.wrong_totals

    def text(self) -> str:
        """Say it in lines for a person."""
        rate = self.outcomes / self.took_s
        sums = "equal to the last digit" if self.sums_equal else "DIFFERENT"
        totals = "\n".join([f"{len(self.wrong_totals)} DIFFER", *self.wrong_totals[:_NAMED_MAX]])
        return f"""seed {self.seed}: {self.outcomes:,} deliveries, {self.kills:,} kills, {self.took_s:.0f} s \
({rate:,.0f} a second)
handed over more than once, as the rows tell: {self.redelivered:,}, one of them {self.receives_max} times; \
{self.receives_beyond_first:,} receives beyond the first
sums: {sums}; totals: {totals if self.wrong_totals else "equal to the last digit"}; the audit took \
{self.audit_s:.0f} s

{self.report.text()}"""


def soak(messages: int, kills_min: int, pause_s: float, seed: int) -> Soaked:
    """Send, kill at random (a pause of `pause_s` on average) until all is stored, then ask the oracle.

    Kills go on at least until there were `kills_min`, with whatever load is left.
    """
    TOOLS.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="soak-", dir=TOOLS, ignore_cleanup_errors=True) as name,
        EmbeddedPostgres(Path(name) / "postgres") as postgres,
        QueueServer("own", Path(name), TOOLS) as queue,
    ):
        folder = Path(name)
        with psycopg.connect(postgres.url(), autocommit=True) as admin:
            admin.execute("CREATE DATABASE soak")
        with psycopg.connect(postgres.url("soak"), autocommit=True) as connection:
            migrate(connection)
        seed_registry(postgres.url("soak"))
        queue_url = queue.create("events")
        began_at = time.monotonic()
        with _children(_environment(postgres.url("soak"), queue, queue_url), folder) as places:
            with _sender(queue, queue_url, messages, seed, folder) as sender:
                kills = _kill(places, random.Random(seed), pause_s, kills_min, sender)
                assert all(place.poll() is None for place in places), (folder / "processor.log").read_text()
                assert sender.wait() == 0, (folder / "sender.log").read_text()
            _wait_until_empty(queue, queue_url)
            took_s = time.monotonic() - began_at
        with psycopg.connect(postgres.url("soak"), autocommit=True) as connection:
            return _judge(connection, folder, queue, queue_url, kills=kills, took_s=took_s, seed=seed)


def _kill(
    places: list[subprocess.Popen[bytes]],
    chance: random.Random,
    pause_s: float,
    kills_min: int,
    sender: subprocess.Popen[bytes],
) -> int:
    kills = 0
    while sender.poll() is None or kills < kills_min:
        time.sleep(chance.uniform(0, 2 * pause_s))
        place = chance.choice(places)
        if place.poll() is not None:
            # It ended by itself; the caller shows its log.
            return kills
        children = Path(f"/proc/{place.pid}/task/{place.pid}/children").read_text().split()
        with contextlib.suppress(IndexError, ProcessLookupError):
            os.kill(int(children[0]), signal.SIGKILL)
            kills += 1
        if kills and kills % 100 == 0:
            sys.stderr.write(f"{kills} kills\n")
    return kills


def _wait_until_empty(queue: QueueServer, queue_url: str) -> None:
    give_up_at = time.monotonic() + DRAIN_S_MAX
    while queue.depth(queue_url):
        assert time.monotonic() < give_up_at, f"the queue is not empty after {DRAIN_S_MAX:.0f} s"
        time.sleep(0.1)


def _judge(
    connection: psycopg.Connection[Any],
    folder: Path,
    queue: QueueServer,
    queue_url: str,
    *,
    kills: int,
    took_s: float,
    seed: int,
) -> Soaked:
    began_at = time.monotonic()
    report = audit(connection, [folder / "manifest.jsonl"], lambda: {"visible": queue.depth(queue_url)})
    audit_s = time.monotonic() - began_at
    total, rivals = expected_sums(folder)
    row = connection.execute(_SPREAD).fetchone()
    assert row is not None
    outcomes, redelivered, receives_max, beyond = (int(value) for value in row)
    return Soaked(
        seed,
        kills,
        took_s,
        outcomes,
        redelivered,
        receives_max,
        beyond,
        sum_stored(connection, rivals) == total,
        differences(connection, *expected_usage(folder)),
        audit_s,
        report,
    )


@contextlib.contextmanager
def _children(environment: dict[str, str], folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    with (folder / "processor.log").open("ab") as log:
        places = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.victims.forking", "run"], env=environment, stderr=log
            )
            for _ in range(PROCESSES)
        ]
    try:
        yield places
    finally:
        for place in places:
            place.terminate()
        for place in places:
            place.wait(_END_S)


@contextlib.contextmanager
def _sender(
    queue: QueueServer, queue_url: str, messages: int, seed: int, folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    words = [queue.endpoint_url, queue_url, str(messages), str(seed), str(folder)]
    with (folder / "sender.log").open("wb") as log:
        sender = subprocess.Popen([sys.executable, "-m", "tests.chaos.traffic.soak_load", *words], stderr=log)
    try:
        yield sender
    finally:
        if sender.poll() is None:
            sender.kill()
            sender.wait()


def _environment(database_url: str, queue: QueueServer, queue_url: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PG"))}
    return (
        kept
        | {
            "DATABASE_URL": database_url,
            "SQS_QUEUE_URL": queue_url,
            "AWS_ENDPOINT_URL": queue.endpoint_url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }
        | _SETTINGS
    )
