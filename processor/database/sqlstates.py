"""Decide how to handle an error of the database, by its SQLSTATE.

psycopg's exception classes are no guide: a read-only server at failover raises an InternalError, a too deeply
nested value an OperationalError, and a lost COMMIT reply has no SQLSTATE, although the row may be stored.
The codes are in PostgreSQL's appendix A.
"""

from enum import Enum, auto

import psycopg


class Remedy(Enum):
    """The next step of the store."""

    REJECT = auto()
    """The content of one row can't be stored: find the row and make it a rejection."""
    REVALIDATE = auto()
    """The verdicts were made with another registry: read the registry and validate again."""
    RETRY = auto()
    """Two transactions were in conflict: run the same one again."""
    HALVE = auto()
    """The batch is too large: save it in two halves. For a single row it is an outage."""
    RECONNECT = auto()
    """The connection is unusable: open a new one."""
    WAIT = auto()
    """The server can't work now (disk full, too many connections, a locked table): pause receiving."""
    FAULT = auto()
    """Our fault: a missing right, a missing table, a bug. End the process; never reject an event for it."""


_BY_CODE = {
    Remedy.REJECT: "22P05 22P02 22003 22007 22008 22021 54000 54001 23514 23502",
    Remedy.REVALIDATE: "23503",
    Remedy.RETRY: "40P01 40001",
    # 57014 is our own statement_timeout: a plain retry would take as long again.
    Remedy.HALVE: "53200 57014",
    Remedy.RECONNECT: "57P01 57P02 57P03 25006 25P03",
    # 55P03 is our own lock_timeout: a lock held for that long is no passing conflict.
    Remedy.WAIT: "53100 53300 55P03",
}
_REMEDIES = {code: remedy for remedy, codes in _BY_CODE.items() for code in codes.split()}


def remedy(error: psycopg.Error | UnicodeEncodeError, *, connection_broken: bool) -> Remedy:
    """Return how to handle an error, given whether its connection is broken."""
    if isinstance(error, UnicodeEncodeError):
        return Remedy.REJECT
    code = error.sqlstate
    if code is None:
        # psycopg itself refuses NUL in a text, before anything is sent.
        if isinstance(error, psycopg.DataError):
            return Remedy.REJECT
        return Remedy.RECONNECT if connection_broken else Remedy.FAULT
    if code in _REMEDIES:
        return _REMEDIES[code]
    return Remedy.RECONNECT if connection_broken or code.startswith("08") else Remedy.FAULT


def name_of(error: psycopg.Error | UnicodeEncodeError) -> str:
    """Return an error as SQLSTATE and constraint, for logs and rejections, never its text.

    The text may contain the whole row ("Failing row contains ...") or the password of the DSN.
    """
    if isinstance(error, UnicodeEncodeError):
        return "UnicodeEncodeError"
    parts = [error.sqlstate or type(error).__name__, error.diag.constraint_name]
    return " ".join(part for part in parts if part)
