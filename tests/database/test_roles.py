"""Least privilege: what runs all day can save and replay and no more, and what looks can't write."""

import threading
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from processor.check.roles import RIGHTS, TO_SAVE, missing_rights, wanted_by
from processor.database.connection import connect
from processor.database.migrations import require_current
from processor.devstack.servers.sqs import EmbeddedSqs
from processor.errors import StoreFault
from processor.operations import reader, registry
from processor.operations.audit import audit
from processor.operations.queue_rules import remove_queue, set_queue
from processor.operations.retention import Ages, apply, plan
from processor.pipeline.pipeline import once
from processor.runtime.outages import OutageRetry
from processor.settings import Settings
from processor.sources.quarantine import QuarantineSource, RejectionSelection, discard
from processor.sources.sqs.source import SqsSource
from processor.store.store import Store
from processor.validation.validator import Schemas
from processor.wiring.dispatch import TO_DISPATCH
from processor.wiring.service import Stops, run
from tests.builders import a_delivery, an_event
from tests.fixtures.check import with_changes
from tests.fixtures.database import LogIn, Saver, books, login_of
from tests.fixtures.meters import a_pulse, a_void, add_meter, totals

Db = psycopg.Connection[Any]


@pytest.fixture
def writer_url(log_in: LogIn) -> str:
    return log_in("processor_writer")


@pytest.fixture
def writer(writer_url: str) -> Iterator[Saver]:
    """A saver that may do no more than a processor must."""
    schemas = Schemas(body_bytes_max=1024 * 1024, json_depth_max=64)
    retry = OutageRetry("database", wait_s_max=0.2, stop=threading.Event())
    store = Store(lambda: connect(writer_url, timeout_s=20), schemas, retry, timeout_s=20)
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
        source = QuarantineSource(connection, RejectionSelection(rejection_ids=[1, 2]))
        settlements = once(source, writer.schemas, writer.store, limit=10, wait_s=0)
        assert discard(connection, RejectionSelection(rejection_ids=[3])) == 1

    assert [settlement.reason or settlement.outcome for settlement in settlements] == ["stored", "not_json"]
    assert books(db) == {"message": 1, "duplicate": 0, "rejection": 3}


def test_the_writer_raises_totals_notes_misses_and_voids(writer: Saver, db: Db) -> None:
    for event_type in ("pulse", "void"):
        registry.publish_schema(db, event_type, {})
    add_meter(db)

    outcomes = writer.outcomes(
        a_pulse("0.1", id="p-1"), a_pulse("0.2"), a_pulse(1, sku="x" * 2000), a_void("p-1")
    )

    assert outcomes == ["stored"] * 4
    assert [(value, messages) for _, _, value, messages in totals(db)] == [(Decimal("0.2"), 1)]
    assert db.execute("SELECT reason FROM meter_miss").fetchall() == [("group_too_long",)]


def test_a_process_that_may_not_raise_totals_ends_before_it_receives(log_in: LogIn, db: Db) -> None:
    url = log_in("processor_writer")
    for right in (
        "SELECT ON meter",
        "SELECT ON usage_rebuild",
        "INSERT ON voided",
        "UPDATE ON total",
        "INSERT ON meter_miss",
    ):
        with db.transaction(force_rollback=True):
            db.execute(f"REVOKE {right} FROM processor_writer")
            db.execute(f"SET ROLE {login_of(url)}")

            columns = " (first_at, is_closed, last_at, messages, value)" if "UPDATE" in right else ""
            words = right.replace("ON", "on").replace(" on", f"{columns} on")
            assert missing_rights(db, TO_SAVE) == [words]


@pytest.mark.parametrize(
    ("role", "wanted"),
    [
        # Of one table that one may change two columns alone.
        *((role, wanted_by(role)) for role in RIGHTS if role != "processor_retention"),
        ("processor_writer", TO_SAVE),
        ("processor_biller", TO_DISPATCH),
    ],
)
def test_a_role_has_every_right_that_it_is_asked_for(
    log_in: LogIn, role: str, wanted: Sequence[tuple[str, str]]
) -> None:
    """Or a program would end with a complaint about a role that is as it should be."""
    with connect(log_in(role)) as one:
        assert missing_rights(one, wanted) == []


def test_a_writer_without_its_functions_is_told_so(log_in: LogIn, db: Db) -> None:
    function = "register_tenants(text,text[],bigint)"
    db.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM processor_writer")

    with connect(log_in("processor_writer")) as writer:
        assert missing_rights(writer, TO_SAVE) == [f"EXECUTE on {function}"]


