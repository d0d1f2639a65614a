"""Attacks by a database login of a tenant."""

import asyncio
import contextlib
from typing import Any

import psycopg

from tests.chaos.hostile import Target


async def _sessions(url: str, number: int, *statements: str, hold: bool = False) -> None:
    """Run these on so many connections, again and again; `hold`: once, in a transaction that stays open."""

    async def one() -> None:
        while True:
            with contextlib.suppress(psycopg.Error):
                connection = await psycopg.AsyncConnection.connect(url, autocommit=not hold)
                async with connection:
                    # What follows then is a part of this transaction, and keeps its locks.
                    await connection.execute("SELECT 1")
                    while not connection.closed:
                        for statement in statements:
                            await _tried(connection, statement)
                        await asyncio.sleep(3600 if hold else 0.01)
            # PostgreSQL forks for each try, which nothing in it bounds: held connections are the attack.
            await asyncio.sleep(2)

    await asyncio.gather(*(one() for _ in range(number)))


async def _tried(connection: "psycopg.AsyncConnection[Any]", statement: str) -> None:
    """Try a statement, which may be refused, and keep the transaction."""
    try:
        if connection.autocommit:
            await connection.execute(statement)
        else:
            async with connection.transaction():
                await connection.execute(statement)
    except psycopg.Error:
        if connection.broken:
            raise


_KEYS = range(7309453202311081, 7309453202311100)
"""Of the advisory locks that there were, and some more."""
_MODES = ("ACCESS EXCLUSIVE", "SHARE", "SHARE UPDATE EXCLUSIVE", "ROW EXCLUSIVE", "ROW SHARE", "ACCESS SHARE")


async def psql_locks(target: Target) -> None:
    """A transaction that takes every lock that it can, and stays."""
    async with await psycopg.AsyncConnection.connect(target.database_url, autocommit=True) as connection:
        cursor = await connection.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'v')"
        )
        # The server's own, too: whoever may lock one of those stops more than us.
        tables = [name for (name,) in await cursor.fetchall()]
    await _sessions(
        target.database_url,
        1,
        "SET statement_timeout = 0",
        "SET lock_timeout = '100ms'",
        "SET idle_in_transaction_session_timeout = 0",
        *(f"SELECT pg_advisory_xact_lock({key})" for key in _KEYS),
        *(f"LOCK TABLE {table} IN {mode} MODE" for table in tables for mode in _MODES),
        *(f"SELECT FROM {table} FOR KEY SHARE" for table in tables),
        # These wait for a lock, or hold it, before any right is asked for.
        *(f"PREPARE p{number} AS DELETE FROM {table}" for number, table in enumerate(tables)),
        *(f"CREATE RULE x AS ON INSERT TO {table} DO NOTHING" for table in tables),
        hold=True,
    )


async def psql_bulk(target: Target) -> None:
    """Large objects, WAL and temporary tables, megabytes of each at a time."""
    await asyncio.gather(
        _sessions(
            target.database_url, 1, "SELECT lo_from_bytea(0, convert_to(repeat('x', 4000000), 'UTF8'))"
        ),
        _sessions(target.database_url, 1, "SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000))"),
        _sessions(
            target.database_url,
            1,
            "CREATE TEMPORARY TABLE IF NOT EXISTS bulk (x text)",
            "INSERT INTO bulk SELECT repeat('x', 1000) FROM generate_series(1, 2000)",
            "TRUNCATE bulk",
        ),
    )


async def psql_heavy(target: Target) -> None:
    """Questions without end, without bounds: four at once."""
    await _sessions(
        target.database_url,
        4,
        "SET statement_timeout = 0",
        "SET work_mem = '1GB'",
        "SELECT count(DISTINCT md5(n::text)) FROM generate_series(1, 900000) AS n",
    )


async def psql_connections(target: Target) -> None:
    """As many connections as there are, by a login of its own: the other has work for its own."""
    await _sessions(target.other_database_url, 60, "SELECT pg_sleep(3600)")
