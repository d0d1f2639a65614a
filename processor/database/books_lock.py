"""One at a time removes old rows or rebuilds totals, by a lock that outlasts its many transactions.

A table lock ends with its transaction. So a second connection holds it, in a transaction that stays open.
That connection may be ended alone, so it is asked before each step: two rebuilds at once would add twice.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from processor.database.connection import connect
from processor.database.queries import queries
from processor.errors import Busy


@contextmanager
def maintenance_lock(connection: psycopg.Connection[Any]) -> Iterator[Callable[[], object]]:
    """Keep others from removing, rebuilding and erasing while the block runs.

    Call what is given before each step: it raises psycopg.OperationalError where the lock was lost. Raises
    Busy where another holds it.
    """
    sql = queries("books_lock")
    info = connection.info
    holder = connect(make_conninfo(info.dsn, password=info.password or None))
    try:
        holder.execute(sql["outlast_work"])
        holder.autocommit = False
        try:
            holder.execute(sql["lock"])
        except psycopg.errors.LockNotAvailable:
            raise Busy(
                "another `processor retention apply` or `processor usage rebuild`, or sql/erase_tenant.sql, "
                "is at work on this database; let it end first"
            ) from None
        yield lambda: holder.execute(sql["is_held"])
    finally:
        # Closed alone, the server would notice a moment later.
        with suppress(psycopg.Error):
            holder.rollback()
        holder.close()
