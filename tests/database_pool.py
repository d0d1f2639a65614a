"""Databases like a template, lent to one test at a time: one that comes back with its tables as they were is used again.

    lend ─▶ test ─▶ give back ─▶ emptied and seeded anew, to be lent again
                              └▶ dropped, where a catalog changed, many rows came or somebody still works in it

To make and drop a database costs a tenth of a second of CPU, to empty one costs a hundredth.
"""

import itertools
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

ROWS_MAX = 2_000
"""A database with more rows is dropped: dead rows would make the next test slow."""

LEAVE_S = 1.0
"""How long sessions that a test has closed may take to end."""

LOG = open("/work/wt/suite.tmp/pool.log", "a")
Connect = Callable[[str], psycopg.Connection[Any]]

_CATALOGS = """
    SELECT oid::regclass::text FROM pg_class
    WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r' AND NOT relisshared
      AND relname IN ('pg_attrdef', 'pg_attribute', 'pg_class', 'pg_constraint', 'pg_default_acl', 'pg_description',
        'pg_event_trigger', 'pg_extension', 'pg_language', 'pg_namespace', 'pg_policy', 'pg_proc', 'pg_sequence',
        'pg_trigger', 'pg_type')
    ORDER BY 1
"""
_TABLES = """
    SELECT quote_ident(nspname) || '.' || quote_ident(relname)
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relkind = 'r' AND relpersistence <> 't' AND nspname !~ '^pg_' AND nspname <> 'information_schema'
    ORDER BY 1
"""
_SEQUENCES = "SELECT schemaname, sequencename, coalesce(last_value, start_value), last_value IS NOT NULL FROM pg_sequences"
_OTHERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
_LASTING = {"pg_namespace": "WHERE nspname !~ '^pg_(toast_)?temp_'"}
"""A session that makes temporary tables leaves a schema for those of the next."""
_DATABASE = """
    UNION ALL
    SELECT (SELECT string_agg(item::text, ' ' ORDER BY item::text) FROM unnest(datacl) AS item),
      (SELECT count(*) FROM pg_db_role_setting WHERE setdatabase = pg_database.oid), datconnlimit
    FROM pg_database WHERE datname = current_database()
"""
_RIGHTS = """
    SELECT acl.privilege_type, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(rolname) END
    FROM pg_database CROSS JOIN LATERAL aclexplode(datacl) AS acl LEFT JOIN pg_roles ON pg_roles.oid = grantee
    WHERE datname = %s
"""


class DatabasePool:
    """Lends clones of the template on a server; `close` drops those that wait."""

    def __init__(self, server_url: str, template: str) -> None:
        self._server_url = server_url
        self._template = template
        self._numbers = itertools.count(1)
        self._idle: list[str] = []
        self._admin = psycopg.connect(server_url, autocommit=True)
        with self._connect(template) as connection:
            catalogs = [name for (name,) in connection.execute(_CATALOGS)]
            # A row that was changed or added is younger than all rows of the template; one that is gone is missed.
            [(newest,)] = connection.execute("SELECT pg_current_xact_id()::xid::text")
            self._fingerprint = " UNION ALL ".join(
                f"SELECT '{name}', count(*), count(*) FILTER (WHERE age(xmin) < age('{newest}'::xid))"
                f" FROM {name} {_LASTING.get(name, '')}"
                for name in catalogs
            )
            self._fingerprint += _DATABASE
            self._as_new = connection.execute(self._fingerprint.encode()).fetchall()
            self._tables = [name for (name,) in connection.execute(_TABLES)]
            self._count = " + ".join(f"(SELECT count(*) FROM {name})" for name in self._tables)
            self._reset = self._resetting(connection)
        self._rights = self._admin.execute(_RIGHTS, [template]).fetchall()

    def url(self, name: str) -> str:
        return urlunsplit(urlsplit(self._server_url)._replace(path=f"/{name}"))

    def lend(self) -> str:
        """Give the name of a database that is as the template, to be given back."""
        if self._idle:
            return self._idle.pop()
        name = f"{self._template}_{next(self._numbers)}"
        self._admin.execute(f"CREATE DATABASE {name} TEMPLATE {self._template}".encode())
        # Rights on a database itself are not copied with it.
        self._admin.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC".encode())
        for right, role in self._rights:
            self._admin.execute(f"GRANT {right} ON DATABASE {name} TO {role}".encode())
        return name

    def give_back(self, name: str) -> None:
        """Take a database back, whatever state it is in."""
        try:
            is_as_new = self._renewed(name)
        except (
            psycopg.Error
        ) as error:  # The test has dropped it, made it refuse us, or put one of its own there.
            is_as_new = False
            print(error, file=LOG)
        if is_as_new:
            self._idle.append(name)
        else:
            self._admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())

    def close(self) -> None:
        for name in self._idle:
            self._admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
        self._admin.close()

    def _connect(self, name: str) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url(name), autocommit=True)

    def _renewed(self, name: str) -> bool:
        """Empty it and seed it; False: it is no longer what the template was, or in use."""
        with closing(self._connect(name)) as connection:
            if not self._is_left(connection):
                print(
                    "in use",
                    connection.execute(
                        "SELECT * FROM pg_stat_activity WHERE datname=current_database()"
                    ).fetchall(),
                    file=LOG,
                    flush=True,
                )
                return False
            now = connection.execute(self._fingerprint.encode()).fetchall()
            if now != self._as_new:
                print([(a, b) for a, b in zip(now, self._as_new) if a != b], file=LOG, flush=True)
                return False
            row = connection.execute(f"SELECT {self._count}".encode()).fetchone()
            if row is None or row[0] > ROWS_MAX:
                return False
            connection.execute(self._reset.encode())
            return True

    @staticmethod
    def _is_left(connection: psycopg.Connection[Any]) -> bool:
        give_up_at = time.monotonic() + LEAVE_S
        while connection.execute(_OTHERS).fetchone() != (0,):
            if time.monotonic() > give_up_at:
                return False
            time.sleep(0.005)
        return True

    def _resetting(self, connection: psycopg.Connection[Any]) -> str:
        """Write what makes a database as the template: no rows but its own, and its numbers."""
        # Neither foreign keys nor triggers: what was right in the template is right again.
        statements = ["SET session_replication_role = replica"]
        statements += [f"DELETE FROM {table}" for table in self._tables]
        for table in self._tables:
            row = connection.execute(
                f"SELECT coalesce(jsonb_agg(to_jsonb(t)), '[]')::text FROM {table} AS t".encode()
            ).fetchone()
            assert row is not None
            if row[0] != "[]":
                rows = sql.Literal(row[0]).as_string(connection)
                statements.append(
                    f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM jsonb_populate_recordset(NULL::{table}, {rows})"
                )
        for schema, name, value, is_called in connection.execute(_SEQUENCES).fetchall():
            sequence = sql.Literal(f"{schema}.{name}").as_string(connection)
            statements.append(f"SELECT setval({sequence}, {value}, {is_called})")
        return "; ".join(statements)
