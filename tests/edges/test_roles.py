"""Least privilege: what runs all day can save and replay and no more, and what looks can't write."""

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from processor import reader, registry
from processor.audit import audit
from processor.connection import connect
from processor.devstack.sqs import EmbeddedSqs
from processor.errors import StoreFault
from processor.migrations import require_current
from processor.patience import Patience
from processor.pipeline import once
from processor.retention import Ages, apply, plan
from processor.schemas import Schemas
from processor.settings import Settings
from processor.sources.quarantine import QuarantineSource, Selection, discard
from processor.sources.sqs import SqsSource
from processor.store import Store
from processor.wiring.service import Stops, run
from tests.builders import a_delivery, an_event
from tests.fix_check import with_changes
from tests.fix_database import LogIn, Saver, books

Db = psycopg.Connection[Any]


@pytest.fixture
def writer_url(log_in: LogIn) -> str:
    return log_in("processor_writer")


@pytest.fixture
def writer(writer_url: str) -> Iterator[Saver]:
    """A saver that may do no more than a processor must."""
    schemas = Schemas(body_bytes_max=1024 * 1024, json_depth_max=64)
    patience = Patience("database", wait_s_max=0.2, stop=threading.Event())
    store = Store(lambda: connect(writer_url, timeout_s=20), schemas, patience, timeout_s=20)
    store.load_registry()
    yield Saver(schemas, store)
    store.close()


def test_the_writer_saves_every_outcome_and_follows_the_registry(writer: Saver, db: Db) -> None:
    event, bad = an_event(id="o-1"), a_delivery(b"nonsense")
    conflict = event | {"payload": {"total": 0}}

    assert writer.outcomes(
        a_delivery(**event),
        a_delivery(**event),
        a_delivery(**conflict),
        bad,
        bad,
        a_delivery(tenant_id="newcomer"),
    ) == ["stored", "duplicate", "id_conflict", "not_json", "redelivered", "unknown_tenant"]

    registry.add_tenant(db, "newcomer")
    assert writer.outcomes(a_delivery(tenant_id="newcomer")) == ["stored"]
    assert writer.outcomes(a_delivery(payload={"total": 1, "note": "\0"})) == ["unstorable"]


def test_the_writer_replays_and_discards(writer: Saver, writer_url: str, db: Db) -> None:
    writer.save(a_delivery(tenant_id="newcomer"), a_delivery(b"nonsense"), a_delivery(b""))
    registry.add_tenant(db, "newcomer")

    with connect(writer_url) as connection:
        source = QuarantineSource(connection, Selection(rejection_ids=[1, 2]))
        settlements = once(source, writer.schemas, writer.store, limit=10, wait_s=0)
        assert discard(connection, Selection(rejection_ids=[3])) == 1

    assert [settlement.reason or settlement.outcome for settlement in settlements] == ["stored", "not_json"]
    assert books(db) == {"message": 1, "duplicate": 0, "rejection": 3}


