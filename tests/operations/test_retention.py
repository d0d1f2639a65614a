"""What is old goes, what must stay stays, what went stays counted, and nobody who saves meanwhile notices."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import psycopg
import pytest

from processor.database.connection import connect
from processor.database.queries import queries
from processor.errors import Busy, StoreFault
from processor.operations import retention
from processor.operations.audit import audit
from processor.operations.retention import Ages, Step, apply, plan
from processor.sources.quarantine import RejectionSelection, discard
from tests.builders import a_delivery, an_event
from tests.fixtures.audit import wrong
from tests.fixtures.database import REGISTRY_WAITS, MakeSaver, Saver, books
from tests.rig import wait_until

Db = psycopg.Connection[Any]

OLD_MESSAGES = """
    INSERT INTO message (tenant_id, message_id, event_type, schema_id, sent_at, stored_at, payload, queue,
      delivery_id, receive_count)
    SELECT 'acme', 'old-' || n, 'order.created', 1, moment, moment, '{"total": 12.5}', 'events',
      'old-delivery-' || n, 1
    FROM (SELECT n, now() - interval '100 days' AS moment FROM generate_series(1, %s) AS n) AS rows
"""
ALL_40 = Ages(message=40, duplicate=40, rejection=40, key=35)


def run(db: Db, ages: Ages = ALL_40, step_size: int = 1000) -> dict[str, int]:
    return apply(db, ages, step_size=step_size, pause_s=0, stop=threading.Event(), statement_timeout_s=20)


def age(db: Db, days: int, where: str = "true") -> None:
    """Make all rows that much older; their constraints stay kept."""
    for table, columns in {
        "message": ("sent_at", "stored_at"),
        "duplicate": ("sent_at", "received_at"),
        "rejection": ("sent_at", "rejected_at", "closed_at"),
    }.items():
        moved = ", ".join(f"{name} = {name} - interval '{days} days'" for name in columns)
        db.execute(f"UPDATE {table} SET {moved} WHERE {where}")


def removals(db: Db) -> dict[tuple[str, str], int]:
    """Rows removed, by tenant and outcome."""
    rows = db.execute("SELECT tenant_id, outcome, sum(row_count)::int FROM removal GROUP BY 1, 2").fetchall()
    return {(tenant_id, outcome): number for tenant_id, outcome, number in rows}


def one_of_each(saver: Saver, db: Db) -> None:
    """Two messages, a duplicate, and a rejection of each status; all of them now."""
    event = an_event(id="o-1")
    saver.save(a_delivery(**event, sent_now=True), a_delivery(tenant_id="globex", sent_now=True))
    db.execute("UPDATE message SET sent_at = now()")
    saver.save(a_delivery(**event), a_delivery(b"open"), a_delivery(b"discarded"), a_delivery(tenant_id="?"))
    db.execute("UPDATE duplicate SET sent_at = now(), received_at = now()")
    db.execute("UPDATE rejection SET sent_at = now()")
    bad = db.execute("SELECT rejection_id FROM rejection WHERE body <> 'open'").fetchall()
    discard(db, RejectionSelection(rejection_ids=[rejection_id for (rejection_id,) in bad]))


# ── what goes, and what stays ─────────────────────────────────────────────────────────────────────────


def test_what_is_old_goes_and_is_counted_and_the_audit_holds(saver: Saver, db: Db) -> None:
    one_of_each(saver, db)
    age(db, 41)

    removed = run(db)

    assert removed == {"duplicate": 1, "rejection": 2, "message": 2}
    assert books(db) == {"message": 0, "duplicate": 0, "rejection": 1}
    assert db.execute("SELECT status FROM rejection").fetchall() == [("open",)]
    # A tenant that is only claimed is nobody's, lest senders make this table grow.
    assert removals(db) == {
        ("acme", "message"): 1,
        ("globex", "message"): 1,
        ("acme", "duplicate"): 1,
        ("", "rejection_discarded"): 2,
    }
    report = audit(db, [], None)
    assert report.holds
    assert report.removed == {
        "message": 2,
        "duplicate": 1,
        "rejection_discarded": 2,
        "rejection_replayed": 0,
    }
    assert "+ removed                     5" in report.text()


def test_what_is_younger_than_its_age_stays(saver: Saver, db: Db) -> None:
    one_of_each(saver, db)
    age(db, 39)

    assert run(db) == {"duplicate": 0, "rejection": 0, "message": 0}
    assert books(db) == {"message": 2, "duplicate": 1, "rejection": 3}
    assert removals(db) == {}


@pytest.mark.parametrize(
    ("ages", "left"),
    [
        (Ages(None, None, None, 35), {"message": 2, "duplicate": 1, "rejection": 3}),
        (Ages(40, None, None, 35), {"message": 0, "duplicate": 1, "rejection": 3}),
        (Ages(None, 40, None, 35), {"message": 2, "duplicate": 0, "rejection": 3}),
        (Ages(None, None, 40, 35), {"message": 2, "duplicate": 1, "rejection": 1}),
        (Ages(42, 40, 42, 35), {"message": 2, "duplicate": 0, "rejection": 3}),
    ],
)
def test_each_table_has_an_age_of_its_own_and_none_means_for_ever(
    saver: Saver, db: Db, ages: Ages, left: dict[str, int]
) -> None:
    one_of_each(saver, db)
    age(db, 41)

    run(db, ages)

    assert books(db) == left
    assert wrong(audit(db, [], None)) == {}


def test_rows_are_counted_by_the_day_on_which_they_were_stored(saver: Saver, db: Db) -> None:
    saver.save(a_delivery(), a_delivery(), a_delivery())
    db.execute("UPDATE message SET stored_at = '2026-01-01T23:59:59.9Z' WHERE message_id <> 'x'")
    db.execute(
        "UPDATE message SET stored_at = '2026-01-02T00:00:00Z' WHERE ctid = (SELECT max(ctid) FROM message)"
    )
    db.execute("SET TimeZone = 'Pacific/Auckland'")

    run(db, step_size=1)

    rows = db.execute("SELECT tenant_id, outcome, day::text, row_count FROM removal ORDER BY day").fetchall()
    assert rows == [("acme", "message", "2026-01-01", 2), ("acme", "message", "2026-01-02", 1)]


def test_the_count_of_a_day_grows_by_what_later_runs_remove(saver: Saver, db: Db) -> None:
    for _ in range(2):
        event = an_event()
        saver.save(a_delivery(**event), a_delivery(**event), a_delivery(b"nonsense"))
        discard(db, RejectionSelection())
        for table, column in {"message": "stored", "duplicate": "received", "rejection": "closed"}.items():
            db.execute(f"UPDATE {table} SET {column}_at = '2026-01-01T12:00:00Z'")
        run(db)

    rows = db.execute("SELECT outcome, day::text, row_count FROM removal ORDER BY outcome").fetchall()
    assert rows == [
        ("duplicate", "2026-01-01", 2),
        ("message", "2026-01-01", 2),
        ("rejection_discarded", "2026-01-01", 2),
    ]


def test_a_second_run_finds_nothing(db: Db) -> None:
    db.execute(OLD_MESSAGES, [10])
    run(db)

    assert run(db) == {"duplicate": 0, "rejection": 0, "message": 0}
    assert removals(db) == {("acme", "message"): 10}


# ── keys ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_message_stays_while_a_duplicate_showed_its_key_within_the_age_of_keys(
    saver: Saver, db: Db
) -> None:
    """Else the duplicate, come again from a dead-letter queue under a new delivery id, would count."""
    event = an_event(id="o-1")
    saver.save(a_delivery(**event), a_delivery(**event))
    db.execute("UPDATE message SET stored_at = now() - interval '100 days'")
    db.execute("UPDATE duplicate SET received_at = now() - interval '34 days'")

    assert run(db)["message"] == 0
    assert saver.outcomes(a_delivery(**event)) == ["duplicate"]

    db.execute("UPDATE duplicate SET received_at = now() - interval '37 days'")
    assert run(db)["message"] == 1


@pytest.mark.parametrize(("rejected_days_ago", "removed"), [(34, 0), (35.5, 0), (37, 1)])
def test_a_message_stays_while_an_open_rejection_of_its_key_may_be_replayed(
    saver: Saver, db: Db, rejected_days_ago: float, removed: int
) -> None:
    """And a day longer: a replay may have begun just in time. When it was sent is what the sender says."""
    event = an_event(id="o-1")
    saver.save(a_delivery(**event))
    saver.save(a_delivery(**event | {"payload": {"total": 0}}))
    db.execute("UPDATE message SET stored_at = now() - interval '100 days'")
    db.execute("UPDATE rejection SET rejected_at = now() - %s * interval '1 day'", [rejected_days_ago])

    assert run(db)["message"] == removed


def test_another_tenants_or_producers_rows_hold_no_message(saver: Saver, db: Db) -> None:
    for changes in ({"tenant_id": "globex"}, {"producer": "shop"}, {}):
        event = an_event(id="o-1", **changes)
        saver.save(a_delivery(**event))
        if changes:
            saver.save(a_delivery(**event), a_delivery(**event | {"payload": {"total": 0}}, sent_now=True))
    db.execute("UPDATE message SET stored_at = now() - interval '100 days'")

    run(db, Ages(message=40, duplicate=None, rejection=None, key=35))

    assert removals(db) == {("acme", "message"): 1}


def test_a_message_sent_again_after_it_was_removed_counts_anew(saver: Saver, db: Db) -> None:
    event = an_event(id="o-1")
    saver.save(a_delivery(**event))
    age(db, 100)
    run(db)

    assert saver.outcomes(a_delivery(**event)) == ["stored"]


# ── the plan ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_plan_counts_what_apply_removes_and_changes_nothing(saver: Saver, db: Db) -> None:
    event = an_event(id="o-1")
    one_of_each(saver, db)
    age(db, 41)
    saver.save(a_delivery(**event))

    rows = plan(db, ALL_40)
    before = books(db)
    removed = run(db)

    assert [(r["outcome"], r["tenant_id"], r["row_count"], r["kept_count"]) for r in rows] == [
        ("duplicate", "acme", 1, 0),
        ("message", "acme", 0, 1),
        ("message", "globex", 1, 0),
        ("rejection_discarded", "", 2, 0),
    ]
    assert before == {"message": 2, "duplicate": 2, "rejection": 3}
    assert sum(removed.values()) == sum(row["row_count"] for row in rows)
    assert rows[0]["oldest_at"] == rows[0]["newest_at"] is not None
    assert rows[1]["oldest_at"] is None


def test_a_duplicate_that_goes_itself_still_holds_its_message_in_the_same_run(saver: Saver, db: Db) -> None:
    """So that the plan counts what apply removes."""
    event, ages = an_event(id="o-1"), Ages(message=35, duplicate=35, rejection=35, key=35)
    saver.save(a_delivery(**event), a_delivery(**event))
    db.execute("UPDATE message SET stored_at = now() - interval '100 days'")
    db.execute("UPDATE duplicate SET received_at = now() - interval '35.5 days'")

    assert [(row["outcome"], row["row_count"]) for row in plan(db, ages)] == [
        ("duplicate", 1),
        ("message", 0),
    ]
    assert run(db, ages) == {"message": 0, "duplicate": 1, "rejection": 0}


def test_the_plan_of_no_ages_is_empty(saver: Saver, db: Db) -> None:
    one_of_each(saver, db)
    age(db, 10_000)

    assert plan(db, Ages(None, None, None, 35)) == []


# ── small steps, beside others ────────────────────────────────────────────────────────────────────────


def test_no_transaction_removes_more_than_a_step(db: Db) -> None:
    db.execute(OLD_MESSAGES, [1000])
    steps: list[Step] = []

    apply(
        db,
        ALL_40,
        step_size=300,
        pause_s=0,
        stop=threading.Event(),
        statement_timeout_s=20,
        on_step=steps.append,
    )

    assert [step.removed for step in steps if step.table == "message"] == [300, 300, 300, 100]
    assert [step.read_ratio for step in steps] == [1, 1, 1, 1]


def test_a_table_of_many_windows_is_read_to_its_end(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    db.execute(OLD_MESSAGES, [1000])
    monkeypatch.setattr(retention, "WINDOW_BLOCKS", 2)

    assert run(db, step_size=7)["message"] == 1000


def test_a_stop_ends_after_the_step_under_way(db: Db) -> None:
    db.execute(OLD_MESSAGES, [1000])
    stop = threading.Event()

    removed = apply(
        db,
        ALL_40,
        step_size=100,
        pause_s=0,
        stop=stop,
        statement_timeout_s=20,
        on_step=lambda _step: stop.set(),
    )

    assert removed == {"duplicate": 0, "rejection": 0, "message": 100}
    assert removals(db) == {("acme", "message"): 100}
    assert run(db)["message"] == 900


def test_a_second_one_at_the_same_time_says_so(database_url: str, db: Db) -> None:
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE public_locks.books_lock IN EXCLUSIVE MODE")

        with pytest.raises(Busy, match="another"):
            run(db)
    # The server lets go of the lock a moment after the session has ended.
    wait_until(lambda: _runs(db), "the lock is free")


def _runs(db: Db) -> bool:
    try:
        run(db)
    except Busy:
        return False
    return True


def test_two_at_once_remove_and_count_each_row_once(
    database_url: str, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock only spares work: where the session that holds it was ended, the books still are right."""
    db.execute(OLD_MESSAGES, [2000])
    monkeypatch.setattr(retention, "maintenance_lock", lambda _connection: nullcontext(lambda: None))
    removed: list[int] = []

    def work() -> None:
        with connect(database_url) as connection:
            removed.append(run(connection, step_size=50)["message"])

    threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert sum(removed) == 2000
    assert removals(db) == {("acme", "message"): 2000}


