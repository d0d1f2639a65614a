"""A fresh database per test, cloned from a migrated template, and what speaks to it."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from processor import registry
from processor.bindings import UNBOUND, Bindings
from processor.connection import connect
from processor.migrations import migrate
from processor.model import Delivery, Settlement
from processor.patience import Patience
from processor.schemas import Schemas
from processor.store import Store
from tests.builders import ORDER_SCHEMA
from tests.database_pool import DatabasePool

REGISTRY_WAITS = """
    SELECT 1 FROM pg_locks
    WHERE NOT granted AND relation = 'public_locks.registry_lock'::regclass
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
"""Gives a row while somebody waits for the registry's lock, in this database."""


def _at(server_url: str, database: str) -> str:
    return urlunsplit(urlsplit(server_url)._replace(path=f"/{database}"))


@pytest.fixture(scope="session")
def template(server_url: str) -> Iterator[str]:
    """A migrated database with tenants acme and globex, and the shared event type order.created."""
    name = f"processor_template_{os.getpid()}"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        admin.execute(f"CREATE DATABASE {name}")
        with psycopg.connect(_at(server_url, name), autocommit=True) as connection:
            migrate(connection)
            registry.add_tenant(connection, "acme")
            registry.add_tenant(connection, "globex")
            registry.publish_schema(connection, "order.created", ORDER_SCHEMA)
        yield name
        admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def database_pool(server_url: str, template: str) -> Iterator[DatabasePool]:
    with closing(DatabasePool(server_url, template)) as pool:
        yield pool


@pytest.fixture
def database_url(database_pool: DatabasePool) -> Iterator[str]:
    """The owner's URL of a database of this test's own, seeded as the template is."""
    name = database_pool.lend()
    yield database_pool.url(name)
    database_pool.give_back(name)


@pytest.fixture
def db(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the owner, in autocommit mode."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@dataclass
class Saver:
    """A store with schemas of its own: what one process has."""

    schemas: Schemas
    store: Store

    def save(self, *deliveries: Delivery) -> list[Settlement]:
        return self.store.save([self.schemas.validate(delivery) for delivery in deliveries])

    def outcomes(self, *deliveries: Delivery) -> list[str]:
        """Save, and say what became of each: the outcome, or the reason of a rejection."""
        return [settlement.reason or settlement.outcome for settlement in self.save(*deliveries)]

    def close(self) -> None:
        self.store.close()


def a_bound_saver(url: str, bindings: Bindings = UNBOUND) -> Saver:
    """A saver whose deliveries may speak for some tenants alone; to be closed."""
    schemas = Schemas(body_bytes_max=1024 * 1024, json_depth_max=64, bindings=bindings)
    patience = Patience("database", wait_s_max=0.2, stop=threading.Event())
    store = Store(lambda: connect(url, timeout_s=20), schemas, patience, timeout_s=20)
    store.load_registry()
    return Saver(schemas, store)


MakeSaver = Callable[[], Saver]


@pytest.fixture
def make_saver(database_url: str) -> Iterator[MakeSaver]:
    """Makes savers that share nothing but the database, as processes do."""
    made: list[Saver] = []

    def make() -> Saver:
        made.append(a_bound_saver(database_url))
        return made[-1]

    yield make
    for saver in made:
        saver.close()


@pytest.fixture
def saver(make_saver: MakeSaver) -> Saver:
    return make_saver()


def count(db: psycopg.Connection[Any], table: str) -> int:
    row = db.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row is not None
    return int(row[0])


def books(db: psycopg.Connection[Any]) -> dict[str, int]:
    """How many rows each of the three tables has."""
    return {table: count(db, table) for table in ("message", "duplicate", "rejection")}


class LogIn(Protocol):
    """Makes a login that is a member of the group roles named, and nothing else; gives its URL."""

    def __call__(self, *groups: str, name: str | None = None) -> str: ...


@pytest.fixture
def log_in(database_url: str) -> Iterator[LogIn]:
    made = []
    with psycopg.connect(database_url, autocommit=True) as admin:

        def make(*groups: str, name: str | None = None) -> str:
            login = f"{name or '_'.join(groups) or 'stranger'}_{os.getpid()}"
            admin.execute(f"DROP ROLE IF EXISTS {login}")
            admin.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'secret'")
            made.append(login)
            for group in groups:
                admin.execute(f"GRANT {group} TO {login}")
            if "processor_tenant_reader" in groups:
                admin.execute(f"ALTER ROLE {login} CONNECTION LIMIT 50")
                admin.execute(f"ALTER ROLE {login} SET temp_file_limit = '1GB'")
                admin.execute(f"ALTER ROLE {login} SET log_min_messages = 'panic'")
            parts = urlsplit(database_url)
            return parts._replace(netloc=f"{login}:secret@{parts.hostname}:{parts.port}").geturl()

        yield make
        for login in reversed(made):
            admin.execute(f"DROP OWNED BY {login}")
            admin.execute(f"DROP ROLE {login}")


def login_of(url: str) -> str:
    """The name of the login in a URL."""
    return urlsplit(url).username or ""
