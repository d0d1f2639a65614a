"""Wiring of `processor run`: the event processor in one process, or in several supervised ones."""

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import psycopg
import structlog

from processor.check.roles import TO_SAVE, missing_rights
from processor.database import migrations
from processor.database.connection import Deadline, connect
from processor.database.queries import queries
from processor.errors import SettingsError, SourceFault, SourceUnavailable, StoreFault, StoreUnavailable
from processor.model import Settlement, Verdict
from processor.operations.reject_alarm import RejectAlarm
from processor.operations.storage_alarm import StorageAlarm
from processor.pipeline.forgetter import SettledNoteCleaner
from processor.pipeline.limits import PipelineLimits
from processor.pipeline.outcome_counts import OutcomeCounts
from processor.pipeline.outcome_log import log_outcomes
from processor.pipeline.pipeline import Pipeline
from processor.runtime import metrics
from processor.runtime.outages import OutageRetry
from processor.runtime.probes import Probes
from processor.runtime.process_tuning import tune_process
from processor.runtime.supervisor import Supervisor, Worker, alone
from processor.runtime.thread_deaths import exit_on_thread_death
from processor.runtime.worker_board import ReportingJudge
from processor.schemas.judge.client import JudgeProcess
from processor.settings import RunSettings
from processor.sources import RunningSource
from processor.store.save_statements import Addition
from processor.store.store import Store
from processor.validation.receive_limit import SuspectLimits
from processor.validation.validator import Schemas
from processor.wiring import database, make_schemas, make_store, reject_alarm_limits, storage_limits
from processor.wiring.sources import open_source

log = structlog.get_logger(__name__)

_DEPTH_EVERY_S = 15
_PORT_MAX = 65_535

_LOCK_WAIT_MS = 1000
"""The longest wait for the registry's lock at the start, in seconds, before it counts as an outage."""


