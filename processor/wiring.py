"""Settings in, working objects out: the one place that knows everybody."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import structlog

from processor import metrics, migrations
from processor.connection import connect
from processor.errors import SourceUnavailable
from processor.patience import Patience
from processor.pipeline import Limits, Pipeline, Tally
from processor.probes import Probes
from processor.schemas import Schemas
from processor.settings import Settings
from processor.sources.sqs import SqsSource
from processor.store import Store

log = structlog.get_logger(__name__)

_DEPTH_EVERY_S = 15


@contextmanager
def database(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    """Open a connection for one command. Raises StoreUnavailable, StoreFault, SettingsError."""
    connection = connect(settings.need_database_url())
    try:
        yield connection
    finally:
        connection.close()


def make_schemas(settings: Settings) -> Schemas:
    """Make a validator that knows no registry yet."""
    return Schemas(body_bytes_max=settings.body_bytes_max, json_depth_max=settings.json_depth_max)


def make_store(settings: Settings, schemas: Schemas, patience: Patience) -> Store:
    """Make a store with a connection of its own, opened at the first save."""
    dsn, timeout_s = settings.need_database_url(), settings.database_timeout_s
    return Store(lambda: connect(dsn, timeout_s=timeout_s), schemas, patience, timeout_s=timeout_s)


@dataclass(frozen=True, slots=True)
class Stops:
    """The two degrees of stopping: `gently` finishes what is held, `now` leaves it to the queue."""

    gently: threading.Event
    now: threading.Event


def run(settings: Settings, stops: Stops, until_idle_s: float | None = None) -> Tally:
    """Run the event processor until told to stop, or until idle. Absent dependencies are waited for.

    Raises MigrationsPending, StoreFault and SettingsError, which waiting would not mend, and Stopped when
    told to stop before it could begin.
    """
    source = SqsSource.open(settings)
    patience = {
        name: Patience(name, wait_s_max=settings.retry_wait_s_max, stop=stops.now)
        for name in ("database", "queue")
    }
    schemas = make_schemas(settings)
    stores = [make_store(settings, schemas, patience["database"]) for _ in range(settings.writers)]
    pipeline = Pipeline(
        source,
        schemas,
        stores,
        limits=_limits(settings, until_idle_s),
        database=patience["database"],
        broker=patience["queue"],
        give_up=stops.now,
    )
    probes = Probes(
        settings.http_host,
        settings.http_port,
        alive=lambda: True,
        trouble=lambda: starting or pipeline.trouble,
    )
    starting = "starting"
    probes.start()
    log.info("started", queue=settings.queue_name(), http_port=probes.port)
    watcher = _DepthWatcher(source)
    try:
        # Before there is a pipeline there is nothing to finish: any stop ends the waiting.
        _before_work(settings, Patience("database", wait_s_max=settings.retry_wait_s_max, stop=stops.gently))
        stores[0].load_registry()
        starting = ""
        watcher.start()
        tally = pipeline.run(stops.gently, until_idle_s)
    finally:
        watcher.stop()
        probes.stop()
    log.info("stopped", **tally.outcomes)
    return tally


def _before_work(settings: Settings, patience: Patience) -> None:
    def check_migrations() -> None:
        with database(settings) as connection:
            found = migrations.require_current(connection)
        if found.unknown:
            log.warning(
                "database_newer_than_code", unknown=list(found.unknown), consequence="none known; running"
            )
        if found.edited:
            log.warning("migration_edited", edited=list(found.edited))

    patience(check_migrations)


def _limits(settings: Settings, until_idle_s: float | None) -> Limits:
    wait_s: float = settings.receive_wait_s
    return Limits(
        receivers=settings.receivers,
        settlers=settings.settlers,
        # A poll longer than the silence that ends the run would only make the end late.
        receive_wait_s=wait_s if until_idle_s is None else min(wait_s, max(1.0, until_idle_s)),
        batch_size_max=settings.batch_size_max,
        linger_s=settings.linger_ms / 1000,
        buffer_size_max=settings.buffer_size_max,
        buffer_bytes_max=settings.buffer_bytes_max,
        visibility_timeout_s=settings.visibility_timeout_s,
        hold_s_max=settings.hold_s_max,
        stop_timeout_s=settings.stop_timeout_s,
    )


class _DepthWatcher:
    """Tells the metrics how deep the queue is, now and then."""

    def __init__(self, source: SqsSource) -> None:
        self._source = source
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="depth", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def _watch(self) -> None:
        while True:
            try:
                for state, count in self._source.depth().items():
                    metrics.queue_depth.labels(state=state).set(count)
            except SourceUnavailable as error:
                log.debug("depth_unknown", trouble=str(error))
            if self._stop.wait(_DEPTH_EVERY_S):
                return
