"""Reconciliation after a restore: lines that only the sink has are imported, under the sink's keys.

    FILE (the sink's lines) ─▶ compare by key ─┬▶ known                       nothing to do
                                               ├▶ maybe of a namesake ──────▶ the operator decides
                                               ├▶ waits here, or differs ───▶ marked, with the sink's amount
                                               ├▶ missing here ─────────────▶ imported, as handed over
                                               └▶ missing there ────────────▶ reported, or sent again

Changed windows close once more, so the difference to their messages is handed over, and the sum of all lines
equals the total again. Everything happens in one transaction.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import dict_row

from processor.database.queries import queries
from processor.errors import Busy, SettingsError
from processor.handover import batches
from processor.handover.lines import LineId
from processor.handover.sink_lines import SinkLine
from processor.usage.selection import Connection, Row, digits, moment

_KEPT_MAX = 1000
_STEP_SIZE = 10_000

FINDINGS = {
    "known": "known to both",
    "not_marked": "that waited here, and that the sink has: marked as handed over",
    "other_amount": "with another amount than the sink has under their key: the sink's amount is noted",
    "missing_here": "that only the sink had: brought in as handed over",
    "of_earlier_life": "of a window that ended before their tenant or meter was added here",
    "missing_there": "marked as handed over, and missing at the sink",
    "of_nobody": "of a tenant or a meter that is not here",
    "key_of_another": "whose key stands for another line here",
}
"""The findings about a line, as people read them."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The operator's decisions about lines that block the reconciliation.

    `send_again` sends lines again that the sink lacks. `partial` states that the sink may have more lines
    than the file. `leave_unknown` skips lines of unknown tenants and meters. `leave_earlier` skips lines of
    an erased namesake; `bring_in_earlier` states that they belong to the present tenant or meter.
    """

    send_again: bool = False
    partial: bool = False
    leave_unknown: bool = False
    leave_earlier: bool = False
    bring_in_earlier: bool = False
    dry_run: bool = False


@dataclass(slots=True)
class Reconciled:
    """The number of lines by finding, and the first lines that are not known to both sides.

    `differences` are the first lines of the next dispatch, negative amounts first, unless messages are stored
    before it; the counts are of all of them. With `open_findings`, which need a decision, nothing was
    changed; otherwise `place` is the present place of the hand-over.
    """

    counts: dict[str, int]
    examples: list[Row]
    differences: list[Row]
    difference_count: int
    negative_count: int
    open_findings: list[str] = field(default_factory=list)
    place: str | None = None


def nothing_lost(connection: Connection) -> str:
    """Allow hand-over from this place, since no handed-over line is missing here; returns the place."""
    connection.execute(queries("usage")["prepare_rebuild"])
    return _note_place(connection, "nothing_lost")


def reconcile(connection: Connection, lines: Iterable[SinkLine], choice: Choice) -> Reconciled:
    """Compare the sink's lines with ours, and import the sink's state; idempotent.

    Open findings or `dry_run` roll everything back. Raises Busy while a dispatcher sends, and SettingsError
    for lines that the tables can't hold.
    """
    connection.execute(queries("usage")["prepare_rebuild"])
    with connection.transaction() as transaction:
        _lock(connection)
        _note_keys(connection)
        _take_in(connection, lines)
        done = _compare(connection, choice)
        done.open_findings = _open(done.counts, choice)
        if done.open_findings or choice.dry_run:
            raise psycopg.Rollback(transaction)
        _apply(connection, choice)
        done.place = _note_place(connection, "reconciled")
    return done


def _lock(connection: Connection) -> None:
    """Block closing, batching and sending until the end; the lock order is that of the other commands."""
    connection.execute(queries("windows")["wait_for_turn"])
    connection.execute(queries("dispatch")["wait_for_turn"])
    try:
        connection.execute(queries("reconcile")["lock_batches"])
    except psycopg.errors.LockNotAvailable:
        raise Busy(
            "a `processor dispatch` is sending at this moment; end it first, then run this again"
        ) from None


def _note_keys(connection: Connection) -> None:
    """Store the computed keys of lines of older releases, so that all lines are found by key."""
    sql = queries("reconcile")
    while rows := connection.execute(sql["lines_without_key"], {"limit": _STEP_SIZE}).fetchall():
        named = [(LineId(*row[:5]), row[5]) for row in rows]
        keys = [line.key(meter) for line, meter in named]
        columns = batches.columns([line for line, _ in named])
        connection.execute(sql["note_keys"], columns | {"line_key": keys})


def _take_in(connection: Connection, lines: Iterable[SinkLine]) -> None:
    sql = queries("reconcile")
    connection.execute(sql["create_sink_lines"])
    try:
        with connection.cursor() as cursor:
            with cursor.copy(sql["fill_sink_lines"]) as copy:
                for line in lines:
                    copy.write_row(line.row())
            cursor.execute(sql["spell_groups"])
    except (psycopg.DataError, UnicodeEncodeError):
        raise SettingsError(
            "the tables can't take a line of this file; expected what we sent, as UTF-8"
        ) from None
    connection.execute(sql["find_meters"])


def _compare(connection: Connection, choice: Choice) -> Reconciled:
    sql = queries("reconcile")
    connection.execute(sql["compare_lines"], {"bring_in_earlier": choice.bring_in_earlier})
    counts = dict.fromkeys(FINDINGS, 0) | dict(connection.execute(sql["findings"]).fetchall())
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(sql["examples"], {"kept": _KEPT_MAX}).fetchall()
        asked = {"kept": _KEPT_MAX, "leave_earlier": choice.leave_earlier}
        differing = cursor.execute(sql["differences"], asked).fetchall()
    examples = [
        {
            "finding": row["finding"],
            "tenant_id": row["tenant_id"],
            "meter": row["meter"],
            "window_start": moment(row["window_start"]),
            "group": row["group_by"],
            "revision": row["revision"],
            "value": digits(row["value"]),
            "messages": row["messages"],
            "key": row["line_key"],
        }
        for row in rows
    ]
    return Reconciled(
        counts,
        examples,
        differences=[
            {
                "tenant_id": row["tenant_id"],
                "meter": row["meter"],
                "window_start": moment(row["window_start"]),
                "group": row["group_by"],
                "value": digits(row["value"]),
            }
            for row in differing
        ],
        difference_count=differing[0]["found_count"] if differing else 0,
        negative_count=differing[0]["negative_count"] if differing else 0,
    )


def _open(counts: Mapping[str, int], choice: Choice) -> list[str]:
    decided = {
        "missing_there": choice.send_again or choice.partial,
        "of_nobody": choice.leave_unknown,
        "of_earlier_life": choice.leave_earlier,
        "key_of_another": False,
    }
    return [finding for finding, fine in decided.items() if counts[finding] and not fine]


def _apply(connection: Connection, choice: Choice) -> None:
    sql = queries("reconcile")
    steps = ["take_over", "bring_in", "add_lines_up", "open_totals"]
    for step in steps + ["send_again"] * choice.send_again:
        connection.execute(sql[step])


def _note_place(connection: psycopg.Connection[Any], reason: str) -> str:
    [(place,)] = connection.execute(queries("reconcile")["note_place"], {"reason": reason}).fetchall()
    return str(place)