@dataclass(frozen=True, slots=True)
class Stops:
    """The two stops: `gently` finishes the messages in flight, `now` leaves them to the queue."""

    gently: threading.Event
    now: threading.Event


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of a run.

    `prepare` is called after the check of the tables and before any work; its errors end the run. `additions`
    write further rows with the stored messages. `log_events` logs one line per outcome.
    """

    prepare: Callable[[], None] = lambda: None
    additions: Sequence[Addition] = ()
    log_events: bool = False


_NOTHING = RunOptions()


def run(
    settings: RunSettings,
    stops: Stops,
    until_idle_s: float | None = None,
    extra: RunOptions = _NOTHING,
    worker: Worker | None = None,
) -> OutcomeCounts:
    """Run the event processor until stopped or idle. Outages of dependencies are waited out.

    `worker` identifies this process among several (None: a single process). Raises MigrationsPending,
    StoreFault and SettingsError, which a retry can't fix, and Stopped if stopped before the start or with
    work left.
    """
    worker = worker or alone()
    core = tune_process(settings.keep_to_one_core, worker.place)
    retry = partial(OutageRetry, wait_s_max=settings.retry_wait_s_max, stop=stops.now)
    database_retry, queue_retry = retry("database"), retry("queue")
    schemas = make_schemas(settings, JudgeProcess(stop=stops.now, at_rest=worker.row.at_rest))
    judge = ReportingJudge(schemas, worker.row)
    suspects = SuspectLimits(
        schemas,
        judge_timeout_s=settings.judge_timeout_s,
        # SQS has its own receive limit: the redrive policy.
        receive_count_max=None if settings.source_url is None else settings.receive_count_max,
    )
    open_store = partial(
        make_store,
        settings,
        judge,
        database_retry,
        additions=extra.additions,
        judge_unread=suspects.unread,
    )
    forgetter = SettledNoteCleaner(open_store, settings.queue_name())
    source = open_source(settings, forgetter.tell, stops.now)
    alarm = RejectAlarm(reject_alarm_limits(settings), schemas.registered)
    pipeline = Pipeline(
        source,
        judge,
        [open_store() for _ in range(settings.writers)],
        limits=_limits(settings, until_idle_s),
        database=database_retry,
        broker=queue_retry,
        give_up=stops.now,
        on_commit=partial(_note_and_log, alarm) if extra.log_events else alarm.note,
    )
    beginning = _Startup(settings, stops.gently)
    begun = threading.Event()
    probes = Probes(
        settings.http_host,
        settings.http_port,
        alive=lambda: pipeline.alive,
        trouble=lambda: pipeline.trouble if begun.is_set() else f"starting; {beginning.trouble}".rstrip("; "),
    )
    probes.start()
    log.info("started", queue=settings.queue_name(), http_port=probes.port, core=core)
    watcher = _DepthWatcher(source, alarm, _storage_alarm(settings))
    worker.follow(stops.gently, stops.now)
    try:
        beginning.require_migrations()
        extra.prepare()
        beginning.load_registry(schemas, worker)
        begun.set()
        watcher.start()
        tally = pipeline.run(stops.gently, until_idle_s, worker.row)
        alarm.look()
    finally:
        watcher.stop()
        probes.stop()
        source.close()
        forgetter.stop()
    log.info("stopped", **tally.outcomes)
    return tally


class _Startup:
    """The start before any work: check the tables, and load the registry. Outages are waited out.

    There are no messages in flight yet, so any stop ends the wait (with Stopped), and closes a connection
    that waits for a response.
    """

    def __init__(self, settings: RunSettings, stop: threading.Event) -> None:
        self._settings = settings
        self._retry = OutageRetry("database", wait_s_max=settings.retry_wait_s_max, stop=stop)
        self._deadline = Deadline(settings.database_timeout_s + 5, stop=stop)

    @property
    def trouble(self) -> str:
        """The error of the last attempt; empty after a success."""
        return self._retry.trouble

    def require_migrations(self) -> None:
        """Wait for the database, then check its tables. Raises MigrationsPending if some are missing."""
        found = self._retry(self._find_migrations)
        if found.unknown:
            log.warning(
                "database_newer_than_code", unknown=list(found.unknown), consequence="none known; running"
            )
        if found.edited:
            log.warning("migration_edited", edited=list(found.edited))

    def load_registry(self, schemas: Schemas, worker: Worker) -> None:
        """Wait for the registry and install it; record the deliveries at which validation hung."""
        queue, keep_days = self._settings.queue_name(), self._settings.key_retention_days
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

            # A separate store: only the second stop ends the retries of the pipeline's stores.
            store = Store(opened, schemas, self._retry, timeout_s=timeout_s)
            try:
                store.load_registry()
                store.note_hangs(queue, worker.hung, keep_days=keep_days)
                worker.row.say_noted()
            finally:
                store.close()

    def _find_migrations(self) -> migrations.State:
        with database(self._settings) as connection, self._deadline.over(connection):
            found = migrations.require_current(connection)
            missing = missing_rights(connection, TO_SAVE)
        if missing:
            # At the first save it would be too late: each start would raise the receive counts of a batch.
            raise StoreFault(
                f"the role of DATABASE_URL lacks {', '.join(missing)}; `processor check` says what to grant"
            )
        return found


def _storage_alarm(settings: RunSettings) -> StorageAlarm:
    dsn, timeout_s = settings.need_database_url(), settings.database_timeout_s
    return StorageAlarm(lambda: connect(dsn, timeout_s=timeout_s), storage_limits(settings))


def _limits(settings: RunSettings, until_idle_s: float | None) -> PipelineLimits:
    wait_s: float = settings.receive_wait_s
    return PipelineLimits(
        receivers=settings.receivers,
        settlers=settings.settlers,
        # Idleness is noticed at the end of a poll, and the last poll must end too: so polls are short.
        receive_wait_s=wait_s if until_idle_s is None else min(wait_s, max(1.0, until_idle_s // 10)),
        batch_size_max=settings.batch_size_max,
        batch_bytes_max=settings.batch_bytes_max,
        linger_s=settings.linger_ms / 1000,
        buffer_size_max=settings.buffer_size_max,
        buffer_bytes_max=settings.buffer_bytes_max,
        visibility_timeout_s=settings.visibility_timeout_s,
        hold_s_max=settings.hold_s_max,
        stop_timeout_s=settings.stop_timeout_s,
    )


class _DepthWatcher:
    """Updates the metrics of the queue's depth periodically, and the alarms while no message arrives."""

    def __init__(self, source: RunningSource, alarm: RejectAlarm, storage: StorageAlarm) -> None:
        self._source = source
        self._alarm = alarm
        self._storage = storage
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="depth", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def _watch(self) -> None:
        while True:
            self._alarm.look()
            try:
                for state, count in self._source.depth().items():
                    metrics.queue_depth.labels(state=state).set(count)
            except (SourceUnavailable, SourceFault, SettingsError) as error:
                # The consumers of the queue report a fault and end the run; this thread only observes.
                log.debug("depth_unknown", trouble=str(error))
            self._storage.look()
            if self._stop.wait(_DEPTH_EVERY_S):
                return


