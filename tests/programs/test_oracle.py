"""The oracle is only worth its word if it finds what is wrong: each fault is planted once, by hand."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import pytest

from processor.devstack.servers.sink import Receiver
from processor.wire.manifest import ManifestLine, ManifestWriter
from tests.chaos.field import DATABASE, Field, open_field
from tests.chaos.oracle import Judgement, judge
from tests.chaos.sink_books import sink_differences

Db: TypeAlias = psycopg.Connection[Any]
Judge: TypeAlias = Callable[[], Judgement]

_numbers = itertools.count(1)
_ENOUGH = 300

A_MESSAGE = (
    "(SELECT tenant_id, message_id, producer FROM message"
    " WHERE payload ? 'total' AND (tenant_id, message_id, producer) NOT IN"
    " (SELECT tenant_id, message_id, producer FROM duplicate)"
    " AND message_id NOT IN (SELECT message_id FROM rejection WHERE reason = 'id_conflict')"
    " ORDER BY message_id LIMIT 1)"
)
"""The key of a message with an amount, and without any duplicate or rival."""


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    """A field on which everything went well, and is over."""
    folder = tmp_path_factory.mktemp("field")
    with open_field(folder, seed=1, rounds=0, processes=1, rate=200, settings={}) as ground:
        ground.fleet.start()
        ground.load.start()
        ground.wait_until(lambda: ground.row_count() >= _ENOUGH, f"{_ENOUGH} rows are there")
        ground.load.stop()
        source = ground.source()
        ground.wait_until(lambda: not sum(source.depth().values()), "the queue is empty")
        ground.fleet.stop()
        yield ground


@pytest.fixture
def db(field: Field) -> Iterator[Db]:
    """A copy of what was stored, for one test to spoil."""
    name = f"{DATABASE}_{next(_numbers)}"
    with field.admin("postgres") as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {DATABASE}")
    with psycopg.connect(field.postgres.url(name), autocommit=True) as connection:
        yield connection


@pytest.fixture
def judged(field: Field, db: Db, monkeypatch: pytest.MonkeyPatch) -> Judge:
    # The second look is for queues whose counts lag behind; here everything has come to rest.
    monkeypatch.setattr("processor.operations.audit.LOOK_AGAIN_AFTER_S", 0)
    return lambda: judge(db, field.source(), field.load, field.queue.minutes)


def found(judgement: Judgement) -> dict[str, int]:
    return {fault: count for fault, count in judgement.faults_found.items() if count}


def _of(table: str, columns: str) -> str:
    return ", ".join(f"{table}.{column}" for column in columns.split(", "))


def a_stored_delivery(db: Db) -> str:
    row = db.execute("SELECT delivery_id FROM message ORDER BY message_id LIMIT 1").fetchone()
    assert row is not None
    return str(row[0])


def test_what_is_whole_is_found_whole(judged: Judge) -> None:
    judgement = judged()

    assert judgement.holds, judgement.text
    assert judgement.messages >= _ENOUGH


def test_a_deleted_row_is_found_lost(db: Db, judged: Judge) -> None:
    db.execute(f"DELETE FROM message WHERE (tenant_id, message_id, producer) = {A_MESSAGE}")

    assert found(judged()) == {"lost": 1, "sums": 1, "early deletes": 1}


def test_an_inserted_row_is_found_unexpected(db: Db, judged: Judge) -> None:
    others = "tenant_id, producer, event_type, schema_id, sent_at, payload, context, queue, receive_count"
    db.execute(
        f"INSERT INTO message (message_id, delivery_id, {others}) SELECT 'nobody-sent', 'nor-this', {others}"
        f" FROM message WHERE (tenant_id, message_id, producer) = {A_MESSAGE}"
    )

    assert found(judged()) == {"unexpected": 1, "sums": 1}


def test_a_payload_altered_is_found_and_so_is_its_sum(db: Db, judged: Judge) -> None:
    db.execute(
        "UPDATE message SET payload = jsonb_set(payload, '{total}', '0.001')"
        f" WHERE (tenant_id, message_id, producer) = {A_MESSAGE}"
    )

    judgement = judged()

    # A row that is written again has also come after its delete.
    assert found(judgement) == {"altered": 1, "sums": 1, "early deletes": 1}
    assert "stored 0.001" in judgement.text


def test_a_delivery_in_two_tables_is_found(db: Db, judged: Judge) -> None:
    db.execute(
        "INSERT INTO duplicate (queue, delivery_id, tenant_id, message_id, producer, sent_at, receive_count,"
        " received_at) SELECT queue, delivery_id, tenant_id, message_id, producer, sent_at, 1, sent_at"
        f" FROM message WHERE (tenant_id, message_id, producer) = {A_MESSAGE}"
    )

    assert "twice" in found(judged())


def test_a_delivery_that_is_stored_and_rejected_is_found(db: Db, judged: Judge) -> None:
    others = "detail, body, attributes, sent_at, receive_count"
    db.execute(
        f"INSERT INTO rejection (queue, delivery_id, reason, {others})"
        f" SELECT message.queue, message.delivery_id, 'too_large', {_of('rejection', others)}"
        " FROM message, rejection WHERE (message.tenant_id, message.message_id, message.producer) ="
        f" {A_MESSAGE} LIMIT 1"
    )

    assert found(judged()) == {"twice": 1}


def test_sends_of_equal_messages_that_left_no_row_are_found(
    field: Field, db: Db, judged: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Six were accepted of a message that RabbitMQ names alike each time, and two have a row."""
    base, line = "device-7:0123456789abcdef", ManifestLine("intended", "acme", "device-7", None)
    with ManifestWriter(tmp_path / "manifest.jsonl") as writer:
        writer.intend([line])
        writer.accept([replace(line, state="accepted", delivery_id=base) for _ in range(6)])
    monkeypatch.setattr(field.load, "more_manifests", [tmp_path / "manifest.jsonl"])
    others = "tenant_id, producer, event_type, schema_id, sent_at, context, queue, receive_count"
    db.execute(
        f"INSERT INTO message (message_id, delivery_id, payload, {others})"
        f" SELECT 'device-7', '{base}~000000000001', '{{}}', {others}"
        f" FROM message WHERE (tenant_id, message_id, producer) = {A_MESSAGE}"
    )
    db.execute(
        "INSERT INTO duplicate (queue, delivery_id, tenant_id, message_id, producer, sent_at, receive_count,"
        f" received_at) SELECT queue, '{base}~000000000002', tenant_id, message_id, producer, sent_at, 1,"
        " now()"
        " FROM message WHERE message_id = 'device-7'"
    )

    assert found(judged()) == {"lost": 4}


