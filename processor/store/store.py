"""Save a batch of verdicts in one transaction, and return settlements after its COMMIT.

verdicts ─▶ hold the registry ─▶ message ─▶ classify ─▶ duplicate ─▶ rejection ─▶ COMMIT ─▶ settlements
             (stale? again)      every statement in key order; the same order in every process

A redelivery is saved under an exclusive lock on the registry. Of two saves of one delivery at least one is of
a redelivery, so the later save sees the rows of the earlier one, even if the two verdicts differ.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn, Protocol, TypeAlias

import psycopg
import structlog
from msgspec.structs import replace

from processor.database.connection import Deadline
from processor.database.queries import queries
from processor.database.sqlstates import Remedy, name_of, remedy
from processor.errors import StoreFault, StoreUnavailable
from processor.model import (
    Delivery,
    Message,
    Registry,
    Rejection,
    Settlement,
    Tries,
    Verdict,
)
from processor.runtime import metrics
from processor.runtime.outages import OutageRetry
from processor.store.database_rejections import blames_content, too_slow, unstorable
from processor.store.new_tenants import register_new_tenants
from processor.store.registry_rows import read_registry
from processor.store.rows import message_columns
from processor.store.save_order import SaveStage, parts_in_order
from processor.store.save_statements import Addition, KeyVanished, Statements, settling_s
from processor.wire.sender_rights import VOID

log = structlog.get_logger(__name__)

_PROBE_S_MAX = 5.0
"""The time limit for the answer to a probe."""

_FAILURES_MAX = 10
"""Failures of a transaction by conflicts with others before they count as an outage."""

_SLOW_MAX = 3
"""Timeouts of a save of one single delivery before it becomes a rejection."""

Connection: TypeAlias = psycopg.Connection[Any]
Row: TypeAlias = tuple[Any, ...]
Unread: TypeAlias = Callable[[Delivery, Tries], Verdict | None]

READ_ALL: Unread = lambda _suspect, _tries: None  # noqa: E731 - of this type
"""A policy by which every suspect may be read."""


class Judge(Protocol):
    """Validates deliveries by the registry that was last installed."""

    @property
    def version(self) -> int:
        """The version of that registry."""

    def install(self, registry: Registry) -> None:
        """Use this registry from now on."""

    def validate(self, delivery: Delivery) -> Verdict:
        """Return the verdict on one delivery. The content of a delivery never raises."""


class Store:
    """Writes verdicts to PostgreSQL. A store owns one connection and belongs to one thread.

    With `alone`, every save takes the exclusive lock, not only saves of redeliveries. `keys_by_settings` says
    that message keys depend on settings. `judge_unread` returns the verdict on a suspect that must not be
    read any more, given its noted attempts. `additions` write rows of other rooms in the same transaction.
    New rejections are cut once the open ones of their holder exceed `rejected_bytes_max`.
    """

    rejected_bytes_max = 2**62

    def __init__(
        self,
        connect: Callable[[], Connection],
        judge: Judge,
        retry: OutageRetry,
        *,
        timeout_s: float,
        alone: bool = False,
        keys_by_settings: bool = False,
        judge_unread: Unread = READ_ALL,
        additions: Sequence[Addition] = (),
    ) -> None:
        self._connect = connect
        self._judge = judge
        self._retry = retry
        self._alone = alone
        self._keys_by_settings = keys_by_settings
        self._judge_unread = judge_unread
        self._additions = additions
        # The server limits each statement to `timeout_s`. This deadline is for a frozen server.
        self._deadline = Deadline(2 * timeout_s + 5)
        self._probe_deadline = Deadline(_PROBE_S_MAX)
        self._connection: Connection | None = None
        self._registry_known = self._queues_said = False
        self._sql = queries("save")

    def save(self, verdicts: Sequence[Verdict]) -> list[Settlement]:
        """Commit all verdicts, then return one settlement for each, in order.

        Redeliveries are committed after first deliveries, and suspects last, each in its own transaction; the
        order within a group is kept. Outages are retried. Raises Stopped if stopped during an outage, and
        StoreFault if the cause is ours. Uncommitted deliveries are then still in the queue.
        """
        settled: dict[int, Settlement] = {}
        kinds = [_turn(verdict.delivery) for verdict in verdicts]
        for positions in parts_in_order(kinds, lambda position: verdicts[position].delivery.group):
            together = [verdicts[position] for position in positions]
            if wait_s := settling_s(together):
                self._retry.pause(wait_s)
            settled.update(zip(positions, self._retry(partial(self._attempt, together)), strict=True))
        return [settled[position] for position in range(len(verdicts))]

    def load_registry(self) -> None:
        """Install the current registry, so that the first verdicts need not be made twice."""
        self._retry(partial(self._attempt, ()))

    def probe(self) -> None:
        """Probe the database once over the connection of the saves, and record the result.

        Raises StoreFault if the cause is ours.
        """
        self._retry.probe(self._ask)

    def unread(self, suspect: Delivery) -> Verdict | None:
        """Note an attempt to read a suspect, and return a verdict if it must not be read any more.

        The save of its outcome deletes the note. Outages are retried. Raises as `save` does.
        """
        key = {"queue": suspect.queue, "delivery_id": suspect.lasting_id}
        row = self._retry(partial(self._note, "note_attempt", key))
        return self._judge_unread(suspect, Tries() if row is None else Tries(row[0], row[1]))

    def note_hangs(self, queue: str, delivery_ids: Sequence[str], *, keep_days: int) -> None:
        """Note that a worker hung at these deliveries, and delete notes older than `keep_days`."""
        if delivery_ids:
            hung = {"queue": queue, "delivery_ids": list(delivery_ids)}
            self._retry(partial(self._note, "note_hangs", hung))
        self._retry(partial(self._note, "forget_notes", {"days": keep_days}))

    def forget_settled(self, queue: str, delivery_ids: Sequence[str]) -> None:
        """Delete the notes of deliveries whose acknowledgement has arrived. Raises as `save` does."""
        settled = {"queue": queue, "delivery_ids": list(delivery_ids)}
        self._retry(partial(self._note, "forget_settled", settled))

    def close(self) -> None:
        """Close the connection. A later save opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # ── one attempt, and what to do when it fails ─────────────────────────────────────────────────────

    def _attempt(self, verdicts: Sequence[Verdict], slow: int = 0) -> list[Settlement]:
        """Save in one transaction, or in several if the registry changed or a row is refused.

        `slow` is the number of timeouts so far, which counts for a single verdict only.
        """
        failures = 0
        while True:
            try:
                self._register(verdicts)
                settlements = self._transaction(verdicts)
            except (psycopg.Error, UnicodeEncodeError) as error:
                failures += 1
                what = remedy(error, connection_broken=self._open_or_none() is None)
                metrics.database_errors.labels(remedy=what.name.lower()).inc()
                log.warning("save_failed", error=name_of(error), remedy=what.name.lower(), size=len(verdicts))
                if what is Remedy.REJECT:
                    return self._without_poison(verdicts, error)
                if what is Remedy.HALVE and verdicts:
                    return self._smaller(verdicts, error, slow + 1)
                if what not in (Remedy.RETRY, Remedy.REVALIDATE) or failures == _FAILURES_MAX:
                    self._give_up(error, what)
                self._registry_known = self._registry_known and what is not Remedy.REVALIDATE
                self._retry.pause(random.uniform(0, 0.01) * 2**failures)  # noqa: S311 - jitter, not a secret
            except KeyVanished:
                # A retry finds the key free. Repeated failures are no coincidence (rule 4); no settlement is
                # better than a wrong one.
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
                # Outside the transaction, because validation may exceed the transaction's time limit.
                verdicts = [self._judged_again(verdict) for verdict in verdicts]

    def _register(self, verdicts: Sequence[Verdict]) -> None:
        # Before the transaction: an upgrade from a shared to an exclusive lock can deadlock.
        if any(isinstance(verdict, Rejection) and verdict.new_tenant for verdict in verdicts):
            connection = self._open()
            with self._deadline.over(connection):
                register_new_tenants(connection, self._sql, verdicts)

    def _ask(self) -> None:
        connection = self._open()
        try:
            with self._probe_deadline.over(connection):
                connection.execute(queries("session")["probe"])
        except psycopg.Error as error:
            what = remedy(error, connection_broken=self._open_or_none() is None)
            metrics.database_errors.labels(remedy=what.name.lower()).inc()
            self._give_up(error, what)

    def _judged_again(self, verdict: Verdict) -> Verdict:
        if isinstance(verdict, Rejection) and verdict.final:
            return replace(verdict, registry_version=self._judge.version)
        return self._judge.validate(verdict.delivery)

    def _halves(self, verdicts: Sequence[Verdict]) -> list[Settlement]:
        middle = len(verdicts) // 2
        return self._attempt(verdicts[:middle]) + self._attempt(verdicts[middle:])

    def _smaller(
        self, verdicts: Sequence[Verdict], error: psycopg.Error | UnicodeEncodeError, slow: int
    ) -> list[Settlement]:
        """Save in halves; retry a single verdict, and store it as a rejection after _SLOW_MAX timeouts."""
        if len(verdicts) > 1:
            return self._halves(verdicts)
        (verdict,) = verdicts
        put_aside = isinstance(verdict, Rejection) and not verdict.searched
        if put_aside or not self._commits():
            self._give_up(error, Remedy.HALVE)
        if slow < _SLOW_MAX:
            return self._attempt(verdicts, slow)
        return self._attempt([too_slow(verdict, error, slow)])

    def _commits(self) -> bool:
        """Return whether the database commits a small write within the time limit of a statement."""
        try:
            connection = self._open()
            with self._deadline.over(connection), connection.transaction():
                connection.execute(self._sql["lock_books"])
                connection.execute(self._sql["make_commit_wait"])
        except psycopg.Error:
            return False
        return True

    def _without_poison(
        self, verdicts: Sequence[Verdict], error: psycopg.Error | UnicodeEncodeError
    ) -> list[Settlement]:
        if len(verdicts) > 1:
            return self._halves(verdicts)
        (verdict,) = verdicts
        if isinstance(verdict, Rejection):
            # All parts of a rejection are storable, so a refusal is our fault.
            raise StoreFault(f"a rejection could not be stored: {name_of(error)}")
        if not self._is_poison(verdict, error):
            raise StoreFault(
                f"a message was refused, and not for its content: {name_of(error)}; look for a constraint, "
                "an index or a trigger on the table message that is not of our migrations"
            )
        return self._attempt([unstorable(verdict, error)])

    def _is_poison(self, message: Message, error: psycopg.Error | UnicodeEncodeError) -> bool:
        """Return whether a row is refused for its content: PostgreSQL can't parse it even without a table."""
        known = blames_content(error)
        if known is not None:
            return known
        connection = self._open()
        try:
            with self._deadline.over(connection), connection.transaction():
                connection.execute(self._sql["read_messages"], message_columns([message]))
        except psycopg.Error as again:
            what = remedy(again, connection_broken=self._open_or_none() is None)
            if what is not Remedy.REJECT:
                self._give_up(again, what)
            return True
        return False

    def _give_up(self, error: psycopg.Error | UnicodeEncodeError, what: Remedy) -> NoReturn:
        """Close the connection and raise StoreUnavailable or StoreFault, by the remedy."""
        self.close()
        if what is Remedy.REVALIDATE:
            raise StoreFault(
                f"a foreign key refuses what the registry allows ({name_of(error)}): were the registry's "
                "triggers disabled, or is it a key that is not of our migrations?"
            ) from None
        if what is Remedy.FAULT:
            raise StoreFault(f"the database refused for a cause of ours: {name_of(error)}") from None
        raise StoreUnavailable(f"the database can't save now: {name_of(error)}") from None

    def _note(self, query: str, values: Mapping[str, Any]) -> Row | None:
        connection = self._open()
        try:
            with self._deadline.over(connection):
                cursor = connection.execute(self._sql[query], values)
                return cursor.fetchone() if cursor.description else None
        except (psycopg.Error, UnicodeEncodeError) as error:
            what = remedy(error, connection_broken=self._open_or_none() is None)
            metrics.database_errors.labels(remedy=what.name.lower()).inc()
            if what is Remedy.REJECT:
                # PostgreSQL can't store this id, so there is no note.
                return None
            self._give_up(error, what)

    def _open(self) -> Connection:
        connection = self._open_or_none()
        if connection is None:
            try:
                connection = self._connection = self._connect()
            except StoreUnavailable:
                metrics.database_errors.labels(remedy=Remedy.RECONNECT.name.lower()).inc()
                raise
            # The new connection may lead to another or a restored server, on which the same registry version
            # may have other content.
            self._registry_known = False
        return connection

    def _open_or_none(self) -> Connection | None:
        connection = self._connection
        return None if connection is None or connection.closed or connection.broken else connection

    # ── one transaction ───────────────────────────────────────────────────────────────────────────────

    def _transaction(self, verdicts: Sequence[Verdict]) -> list[Settlement] | None:
        """Save in one transaction; return None and save nothing if the registry has changed."""
        connection = self._open()
        with self._deadline.over(connection), connection.transaction():
            settlements, misses, cut = None, 0, 0
            if self._hold(connection, verdicts):
                statements = Statements(
                    connection,
                    self._sql,
                    verdicts,
                    # Queue rules determine keys too, and may have changed.
                    keys_by_settings=self._keys_by_settings or self._queues_said,
                    additions=self._additions,
                    rejected_bytes_max=self.rejected_bytes_max,
                )
                settlements, misses, cut = statements.save(), statements.misses, statements.cut
        metrics.meter_misses.inc(misses)
        metrics.rejections_cut.inc(cut)
        # Settlements leave the store only here, after the block that ends with COMMIT.
        return settlements

    def _hold(self, connection: Connection, verdicts: Sequence[Verdict]) -> bool:
        """Lock the registry until the commit, and return whether the verdicts were made with its version."""
        version = self._hold_registry(connection, alone=self._alone or any(map(_sees_all, verdicts)))
        if not self._registry_known or self._judge.version != version:
            self._judge.install(read_registry(connection, self._sql, version))
            metrics.registry_version.set(version)
        held, self._registry_known = self._registry_known, True
        # Checked for each verdict, because another writer shares the judge and may install an older registry.
        return (held or not verdicts) and all(verdict.registry_version == version for verdict in verdicts)

    def _hold_registry(self, connection: Connection, *, alone: bool) -> int:
        if alone:
            # Before the shared lock: an upgrade from shared to exclusive can deadlock.
            connection.execute(self._sql["hold_registry_alone"])
        row = connection.execute(self._sql["hold_registry"]).fetchone()
        assert row is not None  # noqa: S101 - a SELECT without FROM gives one row
        if row[0] is None:
            raise StoreFault("the table registry is empty; it must hold one row")
        self._queues_said = bool(row[1])
        return int(row[0])


def _sees_all(verdict: Verdict) -> bool:
    """Return whether a verdict must see the outcome of concurrent saves, and so needs the exclusive lock.

    A void may cancel a message of a concurrent save. A redelivery may be in a concurrent save itself, with
    another verdict. A replayed delivery can't: every other save of it meets its row in `rejection`.
    """
    return verdict.delivery.redelivered or (isinstance(verdict, Message) and verdict.event_type == VOID)


def _turn(delivery: Delivery) -> SaveStage:
    if delivery.receive_count == 1:
        return SaveStage.FIRST
    if delivery.suspect:
        return SaveStage.ALONE
    return SaveStage.SECOND if delivery.redelivered else SaveStage.FIRST
