"""The rejections as one more source: what was rejected goes through the same pipeline again.

Open ones are handed over, and by its id also what a rule discarded; what a person discarded stays so.
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
    """Which rejections are meant; None means any. `since` is included, `until` is not."""

    rejection_ids: Sequence[int] | None = None
    tenant_id: str | None = None
    queue: str | None = None
    event_type: str | None = None
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def parameters(self) -> dict[str, Any]:
        """Give the selection as the parameters of `sql/queries/rejections.sql`."""
        return asdict(self) | {
            "rejection_ids": None if self.rejection_ids is None else list(self.rejection_ids)
        }


class QuarantineSource:
    """Hands the selected rejections over once each, oldest first, under their original delivery ids.

    With `key_days`, for which keys are kept, aged ones are left out: those whose message may have been stored
    and removed since, so that to replay them might count it twice. Without it, they are handed over too.
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
        """Read the next rejections; an empty list means that all were handed over."""
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
        """Count the selected rejections that are aged, and so not handed over."""
        if self._key_days is None:
            return 0
        row = self._connection.execute(queries("rejections")["count_aged"], self._parameters()).fetchone()
        return 0 if row is None else int(row[0])

    def count_cut(self) -> int:
        """Count the selected open rejections of which the head is kept alone; they are not handed over."""
        row = self._connection.execute(queries("rejections")["count_cut"], self._parameters()).fetchone()
        return 0 if row is None else int(row[0])

    def _parameters(self) -> dict[str, Any]:
        return self._selection.parameters() | {"key_days": self._key_days}

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Do nothing: `Store.save` closed the rejection in the transaction of its outcome."""

    def extend(self, deliveries: Sequence[Delivery]) -> None:
        """Do nothing: a rejection is nobody's until its transaction locks it."""

    def hold_for(self, deliveries: Sequence[Delivery], hold_s: int) -> None:
        """Do nothing: a rejection is nobody's until its transaction locks it."""

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Do nothing: an open rejection stays where it is."""


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
    """Open those of the selection that are named by their ids and that a rule discarded."""
    if selection.rejection_ids:
        connection.execute(queries("rejections")["take_back"], selection.parameters())


def discard(connection: psycopg.Connection[Any], selection: RejectionSelection) -> int:
    """Give up the selected open rejections; gives how many. The rows stay."""
    return connection.execute(queries("rejections")["discard"], selection.parameters()).rowcount