def _note_and_log(alarm: RejectAlarm, verdicts: Sequence[Verdict], settlements: Sequence[Settlement]) -> None:
    alarm.note(verdicts, settlements)
    log_outcomes(verdicts, settlements)


def run_supervised(
    settings: RunSettings,
    stops: Stops,
    processes: int,
    until_idle_s: float | None,
    extra: RunOptions,
    exit_code_of: Callable[[Callable[[], int]], int],
) -> int:
    """Run one or several child processes under supervision; returns the exit code.

    `exit_code_of` runs a child's work and converts its errors to an exit code. A code below 0 is the signal
    that killed the only child.
    """
    if settings.http_port and settings.http_port + processes - 1 > _PORT_MAX:
        raise SettingsError(
            f"HTTP_PORT: {processes} processes need as many ports from {settings.http_port} on, and "
            f"{_PORT_MAX} is the last; set HTTP_PORT lower, or to 0 for any"
        )

    def supervise(workers: int, work: Callable[[Worker], int]) -> int:
        supervisor = Supervisor(
            workers,
            lambda worker: exit_code_of(lambda: work(worker)),
            judge_timeout_s=settings.judge_timeout_s,
            stop_timeout_s=settings.stop_timeout_s,
            stop_gently=stops.gently,
            stop_now=stops.now,
        )
        code = supervisor.run()
        if supervisor.hung:
            _note_late(settings, supervisor.hung)
        return code

    def begin(_: Worker) -> int:
        _Startup(settings, stops.gently).require_migrations()
        extra.prepare()
        return 0

    def work(worker: Worker) -> int:
        port = settings.http_port + worker.place if settings.http_port else 0
        own = settings.model_copy(update={"http_port": port})
        # With several processes, `prepare` runs once, before they start.
        once = replace(extra, prepare=_NOTHING.prepare) if processes > 1 else extra
        with exit_on_thread_death(settings.stop_timeout_s):
            run(own, stops, until_idle_s, once, worker)
        return 0

    if processes > 1 and (code := supervise(1, begin)):
        return code
    return supervise(processes, work)


def _note_late(settings: RunSettings, hung: Sequence[str]) -> None:
    """Record the hung deliveries at a stop, when no later worker can do so. One attempt."""
    store = make_store(settings, make_schemas(settings), OutageRetry("database", stop=None))
    try:
        store.note_hangs(settings.queue_name(), hung, keep_days=settings.key_retention_days)
    except (StoreUnavailable, StoreFault) as error:
        log.warning("hangs_not_noted", count=len(hung), trouble=str(error))
    finally:
        store.close()
