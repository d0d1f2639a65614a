"""`processor run` that kills itself in a place: `python -m tests.chaos.victims.dying PLACE run`.

A place is `before STEP` or `after STEP`; a step is a call to the queue (receive, settle), a query of
`sql/queries/save.sql` by its name, `validate`, or `commit`. The program itself knows nothing of this.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import psycopg

from processor.cli import main
from processor.database.queries import queries
from processor.sources.rabbitmq.source import RabbitMqSource
from processor.sources.sqs.source import SqsSource
from processor.validation.validator import Schemas

NOTHING_COMMITTED = [
    "before receive",
    "after receive",
    "before validate",
    "after validate",
    "before insert_messages",
    "after insert_messages",
    "before insert_voided",
    "after insert_voided",
    "before raise_totals",
    "after raise_totals",
    "before classify_messages",
    "after classify_messages",
    "before insert_duplicates",
    "after insert_duplicates",
    "before insert_rejections",
    "after insert_rejections",
    "before commit",
]
COMMITTED = ["after commit", "before settle", "after settle"]

_STATEMENTS = {
    text: name
    for name, text in queries("save").items()
    if name.startswith(("insert", "raise", "classify", "hold", "lock", "close", "reject", "register_"))
}


def die() -> None:
    """Be killed, as by somebody else."""
    os.kill(os.getpid(), signal.SIGKILL)


def dying_at(place: str, step: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function that dies before or after its work, if that is the place."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if place == f"before {step}":
            die()
        result = original(*args, **kwargs)
        # An empty poll is no receive: the place is meant, not the waiting for it.
        if place == f"after {step}" and result != []:
            die()
        return result

    return wrapped


def arm(place: str) -> None:
    """Make the process die at a place."""
    steps = [(source, step) for source in (SqsSource, RabbitMqSource) for step in ("receive", "settle")]
    for owner, step in (*steps, (Schemas, "validate")):
        setattr(owner, step, dying_at(place, step, getattr(owner, step)))

    execute = psycopg.Cursor.execute

    def watched(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        step = _STATEMENTS.get(query)
        # The registry is also held once at the start, on a connection and not on a batch's cursor.
        return (
            execute(cursor, query, *args, **kwargs)
            if step is None
            else dying_at(place, step, execute)(cursor, query, *args, **kwargs)
        )

    psycopg.Cursor.execute = watched  # type: ignore[method-assign, assignment]

    leave = psycopg.Transaction.__exit__

    def leaving(transaction: psycopg.Transaction, *details: Any) -> Any:
        # Only a transaction that wrote a row is meant: the registry is read in one, too.
        wrote = transaction.connection.execute(
            "SELECT pg_current_xact_id_if_assigned() IS NOT NULL"
        ).fetchone()
        return (dying_at(place, "commit", leave) if wrote == (True,) else leave)(transaction, *details)

    psycopg.Transaction.__exit__ = leaving  # type: ignore[method-assign]


if __name__ == "__main__":
    arm(sys.argv.pop(1))
    main()