def test_a_login_of_its_own_grants_is_told_what_else_a_save_needs(log_in: LogIn, db: Db) -> None:
    """Every login has it where no walls are; behind them, they are put up again after such a grant."""
    own = login_of(log_in(name="own"))
    db.execute(f"GRANT INSERT ON message TO {own}")
    wanted = [("pg_logical_emit_message", "EXECUTE")]

    for missing in (["EXECUTE on pg_logical_emit_message"], []):
        with db.transaction():
            db.execute(f"SET LOCAL ROLE {own}")
            assert missing_rights(db, wanted) == missing
        db.execute("SELECT put_up_tenant_walls()")


def test_a_process_that_is_too_old_for_meters_saves_until_there_is_one(writer_url: str, db: Db) -> None:
    """Its save begins with this question; it would store messages and count none of them."""
    question = "SELECT registry_version_held()"
    with connect(writer_url) as old:
        assert old.execute(question).fetchone() == db.execute("SELECT version FROM registry").fetchone()

        registry.publish_schema(db, "pulse", {})
        add_meter(db)

        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="too old to count"):
            old.execute(question)
        # A retired one too: of what it counted, voids take away.
        db.execute("UPDATE meter SET status = 'retired'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="too old to count"):
            old.execute(question)


def test_a_process_that_is_too_old_for_rules_of_queues_saves_until_there_are_some(
    writer_url: str, db: Db
) -> None:
    """It would read bodies as they are not meant, and let a queue speak for any tenant."""
    questions = "SELECT registry_version_held()", "SELECT registry_version_held(true)"
    with connect(writer_url) as old:
        for changes in ({"tenants": ["acme"]}, {"unwrap": "none"}, {"registers_tenants": True}):
            set_queue(db, "events", changes)
            for question in questions:
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="too old to read"):
                    old.execute(question)
            remove_queue(db, "events")
            for question in questions:
                assert (
                    old.execute(question).fetchone() == db.execute("SELECT version FROM registry").fetchone()
                )


