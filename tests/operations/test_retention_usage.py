"""What retention removes stays billed, and the proof of the totals still adds up."""

import threading
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from processor.database.connection import connect
from processor.model import Delivery
from processor.operations import registry
from processor.operations.retention import Ages, apply
from tests.builders import a_delivery
from tests.fixtures.database import REGISTRY_WAITS, MakeSaver, Saver, count
from tests.fixtures.meters import a_pulse, a_void, add_meter, differences, totals
from tests.operations.test_retention import run
from tests.rig import wait_until

Db = psycopg.Connection[Any]

MONTHS_PASS = """
    UPDATE message
    SET sent_at = sent_at - interval '2400 hours', stored_at = stored_at - interval '2400 hours';
    UPDATE meter SET active_from = active_from - interval '2400 hours',
      retired_at = retired_at - interval '2400 hours';
    UPDATE total SET window_start = window_start - interval '2400 hours' WHERE window_start > '2000-01-01Z'
"""


@pytest.fixture
def metered(db: Db) -> None:
    for event_type in ("pulse", "void"):
        registry.publish_schema(db, event_type, {})
    add_meter(db)


def pass_months(db: Db) -> None:
    db.execute(MONTHS_PASS)


def removed(db: Db) -> list[tuple[Any, ...]]:
    return db.execute(
        "SELECT tenant_id, group_key::jsonb ->> 'product_sku', value, messages FROM usage_removal"
        " ORDER BY 1, 2"
    ).fetchall()


@pytest.mark.usefixtures("metered")
def test_totals_keep_what_removed_messages_had_added_and_the_proof_adds_up(saver: Saver, db: Db) -> None:
    of_globex = a_pulse(3, tenant_id="globex")
    saver.save(a_pulse("0.1"), a_pulse("0.2"), a_pulse("123456789012345678901234567.891", "cpu"), of_globex)
    before = totals(db)
    pass_months(db)

    run(db, step_size=1)

    assert count(db, "message") == 0
    assert totals(db) == before
    assert removed(db) == [
        ("acme", "cpu", Decimal("123456789012345678901234567.891"), 1),
        ("acme", "disk", Decimal("0.3"), 2),
        ("globex", "disk", Decimal(3), 1),
    ]
    assert differences(db) == []


def test_what_later_runs_remove_is_added(saver: Saver, db: Db) -> None:
    registry.publish_schema(db, "pulse", {})
    add_meter(db, window_size="none")
    for amount in ("0.1", "0.02"):
        saver.save(a_pulse(amount))
        pass_months(db)
        run(db)

    assert removed(db) == [("acme", "disk", Decimal("0.12"), 2)]
    assert differences(db) == []


@pytest.mark.usefixtures("metered")
def test_what_did_not_count_is_not_noted(saver: Saver, db: Db) -> None:
    """A miss, a cancelled message, one from before a meter, and one of an event type without any."""
    saver.save(a_pulse(1, id="p-1"), a_pulse(2, "x" * 2000), a_delivery(sent_now=True))
    add_meter(db, "late")
    saver.save(a_void("p-1"))
    pass_months(db)

    run(db)

    assert count(db, "message") == 0
    assert removed(db) == []
    assert differences(db) == []


@pytest.mark.usefixtures("metered")
def test_what_a_retired_meter_had_counted_is_noted(saver: Saver, db: Db) -> None:
    saver.save(a_pulse(1))
    db.execute("UPDATE meter SET status = 'retired'")
    saver.save(a_pulse(2))
    pass_months(db)

    run(db)

    assert removed(db) == [("acme", "disk", Decimal(1), 1)]
    assert differences(db) == []


@pytest.mark.usefixtures("metered")
def test_a_void_that_comes_after_its_message_was_removed_takes_nothing_away(saver: Saver, db: Db) -> None:
    saver.save(a_pulse(5, id="p-1"))
    pass_months(db)
    run(db)

    assert saver.outcomes(a_void("p-1")) == ["stored"]

    assert totals(db) == [("acme", "disk", Decimal(5), 1)]
    assert differences(db) == []


@pytest.mark.usefixtures("metered")
def test_voids_that_a_meter_counts_are_noted_and_what_they_cancel_stays_cancelled(
    saver: Saver, db: Db
) -> None:
    add_meter(
        db, "voids", event_type="void", aggregation="count", value_pointer=None,
        group_names=[], group_pointers=[],
    )  # fmt: skip
    saver.save(a_void("p-1"))
    pass_months(db)

    run(db)
    saver.save(a_pulse(5, id="p-1"))

    assert removed(db) == [("acme", None, Decimal(1), 1)]
    assert totals(db) == [("acme", None, Decimal(1), 1)]
    assert differences(db) == []


@pytest.mark.usefixtures("metered")
def test_a_void_waits_for_a_step_that_may_be_removing_its_message(
    saver: Saver, database_url: str, db: Db
) -> None:
    """Else the step, which does not see the void, notes as removed what the void takes away."""
    saver.save(a_pulse(5, id="p-1"))
    pass_months(db)
    blocked = "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = %s"
    with connect(database_url) as remover, connect(database_url) as holder:
        removing = threading.Thread(target=run, args=[remover], daemon=True)
        voiding = threading.Thread(target=saver.save, args=[a_void("p-1")], daemon=True)
        with holder.transaction():
            holder.execute("SELECT FROM message FOR UPDATE")
            removing.start()
            wait_until(lambda: db.execute(blocked, ["transactionid"]).fetchone() is not None, "it removes")
            voiding.start()
            wait_until(
                lambda: not voiding.is_alive() or db.execute(REGISTRY_WAITS).fetchone() is not None,
                "the void waits",
            )
        removing.join(30)
        voiding.join(30)

    assert count(db, "voided") == 1
    assert differences(db) == []


@pytest.mark.usefixtures("metered")
def test_processors_save_and_void_while_old_rows_go(make_saver: MakeSaver, database_url: str, db: Db) -> None:
    old = make_saver()
    old.save(*(a_pulse("0.01", f"sku-{n % 7}", id=f"old-{n}") for n in range(200)))
    pass_months(db)

    def work(saver: Saver, first: int) -> None:
        for n in range(first, 200, 4):
            batch: list[Delivery] = [
                a_void(f"old-{n}"),
                a_pulse("0.1", id=f"new-{n}"),
                a_void(f"new-{n - 4}"),
            ]
            saver.save(*batch)

    workers = [threading.Thread(target=work, args=[make_saver(), first], daemon=True) for first in range(2)]
    for worker in workers:
        worker.start()
    with connect(database_url) as connection:
        ages = Ages(message=40, duplicate=None, rejection=None, key=35)
        apply(connection, ages, step_size=5, pause_s=0, stop=threading.Event(), statement_timeout_s=20)
    for worker in workers:
        worker.join(60)

    assert count(db, "voided") > 0
    assert differences(db) == []
