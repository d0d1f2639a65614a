"""`tables.md`: every table with its columns, constraints and comments, from the catalogue of a database."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from tests.reference import MARK, cell

_RELATIONS = """
    SELECT oid, oid::regclass::text, relkind, obj_description(oid, 'pg_class')
    FROM pg_class
    WHERE relkind IN ('r', 'p', 'v')
      AND relnamespace IN ('public'::regnamespace, 'public_locks'::regnamespace)
    ORDER BY relnamespace::regnamespace::text, relname
"""
_COLUMNS = """
    SELECT attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid),
      col_description(attrelid, attnum)
    FROM pg_attribute LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)
    WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped
    ORDER BY attnum
"""
_CONSTRAINTS = """
    SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE conrelid = %s AND contype <> 'n'
    ORDER BY contype = 'p' DESC, conname
"""


def tables_page(connection: psycopg.Connection[Any]) -> str:
    """Write the page, by the tables of a migrated database."""
    parts = [
        MARK.format(source="the comments in sql/migrations"),
        "# Tables\n",
        "`\\d+` in `psql` shows the same. See also [queries](queries.md) and [roles](roles.md).\n",
    ]
    for oid, name, kind, comment in connection.execute(_RELATIONS).fetchall():
        parts += [f"## {name}\n", f"{'View. ' if kind == 'v' else ''}{comment or ''}\n"]
        parts += _columns(connection, oid)
        parts += _constraints(connection, oid)
    return "\n".join(parts)


def _columns(connection: psycopg.Connection[Any], oid: int) -> Iterator[str]:
    rows = connection.execute(_COLUMNS, [oid]).fetchall()
    if not rows:
        return
    lines = ["| column | type | meaning |", "| --- | --- | --- |"]
    for name, kind, not_null, default, comment in rows:
        facts = [f"`{kind}`", *["not null"] * not_null, *([f"default `{default}`"] if default else [])]
        lines.append(f"| `{name}` | {cell(', '.join(facts))} | {cell(_plain(comment))} |")
    yield "\n".join(lines) + "\n"


def _constraints(connection: psycopg.Connection[Any], oid: int) -> Iterator[str]:
    rows = connection.execute(_CONSTRAINTS, [oid]).fetchall()
    if rows:
        yield "\n".join(f"- `{name}`: `{definition}`" for name, definition in rows) + "\n"


def _plain(comment: str | None) -> str:
    return (comment or "").replace("<", "\\<").replace("*", "\\*")


def migrated_tables_page(folder: Path) -> str:
    """Write the page by a PostgreSQL that lives in `folder` for as long as that takes."""
    from processor.database.migrations import migrate  # noqa: PLC0415
    from processor.devstack.servers.postgres import EmbeddedPostgres  # noqa: PLC0415

    with (
        EmbeddedPostgres(folder, fsync=False, max_connections=10, passwords=False) as server,
        psycopg.connect(server.url(), autocommit=True) as connection,
    ):
        migrate(connection)
        return tables_page(connection)
