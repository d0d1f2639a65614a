"""Retention: old rows are removed in small steps beside running processors, and counted in `removal`.

    ages ─▶ cutoffs ─▶ message ─▶ duplicate ─▶ rejection (closed)
                        each table once, from its first block to its last, window by window:
                        remove some rows and count them ══COMMIT══▶ pause ─▶ the next

Messages are chosen beside saves, but removed while no save is in progress: an uncommitted save that has just
found its message here would not be visible.

Totals keep the amounts of removed messages. These amounts are stored in `usage_removal`, so that verify still
holds.

A key must outlive every possible redelivery: the queue and then its dead-letter queue hold a message for up
to 14 days each. So no retention may be below that of the keys, and a message stays while a duplicate or an
open rejection had its key within that time. Rejections discarded by a rule are removed after a day in any
case.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import psycopg
from psycopg.rows import dict_row

from processor.database.books_lock import maintenance_lock
from processor.database.queries import queries
from processor.errors import SettingsError

Connection: TypeAlias = psycopg.Connection[Any]
Row: TypeAlias = dict[str, Any]

WINDOW_BLOCKS = 1024
"""8 MiB: the part of a table that one statement scans."""

RULED_DAYS = 1
"""The retention of rejections discarded by a rule."""

_LOCK_WAIT_MS = 2000
"""Saves queue behind a waiting lock. So the wait is short, and the step is retried."""

_LOCK_TRIES = 3
"""No save takes that long or locks old rows. Only a person's transaction does, which ends the run."""

_TABLES = {
    # By table: the queries of plan and removal. Messages first, while the rows that keep them still exist, so
    # that the plan matches the removal.
    "message": ("plan_messages", "remove_messages"),
    "duplicate": ("plan_duplicates", "remove_duplicates"),
    "rejection": ("plan_rejections", "remove_rejections"),
}


@dataclass(frozen=True, slots=True)
class Ages:
    """The retention by table in days; None: for ever. None may be less than `key`."""

    message: int | None
    duplicate: int | None
    rejection: int | None
    key: int

    def as_dict(self) -> dict[str, int | None]:
        """Return the days by table."""
        return {table: getattr(self, table) for table in _TABLES}

    @property
    def any_set(self) -> bool:
        """Whether any retention is set."""
        return any(days is not None for days in self.as_dict().values())


@dataclass(frozen=True, slots=True)
class Step:
    """One transaction of `apply`: the removed rows, and the scanned part of the table."""

    table: str
    removed: int
    read_ratio: float


def plan(connection: Connection, ages: Ages) -> list[Row]:
    """Count the rows that `apply` would remove now, by tenant and outcome; read-only.

    `kept_count` are old messages that stay because their keys were seen again recently.
    """
    rows: list[Row] = []
    sql = queries("retention")
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(sql["freeze_snapshot"])
        moments = _cutoffs(connection, ages)
        for table, (question, _) in _TABLES.items():
            if _any_old(moments, table):
                rows += cursor.execute(sql[question], _bounds(moments, table)).fetchall()
    return sorted(rows, key=lambda row: (row["outcome"], row["tenant_id"]))


def apply(
    connection: Connection,
    ages: Ages,
    *,
    step_size: int,
    pause_s: float,
    stop: threading.Event,
    statement_timeout_s: float,
    on_step: Callable[[Step], object] = lambda _step: None,
) -> dict[str, int]:
    """Remove rows beyond the retention, up to `step_size` per transaction; returns rows by table.

    Each transaction removes rows and stores their count, so an interrupted run is consistent, and the next
    run continues. `stop` ends it after the current step. Raises Busy while another process removes rows,
    SettingsError for a retention below the database's minimum.
    """
    sql = queries("retention")
    connection.execute(
        sql["prepare_session"],
        {
            "statement_timeout_ms": str(int(statement_timeout_s * 1000)),
            "lock_timeout_ms": str(_LOCK_WAIT_MS),
        },
    )
    with maintenance_lock(connection) as still_held:
        # Fixed for the whole run: rows that become old enough meanwhile wait for the next run.
        moments = _cutoffs(connection, ages)
        removed = {table: 0 for table in _TABLES if _any_old(moments, table)}
        for step in _steps(connection, moments, step_size):
            removed[step.table] += step.removed
            on_step(step)
            if stop.wait(pause_s if step.removed else 0):
                break
            still_held()
        return removed