def test_a_delete_asked_before_the_commit_is_found(
    field: Field, db: Db, judged: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_at = field.queue.minutes.delete_asked_at
    monkeypatch.setitem(asked_at, a_stored_delivery(db), min(asked_at.values()) - 60)

    assert found(judged()) == {"early deletes": 1}


def test_there_is_usage_to_be_right_about_with_voids_among_it(field: Field, db: Db, judged: Judge) -> None:
    row = db.execute("SELECT sum(messages), count(DISTINCT window_start) FROM usage").fetchone()

    assert row is not None
    assert row[0] >= _ENOUGH / 10
    assert field.load.sent.pulses.voided
    assert judged().faults_found["usage"] == 0


@pytest.mark.parametrize(
    "change",
    [
        # The last digit of twenty behind the point.
        "value = value + 0.00000000000000000001",
        "messages = messages + 1",
        "window_start = window_start - interval '1 hour'",
    ],
)
def test_a_total_altered_is_found_by_what_was_sent_and_by_verify(db: Db, judged: Judge, change: str) -> None:
    db.execute(
        f"UPDATE total SET {change} WHERE (tenant_id, group_key, slot) ="
        " (SELECT tenant_id, group_key, slot FROM total ORDER BY 1, 2, 3 LIMIT 1)"
    )

    judgement = judged()

    assert found(judgement).keys() == {"usage"}
    assert "sent (Decimal(" in judgement.text
    assert "THE TOTALS DO NOT HOLD" in judgement.text


def test_a_void_that_took_nothing_away_is_found(db: Db, judged: Judge) -> None:
    """Verify alone does not know what was to be voided; the load does."""
    db.execute("DELETE FROM voided")
    db.execute("DELETE FROM total")
    db.execute(
        "INSERT INTO total ("
        "  tenant_id, meter_id, window_start, group_key, slot, value, messages, first_at, last_at)"
        " SELECT"
        "  tenant_id, meter_id, window_start, group_key, 0, sum(value), count(*), min(sent_at), max(sent_at)"
        " FROM message CROSS JOIN LATERAL metered("
        "  tenant_id, message_id, producer, event_type, payload, occurred_at, stored_at)"
        " GROUP BY tenant_id, meter_id, window_start, group_key"
    )

    judgement = judged()

    assert found(judgement).keys() == {"usage"}
    assert "THE TOTALS DO NOT HOLD" not in judgement.text


@pytest.fixture
def sink(field: Field, db: Db) -> Iterator[Receiver]:
    """A sink that has been handed all usage of the copy, line by line."""
    url = field.postgres.url(db.info.dbname)
    with Receiver() as receiver:
        settings = {"DATABASE_URL": url, "USAGE_SINK_URL": receiver.url, "HTTP_PORT": "0"}
        subprocess.run(
            [sys.executable, "-m", "processor", "dispatch", "--once"],
            env=os.environ | settings,
            check=True,
            capture_output=True,
        )
        yield receiver


def test_what_the_sink_has_is_compared_with_the_totals(field: Field, db: Db, sink: Receiver) -> None:
    key, line = next(iter(sink.books.lines.items()))

    def wrong() -> list[str]:
        return sink_differences(db, sink.books, sink.requests)

    assert wrong() == []

    del sink.books.lines[key]
    [lost] = wrong()
    sink.books.lines[key] = line | {"used_amount": Decimal(line["used_amount"]) + Decimal("1e-20")}
    [altered] = wrong()
    sink.books.lines |= {key: line, "again": line}
    [doubled] = wrong()
    del sink.books.lines["again"]
    sink.books.take([line | {"messages": 9}])
    [changed] = wrong()
    sink.books.changed.clear()
    db.execute("UPDATE usage_batch SET handed_over_at = NULL")
    [waiting] = wrong()

    assert all(" by the totals, " in words for words in (lost, altered, doubled))
    assert "came again with another content" in changed
    assert "still wait" in waiting


def test_a_dead_letter_is_a_fault_unless_it_was_meant(field: Field, db: Db, judged: Judge) -> None:
    url = field.source().dead_letter_queue_url()
    assert url is not None
    client = field.sqs.client()
    client.send_message(QueueUrl=url, MessageBody="a neighbour")

    try:
        assert found(judged()) == {"dead letters": 1}
        assert judge(db, field.source(), field.load, field.queue.minutes, dead_letters=True).holds
    finally:
        client.purge_queue(QueueUrl=url)
