"""Wiring of one-off commands: replay, dead letters, audit, retention and check."""

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from processor.check import Finding, judge, not_set
from processor.check.binding import bindings_of
from processor.check.database import CheckedSettings, check_database
from processor.check.exposure import check_exposure
from processor.check.queue import check_queue
from processor.database import migrations
from processor.database.connection import connect, require_all_rows
from processor.errors import NotFound, SettingsError
from processor.operations import retention
from processor.operations.audit import AuditReport, audit
from processor.operations.dead_letters import DeadLetterJudge, bring_in, look
from processor.operations.replay import foresee, put_through
from processor.pipeline.pipeline import once
from processor.runtime.outages import OutageRetry
from processor.settings import (
    ConnectionSettings,
    ReplaySettings,
    RetentionSettings,
    RunSettings,
    StoreSettings,
    ValidationSettings,
)
from processor.sources.quarantine import QuarantineSource, RejectionSelection, take_back
from processor.sources.sqs.source import SqsSource, sqs_client
from processor.validation.tenant_bindings import Bindings
from processor.wiring import database, make_schemas, make_store, rules_of_settings, storage_limits
from processor.wiring.sources import check_source, source_depth

_LOOK_S = 30
"""The visibility time-out in seconds of a listed message, should the process die before its release."""


def replay(
    settings: ReplaySettings, selection: RejectionSelection, *, dry_run: bool, forced: bool
) -> tuple[dict[str, int], int]:
    """Replay the selected rejections; counts them by outcome, or by reason if rejected.

    `dry_run` validates without saving: an event that would be stored may still be a duplicate or an
    id_conflict. Unless `forced`, rejections are skipped whose message retention may have removed; the second
    figure counts them.
    """
    schemas = make_schemas(settings)
    store = make_store(settings, schemas, OutageRetry("database", stop=None))
    with database(settings) as connection:
        migrations.require_current(connection)
        key_days = None if forced else settings.key_retention_days
        source = QuarantineSource(connection, selection, key_days=key_days)
        try:
            store.load_registry()
            if dry_run:
                outcomes = foresee(source, schemas)
            else:
                take_back(connection, selection)
                outcomes = put_through(lambda: once(source, schemas, store, limit=source.call_size, wait_s=0))
        finally:
            store.close()
        return dict(outcomes), source.count_left_out()


def list_dead_letters(
    settings: ValidationSettings, *, limit: int, unread: bool
) -> tuple[str, dict[str, int], list[dict[str, Any]]]:
    """Return the dead-letter queue's name, its counts, and up to `limit` of its messages.

    No database is needed. Raises NotFound without a dead-letter queue.
    """
    source = _dead_letters(settings, visibility_timeout_s=_LOOK_S)
    counts = source.depth()
    # Without a registry: only the claimed senders are needed.
    judge = DeadLetterJudge(make_schemas(settings), source.name, unread=unread)
    rows = [judge.describe(delivery) for delivery in look(source, limit)]
    return source.name, counts, rows


def import_dead_letters(
    settings: StoreSettings,
    *,
    source_name: str | None,
    limit: int | None,
    unread: bool,
    stop: threading.Event,
    on_batch: Callable[[int], object],
) -> tuple[str, dict[str, int], dict[str, int]]:
    """Import the dead-letter queue as rejections; returns its name, the outcomes, and its counts afterwards.

    Raises NotFound without a dead-letter queue, SettingsError if `source_name` is needed.
    """
    with database(settings) as connection:
        migrations.require_current(connection)
    source = _dead_letters(settings, visibility_timeout_s=settings.visibility_timeout_s)
    judge = DeadLetterJudge(make_schemas(settings), source.name, unread=unread)
    # Alone: what lies here may be on its way into `message` in a processor that has held it for too long.
    retry = OutageRetry("database", stop=None)
    store = make_store(settings, judge, retry, alone=True)
    try:
        store.load_registry()
        outcomes = bring_in(
            source, judge, store, named=source_name, limit=limit, stop=stop, on_batch=on_batch
        )
    finally:
        store.close()
    return source.name, dict(outcomes), source.depth()


