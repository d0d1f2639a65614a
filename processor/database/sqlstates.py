"""What to do about an error of the database, by its SQLSTATE.

psycopg's exception classes are no guide: a read-only server at failover raises an InternalError, poison such
as a too deeply nested value an OperationalError, and a lost COMMIT reply has no SQLSTATE at all, although
the row may be there. The five characters are the truth; the list is PostgreSQL's appendix A.
"""

from enum import Enum, auto

import psycopg


class Remedy(Enum):
    """What the store does next."""

    REJECT = auto()
    """One row can't be stored, for its content: find it, and make it a rejection."""
    REVALIDATE = auto()
    """The registry is not what the verdicts were made with: read it again, validate again."""
    RETRY = auto()
    """Two transactions met; the same one again will do."""
    HALVE = auto()
    """Too much at once: the same in two halves; of one row, an outage."""
    RECONNECT = auto()
    """This connection is of no use any more; the server may be, on a new one."""
    WAIT = auto()
    """It can't work now (disk full, too many connections, a table locked): stop receiving until it can."""
    FAULT = auto()
    """Ours: a missing right, a missing table, a bug. Stop and shout; never reject a tenant's data for it."""


_BY_CODE = {
    Remedy.REJECT: "22P05 22P02 22003 22007 22008 22021 54000 54001 23514 23502",
    Remedy.REVALIDATE: "23503",
    Remedy.RETRY: "40P01 40001",
    # 57014 is our own statement_timeout: the same again would take as long again.
    Remedy.HALVE: "53200 57014",
    Remedy.RECONNECT: "57P01 57P02 57P03 25006 25P03",
    # 55P03 is our own lock_timeout: whoever holds a table for that long is no passing meeting.
    Remedy.WAIT: "53100 53300 55P03",
}
_REMEDIES = {code: remedy for remedy, codes in _BY_CODE.items() for code in codes.split()}


def remedy(error: psycopg.Error | UnicodeEncodeError, *, connection_broken: bool) -> Remedy:
    """Say what to do about an error, given whether its connection still lives."""
    if isinstance(error, UnicodeEncodeError):
        return Remedy.REJECT
    code = error.sqlstate
    if code is None:
        # NUL in a text is refused by psycopg itself, before anything is sent.
        if isinstance(error, psycopg.DataError):
            return Remedy.REJECT
        return Remedy.RECONNECT if connection_broken else Remedy.FAULT
    if code in _REMEDIES:
        return _REMEDIES[code]
    return Remedy.RECONNECT if connection_broken or code.startswith("08") else Remedy.FAULT


def name_of(error: psycopg.Error | UnicodeEncodeError) -> str:
    """Name an error for logs and rejections: its SQLSTATE and constraint, never its text.

    The text may carry the whole row ("Failing row contains ...") or a password of the DSN.
    """
    if isinstance(error, UnicodeEncodeError):
        return "UnicodeEncodeError"
    parts = [error.sqlstate or type(error).__name__, error.diag.constraint_name]
    return " ".join(part for part in parts if part)
