"""Rebuilding totals from their messages, including messages from before a meter was active, beside ingestion.

    lock ─▶ cover the windows ══COMMIT══▶ find what differs (one snapshot) ─▶ add some ══COMMIT══▶ add some …

Totals are never set, only increased or decreased. A message and its addition to a total are committed
together, so the snapshot has both or neither, and the difference is right whenever it is added, in any order.
From the first commit on, a void subtracts older messages too, as if they had been counted; the differences
compensate for it. An interrupted rebuild leaves totals that verify reports and the next rebuild repairs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import psycopg
from psycopg.rows import dict_row

from processor.database.books_lock import maintenance_lock
from processor.database.queries import queries
from processor.errors import NotFound, SettingsError
from processor.usage.selection import Chosen, Connection, Row, TotalsSelection, choose, digits, moment

STEP_SIZE = 500
"""The most totals changed in one transaction, which bounds the wait of saves."""

_KEPT_MAX = 1000


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The changes of a rebuild, or of its dry run.

    `totals` counts the changed totals, `differences` are the first of them; `misses` counts the messages of
    these windows that the meter can't count. `counts_older` is True if messages from before the meter was
    active are counted: not for a single tenant of a shared meter.
    """

    totals: int
    misses: int
    counts_older: bool
    differences: list[Row]


def rebuild(
    connection: Connection,
    selection: TotalsSelection,
    *,
    dry_run: bool = False,
    on_step: Callable[[int], object] = lambda _added: None,
) -> Rebuilt:
    """Correct the totals of a meter by their differences to the messages; idempotent.

    Changed windows that were closed get another revision when they close again. `dry_run` changes nothing.
    Raises NotFound for an unknown tenant or meter, SettingsError for invalid windows, Busy while another
    process rebuilds or removes old messages.
    """
    sql = queries("usage")
    if selection.meter is None:
        raise NotFound("which meter? `processor meter list` shows those there are")
    connection.execute(sql["prepare_rebuild"])
    chosen = choose(connection, selection)
    with maintenance_lock(connection) as still_held:
        if dry_run:
            with connection.transaction(force_rollback=True):
                return _find(connection, chosen, selection)
        rebuilt = _find(connection, chosen, selection)
        _add(connection, rebuilt.totals, still_held, on_step)
        return rebuilt


def _find(connection: Connection, chosen: Chosen, selection: TotalsSelection) -> Rebuilt:
    """Mark the windows as rebuilt, and compute the differences."""
    sql = queries("usage")
    # The windows of a shared meter are marked for all tenants, or for none.
    covered = [
        meter["meter_id"]
        for meter in chosen.meters
        if selection.tenant_id is None or meter["tenant_id"] is not None
    ]
    parameters = chosen.parameters
    # Committed before the snapshot below, except in a dry run: later saves and voids see the mark.
    try:
        connection.execute(sql["cover_windows"], parameters | {"meter_ids": covered})
    except psycopg.errors.UniqueViolation:
        raise SettingsError(
            f"messages from before meter {selection.meter!r} was active are another meter's, whose lines "
            "look like its own: the sink would have them twice; rebuild the meter that was active first"
        ) from None
    connection.execute(sql["drop_differences"])
    connection.execute(sql["create_differences"])
    with connection.cursor(row_factory=dict_row) as cursor:
        [counts] = cursor.execute(sql["find_differences"], parameters, prepare=False).fetchall()
        connection.execute(sql["index_differences"])
        rows = cursor.execute(sql["list_differences"], {"kept": _KEPT_MAX}).fetchall()
    differences = [
        {
            "tenant_id": row["tenant_id"],
            "meter": row["meter"],
            "window_start": moment(row["window_start"]),
            "group": row["group_by"],
            "value": digits(row["value"]),
            "messages": row["messages"],
        }
        for row in rows
    ]
    return Rebuilt(counts["found_count"], counts["miss_count"], bool(covered), differences)


def _add(
    connection: Connection, count: int, still_held: Callable[[], object], on_step: Callable[[int], object]
) -> None:
    sql = queries("usage")
    for after in range(0, count, STEP_SIZE):
        until = min(after + STEP_SIZE, count)
        still_held()
        connection.execute(sql["add_differences"], {"after": after, "until": until})
        on_step(until)
    connection.execute(sql["drop_differences"])
