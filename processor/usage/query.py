"""The query of totals by tenant, meter, window and group, row by row."""

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
    """Query the totals of a selection whose `groups` have these values; `limit` None: all.

    Yields the group names of the meters, and the rows ordered by tenant, meter, window and group, in pages,
    so that millions of rows need little memory: tenant, meter, window_start (RFC 3339, None without windows),
    group, value (a string, with all its digits), messages, revision, state. All rows are of one
    snapshot, and can be read within the `with` block. Raises NotFound for an unknown tenant or meter,
    SettingsError for invalid windows or an unknown group name.
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
        # In the meter's order, which jsonb does not preserve.
        "group": {name: group[name] for name in names if name in group},
        "value": digits(row["value"]),
        "messages": row["messages"],
        "revision": row["revision"],
        "state": row["state"],
    }
