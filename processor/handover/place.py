"""The place from which lines are handed over: a server, its timeline, a database and a table.

    same place ─▶ go on          none stored ─▶ store this one          another place ─▶ StoreUnavailable

A database that was restored, copied or failed over may lack lines that its predecessor handed over. The
hand-over stops until an operator compares the database with the sink, or states that nothing was lost
(processor usage reconcile).
"""

from typing import Any

import psycopg

from processor.database.queries import queries
from processor.errors import StoreUnavailable


def require_place(connection: psycopg.Connection[Any]) -> None:
    """Raise StoreUnavailable if lines were last handed over from another place; store the first place."""
    [(noted, here)] = connection.execute(queries("dispatch")["places"]).fetchall()
    if here is None:
        raise StoreUnavailable("the database is a standby, from which nothing is handed over")
    if noted is None:
        connection.execute(queries("dispatch")["note_first_place"])
    elif noted != here:
        raise StoreUnavailable(
            f"lines were last handed over from another place ({noted}), and this is {here}: it was restored, "
            "copied or failed over. Nothing is handed over before `processor usage reconcile FILE` with what "
            "the sink has, or `processor usage reconcile --nothing-lost`; see "
            "docs/howto/backup-and-restore.md"
        )
