"""One batch, one transaction: verdicts in, settlements out, and between the two a COMMIT.

verdicts ─▶ hold the registry ─▶ message ─▶ classify ─▶ duplicate ─▶ rejection ─▶ COMMIT ─▶ settlements
             (stale? again)      every statement in key order; the same order in every process

What was handed over before is saved while no other save is under way. Of two saves of one delivery at least
one is such a one, so the second sees what the first committed, however differently the two judge.
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
"""How long a server may take to answer a probe."""

_FAILURES_MAX = 10
"""Times that a transaction may fail on meeting others before it counts as an outage."""

_SLOW_MAX = 3
"""Times that one delivery alone may take the database too long before it is put aside."""

Connection: TypeAlias = psycopg.Connection[Any]
Row: TypeAlias = tuple[Any, ...]
Unread: TypeAlias = Callable[[Delivery, Tries], Verdict | None]

READ_ALL: Unread = lambda _suspect, _tries: None  # noqa: E731 - of this type
"""Every suspect may be read."""


class Judge(Protocol):
    """Gives verdicts by the registry that was last installed."""

    @property
    def version(self) -> int:
        """The version of that registry."""

    def install(self, registry: Registry) -> None:
        """Judge by this registry from now on."""

    def validate(self, delivery: Delivery) -> Verdict:
        """Give the verdict on one delivery; never raises for its content."""


class Store:
    """Writes verdicts to PostgreSQL. It owns one connection, and so belongs to one thread.

    With `alone`, no other store saves while this one does, be it a redelivery or not. With
    `keys_by_settings`, settings take part in the keys of messages. `judge_unread` gives the verdict on a
    suspect that must not be read any more, by what is noted of it. `additions` write what other rooms have to
    say of what is stored, in the same transaction. Beyond `rejected_bytes_max` of a holder's open rejections
    new ones are cut.
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
        # Every statement has `timeout_s` by the server's clock; this is for a server that is frozen.
        self._deadline = Deadline(2 * timeout_s + 5)
        self._probe_deadline = Deadline(_PROBE_S_MAX)
        self._connection: Connection | None = None
        self._registry_known = self._queues_said = False
        self._sql = queries("save")

    def save(self, verdicts: Sequence[Verdict]) -> list[Settlement]:
        """Commit all verdicts, then return one settlement for each, in order.

        What was handed over before is committed after the rest, and what is suspect alone and last, but never
        after what comes later in its group. Outages are waited out. Raises Stopped if told to stop meanwhile,
        StoreFault where the cause is ours; in both cases what was not committed is still in the queue.
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
        """Install the registry as it stands now, so that the first verdicts are not made in vain."""
        self._retry(partial(self._attempt, ()))

    def probe(self) -> None:
        """Ask the database for a sign of life over the connection of the saves, once.

        That it works, or does not, is noted as after a save. Raises StoreFault where the cause is ours.
        """
        self._retry.probe(self._ask)

    def unread(self, suspect: Delivery) -> Verdict | None:
        """Note that a suspect is about to be read; give a verdict if it must not be read any more.

        The note goes with its outcome. Outages are waited out, and it raises as `save` does.
        """
        key = {"queue": suspect.queue, "delivery_id": suspect.lasting_id}
        row = self._retry(partial(self._note, "note_attempt", key))
        return self._judge_unread(suspect, Tries() if row is None else Tries(row[0], row[1]))

    def note_hangs(self, queue: str, delivery_ids: Sequence[str], *, keep_days: int) -> None:
        """Note that readers hung at these deliveries, and forget notes older than `keep_days`."""
        if delivery_ids:
            hung = {"queue": queue, "delivery_ids": list(delivery_ids)}
            self._retry(partial(self._note, "note_hangs", hung))
        self._retry(partial(self._note, "forget_notes", {"days": keep_days}))

    def forget_settled(self, queue: str, delivery_ids: Sequence[str]) -> None:
        """Forget the notes of deliveries whose acknowledgement has arrived. Raises as `save` does."""
        settled = {"queue": queue, "delivery_ids": list(delivery_ids)}
        self._retry(partial(self._note, "forget_settled", settled))

    def close(self) -> None:
        """Close the connection; a later save opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # ── one attempt, and what to do when it fails ─────────────────────────────────────────────────────

    def _attempt(self, verdicts: Sequence[Verdict], slow: int = 0) -> list[Settlement]:
        """Save in one transaction, or in as many as the registry and the poison among the verdicts need.

        `slow` says how often one verdict alone has taken too long already.
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

    def _register(self, verdicts: Sequence[Verdict]) -> None:
        # Before the transaction: whoever holds the registry shared, and then wants it alone, waits for ever.
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
        """Save in halves what was too much; one alone again, and at last as put aside."""
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
        """Say whether the database commits something small within the time of a statement."""
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
            # A rejection is made of storable parts only. If it is refused the cause is ours.
            raise StoreFault(f"a rejection could not be stored: {name_of(error)}")
        if not self._is_poison(verdict, error):
            raise StoreFault(
                f"a message was refused, and not for its content: {name_of(error)}; look for a constraint, "
                "an index or a trigger on the table message that is not of our migrations"
            )
        return self._attempt([unstorable(verdict, error)])

    def _is_poison(self, message: Message, error: psycopg.Error | UnicodeEncodeError) -> bool:
        """Say whether a row is refused for its content: then PostgreSQL can't read it, table or no table."""
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
        """Drop the connection and raise what the error means: StoreUnavailable or StoreFault."""
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
                # An id that PostgreSQL can't take: then nothing can be noted of it.
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
            settlements, misses, cut = None, 0, 0
            if self._hold(connection, verdicts):
                statements = Statements(
                    connection,
                    self._sql,
                    verdicts,
                    # What is said of a queue gives keys too, and may have been something else.
                    keys_by_settings=self._keys_by_settings or self._queues_said,
                    additions=self._additions,
                    rejected_bytes_max=self.rejected_bytes_max,
                )
                settlements, misses, cut = statements.save(), statements.misses, statements.cut
        metrics.meter_misses.inc(misses)
        metrics.rejections_cut.inc(cut)
        # Only here, behind the block whose end is the COMMIT, may settlements leave the store.
        return settlements

    def _hold(self, connection: Connection, verdicts: Sequence[Verdict]) -> bool:
        """Keep the registry as it is until the commit; say whether the verdicts were made with it."""
        version = self._hold_registry(connection, alone=self._alone or any(map(_sees_all, verdicts)))
        if not self._registry_known or self._judge.version != version:
            self._judge.install(read_registry(connection, self._sql, version))
            metrics.registry_version.set(version)
        held, self._registry_known = self._registry_known, True
        # Asked of each verdict: another writer shares the judge, and may have installed an older registry.
        return (held or not verdicts) and all(verdict.registry_version == version for verdict in verdicts)

    def _hold_registry(self, connection: Connection, *, alone: bool) -> int:
        if alone:
            # First of all: whoever holds it shared already, and then wants it alone, may wait for ever.
            connection.execute(self._sql["hold_registry_alone"])
        row = connection.execute(self._sql["hold_registry"]).fetchone()
        assert row is not None  # noqa: S101 - a SELECT without FROM gives one row
        if row[0] is None:
            raise StoreFault("the table registry is empty; it must hold one row")
        self._queues_said = bool(row[1])
        return int(row[0])


def _sees_all(verdict: Verdict) -> bool:
    """Say whether a verdict may meet another transaction's, and has to see its outcome.

    A void cancels what may be in a save that is under way. A redelivery may be in one itself, with another
    verdict. One that is replayed may not: every other save of its delivery meets its row in `rejection`.
    """
    return verdict.delivery.redelivered or (isinstance(verdict, Message) and verdict.event_type == VOID)


def _turn(delivery: Delivery) -> SaveStage:
    if delivery.receive_count == 1:
        return SaveStage.FIRST
    if delivery.suspect:
        return SaveStage.ALONE
    return SaveStage.SECOND if delivery.redelivered else SaveStage.FIRST
