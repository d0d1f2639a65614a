"""Voids without effect so far, with the reason."""

from psycopg.rows import dict_row

from processor.database.queries import queries
from processor.usage.selection import Connection, Row

WHYS = {
    "no_message": "no such message came yet, or retention has removed it",
    "other_producer": "there is such an id, but not by this producer",
    "is_a_void": "it names a void, and a void can't be cancelled",
    "not_counted": "no meter counts what it names",
}
"""The reasons of idle voids, for people; the same keys as in the query idle_voids."""


def idle_voids(connection: Connection, tenant_id: str | None, limit: int | None) -> list[Row]:
    """List voids without effect, latest first.

    A row has tenant_id, message_id and producer of the message to cancel, void_id, voided_at, why, and
    `producers`: some producers that have sent a message with that id.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        asked = {"tenant_id": tenant_id, "limit": limit}
        return cursor.execute(queries("usage")["idle_voids"], asked).fetchall()
