"""Settings in, working objects out: the one place that knows everybody."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import structlog

from processor import metrics, migrations, retention, supervisor
from processor.audit import Report, audit
from processor.check import Finding, judge, not_set
from processor.check.database import check_database
from processor.check.queue import check_queue
from processor.connection import Deadline, connect, while_server_answers
from processor.cores import settle_down
from processor.errors import (
    MigrationsPending,
    SettingsError,
    SourceFault,
    SourceUnavailable,
    Stopped,
    StoreFault,
    StoreUnavailable,
)
from processor.model import Rejection
from processor.patience import Patience
from processor.pipeline import Limits, Pipeline, Tally, once
from processor.probes import Probes
from processor.queries import queries
from processor.schemas import Schemas
from processor.settings import Settings
from processor.sources.quarantine import QuarantineSource, Selection
from processor.sources.sqs import SqsSource, sqs_client
from processor.sqlstates import Remedy, name_of, remedy
from processor.store import Store

log = structlog.get_logger(__name__)

_DEPTH_EVERY_S = 15
_REPLAY_SIZE = 100
_PORT_MAX = 65_535

_LOCK_WAIT_MS = 1000
"""For how long the registry's lock is waited for at the start before that counts as an outage, and shows."""

_OUTAGES = (Remedy.RETRY, Remedy.RECONNECT, Remedy.WAIT, Remedy.HALVE)


@contextmanager
def database(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    """Open a connection for one command, which may take long while the server lives.

    Raises StoreUnavailable, StoreFault, SettingsError.
    """
    dsn = settings.need_database_url()
    connection = connect(dsn)
    try:
        with while_server_answers(connection, dsn):
            yield connection
    except psycopg.errors.UndefinedTable:
        raise MigrationsPending("the database has no tables of ours; run: processor migrate") from None
    except psycopg.errors.InsufficientPrivilege as error:
        raise StoreFault(
            f"the role of DATABASE_URL may not do this ({error.diag.message_primary}); see sql/README.md"
        ) from None
    except UnicodeEncodeError:
        raise SettingsError("an argument is not UTF-8, so nothing in the database matches it") from None
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"the database went away: {name_of(error)}") from error
    except psycopg.Error as error:
        if remedy(error, connection_broken=connection.broken) in _OUTAGES:
            raise StoreUnavailable(f"the database can't do this now: {name_of(error)}") from None
        # Its text may carry a row, so it is named and not quoted.
        raise StoreFault(f"the database refused: {name_of(error)}") from None
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
    core = settle_down(settings.keep_to_one_core, supervisor.place())
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
    beginning = _Beginning(settings, stops.gently)
    begun = threading.Event()
    probes = Probes(
        settings.http_host,
        settings.http_port,
        alive=lambda: pipeline.alive,
        trouble=lambda: pipeline.trouble if begun.is_set() else f"starting; {beginning.trouble}".rstrip("; "),
    )
    probes.start()
    log.info("started", queue=settings.queue_name(), http_port=probes.port, core=core)
    watcher = _DepthWatcher(source)
    supervisor.follow(stops.gently)
    try:
        beginning.require_migrations()
        beginning.load_registry(schemas)
        begun.set()
        watcher.start()
        tally = pipeline.run(stops.gently, until_idle_s)
    finally:
        watcher.stop()
        probes.stop()
    log.info("stopped", **tally.outcomes)
    return tally


class _Beginning:
    """What has to be before any work: the tables, and a registry to judge by. Both are waited for.

    Before there is a pipeline there is nothing to finish, so any stop ends the waiting (with Stopped), and
    cuts a connection that waits for an answer.
    """

    def __init__(self, settings: Settings, stop: threading.Event) -> None:
        self._settings = settings
        self._patience = Patience("database", wait_s_max=settings.retry_wait_s_max, stop=stop)
        self._deadline = Deadline(settings.database_timeout_s + 5, stop=stop)

    @property
    def trouble(self) -> str:
        """What went wrong at the last try, in words; empty when nothing has."""
        return self._patience.trouble

    def require_migrations(self) -> None:
        """Wait until the database can say which tables it has. Raises MigrationsPending if some lack."""
        found = self._patience(self._find_migrations)
        if found.unknown:
            log.warning(
                "database_newer_than_code", unknown=list(found.unknown), consequence="none known; running"
            )
        if found.edited:
            log.warning("migration_edited", edited=list(found.edited))

    def load_registry(self, schemas: Schemas) -> None:
        """Wait until the registry can be read, and install it."""
        dsn, timeout_s = self._settings.need_database_url(), self._settings.database_timeout_s
        with ExitStack() as watching:

            def opened() -> psycopg.Connection[Any]:
                watching.close()
                connection = connect(dsn, timeout_s=timeout_s)
                watching.enter_context(self._deadline.over(connection))
                try:
                    connection.execute(
                        queries("session")["bound_lock_wait"], {"timeout_ms": str(_LOCK_WAIT_MS)}
                    )
                except psycopg.Error:
                    connection.close()
                    raise
                return connection

            # A store of its own: those of the pipeline have a patience that only the second stop ends.
            store = Store(opened, schemas, self._patience, timeout_s=timeout_s)
            try:
                store.load_registry()
            finally:
                store.close()

    def _find_migrations(self) -> migrations.State:
        with database(self._settings) as connection, self._deadline.over(connection):
            return migrations.require_current(connection)


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
            except (SourceUnavailable, SourceFault) as error:
                # A fault is said, and ended by, whoever works with the queue; this one only looks.
                log.debug("depth_unknown", trouble=str(error))
            if self._stop.wait(_DEPTH_EVERY_S):
                return


