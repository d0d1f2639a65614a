"""The figures as tables; medians, with the lowest and the highest round in brackets."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

Row = Mapping[str, Any]


def show(found: Mapping[str, Any]) -> None:
    """Print a table of each kind of figure that was found."""
    console = Console(width=150)
    for name, rows in found.items():
        title, columns = TABLES[name]
        table = Table(title=title, title_justify="left")
        for heading in columns:
            table.add_column(heading, justify="right")
        for row in rows:
            table.add_row(*(str(give(row)) for give in columns.values()))
        console.print(table)


def _of(name: str, digits: int = 0) -> Callable[[Row], str]:
    return lambda row: _figure(row[name], digits)


def _figure(value: Any, digits: int) -> str:
    match value:
        case {"median": median, "low": low, "high": high}:
            return f"{median:,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"
        case float() | int():
            return f"{value:,.{digits}f}"
        case _:
            return str(value)


def _bytes_a_message(row: Row) -> str:
    return f"{(row['bytes'] + row['toast_bytes'] + row['map_bytes']) / row['messages']:.1f}"


_COST: dict[str, Callable[[Row], str]] = {
    "rows/s": _of("rows_per_s"),
    "client µs": _of("client_cpu_us", 1),
    "database µs": _of("database_cpu_us", 1),
    "WAL bytes": _of("wal_bytes"),
    "buffers hit": _of("blocks_hit", 1),
    "read": _of("blocks_read", 2),
}

_SUSTAINED = {"ids": _of("ids"), "rows": _of("rows"), "settings": _of("settings")} | _COST

TABLES: Mapping[str, tuple[str, Mapping[str, Callable[[Row], str]]]] = {
    "cost": (
        "Store.save, right after a checkpoint; per row",
        {"ids": _of("ids"), "rows": _of("rows"), "batch": _of("batch")} | _COST,
    ),
    "sustained": (
        "Store.save without a pause into the largest table, by the server's settings; per row",
        _SUSTAINED,
    ),
    "roomy": ("Store.save without a pause, with room for WAL and buffers; per row", _SUSTAINED),
    "sizes": (
        "On disk",
        {
            "table": _of("table"),
            "ids": _of("ids"),
            "messages": _of("messages"),
            "relation": _of("relation"),
            "bytes": _of("bytes"),
            "a message": _bytes_a_message,
        },
    ),
    "questions": (
        "The DBA's ten questions, and ways to ask less",
        {
            "question": _of("words"),
            "first s": _of("first_s", 3),
            "again s": _of("again_s", 3),
            "rows": _of("rows"),
            "reads": _of("ways"),
        },
    ),
    "partitions": (
        "Insert by one statement, batches of 500, random ids, right after a checkpoint; per row",
        {"table": _of("table"), "rows": _of("rows")} | _COST,
    ),
    "planning": (
        "Before anything is read",
        {
            "table": _of("table"),
            "plan by key, ms": _of("key_ms", 3),
            "plan over all, ms": _of("all_ms", 3),
            "locks of an insert": _of("insert_locks"),
            "in the shared table": _of("insert_locks_shared"),
        },
    ),
    "removal": (
        "Removing the oldest month",
        {
            "table": _of("table"),
            "rows": _of("rows"),
            "DROP s": _of("dropped_s", 2),
            "DELETE s": _of("deleted_s", 2),
            "longest step s": _of("step_s_max", 3),
            "WAL bytes": _of("wal_bytes"),
            "VACUUM s": _of("vacuum_s", 2),
        },
    ),
}
"""By the name of the step: a title, and how each column is made."""
