"""Changing the registry: what is taken, and how every process comes to know of it."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from processor.errors import NotFound, SettingsError
from processor.operations import reader, registry
from processor.schemas.schema_text import schema_value
from tests.builders import ORDER_SCHEMA, a_delivery
from tests.fixtures.database import Saver, count

Db = psycopg.Connection[Any]

EMOJI = "\U0001f980"


def version(db: Db) -> int:
    row = db.execute("SELECT version FROM registry").fetchone()
    assert row is not None
    return int(row[0])


@contextmanager
def a_psql_session(url: str) -> Iterator[Db]:
    """A connection in a transaction of its own, as somebody leaves one open in psql."""
    with psycopg.connect(url, autocommit=True) as connection, connection.transaction(force_rollback=True):
        yield connection


# ── tenants ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_tenant_is_added_once_and_left_as_it_is(db: Db) -> None:
    assert registry.add_tenant(db, "initech", "Initech Inc.")
    assert not registry.add_tenant(db, "initech", "Other")

    [row] = [row for row in reader.tenants(db) if row["tenant_id"] == "initech"]
    assert (row["name"], row["status"]) == ("Initech Inc.", "active")


def test_a_tenant_without_a_name_is_called_by_its_id(db: Db) -> None:
    registry.add_tenant(db, "initech")

    assert {row["name"] for row in reader.tenants(db)} == {"acme", "globex", "initech"}


@pytest.mark.parametrize("tenant_id", ["", "x" * 257, "a\nb", "a\0b", "\x1f", "\x7f", "\x85", "\ud800"])
def test_what_no_event_could_name_is_no_tenant_id(db: Db, tenant_id: str) -> None:
    with pytest.raises(SettingsError, match="is no tenant id"):
        registry.add_tenant(db, tenant_id)

    assert count(db, "tenant") == 2


@pytest.mark.parametrize("tenant_id", ["x" * 256, EMOJI * 256, "a b", "é", "'; --", "\u202e", "A"])
def test_any_other_text_is_a_tenant_id_and_its_events_are_stored(
    saver: Saver, db: Db, tenant_id: str
) -> None:
    registry.add_tenant(db, tenant_id)

    assert saver.outcomes(a_delivery(tenant_id=tenant_id)) == ["stored"]


def test_a_suspended_tenant_is_rejected_at_once_and_a_resumed_one_stored(saver: Saver, db: Db) -> None:
    assert saver.outcomes(a_delivery()) == ["stored"]

    registry.set_tenant_status(db, "acme", "suspended")
    assert saver.outcomes(a_delivery(), a_delivery(tenant_id="globex")) == ["tenant_suspended", "stored"]

    registry.set_tenant_status(db, "acme", "active")
    assert saver.outcomes(a_delivery()) == ["stored"]


@pytest.mark.parametrize("tenant_id", ["nobody", "ACME", "", "a\0b", "\ud800"])
def test_a_tenant_that_is_not_there_cannot_be_suspended(db: Db, tenant_id: str) -> None:
    with pytest.raises(NotFound, match="processor tenant list"):
        registry.set_tenant_status(db, tenant_id, "suspended")


# ── schemas ───────────────────────────────────────────────────────────────────────────────────────────


def test_versions_count_from_one_for_each_event_type_and_tenant(db: Db) -> None:
    assert registry.publish_schema(db, "order.lost", ORDER_SCHEMA) == 1
    assert registry.publish_schema(db, "order.lost", True) == 2  # noqa: FBT003 - a schema
    assert registry.publish_schema(db, "order.lost", {}, "acme") == 1
    assert registry.publish_schema(db, "order.lost", {}, "globex") == 1

    rows = reader.schemas(db, "order.lost")
    assert [(row["tenant_id"], row["version"]) for row in rows] == [
        (None, 1),
        (None, 2),
        ("acme", 1),
        ("globex", 1),
    ]


def test_a_published_schema_holds_for_the_next_event(saver: Saver, db: Db) -> None:
    assert saver.outcomes(a_delivery(event_type="order.lost")) == ["unknown_event_type"]

    registry.publish_schema(db, "order.lost", ORDER_SCHEMA)
    assert saver.outcomes(a_delivery(event_type="order.lost")) == ["stored"]

    registry.publish_schema(db, "order.lost", {"not": {}}, "acme")
    assert saver.outcomes(
        a_delivery(event_type="order.lost"), a_delivery(event_type="order.lost", tenant_id="globex")
    ) == ["schema_violation", "stored"]


def test_the_event_type_gets_the_description_of_its_first_schema(db: Db) -> None:
    registry.publish_schema(db, "order.lost", {"description": "Nobody knows where it is."})
    registry.publish_schema(db, "order.lost", {"description": "Other."})

    row = db.execute("SELECT description FROM event_type WHERE event_type = 'order.lost'").fetchone()
    assert row == ("Nobody knows where it is.",)


@pytest.mark.parametrize(
    "definition",
    [
        {"type": "nope"},
        {"$ref": "http://127.0.0.1:9/x"},
        {"$schema": "http://127.0.0.1:9/x"},
        {"pattern": "(?=a)"},
        [],
        "true",
        None,
        1,
        {"const": "\0"},
        {"const": "\ud800"},
        {"\0": 1},
    ],
)
def test_a_schema_that_nobody_could_use_is_refused_and_leaves_nothing(db: Db, definition: Any) -> None:
    with pytest.raises(SettingsError):
        registry.publish_schema(db, "order.lost", definition)

    assert count(db, "event_type") == 1
    assert count(db, "event_schema") == 1


@pytest.mark.parametrize("event_type", ["", "x" * 257, "a\nb", "a\0b", "\ud800", "\x9f"])
def test_what_no_event_could_name_is_no_event_type(db: Db, event_type: str) -> None:
    with pytest.raises(SettingsError, match="event type"):
        registry.publish_schema(db, event_type, {})

    assert count(db, "event_type") == 1


@pytest.mark.parametrize("tenant_id", ["nobody", "", "a\0b", "\ud800"])
def test_a_tenant_that_is_not_there_has_no_schema_of_its_own(db: Db, tenant_id: str) -> None:
    with pytest.raises((NotFound, SettingsError)):
        registry.publish_schema(db, "order.lost", {}, tenant_id)

    assert count(db, "event_type") == 1


def test_publishers_side_by_side_get_a_version_each(database_url: str, db: Db) -> None:
    start = threading.Barrier(4)

    def publish(_: int) -> list[int]:
        with psycopg.connect(database_url, autocommit=True) as connection:
            start.wait()
            return [registry.publish_schema(connection, "order.lost", {}) for _ in range(5)]

    with ThreadPoolExecutor(4) as pool:
        versions = [version for published in pool.map(publish, range(4)) for version in published]

    assert sorted(versions) == list(range(1, 21))


def test_a_definition_is_kept_as_it_was_published(db: Db) -> None:
    definition = {"properties": {"é": {"maximum": 12.5}}, "title": EMOJI}
    registry.publish_schema(db, "order.lost", definition)

    assert schema_value(reader.schema(db, "order.lost", None, None)["definition"]) == definition
    assert reader.schema(db, "order.lost", None, 1)["version"] == 1
    for tenant_id, number in ((None, 2), ("acme", None)):
        with pytest.raises(NotFound, match="processor schema list"):
            reader.schema(db, "order.lost", tenant_id, number)


# ── registry.version ──────────────────────────────────────────────────────────────────────────────────

RENAME = "UPDATE tenant SET name = name || 'x'"
CHANGES = [
    "INSERT INTO tenant (tenant_id, name) VALUES ('initech', '')",
    "UPDATE tenant SET status = 'suspended' WHERE tenant_id = 'acme'",
    "DELETE FROM tenant WHERE tenant_id = 'globex'",
    "TRUNCATE tenant CASCADE",
    "INSERT INTO event_type (event_type) VALUES ('order.lost')",
    "UPDATE event_type SET description = 'x'",
    "DELETE FROM event_type WHERE event_type = 'unused'",
    "TRUNCATE event_type CASCADE",
    "INSERT INTO event_schema (event_type, version, definition) VALUES ('order.created', 9, 'true')",
    "UPDATE event_schema SET definition = 'false'",
    "DELETE FROM event_schema",
    "TRUNCATE event_schema CASCADE",
    "INSERT INTO queue (queue, unwrap) VALUES ('events', 'sns')",
    "UPDATE queue SET tenants = '{acme}'",
    "DELETE FROM queue",
    "TRUNCATE queue",
    "SELECT register_tenants('of-others', '{t-1,t-2,acme}', (SELECT version FROM registry))",
    "INSERT INTO tenant (tenant_id, name) SELECT 't' || n, '' FROM generate_series(1, 100) AS n",
    f"BEGIN; {RENAME}; UPDATE event_type SET description = 'y'; DELETE FROM event_schema; COMMIT",
    f"BEGIN; SET CONSTRAINTS ALL IMMEDIATE; {RENAME}; {RENAME}; COMMIT",
    f"BEGIN; {RENAME}; SAVEPOINT a; {RENAME}; ROLLBACK TO a; COMMIT",
    f"BEGIN; SAVEPOINT a; SET CONSTRAINTS ALL IMMEDIATE; {RENAME}; ROLLBACK TO a; {RENAME}; COMMIT",
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_transaction_that_changes_the_registry_raises_its_version_once(db: Db, change: str) -> None:
    db.execute("INSERT INTO event_type (event_type) VALUES ('unused')")
    db.execute("INSERT INTO queue (queue, registers_tenants) VALUES ('of-others', true)")
    before = version(db)

    db.execute(change)

    assert version(db) == before + 1


@pytest.mark.parametrize(
    "statement",
    [
        "BEGIN; UPDATE tenant SET name = 'x'; ROLLBACK",
        "UPDATE tenant SET name = 'x' WHERE tenant_id = 'nobody'",
        "SELECT * FROM tenant FOR SHARE",
        "DELETE FROM rejection",
        "SELECT register_tenants('events', '{t-1}', (SELECT version FROM registry))",
    ],
)
def test_what_changes_nothing_of_the_registry_leaves_its_version(db: Db, statement: str) -> None:
    before = version(db)

    db.execute(statement)

    assert version(db) == before


def test_each_transaction_of_one_session_raises_the_version(db: Db) -> None:
    before = version(db)

    for place in range(3):
        registry.add_tenant(db, f"tenant-{place}")

    assert version(db) == before + 3


def test_the_registry_has_one_row_only(db: Db) -> None:
    for values in ("(5, true)", "(5, false)"):
        with pytest.raises(psycopg.IntegrityError):
            db.execute(f"INSERT INTO registry VALUES {values}")


def test_an_open_psql_transaction_blocks_no_save(saver: Saver, database_url: str) -> None:
    with a_psql_session(database_url) as psql:
        psql.execute("UPDATE tenant SET status = 'suspended' WHERE tenant_id = 'acme'")
        psql.execute("INSERT INTO tenant (tenant_id, name) VALUES ('initech', '')")
        psql.execute(
            "INSERT INTO event_schema (event_type, version, definition) VALUES ('order.created', 2, '{}')"
        )
        psql.execute("UPDATE event_type SET description = 'x'")

        # Here, while the transaction is open, or never.
        found = saver.outcomes(a_delivery(), a_delivery(tenant_id="initech"))

    assert found == ["stored", "unknown_tenant"]


def test_an_open_save_holds_a_change_back_until_its_commit(database_url: str, db: Db) -> None:
    with a_psql_session(database_url) as saving:
        saving.execute("SELECT registry_version_held()")
        db.execute("SET lock_timeout = '50ms'")

        with pytest.raises(psycopg.errors.LockNotAvailable):
            registry.add_tenant(db, "initech")

    assert registry.add_tenant(db, "initech")


def test_three_thousand_tenants_are_added_in_one_transaction_that_writes_the_registry_once(db: Db) -> None:
    """A row written once for each would be looked up through all its versions: hours in the end."""
    before, pages = version(db), pages_of_registry(db)

    with db.transaction():
        for place in range(3000):
            registry.add_tenant(db, f"tenant-{place}")

    assert version(db) == before + 1
    assert count(db, "tenant") == 3002
    assert pages_of_registry(db) <= pages + 1


def pages_of_registry(db: Db) -> int:
    row = db.execute("SELECT pg_relation_size('registry') / current_setting('block_size')::int").fetchone()
    assert row is not None
    return int(row[0])


def test_a_registry_of_many_tenants_and_schemas_is_judged_by(saver: Saver, db: Db) -> None:
    db.execute("INSERT INTO tenant (tenant_id, name) SELECT 't-' || n, '' FROM generate_series(1, 5000) AS n")
    db.execute(
        "INSERT INTO event_schema (event_type, tenant_id, version, definition)"
        " SELECT 'order.created', tenant_id, 1, %s FROM tenant WHERE tenant_id LIKE 't-%%'",
        [json.dumps({"required": ["own"]})],
    )

    assert saver.outcomes(
        a_delivery(tenant_id="t-1"), a_delivery(tenant_id="t-5000", payload={"own": 1}), a_delivery()
    ) == ["schema_violation", "stored", "stored"]
