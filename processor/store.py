"""One batch, one transaction: verdicts in, settlements out, and between the two a COMMIT.

verdicts ─▶ hold the registry ─▶ message ─▶ classify ─▶ duplicate ─▶ rejection ─▶ COMMIT ─▶ settlements
             (stale? again)      every statement in key order; the same order in every process
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn, Protocol, TypeAlias

import psycopg
import structlog
from msgspec.structs import replace
from psycopg.rows import dict_row, tuple_row

from processor import metrics
from processor.columns import claims, duplicate_columns, messages_document, rejection_columns, storable_json
from processor.connection import Deadline
from processor.errors import Reason, StoreFault, StoreUnavailable
from processor.model import (
    Delivery,
    EventSchema,
    Message,
    Outcome,
    Registry,
    Rejection,
    Settlement,
    Verdict,
)
from processor.patience import Patience
from processor.queries import queries
from processor.refusals import id_conflict, key_in_doubt, sent_after, unstorable
from processor.sqlstates import Remedy, name_of, remedy
from processor.turns import turns

log = structlog.get_logger(__name__)

_FAILURES_MAX = 10
"""Times that a transaction may fail on meeting others before it counts as an outage."""

Connection: TypeAlias = psycopg.Connection[Any]
Row: TypeAlias = tuple[Any, ...]


class _KeyVanished(Exception):
    """A key met the insert and was gone when it was looked up: retention removed its row in between."""


class Judge(Protocol):
    """Gives verdicts by the registry that was last installed."""

    @property
    def version(self) -> int:
        """The version of that registry."""

    def install(self, registry: Registry) -> None:
        """Judge by this registry from now on."""

    def validate(self, delivery: Delivery) -> Verdict:
        """Give the verdict on one delivery; never raises for its content."""

    def proven_tenant(self, delivery: Delivery) -> str | None:
        """Give the one tenant that a delivery can be from, whatever it says; None: nothing proves it."""


class Store:
    """Writes verdicts to PostgreSQL. It owns one connection, and so belongs to one thread.

    With `alone`, no other store saves while this one does: needed where its judge may find another verdict on
    a delivery than theirs, since two outcomes that commit at once do not see each other.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        judge: Judge,
        patience: Patience,
        *,
        timeout_s: float,
        alone: bool = False,
    ) -> None:
        self._connect = connect
        self._judge = judge
        self._patience = patience
        self._alone = alone
        # Every statement has `timeout_s` by the server's clock; this is for a server that is frozen.
        self._deadline = Deadline(2 * timeout_s + 5)
        self._connection: Connection | None = None
        self._registry_known = False
        self._sql = queries("save")

    def save(self, verdicts: Sequence[Verdict]) -> list[Settlement]:
        """Commit all verdicts, then return one settlement for each, in order.

        What is suspect is committed alone and late, but never after what comes later in its group. Outages
        are waited out. Raises Stopped if told to stop meanwhile, StoreFault where the cause is ours; in both
        cases what was not committed is still in the queue.
        """
        settled: dict[int, Settlement] = {}
        suspect = [verdict.delivery.suspect for verdict in verdicts]
        for positions in turns(suspect, lambda position: verdicts[position].delivery.group):
            together = [verdicts[position] for position in positions]
            settled.update(zip(positions, self._patience(partial(self._attempt, together)), strict=True))
        return [settled[position] for position in range(len(verdicts))]

    def load_registry(self) -> None:
        """Install the registry as it stands now, so that the first verdicts are not made in vain."""
        self._patience(partial(self._attempt, ()))

    def close(self) -> None:
        """Close the connection; a later save opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # ── one attempt, and what to do when it fails ─────────────────────────────────────────────────────

    def _attempt(self, verdicts: Sequence[Verdict]) -> list[Settlement]:
        """Save in one transaction, or in as many as the registry and the poison among the verdicts need."""
        failures = 0
        while True:
            try:
                settlements = self._transaction(verdicts)
            except (psycopg.Error, UnicodeEncodeError) as error:
                failures += 1
                what = remedy(error, connection_broken=self._open_or_none() is None)
                metrics.database_errors.labels(remedy=what.name.lower()).inc()
                log.warning("save_failed", error=name_of(error), remedy=what.name.lower(), size=len(verdicts))
                if what is Remedy.REJECT:
                    return self._without_poison(verdicts, error)
                if what is Remedy.HALVE and len(verdicts) > 1:
                    return self._halves(verdicts)
                if what not in (Remedy.RETRY, Remedy.REVALIDATE) or failures == _FAILURES_MAX:
                    self._give_up(error, what)
                self._registry_known = self._registry_known and what is not Remedy.REVALIDATE
                time.sleep(random.uniform(0, 0.01) * 2**failures)  # noqa: S311 - jitter, not a secret
            except _KeyVanished:
                # The same again finds the key free. Once too often is no coincidence (rule 4): rather no
                # settlement than a wrong one.
                failures += 1
                metrics.database_errors.labels(remedy="retry").inc()
                log.warning("save_failed", error="key vanished", remedy="retry", size=len(verdicts))
                if failures == _FAILURES_MAX:
                    raise StoreFault(
                        "a message was neither stored nor found; nothing of its batch is settled"
                    ) from None
            else:
                if settlements is not None:
                    return settlements
                # Outside of the transaction: it may take longer than a transaction may.
                verdicts = [self._judged_again(verdict) for verdict in verdicts]

    def _judged_again(self, verdict: Verdict) -> Verdict:
        if isinstance(verdict, Rejection) and verdict.reason is Reason.UNSTORABLE:
            # PostgreSQL said so, which no registry changes.
            return replace(verdict, registry_version=self._judge.version)
        return self._judge.validate(verdict.delivery)

    def _halves(self, verdicts: Sequence[Verdict]) -> list[Settlement]:
        middle = len(verdicts) // 2
        return self._attempt(verdicts[:middle]) + self._attempt(verdicts[middle:])

    def _without_poison(
        self, verdicts: Sequence[Verdict], error: psycopg.Error | UnicodeEncodeError
    ) -> list[Settlement]:
        if len(verdicts) > 1:
            return self._halves(verdicts)
        (verdict,) = verdicts
        if isinstance(verdict, Rejection):
            # A rejection is made of storable parts only. If it is refused the cause is ours.
            raise StoreFault(f"a rejection could not be stored: {name_of(error)}")
        return self._attempt([unstorable(verdict, error)])

    def _give_up(self, error: psycopg.Error | UnicodeEncodeError, what: Remedy) -> NoReturn:
        """Drop the connection and raise what the error means: StoreUnavailable or StoreFault."""
        self.close()
        if what is Remedy.REVALIDATE:
            raise StoreFault(
                "a foreign key refuses what the registry allows: were its triggers disabled?"
            ) from None
        if what is Remedy.FAULT:
            raise StoreFault(f"the database refused for a cause of ours: {name_of(error)}") from None
        raise StoreUnavailable(f"the database can't save now: {name_of(error)}") from None

    def _open(self) -> Connection:
        connection = self._open_or_none()
        if connection is None:
            connection = self._connection = self._connect()
            # It may lead to another server than the last one, or to the same after a restore, where the same
            # version of the registry means something else.
            self._registry_known = False
        return connection

    def _open_or_none(self) -> Connection | None:
        connection = self._connection
        return None if connection is None or connection.closed or connection.broken else connection

    # ── one transaction ───────────────────────────────────────────────────────────────────────────────

    def _transaction(self, verdicts: Sequence[Verdict]) -> list[Settlement] | None:
        """Save in one transaction; None, and nothing saved, if the verdicts don't hold any more."""
        connection = self._open()
        with self._deadline.over(connection), connection.transaction():
            settlements = None
            if self._hold(connection, verdicts):
                settlements = _Batch(connection, self._sql, self._judge, verdicts).save()
        # Only here, behind the block whose end is the COMMIT, may settlements leave the store.
        return settlements

    def _hold(self, connection: Connection, verdicts: Sequence[Verdict]) -> bool:
        """Keep the registry as it is until the commit; say whether the verdicts were made with it."""
        version = self._hold_registry(connection)
        if not self._registry_known or self._judge.version != version:
            self._install_registry(connection, version)
        held, self._registry_known = self._registry_known, True
        # Asked of each verdict: another writer shares the judge, and may have installed an older registry.
        return (held or not verdicts) and all(verdict.registry_version == version for verdict in verdicts)

    def _hold_registry(self, connection: Connection) -> int:
        if self._alone:
            # First of all: whoever holds it shared already, and then wants it alone, may wait for ever.
            connection.execute(self._sql["hold_registry_alone"])
        row = connection.execute(self._sql["hold_registry"]).fetchone()
        assert row is not None  # noqa: S101 - a SELECT without FROM gives one row
        if row[0] is None:
            raise StoreFault("the table registry is empty; it must hold one row")
        return int(row[0])

    def _install_registry(self, connection: Connection, version: int) -> None:
        tenants = connection.execute(self._sql["registry_tenants"]).fetchall()
        with connection.cursor(row_factory=dict_row) as cursor:
            schemas = cursor.execute(self._sql["registry_schemas"]).fetchall()
        self._judge.install(
            Registry(
                version=version,
                suspended=dict(tenants),
                schemas=tuple(EventSchema(**schema) for schema in schemas),
            )
        )
        metrics.registry_version.set(version)


