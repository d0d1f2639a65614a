"""`processor dispatch` with a place in which it kills itself.

    python -m tests.chaos.victims.dying_dispatch PLACE dispatch

A place is `before STEP` or `after STEP`; a step is a statement by its name, `send`, or the commit of a step.
"""

import sys
from typing import Any

import psycopg

from processor.cli import main
from processor.database.queries import queries
from processor.handover.sink import HttpSink
from tests.chaos.victims.dying import die, dying_at

_STEPS = ("close", "put_in_batch", "claim_batch", "send", "mark_lines", "finish_batch")
_COMMITTED = ("close", "put_in_batch", "finish_batch")
PLACES = [
    f"{when} {step}"
    for step in (*_STEPS, *(f"commit of {step}" for step in _COMMITTED))
    for when in ("before", "after")
]

_STATEMENTS = {
    text: name for file in ("windows", "dispatch") for name, text in queries(file).items() if name in _STEPS
}


def arm(place: str) -> None:
    """Make the process die at a place; a step that finds nothing to do is none."""
    setattr(HttpSink, "send", dying_at(place, "send", HttpSink.send))  # noqa: B010 - as mypy sees it, a method
    execute = psycopg.Cursor.execute
    last = ""

    def watched(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal last
        step = _STATEMENTS.get(query)
        if step is None:
            return execute(cursor, query, *args, **kwargs)
        last = step
        if place == f"before {step}":
            die()
        result = execute(cursor, query, *args, **kwargs)
        if place == f"after {step}" and result.rowcount:
            die()
        return result

    leave = psycopg.Transaction.__exit__

    def leaving(transaction: psycopg.Transaction, *details: Any) -> Any:
        nonlocal last
        step, last = last, ""
        return dying_at(place, f"commit of {step}", leave)(transaction, *details)

    psycopg.Cursor.execute = watched  # type: ignore[method-assign, assignment]
    psycopg.Transaction.__exit__ = leaving  # type: ignore[method-assign]


if __name__ == "__main__":
    arm(sys.argv.pop(1))
    main()
