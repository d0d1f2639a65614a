"""Run the statements of one save transaction: verdicts in, settlements out, valid once it is committed.

known before? ─▶ message ─▶ totals ─▶ classify ─▶ duplicate ─▶ rejection ─▶ replayed closed ─▶ notes
every statement in key order; the same order in every process
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import psycopg
from psycopg.rows import tuple_row

from processor.errors import Reason, StoreFault
from processor.model import Delivery, Message, Outcome, Rejection, Settlement, Verdict
from processor.store.database_rejections import id_conflict, may_be_stored
from processor.store.rejection_room import make_fit
from processor.store.rows import (
    as_columns,
    beginning,
    claims,
    detail_json,
    duplicate_columns,
    key_columns,
    message_columns,
    rejection_columns,
)
from processor.wire.sender_rights import VOID

SETTLED_WITHIN_S = 2.0
"""The time within which an acknowledgement is confirmed after its commit, unless its connection ended."""


_NOTICED_WITHIN_S = 0.05
"""The time within which a process that was paused notices the end of its connection."""


def settling_s(verdicts: Sequence[Verdict]) -> float:
    """Return the seconds to wait before saving deliveries without an id (RabbitMQ); 0 if none is needed.

    A redelivery without an id takes any unsettled outcome of an equal message. Outcomes that were committed
    and acknowledged before it came must be known as settled by then. A first delivery that has waited for
    long, or whose process was paused, may have lost its connection.
    """
    now = datetime.now(UTC)
    wait_s = 0.0
    for verdict in verdicts:
        delivery = verdict.delivery
        if not delivery.named:
            age_s = (now - delivery.received_at).total_seconds()
            if delivery.repeated:
                wait_s = max(wait_s, min(SETTLED_WITHIN_S, SETTLED_WITHIN_S - age_s))
            elif age_s >= SETTLED_WITHIN_S:
                wait_s = max(wait_s, _NOTICED_WITHIN_S)
    return wait_s


class KeyVanished(Exception):
    """A key blocked the insert and had no row at the lookup: retention deleted the row in between."""


class Addition(Protocol):
    """A part of another room in the save transaction."""

    def stored(self, cursor: psycopg.Cursor[Any], messages: Sequence[Message]) -> None:
        """Write rows for these messages in the same transaction. An exception rolls back both."""


class Statements:
    """The statements of one transaction, in the same order in every process.

    With `keys_by_settings`, settings or queue rules may have changed the key of a stored message, so
    redeliveries are looked up by their delivery too. `additions` are called with the stored messages.
    Rejections of a holder are kept whole up to `rejected_bytes_max`. `misses` counts the messages that meters
    could not count, `cut` the rejections that were cut.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        sql: Mapping[str, str],
        verdicts: Sequence[Verdict],
        *,
        keys_by_settings: bool,
        rejected_bytes_max: int,
        additions: Sequence[Addition] = (),
    ) -> None:
        self._cursor = connection.cursor(row_factory=tuple_row)
        self._sql = sql
        self._verdicts = verdicts
        self._keys_by_settings = keys_by_settings
        self._additions = additions
        self._rejected_bytes_max = rejected_bytes_max
        self.misses = self.cut = 0
        self._settlements: dict[int, Settlement] = {}
        self._left: set[int] = set()

    def save(self) -> list[Settlement]:
        """Run all statements and return the settlements in order, valid once the transaction is committed.

        Raises KeyVanished, StoreFault for an unknown outcome, and psycopg's errors; the transaction must be
        rolled back then.
        """
        self._lock_replayed()
        self._leave_lost()
        self._settle_repeated()
        if self._keys_by_settings:
            self._settle_known(self._pending(Message))
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
                case "missing":
                    raise KeyVanished
                case _:
                    raise StoreFault(f"classify_messages gave {outcome!r}, which is no outcome")
        self._insert_duplicates(duplicates)
        if len(self._settlements) < len(self._verdicts):
            self._settle_known(self._pending(Rejection))
            self._insert_rejections(dict(sorted((self._pending(Rejection) | conflicts).items())))
        self._close_replayed()
        self._add()
        self._note_unsettled()
        self._forget_attempts()
        if any(settlement.outcome is Outcome.REDELIVERED for settlement in self._settlements.values()):
            # The row may be of a session that ended while its COMMIT waited for the standby. A COMMIT without
            # a write does not wait for the standby, and the message would leave the queue too early.
            self._cursor.execute(self._sql["make_commit_wait"])
        return [self._settlements[position] for position in range(len(self._verdicts))]

    def _pending(self, kind: type[Any]) -> dict[int, Any]:
        return {
            position: verdict
            for position, verdict in enumerate(self._verdicts)
            if isinstance(verdict, kind) and position not in self._settlements
        }

    def _settle(
        self, position: int, outcome: Outcome, reason: Reason | None = None, *, discarded: bool = False
    ) -> None:
        delivery = self._verdicts[position].delivery
        self._settlements[position] = Settlement(delivery, outcome, reason, discarded)

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
                # Another transaction closed the rejection: the delivery has its outcome.
                self._settle(position, Outcome.REDELIVERED)

    def _leave_lost(self) -> None:
        """Skip deliveries whose connection has ended: they are redelivered, and maybe saved already."""
        for position, verdict in enumerate(self._verdicts):
            if verdict.delivery.lost and position not in self._settlements:
                self._left.add(position)
                self._settle(position, Outcome.REDELIVERED)

    def _settle_repeated(self) -> None:
        """Settle redeliveries without a lasting id that got their outcome under an earlier id.

        Each noted outcome belongs to one message and is taken once, even if several messages are equal.
        """
        for position, verdict in enumerate(self._verdicts):
            if (
                verdict.delivery.repeated
                and position not in self._settlements
                and self._take_unsettled(position)
            ):
                self._settle(position, Outcome.REDELIVERED)

    def _take_unsettled(self, position: int) -> bool:
        delivery = self._verdicts[position].delivery
        self._cursor.execute(
            self._sql["take_unsettled"],
            {
                "queue": delivery.queue,
                "delivery_id": delivery.delivery_id,
                "begins": beginning(delivery),
                "within_s": SETTLED_WITHIN_S,
                "age_s": _age_s(delivery),
            },
        )
        return self._cursor.rowcount > 0

    def _insert_messages(self, messages: Mapping[int, Message]) -> dict[int, tuple[str, str | None]]:
        if not messages:
            return {}
        batch = message_columns(list(messages.values()))
        stored = self._store(messages, batch)
        self._count([messages[position] for position in stored if messages[position].metered])
        outcomes: dict[int, tuple[str, str | None]] = dict.fromkeys(stored, ("stored", None))
        if len(stored) < len(messages):
            positions = list(messages)
            left = [place for place, position in enumerate(positions, 1) if position not in outcomes]
            self._cursor.execute(self._sql["classify_messages"], batch | {"left": left})
            for place, outcome, stored_delivery_id in self._cursor:
                outcomes[positions[place - 1]] = (outcome, stored_delivery_id)
        return outcomes

    def _store(self, messages: Mapping[int, Message], batch: Mapping[str, Any]) -> Collection[int]:
        """Insert new messages and return their positions; of a delivery that occurs twice, the first."""
        self._cursor.execute(self._sql["insert_messages"], batch)
        rows = self._cursor.fetchall()
        if len(rows) == len(messages):
            return messages
        firsts: dict[tuple[str, ...], int] = {}
        for position, message in messages.items():
            firsts.setdefault((*message.key, *message.delivery.key), position)
        return [firsts[row] for row in rows]

    def _count(self, stored: Sequence[Message]) -> None:
        """Raise the totals by the stored messages, and subtract the messages that voids among them cancel."""
        if not stored:
            return
        signs = {message.key: 1 for message in stored}
        if any(message.event_type == VOID for message in stored):
            self._cursor.execute(self._sql["insert_voided"], key_columns(stored))
            for key in self._cursor:
                # A message that is stored and cancelled in one batch was never counted.
                signs.setdefault(key, -1)
        changed = [(*key, sign) for key, sign in signs.items()]
        self._cursor.execute(
            self._sql["raise_totals"], as_columns(("tenant_id", "message_id", "producer", "sign"), changed)
        )
        names = ("tenant_id", "meter_id", "reason", "schema_id", "messages", "last_message_id")
        missed = as_columns(names, self._cursor.fetchall())
        self.misses = sum(missed["messages"])
        if self.misses:
            self._cursor.execute(self._sql["note_misses"], missed)

    def _insert_duplicates(self, duplicates: Mapping[int, Message]) -> None:
        if duplicates:
            self._cursor.execute(self._sql["insert_duplicates"], duplicate_columns(list(duplicates.values())))
            self._settle_inserted(duplicates, Outcome.DUPLICATE)

    def _settle_known(self, pending: Mapping[int, Verdict]) -> None:
        """Settle deliveries that have an outcome already, whatever their verdict is now (rule 1).

        Limits, settings or the release may have changed since, so that the verdict has another key or none.
        """
        verdicts = {
            position: verdict
            for position, verdict in pending.items()
            # The known outcome of a replayed delivery is its rejection.
            if verdict.delivery.rejection_id is None
        }
        if not verdicts:
            return
        keys = [verdict.delivery.key for verdict in verdicts.values()]
        self._cursor.execute(
            self._sql["find_outcomes"],
            {
                "queue": [queue for queue, _ in keys],
                "delivery_id": [name for _, name in keys],
                "again": [may_be_stored(verdict) for verdict in verdicts.values()],
            },
        )
        known = set(self._cursor)
        for position, verdict in verdicts.items():
            if verdict.delivery.key in known:
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
                        "detail": detail_json(rejection),
                        "bound_tenant_id": rejection.proven_tenant,
                    },
                )
                self._settle(position, Outcome.REJECTED, rejection.reason)
        new = {
            position: rejection
            for position, rejection in rejections.items()
            if rejection.delivery.rejection_id is None
        }
        if new:
            columns = rejection_columns(list(new.values()))
            held = self._cursor.execute(self._sql["rejection_room"], columns).fetchall()
            self.cut = make_fit(columns, held, self._rejected_bytes_max)
            self._cursor.execute(self._sql["insert_rejections"], columns)
            self._settle_inserted(new, Outcome.REJECTED)

    def _settle_inserted(self, verdicts: Mapping[int, Verdict], outcome: Outcome) -> None:
        """Settle by the returned rows: the first of each delivery is new, the others are redeliveries."""
        inserted = {(queue, delivery_id) for queue, delivery_id in self._cursor}
        for position, verdict in verdicts.items():
            if verdict.delivery.key in inserted:
                inserted.discard(verdict.delivery.key)
                if isinstance(verdict, Rejection):
                    self._settle(position, outcome, verdict.reason, discarded=verdict.rule_id is not None)
                else:
                    self._settle(position, outcome)
            else:
                self._settle(position, Outcome.REDELIVERED)

    def _add(self) -> None:
        if not self._additions:
            return
        stored = [
            verdict
            for position, verdict in enumerate(self._verdicts)
            if isinstance(verdict, Message) and self._settlements[position].outcome is Outcome.STORED
        ]
        if stored:
            for addition in self._additions:
                addition.stored(self._cursor, stored)

    def _note_unsettled(self) -> None:
        deliveries = [
            verdict.delivery
            for position, verdict in enumerate(self._verdicts)
            if not verdict.delivery.named and position not in self._left
        ]
        if deliveries:
            self._cursor.execute(
                self._sql["note_unsettled"],
                {
                    "queue": [delivery.queue for delivery in deliveries],
                    "delivery_id": [delivery.delivery_id for delivery in deliveries],
                    "age_s": [_age_s(delivery) for delivery in deliveries],
                },
            )

    def _forget_attempts(self) -> None:
        for verdict in self._verdicts:
            if verdict.delivery.suspect:
                self._cursor.execute(
                    self._sql["forget_attempt"],
                    {"queue": verdict.delivery.queue, "delivery_id": verdict.delivery.lasting_id},
                )

    def _close_replayed(self) -> None:
        for settlement in self._settlements.values():
            rejection_id = settlement.delivery.rejection_id
            if rejection_id is not None and settlement.outcome is not Outcome.REJECTED:
                self._cursor.execute(self._sql["close_replayed"], {"rejection_id": rejection_id})


def _age_s(delivery: Delivery) -> float:
    """Return the initial age of a note in seconds: the outcome of a lost delivery may be taken at once."""
    return SETTLED_WITHIN_S if delivery.lost else 0.0