class _Batch:
    """The statements of one transaction, in the order that every process keeps."""

    def __init__(
        self, connection: Connection, sql: Mapping[str, str], judge: Judge, verdicts: Sequence[Verdict]
    ) -> None:
        self._cursor = connection.cursor(row_factory=tuple_row)
        self._sql = sql
        self._judge = judge
        self._verdicts = verdicts
        self._settlements: dict[int, Settlement] = {}

    def save(self) -> list[Settlement]:
        self._lock_replayed()
        messages = self._pending(Message)
        outcomes = self._insert_messages(messages)
        conflicts = {}
        duplicates = {}
        for position, (outcome, stored_delivery_id) in outcomes.items():
            match outcome:
                case "stored":
                    self._settle(position, Outcome.STORED)
                case "redelivered":
                    self._settle(position, Outcome.REDELIVERED)
                case "duplicate":
                    duplicates[position] = messages[position]
                case "id_conflict":
                    conflicts[position] = id_conflict(messages[position], stored_delivery_id)
                case _:
                    raise _KeyVanished
        self._insert_duplicates(duplicates)
        if len(self._settlements) < len(self._verdicts):
            self._settle_stored_before()
            self._insert_rejections(dict(sorted((self._pending(Rejection) | conflicts).items())))
        self._close_replayed()
        if any(settlement.outcome is Outcome.REDELIVERED for settlement in self._settlements.values()):
            # The row may be of a session that was ended while it waited for the standby: here, and not there.
            # A COMMIT that wrote nothing waits for nobody, and the message would leave the queue at once.
            self._cursor.execute(self._sql["make_commit_wait"])
        return [self._settlements[position] for position in range(len(self._verdicts))]

    def _pending(self, kind: type[Any]) -> dict[int, Any]:
        return {
            position: verdict
            for position, verdict in enumerate(self._verdicts)
            if isinstance(verdict, kind) and position not in self._settlements
        }

    def _settle(self, position: int, outcome: Outcome, reason: Reason | None = None) -> None:
        self._settlements[position] = Settlement(self._verdicts[position].delivery, outcome, reason)

    def _lock_replayed(self) -> None:
        replayed = {
            position: verdict.delivery.rejection_id
            for position, verdict in enumerate(self._verdicts)
            if verdict.delivery.rejection_id is not None
        }
        if not replayed:
            return
        self._cursor.execute(self._sql["lock_replayed"], {"rejection_ids": list(replayed.values())})
        open_ids = {rejection_id for (rejection_id,) in self._cursor}
        for position, rejection_id in replayed.items():
            if rejection_id not in open_ids:
                # Somebody else closed it meanwhile: the delivery has its outcome.
                self._settle(position, Outcome.REDELIVERED)

    def _insert_messages(self, messages: Mapping[int, Message]) -> dict[int, tuple[str, str | None]]:
        if not messages:
            return {}
        document = {"messages": messages_document(list(messages.values()))}
        self._cursor.execute(self._sql["insert_messages"], document)
        if self._cursor.rowcount == len(messages):
            return dict.fromkeys(messages, ("stored", None))
        self._cursor.execute(self._sql["classify_messages"], document)
        positions = list(messages)
        return {
            positions[place - 1]: (outcome, stored_delivery_id)
            for place, outcome, stored_delivery_id in self._cursor
        }

    def _insert_duplicates(self, duplicates: Mapping[int, Message]) -> None:
        if duplicates:
            self._cursor.execute(self._sql["insert_duplicates"], duplicate_columns(list(duplicates.values())))
            self._settle_inserted(duplicates, Outcome.DUPLICATE)

    def _settle_stored_before(self) -> None:
        """Settle redeliveries that can't be read now, but were stored when they could be (rule 1).

        Limits may have become lower, or a release stricter, between two receives of one delivery. Such a
        rejection has no key to probe `message` by, so what was stored since the sending is looked through.
        """
        unreadable = {
            position: rejection
            for position, rejection in self._pending(Rejection).items()
            if key_in_doubt(rejection)
        }
        if not unreadable:
            return
        rejections = unreadable.values()
        self._cursor.execute(
            self._sql["find_stored"],
            {
                "sent_since": min(sent_after(rejection) for rejection in rejections),
                "delivery_id": [rejection.delivery.delivery_id for rejection in rejections],
            },
        )
        stored = set(self._cursor)
        for position, rejection in unreadable.items():
            if rejection.delivery.key in stored:
                self._settle(position, Outcome.REDELIVERED)

    def _insert_rejections(self, rejections: Mapping[int, Rejection]) -> None:
        for position, rejection in rejections.items():
            if rejection.delivery.rejection_id is not None:
                self._cursor.execute(
                    self._sql["reject_again"],
                    claims(rejection)
                    | {
                        "rejection_id": rejection.delivery.rejection_id,
                        "reason": rejection.reason,
                        "detail": storable_json(rejection.detail),
                        "bound_tenant_id": self._judge.proven_tenant(rejection.delivery),
                    },
                )
                self._settle(position, Outcome.REJECTED, rejection.reason)
        new = {
            position: rejection
            for position, rejection in rejections.items()
            if rejection.delivery.rejection_id is None
        }
        if new:
            columns = rejection_columns(list(new.values()), self._judge.proven_tenant)
            self._cursor.execute(self._sql["insert_rejections"], columns)
            self._settle_inserted(new, Outcome.REJECTED)

    def _settle_inserted(self, verdicts: Mapping[int, Verdict], outcome: Outcome) -> None:
        """Settle by what the statement gave back: the first of each delivery; the rest was there before."""
        inserted = {(queue, delivery_id) for queue, delivery_id in self._cursor}
        for position, verdict in verdicts.items():
            if verdict.delivery.key in inserted:
                inserted.discard(verdict.delivery.key)
                self._settle(position, outcome, verdict.reason if isinstance(verdict, Rejection) else None)
            else:
                self._settle(position, Outcome.REDELIVERED)

    def _close_replayed(self) -> None:
        for settlement in self._settlements.values():
            rejection_id = settlement.delivery.rejection_id
            if rejection_id is not None and settlement.outcome is not Outcome.REJECTED:
                self._cursor.execute(self._sql["close_replayed"], {"rejection_id": rejection_id})