# ── the commands that are more than a question ────────────────────────────────────────────────────────


def run_many(settings: Settings, stops: Stops, processes: int, until_idle_s: float | None) -> int:
    """Run several processes side by side; gives the exit code. Raises what would end every one of them."""
    if settings.http_port and settings.http_port + processes - 1 > _PORT_MAX:
        raise SettingsError(
            f"HTTP_PORT: {processes} processes need as many ports from {settings.http_port} on, and "
            f"{_PORT_MAX} is the last; set HTTP_PORT lower, or to 0 for any"
        )
    _Beginning(settings, stops.gently).require_migrations()
    return supervisor.supervise(
        processes,
        http_port=settings.http_port,
        until_idle_s=until_idle_s,
        stop_timeout_s=settings.stop_timeout_s,
        stop_gently=stops.gently,
        stop_now=stops.now,
    )


def replay(
    settings: Settings, selection: Selection, *, dry_run: bool, forced: bool
) -> tuple[dict[str, int], int]:
    """Put the selected open rejections through the pipeline; counts them by outcome, or reason if rejected.

    With `dry_run` the verdicts are made but nothing is saved: what would be stored may still turn out to be
    a duplicate, or an id_conflict. Unless `forced`, those are left out whose message may have been removed by
    retention since; the second figure counts them.
    """
    schemas = make_schemas(settings)
    store = make_store(settings, schemas, Patience("database", wait_s_max=1, stop=_never_wait()))
    outcomes: Counter[str] = Counter()
    with database(settings) as connection:
        migrations.require_current(connection)
        key_days = None if forced else settings.key_retention_days
        source = QuarantineSource(connection, selection, key_days=key_days)
        try:
            store.load_registry()
            while True:
                if dry_run:
                    verdicts = [schemas.validate(delivery) for delivery in source.receive(_REPLAY_SIZE, 0)]
                    seen = [v.reason.value if isinstance(v, Rejection) else "stored" for v in verdicts]
                else:
                    settlements = once(source, schemas, store, limit=_REPLAY_SIZE, wait_s=0)
                    seen = [(s.reason or s.outcome).value for s in settlements]
                if not seen:
                    return dict(outcomes), source.count_left_out()
                outcomes.update(seen)
        except Stopped as error:
            # Nobody told us to: with a patience that never waits, this is how an outage is said.
            raise StoreUnavailable(str(error.__cause__)) from None
        finally:
            store.close()


def _never_wait() -> threading.Event:
    # A command for a person: an outage is said at once instead of being waited out.
    event = threading.Event()
    event.set()
    return event


def run_audit(settings: Settings, manifests: Sequence[Path]) -> Report:
    """Audit the tables, the queue's counts if SQS_QUEUE_URL is set, and the manifests."""
    depth: Callable[[], Mapping[str, int]] | None = None
    if settings.sqs_queue_url is not None:
        depth = SqsSource.open(settings).depth_with_dead_letters
    with database(settings) as connection:
        return audit(connection, manifests, depth)


def plan_retention(settings: Settings) -> tuple[retention.Ages, list[dict[str, Any]]]:
    """Count what `apply_retention` would remove now; gives the ages that decide, and the counts."""
    ages = _ages(settings)
    with database(settings) as connection:
        migrations.require_current(connection)
        return ages, retention.plan(connection, ages)


def apply_retention(
    settings: Settings,
    *,
    step_size: int,
    pause_s: float,
    stop: threading.Event,
    on_step: Callable[[retention.Step], object],
) -> tuple[retention.Ages, dict[str, int]]:
    """Remove what is old, in small steps until done or told to stop; gives the ages, and rows by table."""
    ages = _ages(settings)
    with database(settings) as connection:
        migrations.require_current(connection)
        removed = retention.apply(
            connection,
            ages,
            step_size=step_size,
            pause_s=pause_s,
            stop=stop,
            statement_timeout_s=settings.database_timeout_s,
            on_step=on_step,
        )
    return ages, removed


def _ages(settings: Settings) -> retention.Ages:
    return retention.Ages(
        message=settings.message_retention_days,
        duplicate=settings.duplicate_retention_days,
        rejection=settings.rejection_retention_days,
        key=settings.key_retention_days,
    )


def run_check(settings: Settings) -> list[Finding]:
    """Look at everything that a deployment depends on; what can't be reached does not hide the rest."""
    return [*_check_database(settings), *_check_queue(settings)]


def _check_database(settings: Settings) -> list[Finding]:
    if settings.database_url is None:
        return [not_set("database", "DATABASE_URL", "postgresql://USER:PASSWORD@HOST:PORT/DATABASE")]
    dsn = settings.need_database_url()
    # Not prepared for saving: the settings of such a session are ours, and we ask for those it came with.
    return check_database(lambda: connect(dsn), timeout_s=settings.database_timeout_s)


def _check_queue(settings: Settings) -> list[Finding]:
    if settings.sqs_queue_url is None:
        return [not_set("queue", "SQS_QUEUE_URL", "https://sqs.REGION.amazonaws.com/ACCOUNT/QUEUE")]
    try:
        client = sqs_client(settings)
    except SettingsError as error:
        return [judge("queue", "no client can be made for it", fine=False, advice=str(error))]
    return check_queue(client, settings)