def test_processors_save_while_old_rows_go(make_saver: MakeSaver, database_url: str, db: Db) -> None:
    """New events, and old ones sent again, whose rows may be going at that very moment."""
    db.execute(OLD_MESSAGES, [3000])
    chance = random.Random(1)
    outcomes: list[str] = []

    def ingest(saver: Saver) -> None:
        for _ in range(50):
            again = [f"old-{chance.randint(1, 3000)}" for _ in range(5)]
            outcomes.extend(
                saver.outcomes(*[a_delivery() for _ in range(20)], *[a_delivery(id=name) for name in again])
            )

    writers = [threading.Thread(target=ingest, args=[make_saver()], daemon=True) for _ in range(2)]
    for writer in writers:
        writer.start()
    with connect(database_url) as connection:
        while any(writer.is_alive() for writer in writers):
            run(connection, step_size=20)
    run(db)

    assert len(outcomes) == 2500
    assert set(outcomes) <= {"stored", "duplicate"}
    found = db.execute("SELECT count(*) FROM message").fetchone()
    assert found == (outcomes.count("stored") + 3000 - removals(db)["acme", "message"],)
    assert wrong(audit(db, [], None)) == {}


# ── a key that goes between two statements of a save ──────────────────────────────────────────────────


BeforeStatement = Callable[[str, Callable[[], object]], None]


