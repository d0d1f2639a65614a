"""A key never stands for two lines, and no two meters make lines that look alike."""

import json
import subprocess
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from processor.database.queries import sql_folder
from processor.devstack.servers.binaries import find_binaries, server_account
from processor.devstack.servers.sink import GOOD, Behaviour, Receiver
from processor.operations import registry
from tests.fixtures.database import Saver
from tests.fixtures.meters import add_meter
from tests.fixtures.usage import Answer, Command, HandOver, a_pulse, lines

Db = psycopg.Connection[Any]

PULSE: dict[str, Any] = {"is_handed_over": True}
ITS_OWN = PULSE | {"tenant_id": "acme"}

pytestmark = pytest.mark.usefixtures("pulses")


def sum_at_the_sink(receiver: Receiver) -> Decimal:
    assert receiver.books.changed == []
    return sum(receiver.books.sums().values(), Decimal(0))


# ── keys ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_tenant_that_was_erased_and_is_back_is_billed_for_what_it_uses_now(
    saver: Saver, db: Db, database_url: str, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(a_pulse(10))
    hand_over()
    registry.set_tenant_status(db, "acme", "suspended")
    psql = find_binaries(server_account()) / "psql"
    script = sql_folder() / "erase_tenant.sql"
    subprocess.run([psql, "-X", "-v", "tenant=acme", "-f", script, database_url], check=True, timeout=60)

    registry.add_tenant(db, "acme")
    saver.save(a_pulse(25))
    hand_over()

    assert sum_at_the_sink(receiver) == 35
    assert len(receiver.books.lines) == 2


def test_a_meter_that_was_deleted_and_is_back_under_its_name_has_other_keys(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(a_pulse(10))
    hand_over()
    for table in ("usage_line", "total", "meter"):
        db.execute(f"DELETE FROM {table}")

    add_meter(db, **PULSE)
    saver.save(a_pulse(25))
    hand_over()

    assert sum_at_the_sink(receiver) == 35


def test_a_line_that_somebody_deleted_is_written_anew_under_another_key(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(a_pulse(10))
    hand_over()
    db.execute("DELETE FROM usage_line")
    db.execute("UPDATE total SET is_closed = false")

    hand_over()

    assert len(receiver.books.lines) == 2


def test_a_batch_that_lost_lines_goes_out_under_another_key(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(a_pulse(10), a_pulse(7, tenant="globex"))
    receiver.behaviour = Behaviour(status=503, accepts=False)
    hand_over()
    db.execute("DELETE FROM usage_line WHERE tenant_id = 'acme'")
    receiver.behaviour = GOOD

    _, waiting = hand_over()

    first, last = receiver.requests[0], receiver.requests[-1]
    assert first.key != last.key
    assert [line["tenant_id"] for line in json.loads(last.body)] == ["globex"]
    assert waiting.lines == 0


# ── meters whose lines look alike ──────────────────────────────────────────────────────────────────


def test_a_second_meter_that_makes_pulse_lines_is_refused_in_words(processor: Command, db: Db) -> None:
    answer = add_by_command(processor, "again")

    assert answer.code == 2
    assert "would look like those of another meter" in answer.error
    assert db.execute("SELECT meter FROM meter").fetchall() == [("pulse",)]


def add_by_command(processor: Command, name: str) -> Answer:
    groups = ["--by", "use_unity=/use_unity", "--by", "product_sku=/product_sku"]
    return processor(
        "meter", "add", name, "--event-type", "pulse", "--sum", "/used_amount", *groups, "--hand-over"
    )


def clashes(db: Db, statement: str) -> bool:
    try:
        db.execute(statement.encode())
    except psycopg.errors.UniqueViolation as error:
        return bool(error.diag.constraint_name == "meter_pulse_lines_clear" and error.diag.message_hint)
    return False


@pytest.mark.parametrize("columns", [PULSE, ITS_OWN, PULSE | {"window_size": "day", "grace": "1 day"}])
def test_neither_psql_nor_an_overlapping_tenant_nor_a_later_hand_over_is_a_way_round(
    db: Db, columns: dict[str, Any]
) -> None:
    with pytest.raises(psycopg.errors.UniqueViolation, match="look like those of meter pulse"):
        add_meter(db, "again", **columns)

    add_meter(db, "again", **columns | {"is_handed_over": False})
    assert clashes(db, "UPDATE meter SET is_handed_over = true")


@pytest.mark.parametrize(
    "columns",
    [
        {"group_names": ["sku", "use_unity"]},
        {"value_pointer": "/amount"},
        {"aggregation": "count", "value_pointer": None},
        {"group_names": ["product_sku"], "group_pointers": ["/product_sku"]},
    ],
)
def test_a_meter_whose_lines_name_it_may_be_handed_over_beside(db: Db, columns: dict[str, Any]) -> None:
    add_meter(db, "beside", **PULSE | columns)


def test_two_tenants_may_have_one_each(db: Db) -> None:
    db.execute("UPDATE meter SET status = 'retired'")

    add_meter(db, "its_own", **ITS_OWN)
    add_meter(db, "its_own", **PULSE, tenant_id="globex")

    assert clashes(db, "UPDATE meter SET is_handed_over = true WHERE meter = 'pulse'") is False


def test_a_successor_goes_on_where_the_retired_one_ends(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(a_pulse(10))
    hand_over()
    with db.transaction():
        db.execute("UPDATE meter SET status = 'retired'")
        add_meter(db, "next", **PULSE)
    saver.save(a_pulse(25))
    hand_over()

    assert sum_at_the_sink(receiver) == 35
    assert len(lines(db)) == 2


def test_a_successor_counts_nothing_again_by_a_rebuild(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver, processor: Command
) -> None:
    saver.save(a_pulse(10))
    hand_over()
    db.execute("UPDATE meter SET status = 'retired'")
    add_meter(db, "next", **PULSE)

    refused = processor("usage", "rebuild", "--meter", "next")
    processor("usage", "rebuild", "--meter", "pulse")
    hand_over()

    assert refused.code == 2
    assert "the meter that was active first" in refused.error
    assert sum_at_the_sink(receiver) == 10


def test_handing_over_in_turns_counts_nothing_again(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    add_meter(db, "other", **PULSE | {"is_handed_over": False})
    saver.save(a_pulse(10))
    hand_over()
    db.execute("UPDATE meter SET is_handed_over = false")

    assert clashes(db, "UPDATE meter SET is_handed_over = true WHERE meter = 'other'")

    hand_over()
    assert sum_at_the_sink(receiver) == 10


def test_two_that_are_added_at_once_do_not_both_come_in(db: Db, database_url: str) -> None:
    db.execute("UPDATE meter SET status = 'retired'")
    with psycopg.connect(database_url) as first:
        add_meter(first, "first", **PULSE)
        with psycopg.connect(database_url) as second:
            add_meter(second, "second", **PULSE)
            second.commit()
        with pytest.raises(psycopg.errors.UniqueViolation):
            first.commit()
