"""The statements of one transaction: from verdicts to settlements, which hold once it is committed.

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
"""How soon after a commit its acknowledgement has arrived and is known to have, unless something ended."""


_NOTICED_WITHIN_S = 0.05
"""How soon the end of a connection is noticed by a process that runs again after a pause."""


def settling_s(verdicts: Sequence[Verdict]) -> float:
    """Give for how long to wait until what is known of deliveries of RabbitMQ is true again; 0: it is true.

    A redelivery takes any outcome of an equal message that is left when it is saved: what was committed
    before it came, and acknowledged, must be known to be by then. And of a first hand-over that has waited
    for long, or whose process was paused, the connection may have ended meanwhile.
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
    """A key met the insert and was gone when it was looked up: retention removed its row in between."""


class Addition(Protocol):
    """What another room adds to the storing transaction."""

    def stored(self, cursor: psycopg.Cursor[Any], messages: Sequence[Message]) -> None:
        """Write what goes with these messages: one COMMIT stores both, and what it raises undoes both."""


class Statements:
    """The statements of one transaction, in the order that every process keeps.

    With `keys_by_settings` a message may have been stored under another key than settings, or the rules of
    its queue, give it today, so that a redelivered one is looked for by its delivery. `additions` are told of
    what is stored. A holder keeps `rejected_bytes_max` of rejections whole.
    `misses` counts what meters could not count, `cut` the rejections that were cut.
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
        """Run them all; gives the settlements in order, which hold once the transaction is committed.

        Raises KeyVanished, StoreFault for an outcome that no code knows, and whatever psycopg raises; nothing
        may be committed then.
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
                # Somebody else closed it meanwhile: the delivery has its outcome.
                self._settle(position, Outcome.REDELIVERED)

    def _leave_lost(self) -> None:
        """Leave what comes again whatever becomes of it here: somebody else may have saved it meanwhile."""
        for position, verdict in enumerate(self._verdicts):
            if verdict.delivery.lost and position not in self._settlements:
                self._left.add(position)
                self._settle(position, Outcome.REDELIVERED)

    def _settle_repeated(self) -> None:
        """Settle what is handed over once more, under a new id, and had its outcome under an earlier one.

        Each outcome is that of one message, and so is taken once, however many are equal.
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
        """Store what is new; gives its positions, of a delivery that is there twice the first."""
        self._cursor.execute(self._sql["insert_messages"], batch)
        rows = self._cursor.fetchall()
        if len(rows) == len(messages):
            return messages
        firsts: dict[tuple[str, ...], int] = {}
        for position, message in messages.items():
            firsts.setdefault((*message.key, *message.delivery.key), position)
        return [firsts[row] for row in rows]

    def _count(self, stored: Sequence[Message]) -> None:
        """Raise the totals by just what was stored, and take away what the voids among it cancel."""
        if not stored:
            return
        signs = {message.key: 1 for message in stored}
        if any(message.event_type == VOID for message in stored):
            self._cursor.execute(self._sql["insert_voided"], key_columns(stored))
            for key in self._cursor:
                # What is stored and cancelled at once was never counted.
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
        """Settle deliveries that have an outcome, whatever today's verdict is and rests on (rule 1).

        Limits, settings or the release may have been others when it was given, and the verdict of today leads
        to another key or to none.
        """
        verdicts = {
            position: verdict
            for position, verdict in pending.items()
            # The outcome of one that is replayed is its rejection.
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
        """Settle by what the statement gave back: the first of each delivery; the rest was there before."""
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
    """Give how old its note is to be from the first: one that comes again anyway may be taken at once."""
    return SETTLED_WITHIN_S if delivery.lost else 0.0