@pytest.fixture
def before_statement(monkeypatch: pytest.MonkeyPatch) -> BeforeStatement:
    """Does something of another session's just before a statement of save, each time."""
    execute = psycopg.Cursor.execute
    deeds: dict[str, Callable[[], object]] = {}

    def watched(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(query, str) and query in deeds:
            deeds[query]()
        return execute(cursor, query, *args, **kwargs)

    monkeypatch.setattr(psycopg.Cursor, "execute", watched)
    return lambda name, deed: deeds.update({queries("save")[name]: deed})


def test_a_message_that_a_person_removes_while_it_comes_again_is_stored(
    saver: Saver, database_url: str, db: Db, before_statement: BeforeStatement
) -> None:
    db.execute(OLD_MESSAGES, [1])
    with connect(database_url) as other:
        before_statement("classify_messages", lambda: other.execute("DELETE FROM message"))

        outcomes = saver.outcomes(a_delivery(id="old-1"), a_delivery())

    assert outcomes == ["stored", "stored"]
    assert books(db)["message"] == 2


@pytest.mark.parametrize(
    ("payload", "outcome"), [({"total": 12.5}, "duplicate"), ({"total": 0}, "id_conflict")]
)
def test_a_message_stays_that_an_uncommitted_save_has_just_found(
    saver: Saver, database_url: str, db: Db, payload: dict[str, float], outcome: str
) -> None:
    """Else its duplicate would repeat nothing, and count when it comes again under a new delivery id."""
    db.execute(OLD_MESSAGES, [2])
    waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = %s"
    outcomes: list[str] = []
    removed: list[dict[str, int]] = []
    delivery = a_delivery(id="old-1", payload=payload, sent_now=True)
    saving = threading.Thread(target=lambda: outcomes.extend(saver.outcomes(delivery)), daemon=True)
    with connect(database_url) as holder, connect(database_url) as remover:
        removing = threading.Thread(target=lambda: removed.append(run(remover)), daemon=True)
        with holder.transaction():
            # Behind its finding of the message, and before its commit.
            holder.execute("LOCK TABLE duplicate, rejection IN SHARE MODE")
            saving.start()
            wait_until(lambda: db.execute(waiting, ["relation"]).fetchone() is not None, "it is saving")
            removing.start()
            wait_until(
                lambda: not removing.is_alive() or db.execute(REGISTRY_WAITS).fetchone() is not None,
                "the step waits for the save",
            )
        saving.join(30)
        removing.join(30)

    assert outcomes == [outcome]
    assert removed[0]["message"] == 1
    assert db.execute("SELECT message_id FROM message").fetchall() == [("old-1",)]


def test_a_message_that_is_never_found_is_a_fault_and_not_settled(
    saver: Saver, database_url: str, db: Db, before_statement: BeforeStatement
) -> None:
    with connect(database_url) as other:
        before_statement("insert_messages", lambda: other.execute(OLD_MESSAGES, [1]))
        before_statement("classify_messages", lambda: other.execute("DELETE FROM message"))

        with pytest.raises(StoreFault, match="neither stored nor found"):
            saver.save(a_delivery(id="old-1"))

    assert books(db)["message"] == 0


def test_who_saves_the_key_that_is_going_waits_for_the_step_and_stores_it(
    saver: Saver, database_url: str, db: Db
) -> None:
    db.execute(OLD_MESSAGES, [1])
    outcomes: list[str] = []
    thread = threading.Thread(
        target=lambda: outcomes.extend(saver.outcomes(a_delivery(id="old-1"))), daemon=True
    )
    with connect(database_url) as other, other.transaction():
        other.execute("DELETE FROM message")
        thread.start()
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
        wait_until(lambda: db.execute(waiting).fetchone() is not None, "the writer waits")
    thread.join(30)

    assert outcomes == ["stored"]


# ── killed and stopped ────────────────────────────────────────────────────────────────────────────────


def _start(database_url: str, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "processor", "retention", "apply", "--message-days", "40", *options],
        env=os.environ | {"DATABASE_URL": database_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_however_it_is_ended_what_went_is_counted_and_the_rest_is_there(
    database_url: str, db: Db, number: signal.Signals
) -> None:
    db.execute(OLD_MESSAGES, [5000])
    child = _start(database_url, "--step-size", "10", "--pause-ms", "10")
    wait_until(lambda: bool(removals(db)), "something was removed")

    child.send_signal(number)
    out, error = child.communicate(timeout=30)

    assert child.returncode == (-number if number == signal.SIGKILL else 128 + number), error
    if number != signal.SIGKILL:
        assert "stopped; what was removed is counted" in error
        assert out == f"message: {removals(db)['acme', 'message']} removed\n"
    # The server ends the statement under way by itself, in a moment.
    wait_until(
        lambda: (
            db.execute(
                "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'WITH chosen%' AND state = 'active'"
                " AND datname = current_database()"
            ).fetchone()
            is None
        ),
        "the last step has ended",
    )
    gone = removals(db)["acme", "message"]
    assert 0 < gone < 5000
    assert books(db)["message"] + gone == 5000
    assert wrong(audit(db, [], None)) == {}
    wait_until(lambda: _runs(db), "the lock is free")
    assert removals(db) == {("acme", "message"): 5000}