def _dead_letters(settings: ConnectionSettings, *, visibility_timeout_s: int) -> SqsSource:
    if settings.source_url is not None:
        raise SettingsError(
            "processor dlq reads dead-letter queues of SQS, and SOURCE_URL names another broker: what comes "
            "too often there is rejected (dead_lettered) by the processor itself: processor rejection list. "
            "To read a queue that RabbitMQ moves dead letters to, name that queue in SOURCE_URL"
        )
    source = SqsSource.open(settings).dead_letters(visibility_timeout_s=visibility_timeout_s)
    if source is None:
        raise NotFound(
            f"the queue {settings.queue_name()} has no dead-letter queue (no RedrivePolicy); "
            "processor check says how to give it one"
        )
    return source


def run_audit(settings: ConnectionSettings, manifests: Sequence[Path]) -> AuditReport:
    """Audit the tables, the queue's counts if SOURCE_URL or SQS_QUEUE_URL is set, and the manifests."""
    depth: Callable[[], Mapping[str, int]] | None = None
    address = settings.source_address()
    if address is not None:
        depth = partial(source_depth, settings, address)
    elif settings.sqs_queue_url is not None:
        depth = SqsSource.open(settings).depth_with_dead_letters
    with database(settings) as connection:
        require_all_rows(connection)
        return audit(connection, manifests, depth)


def plan_retention(settings: RetentionSettings) -> tuple[retention.Ages, list[dict[str, Any]]]:
    """Count the rows that `apply_retention` would remove now; returns the retention, and the counts."""
    ages = _ages(settings)
    with database(settings) as connection:
        migrations.require_current(connection)
        require_all_rows(connection)
        return ages, retention.plan(connection, ages)


def apply_retention(
    settings: RetentionSettings,
    *,
    step_size: int,
    pause_s: float,
    stop: threading.Event,
    on_step: Callable[[retention.Step], object],
) -> tuple[retention.Ages, dict[str, int]]:
    """Remove old rows in small steps until done or stopped; returns the retention, and rows by table."""
    ages = _ages(settings)
    with database(settings) as connection:
        migrations.require_current(connection)
        # A hidden duplicate would not keep its message.
        require_all_rows(connection)
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


def _ages(settings: RetentionSettings) -> retention.Ages:
    return retention.Ages(
        message=settings.message_retention_days,
        duplicate=settings.duplicate_retention_days,
        rejection=settings.rejection_retention_days,
        key=settings.key_retention_days,
    )


def run_check(settings: RunSettings) -> list[Finding]:
    """Check all dependencies of a deployment; an unreachable one does not prevent the other checks."""
    bindings, contradiction = bindings_of(settings)
    return [
        *check_exposure(settings),
        *_check_database(settings, bindings),
        *contradiction,
        *_check_queue(settings),
    ]


def _check_database(settings: StoreSettings, bindings: Bindings) -> list[Finding]:
    if settings.database_url is None:
        return [not_set("database", "DATABASE_URL", "postgresql://USER:PASSWORD@HOST:PORT/DATABASE")]
    dsn = settings.need_database_url()
    # A plain session: the sessions of saves override the settings that are checked here.
    named = settings.sqs_queue_url is not None or settings.source_url is not None
    queue = settings.queue_name() if named else None
    said = CheckedSettings(
        queue, bindings, rules_of_settings(settings) if named else {}, storage_limits(settings)
    )
    return check_database(lambda: connect(dsn), timeout_s=settings.database_timeout_s, said=said)


def _check_queue(settings: RunSettings) -> list[Finding]:
    address = settings.source_address()
    if address is not None:
        try:
            return check_source(settings, address)
        except SettingsError as error:
            return [judge("queue", "its broker's driver is missing", fine=False, advice=str(error))]
    if settings.sqs_queue_url is None:
        return [not_set("queue", "SQS_QUEUE_URL", "https://sqs.REGION.amazonaws.com/ACCOUNT/QUEUE")]
    try:
        client = sqs_client(settings)
    except SettingsError as error:
        return [judge("queue", "no client can be made for it", fine=False, advice=str(error))]
    return check_queue(client, settings)
