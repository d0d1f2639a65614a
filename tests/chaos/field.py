"""The environment of one scenario: both servers, a proxy for each, a steady load, and the fleet."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from processor.database.migrations import migrate
from processor.devstack.seed import seed as seed_registry
from processor.devstack.servers.children import free_port
from processor.devstack.servers.postgres import EmbeddedPostgres
from processor.devstack.servers.sink import Receiver
from processor.devstack.servers.sqs import EmbeddedSqs
from processor.sources.sqs.source import SqsSource
from tests.broker_servers.rabbitmq import Broker
from tests.chaos.fleet import Fleet
from tests.chaos.oracle import Depths, Recovery, known_outcomes
from tests.chaos.traffic.http_proxy import HttpProxy
from tests.chaos.traffic.steady_load import SteadyLoad
from tests.chaos.traffic.tcp_proxy import TcpProxy

DATABASE = "events"
QUEUE = "events"
LOGIN = "chaos"
"""A login of the role that a deployment runs as: no owner, no superuser."""
BILLING_LOGIN = "billing"
"""The same for what hands usage over."""

SETTINGS = {
    # Short, so that what a dead process held comes back soon; polls end well before.
    "VISIBILITY_TIMEOUT_S": "4",
    "RECEIVE_WAIT_S": "1",
    "RETRY_WAIT_S_MAX": "0.5",
    "DATABASE_TIMEOUT_S": "3",
    "STOP_TIMEOUT_S": "8",
    "LOG_LEVEL": "INFO",
}

_LOOK_S = 0.05


class ScenarioFailed(Exception):
    """Something that had to happen did not, or the other way round."""


@dataclass
class Field:
    """What a scenario may touch. `rounds` is how many faults it is to inject, `chance` decides when."""

    chance: random.Random
    rounds: int
    postgres: EmbeddedPostgres
    sqs: EmbeddedSqs
    queue_url: str
    database: TcpProxy
    queue: HttpProxy
    load: SteadyLoad
    fleet: Fleet
    recovery: Recovery
    folder: Path
    cleanup: contextlib.ExitStack
    """What is put here is undone after the fleet and the load have ended."""
    faults: int = 0
    complaints: list[str] = field(default_factory=list)
    """What was wrong, and lets the rest be judged all the same."""
    dispatchers: Fleet | None = None
    gateways: Fleet | None = None
    sink: Receiver | None = None
    """Where usage is handed over to, if it is."""
    broker: Broker | None = None
    books: Depths | None = None
    """What stands in for SQS, and says what it still has."""

    def tend(self) -> None:
        """Start again whoever has fallen."""
        self.fleet.tend()
        for beside in (self.dispatchers, self.gateways):
            if beside is not None:
                beside.tend()

    def pause(self, low_s: float, high_s: float) -> None:
        """Let things happen for a random while, and start again whoever has fallen."""
        give_up_at = time.monotonic() + self.chance.uniform(low_s, high_s)
        while True:
            self.tend()
            left_s = give_up_at - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(min(_LOOK_S, left_s))

    @contextlib.contextmanager
    def fault(self) -> Iterator[None]:
        """Count a fault; it is over when the block ends, and the time of recovery runs from then."""
        self.faults += 1
        yield
        self.recovery.fault_is_over()

    def wait_until(self, condition: Callable[[], bool], what: str, *, wait_s: float = 30) -> None:
        """Wait for a condition; raises ScenarioFailed when it does not come."""
        give_up_at = time.monotonic() + wait_s
        while not condition():
            if time.monotonic() > give_up_at:
                raise ScenarioFailed(f"waited in vain for {wait_s:.0f} s until {what}")
            self.tend()
            time.sleep(_LOOK_S)

    def wait_until_recovered(self) -> None:
        """Wait until all that was accepted before the end of the last fault has its row."""
        self.wait_until(lambda: not self.recovery.pending, "all faults were recovered from", wait_s=60)

    @contextlib.contextmanager
    def admin(self, database: str = DATABASE) -> Iterator[psycopg.Connection[Any]]:
        """Open a superuser's connection, past the proxy."""
        with psycopg.connect(self.postgres.url(database), autocommit=True, connect_timeout=10) as connection:
            yield connection

    def row_count(self) -> int:
        """Count the deliveries with an outcome."""
        with self.admin() as connection:
            row = connection.execute(
                "SELECT (SELECT count(*) FROM message) + (SELECT count(*) FROM duplicate)"
                " + (SELECT count(*) FROM rejection)"
            ).fetchone()
        return 0 if row is None else int(row[0])

    def left(self) -> int:
        """Count what the queue has accepted and what has no outcome yet."""
        accepted = set(self.load.sent.accepted_at.copy())
        with self.admin() as connection:
            return len(accepted - known_outcomes(connection))

    def held(self, place: int) -> int:
        """Ask one process how many deliveries it holds."""
        return int(self.fleet.metric(place, "processor_held_deliveries"))

    def depths(self) -> Depths:
        """Give what says how much the queue still has, whichever stands in for SQS."""
        return self.books or self.source()

    def source(self) -> SqsSource:
        """Give a source of the queue, past the proxy."""
        return SqsSource(self.sqs.client(), self.queue_url, QUEUE, visibility_timeout_s=1)

    def heal(self) -> None:
        """End every fault of the proxies, and let frozen processes go on."""
        self.database.heal()
        self.queue.heal()
        for member in self.fleet.members:
            self.fleet.signal(member.place, signal.SIGCONT)