def test_a_process_that_may_not_save_ends_before_it_receives(
    log_in: LogIn, settings: Settings, sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    """It is started again at once, and again: each time would burn a receive of what it received."""
    sqs_server.client().send_message(QueueUrl=queue_url, MessageBody=a_delivery().body.decode())
    reader_settings = with_changes(settings, database_url=SecretStr(log_in("processor_reader")), http_port=0)

    with pytest.raises(StoreFault, match=r"lacks .*INSERT ON message"):
        run(reader_settings, Stops(threading.Event(), threading.Event()), until_idle_s=1)

    assert SqsSource.open(settings).depth() == {"visible": 1, "in_flight": 0, "delayed": 0}


def test_the_writer_knows_whether_the_database_is_current(writer_url: str) -> None:
    with connect(writer_url) as connection:
        assert require_current(connection).pending == ()


CHANGES_OF_HISTORY = [
    statement
    for table in ("message", "duplicate")
    for statement in (
        f"UPDATE {table} SET receive_count = 9",
        f"DELETE FROM {table}",
        f"TRUNCATE {table}",
        f"SELECT * FROM {table} FOR UPDATE",
    )
]
CHANGES = [
    *CHANGES_OF_HISTORY,
    "DELETE FROM rejection",
    "TRUNCATE rejection",
    "INSERT INTO removal VALUES ('acme', 'message', now(), 1, now())",
    "UPDATE removal SET row_count = 1",
    "DELETE FROM removal",
    "INSERT INTO tenant (tenant_id, name) VALUES ('x', 'x')",
    "UPDATE tenant SET status = 'active'",
    "DELETE FROM tenant",
    "INSERT INTO event_type (event_type) VALUES ('x')",
    "UPDATE event_schema SET definition = 'true'",
    "UPDATE registry SET version = 1",
    "DELETE FROM migration",
    "INSERT INTO migration VALUES (99, 'x', 'x', false)",
    "CREATE TABLE mine ()",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql RETURN 1",
    "ALTER TABLE message ADD COLUMN mine int",
    "ALTER TABLE message DISABLE TRIGGER ALL",
    "DROP TABLE duplicate",
    "CREATE INDEX ON message (queue)",
    "CREATE ROLE mine",
    "CREATE SCHEMA mine",
]


def _allowed(url: str, statements: list[str]) -> list[str]:
    """Those of the statements that are not refused for want of a right."""
    allowed = []
    with connect(url) as connection:
        for statement in statements:
            try:
                connection.execute(statement)
            except psycopg.errors.InsufficientPrivilege:
                continue
            allowed.append(statement)
    return allowed


def test_the_writer_changes_neither_history_nor_tables(writer_url: str) -> None:
    assert _allowed(writer_url, CHANGES) == []


WRITES = [
    *CHANGES,
    "INSERT INTO message SELECT * FROM message",
    "INSERT INTO duplicate SELECT * FROM duplicate",
    "UPDATE rejection SET status = 'open'",
    "SELECT * FROM rejection FOR UPDATE",
]


def test_the_reader_writes_nothing(log_in: LogIn) -> None:
    assert _allowed(log_in("processor_reader"), WRITES) == []


def test_the_reader_reads_everything_and_audits(saver: Saver, log_in: LogIn) -> None:
    saver.save(a_delivery(id="o-1"), a_delivery(b"nonsense"))

    with connect(log_in("processor_reader")) as connection:
        assert reader.tenants(connection)
        assert reader.schemas(connection, None)
        assert len(reader.rejections(connection, Selection().parameters(), status=None, limit=9)) == 1
        assert [row["place"] for row in reader.trace(connection, "o-1", None)] == ["message"]
        assert audit(connection, [], None).holds


def test_who_removes_may_remove_and_count_and_change_nothing(saver: Saver, log_in: LogIn, db: Db) -> None:
    url, event = log_in("processor_retention"), an_event(id="o-1")
    saver.save(a_delivery(**event), a_delivery(**event), a_delivery(b"nonsense"))
    discard(db, Selection())
    for table, column in {"message": "stored", "duplicate": "received", "rejection": "closed"}.items():
        db.execute(f"UPDATE {table} SET {column}_at = now() - interval '100 days'")
    ages = Ages(message=40, duplicate=40, rejection=40, key=35)
    its_own = {f"DELETE FROM {table}" for table in ("message", "duplicate", "rejection")}
    its_own.add("UPDATE removal SET row_count = 1")
    its_own.add("INSERT INTO removal VALUES ('acme', 'message', now(), 1, now())")

    with connect(url) as connection:
        require_current(connection)
        assert len(plan(connection, ages)) == 3
        removed = apply(
            connection, ages, step_size=10, pause_s=0, stop=threading.Event(), statement_timeout_s=20
        )

    assert removed == {"message": 1, "duplicate": 1, "rejection": 1}
    assert audit(db, [], None).holds
    assert set(_allowed(url, WRITES)) <= its_own


def test_a_stranger_reads_nothing(server_url: str, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE stranger_to_all NOLOGIN")
        try:
            connection.execute("SET ROLE stranger_to_all")
            for table in ("message", "rejection", "tenant"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(f"SELECT * FROM {table}")
        finally:
            connection.execute("RESET ROLE")
            connection.execute("DROP ROLE stranger_to_all")