def forgotten_before(connection: Connection, key_days: int) -> datetime | None:
    """Return the time before which sent messages may have been removed; None: none was removed."""
    moment: datetime | None = _value(connection, "forgotten_before", key_days=key_days)
    return moment


def _steps(connection: Connection, moments: Row, step_size: int) -> Iterator[Step]:
    for table, (_, deed) in _TABLES.items():
        if _any_old(moments, table):
            bounds = _bounds(moments, table) | {"step_size": step_size}
            yield from _walk(connection, table, deed, bounds)


def _walk(connection: Connection, table: str, deed: str, bounds: dict[str, Any]) -> Iterator[Step]:
    """Scan a table once. Rows added meanwhile are young, and old rows don't move."""
    blocks = int(_value(connection, "blocks", relation=table))
    for start in range(0, blocks, WINDOW_BLOCKS):
        end = min(start + WINDOW_BLOCKS, blocks)
        after, full = f"({start},0)", True
        while full:
            window = bounds | {"after": after, "until": f"({end},0)"}
            chosen, removed, after = _tried(connection, deed, window)
            full = chosen == bounds["step_size"]
            yield Step(table, removed, end / blocks)


def _tried(connection: Connection, deed: str, window: Mapping[str, Any]) -> tuple[Any, ...]:
    for _ in range(_LOCK_TRIES - 1):
        with suppress(psycopg.errors.LockNotAvailable):
            return _done(connection, deed, window)
    return _done(connection, deed, window)


def _done(connection: Connection, deed: str, window: Mapping[str, Any]) -> tuple[Any, ...]:
    with connection.transaction():
        if deed == "remove_messages":
            return _remove_messages(connection, window)
        return _row(connection, deed, window)


def _remove_messages(connection: Connection, window: Mapping[str, Any]) -> tuple[int, int, str]:
    places, last = _row(connection, "choose_messages", window)
    if not places:
        return 0, 0, ""
    (removed,) = _row(connection, "remove_messages", dict(window) | {"places": places})
    return len(places), removed, last


def _any_old(moments: Row, table: str) -> bool:
    """Tell whether rows of a table can be old enough."""
    return moments[f"{table}_before"] is not None or (
        table == "rejection" and moments["ruled_before"] is not None
    )


def _bounds(moments: Row, table: str) -> Row:
    return {
        "before": moments[f"{table}_before"],
        "ruled_before": moments["ruled_before"],
        "seen_since": moments["seen_since"],
    }


def _cutoffs(connection: Connection, ages: Ages) -> Row:
    days = {f"{table}_days": age for table, age in ages.as_dict().items()}
    days |= {"key_days": ages.key, "ruled_days": RULED_DAYS}
    with connection.cursor(row_factory=dict_row) as cursor:
        [row] = cursor.execute(queries("retention")["cutoffs"], days).fetchall()
    if ages.key < row["floor_days"]:
        raise SettingsError(
            f"KEY_RETENTION_DAYS={ages.key} is less than the {row['floor_days']} days that the database "
            "keeps each row at least; raise it, or, as the owner of the tables, lower retention_floor.days"
        )
    return row


def _value(connection: Connection, name: str, **parameters: Any) -> Any:  # noqa: ANN401 - whatever is asked for
    (value,) = _row(connection, name, parameters)
    return value


def _row(connection: Connection, name: str, parameters: Mapping[str, Any]) -> tuple[Any, ...]:
    # Never prepared: a generic plan would not use the small size of the window.
    row = connection.execute(queries("retention")[name], parameters, prepare=False).fetchone()
    assert row is not None  # noqa: S101 - each of these queries gives one row
    return tuple(row)
