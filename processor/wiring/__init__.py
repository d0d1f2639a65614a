"""The composition root: builds working objects from settings, and is the only room that knows all others.

This module has the parts of every command; `service` wires `processor run`, `commands` the one-off commands.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from processor.database.connection import connect, while_server_answers
from processor.database.sqlstates import Remedy, name_of, remedy
from processor.decoding.routing_keys import RoutingKeys
from processor.errors import MigrationsPending, SettingsError, StoreFault, StoreUnavailable
from processor.model import QueueRules
from processor.operations.reject_alarm import RejectAlarmLimits
from processor.operations.storage_alarm import StorageAlarmLimits as StorageLimits
from processor.runtime.outages import OutageRetry
from processor.schemas.judge.client import JudgeProcess
from processor.settings import (
    DatabaseSettings,
    ReceiveSettings,
    RejectAlarmSettings,
    StoreSettings,
    ValidationSettings,
)
from processor.store.save_statements import Addition
from processor.store.store import READ_ALL, Judge, Store, Unread
from processor.validation.tenant_bindings import Bindings
from processor.validation.validator import Schemas

_OUTAGES = (Remedy.RETRY, Remedy.RECONNECT, Remedy.WAIT, Remedy.HALVE)


@contextmanager
def database(settings: DatabaseSettings) -> Iterator[psycopg.Connection[Any]]:
    """Open a connection for one command, which may take long while the server responds.

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
            f"the role of DATABASE_URL may not do this ({error.diag.message_primary}); "
            "see docs/reference/roles.md"
        ) from None
    except UnicodeEncodeError:
        raise SettingsError("an argument is not UTF-8, so nothing in the database matches it") from None
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"the database went away: {name_of(error)}") from error
    except psycopg.Error as error:
        if remedy(error, connection_broken=connection.broken) in _OUTAGES:
            raise StoreUnavailable(f"the database can't do this now: {name_of(error)}") from None
        # The error's text may quote a row, so the message has only its name.
        raise StoreFault(f"the database refused: {name_of(error)}") from None
    finally:
        connection.close()


def make_schemas(settings: ValidationSettings, process: JudgeProcess | None = None) -> Schemas:
    """Make a validator without a registry. Raises SettingsError for contradictory settings.

    `process` validates expensive schemas; None: the shared default process.
    """
    routing_keys = RoutingKeys.of(settings)
    address = settings.source_address()
    routed = routing_keys is not None and address is not None and address.kind == "rabbitmq"
    return Schemas(
        body_bytes_max=settings.body_bytes_max,
        json_depth_max=settings.json_depth_max,
        bindings=Bindings.of(settings),
        json_values_max=settings.json_values_max,
        routing_keys=routing_keys,
        routed_queue=settings.queue_name() if routed else None,
        said=rules_of_settings(settings),
        process=process,
    )


def rules_of_settings(settings: ReceiveSettings) -> dict[str, QueueRules]:
    """Return the queue rules in the settings, by queue name."""
    if settings.unwrap is None:
        return {}
    return {settings.queue_name(): QueueRules(unwrap=settings.unwrap)}


def make_store(
    settings: StoreSettings,
    judge: Judge,
    retry: OutageRetry,
    *,
    alone: bool = False,
    additions: Sequence[Addition] = (),
    judge_unread: Unread = READ_ALL,
) -> Store:
    """Make a store with its own connection, opened at the first save."""
    dsn, timeout_s = settings.need_database_url(), settings.database_timeout_s
    store = Store(
        lambda: connect(dsn, timeout_s=timeout_s),
        judge,
        retry,
        timeout_s=timeout_s,
        alone=alone,
        # Tenants come from routing keys, by the present settings.
        keys_by_settings=settings.routing_key is not None,
        judge_unread=judge_unread,
        additions=additions,
    )
    store.rejected_bytes_max = settings.storage_rejected_bytes
    return store


def reject_alarm_limits(settings: RejectAlarmSettings) -> RejectAlarmLimits:
    """Build the limits of the reject alarm."""
    return RejectAlarmLimits(
        settings.reject_alarm_share, settings.reject_alarm_count_min, settings.reject_alarm_window_s
    )


def storage_limits(settings: StoreSettings) -> StorageLimits:
    """Build the storage limits of rejections."""
    return StorageLimits(settings.storage_rejected_bytes, settings.storage_alarm_bytes)
