"""Read stored rejections as a source, so that a replay goes through the same pipeline.

Open rejections are delivered, and those discarded by a rule if selected by id. Rejections that a person has
discarded are not.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from processor.database.queries import queries
from processor.errors import SourceUnavailable
from processor.model import Delivery, Settlement
from processor.wire.formats import Attribute


@dataclass(frozen=True, slots=True)
class RejectionSelection:
    """A filter of rejections; None means any. `since` is inclusive, `until` exclusive."""

    rejection_ids: Sequence[int] | None = None
    tenant_id: str | None = None
    queue: str | None = None
    event_type: str | None = None
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def parameters(self) -> dict[str, Any]:
        """Return the selection as parameters of `sql/queries/rejections.sql`."""
        return asdict(self) | {
            "rejection_ids": None if self.rejection_ids is None else list(self.rejection_ids)
        }


class QuarantineSource:
    """Delivers each selected rejection once, oldest first, under its original delivery id.

    `key_days` is the time for which keys are kept. Older rejections are left out: their message may have been
    stored and deleted since, so that a replay might count it twice. Without `key_days` none is left out.
    """

    call_size = 100

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        selection: RejectionSelection,
        *,
        key_days: int | None = None,
    ) -> None:
        self._connection = connection
        self._selection = selection
        self._key_days = key_days
        self._after = 0

    def receive(self, limit: int, wait_s: float) -> list[Delivery]:  # noqa: ARG002 - what is here is here
        """Read the next rejections. An empty list means that all were delivered."""
        try:
            with self._connection.cursor(row_factory=dict_row) as cursor:
                rows = cursor.execute(
                    queries("rejections")["select_open"],
                    self._parameters() | {"after": self._after, "limit": limit},
                ).fetchall()
        except psycopg.OperationalError as error:
            raise SourceUnavailable(f"the rejections can't be read: {error.sqlstate}") from error
        if rows:
            self._after = rows[-1]["rejection_id"]
        return [_delivery(row) for row in rows]

    def count_left_out(self) -> int:
        """Count the selected rejections that are older than `key_days` and not delivered."""
        if self._key_days is None:
            return 0
        row = self._connection.execute(queries("rejections")["count_aged"], self._parameters()).fetchone()
        return 0 if row is None else int(row[0])

    def count_cut(self) -> int:
        """Count the selected open rejections that were cut to their head; they are not delivered."""
        row = self._connection.execute(queries("rejections")["count_cut"], self._parameters()).fetchone()
        return 0 if row is None else int(row[0])

    def _parameters(self) -> dict[str, Any]:
        return self._selection.parameters() | {"key_days": self._key_days}

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Do nothing: `Store.save` closed the rejection in the transaction of its outcome."""

    def extend(self, deliveries: Sequence[Delivery]) -> None:
        """Do nothing: a rejection has no visibility timeout, only the lock of its transaction."""

    def hold_for(self, deliveries: Sequence[Delivery], hold_s: int) -> None:
        """Do nothing: a rejection has no visibility timeout, only the lock of its transaction."""

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Do nothing: an open rejection stays in its table."""


def _delivery(row: Mapping[str, Any]) -> Delivery:
    return Delivery(
        queue=row["queue"],
        delivery_id=row["delivery_id"],
        body=bytes(row["body"]),
        receipt="",
        receive_count=row["receive_count"],
        sent_at=row["sent_at"],
        received_at=datetime.now(UTC),
        attributes={name: _attribute(value) for name, value in row["attributes"].items()},
        rejection_id=row["rejection_id"],
        sender_id=row["sender_id"],
        bound_tenant_id=row["bound_tenant_id"],
        fault=row["fault"],
    )


def _attribute(value: str | Mapping[str, str]) -> Attribute:
    return value if isinstance(value, str) else base64.b64decode(value["base64"])


def take_back(connection: psycopg.Connection[Any], selection: RejectionSelection) -> None:
    """Reopen rejections that are selected by id and were discarded by a rule."""
    if selection.rejection_ids:
        connection.execute(queries("rejections")["take_back"], selection.parameters())


def discard(connection: psycopg.Connection[Any], selection: RejectionSelection) -> int:
    """Discard the selected open rejections and return their number. The rows stay."""
    return connection.execute(queries("rejections")["discard"], selection.parameters()).rowcount
