"""The question of every bill: what did it come to? By tenant, meter, window and group, row by row."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson
from psycopg.rows import dict_row

from processor.database.queries import queries
from processor.errors import SettingsError
from processor.usage.selection import Connection, Row, TotalsSelection, choose, digits, moment

_PAGE = 2000


@contextmanager
def totals(
    connection: Connection, selection: TotalsSelection, groups: Mapping[str, str], *, limit: int | None = None
) -> Iterator[tuple[list[str], Iterator[Row]]]:
    """Ask for the totals of a selection in which each of `groups` has that value; `limit` None: for all.

    Gives the names that the meters group by, and the rows in the order of tenant, meter, window and group, in
    pages, so that millions cost no memory: tenant, meter, window_start (RFC 3339, None without windows),
    group, value (a string, with all its digits), messages, revision, state. All are of one moment, and can be
    read as long as the block lasts. Raises NotFound for an unknown tenant or meter, SettingsError for windows
    that make no sense or a name that no meter groups by.
    """
    with connection.transaction():
        names = _group_names(choose(connection, selection).meters, groups)
        parameters = {
            "tenant_id": selection.tenant_id,
            "meter": selection.meter,
            "window_from": selection.window_from,
            "window_until": selection.window_until,
            "group_by": orjson.dumps(dict(groups)).decode() if groups else None,
            "limit": limit,
        }
        with connection.cursor("totals", row_factory=dict_row) as cursor:
            cursor.itersize = _PAGE
            cursor.execute(queries("usage")["totals"], parameters)
            yield names, (_named(row, names) for row in cursor)


def _group_names(meters: list[Row], groups: Mapping[str, str]) -> list[str]:
    names = list(dict.fromkeys(name for meter in meters for name in meter["group_names"]))
    for name in groups:
        if name not in names:
            there = ", ".join(names) or "nothing"
            raise SettingsError(f"no meter that is asked for groups by {name!r}; they group by {there}")
    return names


def _named(row: Row, names: list[str]) -> dict[str, Any]:
    group = row["group_by"]
    return {
        "tenant_id": row["tenant_id"],
        "meter": row["meter"],
        "window_start": moment(row["window_start"]),
        # In the order of the meter, which jsonb does not keep.
        "group": {name: group[name] for name in names if name in group},
        "value": digits(row["value"]),
        "messages": row["messages"],
        "revision": row["revision"],
        "state": row["state"],
    }