@contextlib.contextmanager
def open_field(
    folder: Path,
    *,
    seed: int,
    rounds: int,
    processes: int,
    rate: int,
    settings: dict[str, str],
    max_receive_count: int = 100,
) -> Iterator[Field]:
    """Start servers, proxies, load and fleet; when it is left, nothing of them remains.

    Raises DevstackError where a server can't be started.
    """
    with contextlib.ExitStack() as cleanup:
        late_cleanup = cleanup.enter_context(contextlib.ExitStack())
        postgres = cleanup.enter_context(
            EmbeddedPostgres(folder / "postgres", port=free_port(), max_connections=40, passwords=False)
        )
        _furnish(postgres)
        sqs = cleanup.enter_context(EmbeddedSqs(folder / "sqs", port=free_port()))
        queue_url = sqs.create_queue(QUEUE, visibility_timeout_s=4, max_receive_count=max_receive_count)
        database = TcpProxy(postgres.port)
        cleanup.callback(database.close)
        queue = HttpProxy(sqs.endpoint_url)
        cleanup.callback(queue.close)
        load = SteadyLoad(sqs, queue_url, folder / "manifest.jsonl", rate=rate, seed=seed)
        fleet = Fleet(
            processes,
            environment(database, queue, queue_url) | SETTINGS | settings,
            folder / "processor.log",
        )
        recovery = Recovery(postgres.url(DATABASE), load.sent)
        cleanup.callback(recovery.stop)
        yield_field = Field(
            random.Random(seed),
            rounds,
            postgres,
            sqs,
            queue_url,
            database,
            queue,
            load,
            fleet,
            recovery,
            folder,
            late_cleanup,
        )
        cleanup.callback(fleet.stop)
        cleanup.callback(load.stop)
        yield yield_field


def _furnish(postgres: EmbeddedPostgres) -> None:
    """Make the database, its tables and tenants, and the login that the fleet runs as."""
    with psycopg.connect(postgres.url(), autocommit=True) as admin:
        # When each row was committed, for the oracle.
        admin.execute("ALTER SYSTEM SET track_commit_timestamp = on")
        admin.execute(f"CREATE DATABASE {DATABASE}")
    postgres.stop()
    postgres.start()
    with psycopg.connect(postgres.url(DATABASE), autocommit=True) as connection:
        migrate(connection)
        seed_registry(postgres.url(DATABASE))
        connection.execute(f"CREATE ROLE {LOGIN} LOGIN IN ROLE processor_writer")
        connection.execute(f"CREATE ROLE {BILLING_LOGIN} LOGIN IN ROLE processor_biller")


def environment(database: TcpProxy, queue: HttpProxy, queue_url: str, login: str = LOGIN) -> dict[str, str]:
    """Give what leads a process to both servers by their proxies, and no other server's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PG"))}
    return kept | {
        "DATABASE_URL": f"postgresql://{login}@127.0.0.1:{database.port}/{DATABASE}",
        "SQS_QUEUE_URL": queue_url,
        "AWS_ENDPOINT_URL": queue.url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