def test_a_process_that_may_not_save_ends_before_it_receives(
    log_in: LogIn, settings: Settings, sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    """It is started again at once, and again: each time would burn a receive of what it received."""
    sqs_server.client().send_message(QueueUrl=queue_url, MessageBody=a_delivery().body.decode())
    reader_settings = with_changes(
        settings,
        database_url=SecretStr(log_in("processor_reader")),
        http_port=0,
        # Or the tests after this one would have to do with that core.
        keep_to_one_core="off",
    )

    with pytest.raises(StoreFault, match=r"lacks .*INSERT on message"):
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
BILLING = [
    "INSERT INTO usage_line SELECT * FROM usage_line WHERE false",
    "UPDATE usage_line SET trouble = ''",
    "INSERT INTO usage_batch (batch_key, line_count) VALUES ('x', 1)",
    "UPDATE usage_batch SET handed_over_at = now()",
    "INSERT INTO reopened_window SELECT * FROM reopened_window WHERE false",
    "DELETE FROM reopened_window",
    "INSERT INTO usage_rebuild SELECT * FROM usage_rebuild WHERE false",
]
REMOVING = [
    "UPDATE usage_removal SET value = 0",
    "INSERT INTO usage_removal SELECT * FROM usage_removal WHERE false",
]
CHANGES = [
    *CHANGES_OF_HISTORY,
    "DELETE FROM rejection",
    "TRUNCATE rejection",
    "INSERT INTO removal VALUES ('acme', 'message', now(), 1, now())",
    "UPDATE removal SET row_count = 1",
    "DELETE FROM removal",
    "INSERT INTO meter (meter, event_type, aggregation) VALUES ('mine', 'order.created', 'count')",
    "UPDATE meter SET status = 'retired'",
    "DELETE FROM meter",
    "DELETE FROM total",
    "TRUNCATE total",
    "DELETE FROM meter_miss",
    "UPDATE voided SET void_id = ''",
    "DELETE FROM voided",
    "DELETE FROM usage_rebuild",
    "DELETE FROM usage_removal",
    "DELETE FROM usage_line",
    *(
        f"UPDATE {table} SET {column} = {column}"
        for table, columns in {
            "usage_line": "tenant_id meter_id window_start group_key revision value messages total_value "
            "total_messages closed_at line_key",
            "usage_batch": "batch_key line_count created_at",
            "usage_place": "first_at",
            "usage_rebuild": "meter_id window_from window_until",
            "total": "tenant_id meter_id window_start group_key slot closes_at",
            "meter_miss": "tenant_id meter_id reason schema_id slot",
            "rejection": "queue delivery_id body attributes sent_at receive_count sender_id",
        }.items()
        for column in columns.split()
    ),
    "UPDATE retention_floor SET days = 1",
    "DELETE FROM retention_floor",
    "DELETE FROM usage_batch",
    "ALTER TABLE meter DISABLE TRIGGER ALL",
    "DROP VIEW usage",
    "INSERT INTO tenant (tenant_id, name) VALUES ('x', 'x')",
    "UPDATE tenant SET status = 'active'",
    "DELETE FROM tenant",
    "INSERT INTO event_type (event_type) VALUES ('x')",
    "UPDATE event_schema SET definition = 'true'",
    "INSERT INTO queue (queue) VALUES ('x')",
    "UPDATE queue SET registers_tenants = true",
    "DELETE FROM queue",
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
    assert _allowed(writer_url, [*CHANGES, *BILLING, *REMOVING]) == []


COUNTING = [
    "UPDATE total SET value = 0",
    "INSERT INTO total SELECT * FROM total WHERE false",
]
WRITES = [
    *CHANGES,
    *BILLING,
    *REMOVING,
    *COUNTING,
    "UPDATE meter_miss SET messages = 0",
    "INSERT INTO voided SELECT * FROM voided WHERE false",
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
        assert (
            len(reader.rejections(connection, RejectionSelection().parameters(), status=None, limit=9)) == 1
        )
        assert [row["place"] for row in reader.trace(connection, "o-1", None)] == ["message"]
        assert audit(connection, [], None).holds


def test_the_biller_closes_rebuilds_and_hands_over_and_changes_no_message(
    saver: Saver, log_in: LogIn, db: Db
) -> None:
    registry.publish_schema(db, "pulse", {})
    add_meter(db)
    saver.save(a_pulse(5))

    with connect(log_in("processor_biller")) as biller:
        require_current(biller)
        biller.execute("INSERT INTO reopened_window SELECT meter_id, window_start FROM total")
        biller.execute("INSERT INTO usage_rebuild SELECT meter_id, '2026-01-01Z', '2026-02-01Z' FROM meter")
        biller.execute("SELECT FROM total FOR UPDATE SKIP LOCKED")
        biller.execute("""
            INSERT INTO usage_line (tenant_id, meter_id, window_start, group_key, revision, value, messages,
              total_value, total_messages)
            SELECT tenant_id, meter_id, window_start, group_key, 1, value, messages, value, messages
            FROM total
        """)
        biller.execute("UPDATE total SET is_closed = true")
        biller.execute("INSERT INTO usage_batch (batch_key, line_count) VALUES ('k', 1)")
        biller.execute("UPDATE usage_line SET batch_id = 1, handed_over_at = now()")
        biller.execute("UPDATE usage_batch SET handed_over_at = now()")
        asked = biller.execute("""
            SELECT metered.value FROM message CROSS JOIN LATERAL metered(
              tenant_id, message_id, producer, event_type, payload, coalesce(occurred_at, sent_at), stored_at)
        """).fetchall()

    assert asked == [(5,)]
    assert db.execute("SELECT handed_over FROM usage").fetchall() == [(5,)]
    assert set(_allowed(log_in("processor_biller", name="another"), WRITES)) == {*BILLING, *COUNTING}


def test_who_removes_may_remove_and_count_and_change_nothing(saver: Saver, log_in: LogIn, db: Db) -> None:
    url, event = log_in("processor_retention"), an_event(id="o-1")
    add_meter(db, event_type="order.created", value_pointer="/total", group_names=[], group_pointers=[])
    saver.save(a_delivery(**event), a_delivery(**event), a_delivery(b"nonsense"))
    discard(db, RejectionSelection())
    for table, column in {"message": "stored", "duplicate": "received", "rejection": "closed"}.items():
        db.execute(f"UPDATE {table} SET {column}_at = now() - interval '100 days'")
    db.execute("UPDATE message SET sent_at = stored_at")
    db.execute("UPDATE meter SET active_from = now() - interval '101 days'")
    ages = Ages(message=40, duplicate=40, rejection=40, key=35)

    with connect(url) as connection:
        require_current(connection)
        assert len(plan(connection, ages)) == 3
        removed = apply(
            connection, ages, step_size=10, pause_s=0, stop=threading.Event(), statement_timeout_s=20
        )

    assert removed == {"message": 1, "duplicate": 1, "rejection": 1}
    assert db.execute("SELECT value FROM usage_removal").fetchall() == [(Decimal("12.5"),)]
    assert audit(db, [], None).holds
    assert _allowed(url, WRITES) == []


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
