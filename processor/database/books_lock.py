"""Hold one lock across the many transactions of a retention, rebuild or erasure.

A table lock ends with its transaction, so a second connection holds the lock in an open transaction. That
connection may be lost alone, so it is checked before each step: two concurrent rebuilds would count twice.
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
    """Lock out other retentions, rebuilds and erasures while the block runs.

    Call the yielded function before each step: it raises psycopg.OperationalError if the lock was lost.
    Raises Busy if another process holds the lock.
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
        # A rollback frees the lock at once; after a mere close the server would notice later.
        with suppress(psycopg.Error):
            holder.rollback()
        holder.close()
