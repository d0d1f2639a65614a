"""The servers that all contestants share: one PostgreSQL, one queue server, fresh data for each run."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

from processor.database.migrations import migrate
from processor.devstack.servers.children import port_is_free
from processor.devstack.servers.postgres import EmbeddedPostgres
from processor.operations import registry
from tests.bench import events
from tests.bench.faults import LoadError
from tests.bench.queue.queues import ROOT, Kind, QueueServer

TOOLS = ROOT / ".processor" / "load"
FREE_BYTES_MIN = 3 * 1024**3
TEMPLATE = "load_template"
QUIET_TENANTS = 99
FLOODING_TENANT = "tenant-flood"


@dataclass(frozen=True)
class Arena:
    """One run's own database and queue, and the settings that lead a contestant to them."""

    name: str
    database_url: str
    queue_url: str
    environment: dict[str, str]


class Ground:
    """The servers, and a scratch folder for one command."""

    def __init__(self, folder: Path, postgres: EmbeddedPostgres, queue: QueueServer) -> None:
        self.folder = folder
        self.queue = queue
        self.postgres = postgres
        self._runs = 0

    @contextlib.contextmanager
    def arena(self, tag: str) -> Iterator[Arena]:
        """Give a migrated database with tenants and schema, and an empty queue; both are gone afterwards."""
        self._runs += 1
        name = f"{tag}-{self._runs}".replace(" ", "-")
        database = name.replace("-", "_")
        with psycopg.connect(self.postgres.url(), autocommit=True) as admin:
            admin.execute(f'CREATE DATABASE "{database}" TEMPLATE {TEMPLATE}')
            # So that no run pays for the pages that another one has dirtied.
            admin.execute("CHECKPOINT")
        queue_url = self.queue.create(name)
        database_url = self.postgres.url(database)
        try:
            yield Arena(name, database_url, queue_url, self._environment(database_url, queue_url))
        finally:
            with contextlib.suppress(LoadError, psycopg.Error):
                self.queue.delete(queue_url)
                with psycopg.connect(self.postgres.url(), autocommit=True) as admin:
                    admin.execute(f'DROP DATABASE "{database}" WITH (FORCE)')

    def _environment(self, database_url: str, queue_url: str) -> dict[str, str]:
        # Whatever the shell says of AWS belongs to another queue. Our own tunables may stay: whoever sets
        # RECEIVERS in front of a load test means it.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PG"))}
        return kept | {
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": database_url,
            "SQS_QUEUE_URL": queue_url,
            "AWS_ENDPOINT_URL": self.queue.endpoint_url,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "HTTP_PORT": "0",
            "LOG_LEVEL": "WARNING",
        }


@contextlib.contextmanager
def open_ground(queue: Kind, port: int | None = None) -> Iterator[Ground]:
    """Start both servers; when it is left, by whatever way, nothing of them remains."""
    _look_before(port)
    with (
        tempfile.TemporaryDirectory(
            prefix=f"run-{os.getpid()}-", dir=TOOLS, ignore_cleanup_errors=True
        ) as folder,
        EmbeddedPostgres(Path(folder) / "postgres", max_connections=200, passwords=False) as postgres,
        QueueServer(queue, Path(folder), TOOLS, port) as server,
    ):
        _prepare(postgres)
        yield Ground(Path(folder), postgres, server)


def _look_before(port: int | None) -> None:
    """Raise LoadError for what would be in the way, before anything is started."""
    if not Path("/proc/self/stat").exists():
        raise LoadError("load tests read CPU and memory from /proc, which only Linux has")
    if port is not None and not port_is_free(port):
        raise LoadError(
            f"another program listens on 127.0.0.1:{port}; expected a free port for the queue server; "
            "leave --port out to get a free one"
        )
    # Below the checkout and not in /tmp, which may be memory: fsync must mean something.
    TOOLS.mkdir(parents=True, exist_ok=True)
    for left in TOOLS.glob("run-*"):
        # Of a command that was killed; one that is at work has its process.
        if not Path("/proc", left.name.split("-")[1]).exists():
            shutil.rmtree(left, ignore_errors=True)
    free_bytes = shutil.disk_usage(TOOLS).free
    if free_bytes < FREE_BYTES_MIN:
        raise LoadError(
            f"{free_bytes / 1024**3:.1f} GiB are free in {TOOLS}; "
            f"expected {FREE_BYTES_MIN / 1024**3:.0f}; make room, then try again"
        )


def _prepare(postgres: EmbeddedPostgres) -> None:
    """Make the database that all runs copy, and let it note every commit and every flush."""
    with psycopg.connect(postgres.url(), autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET track_commit_timestamp = on")
        admin.execute("ALTER SYSTEM SET track_wal_io_timing = on")
        admin.execute(f"CREATE DATABASE {TEMPLATE}")
    furnish(postgres.url(TEMPLATE))
    # That setting is read at a start only.
    postgres.stop()
    postgres.start()


def furnish(database_url: str) -> None:
    """Give an empty database our tables, the tenants of the load tests and their schema."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        migrate(connection)
        quiet = [f"quiet-{number}" for number in range(QUIET_TENANTS)]
        for tenant in [*(f"tenant-{n}" for n in range(events.TENANTS)), *quiet, FLOODING_TENANT]:
            registry.add_tenant(connection, tenant)
        registry.publish_schema(connection, events.EVENT_TYPE, events.SCHEMA)
