"""Rebuild counts what a meter has not counted and mends what is wrong, beside savers and voids."""

import itertools
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from processor.errors import Busy, NotFound, SettingsError
from processor.usage import rebuild as rebuild_module
from processor.usage.rebuild import rebuild
from processor.usage.selection import TotalsSelection
from processor.usage.verify import verify
from tests.fixtures.database import MakeSaver, Saver, count
from tests.usage.test_metering import a_pulse, a_void, metered

__all__ = ["metered"]

Db = psycopg.Connection[Any]

NEW = TotalsSelection(meter="new")
PULSE = TotalsSelection(meter="pulse")


def add_meter(db: Db, name: str = "new", tenant_id: str | None = None) -> None:
    db.execute(
        "INSERT INTO meter (meter, tenant_id, event_type, aggregation, value_pointer, group_names,"
        " group_pointers) VALUES (%s, %s, 'pulse', 'sum', '/used_amount', '{sku}', '{/product_sku}')",
        (name, tenant_id),
    )


def sums(db: Db, meter: str = "new") -> list[tuple[str, Decimal, int]]:
    return db.execute(
        "SELECT tenant_id, sum(value), sum(messages)::int FROM usage WHERE meter = %s GROUP BY 1 ORDER BY 1",
        [meter],
    ).fetchall()


@pytest.mark.usefixtures("metered")
def test_messages_from_before_a_meter_are_counted_by_a_rebuild_alone_and_once(saver: Saver, db: Db) -> None:
    saver.save(a_pulse("0.1"), a_pulse("0.2"), a_pulse(5, tenant_id="globex"))
    add_meter(db)
    saver.save(a_pulse("1"))
    assert sums(db) == [("acme", Decimal(1), 1)]

    first, again = rebuild(db, NEW), rebuild(db, NEW)

    assert sums(db) == [("acme", Decimal("1.3"), 3), ("globex", Decimal(5), 1)]
    assert (first.totals, again.totals) == (2, 0)
    assert first.differences[0]["value"] == "0.3"
    assert verify(db).holds
    assert count(db, "usage_rebuild") == 1


@pytest.mark.usefixtures("metered")
def test_a_dry_run_says_what_a_rebuild_would_add_and_adds_nothing(saver: Saver, db: Db) -> None:
    saver.save(a_pulse("0.1"), a_pulse("0.2", product_sku=None), a_pulse(2, sku=""))
    add_meter(db)

    planned = rebuild(db, NEW, dry_run=True)

    assert (sums(db), count(db, "usage_rebuild")) == ([], 0)
    assert planned == rebuild(db, NEW)
    assert sums(db) != []


@pytest.mark.usefixtures("metered")
def test_beside_savers_and_voids_nothing_is_lost_and_nothing_doubled(make_saver: MakeSaver, db: Db) -> None:
    old = [f"old-{n}" for n in range(60)]
    make_saver().save(*(a_pulse("0.1", f"sku-{n % 5}", id=name) for n, name in enumerate(old)))
    add_meter(db)
    ended, saved = threading.Event(), threading.Semaphore(0)
    names = itertools.count()

    def work(saver: Saver, voided: list[str]) -> None:
        while not ended.is_set():
            ids = [f"new-{next(names)}" for _ in range(20)]
            saver.save(*(a_pulse("0.7", f"sku-{n % 5}", id=name) for n, name in enumerate(ids)))
            saver.save(a_void(ids[3]), *([a_void(voided.pop())] if voided else []))
            saved.release()

    threads = [
        threading.Thread(target=work, args=(make_saver(), old[n * 10 : n * 10 + 10]), daemon=True)
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for _ in range(4):
        # Each of these meets saves that are under way, of which some are seen and some are not.
        for _ in range(3):
            assert saved.acquire(timeout=30)
        rebuild(db, NEW)
    ended.set()
    for thread in threads:
        thread.join(timeout=30)

    report = verify(db)
    assert report.holds, report.text()
    assert sums(db) == sums(db, "pulse")


@pytest.mark.usefixtures("metered")
def test_a_void_between_the_first_commit_and_the_sums_is_taken_off_once(saver: Saver, db: Db) -> None:
    saver.save(a_pulse(3, id="one"), a_pulse(4, id="two"))
    add_meter(db)
    # What a rebuild that was killed at once leaves behind.
    db.execute(
        "INSERT INTO usage_rebuild SELECT meter_id, '-infinity', 'infinity' FROM meter WHERE meter = 'new'"
    )
    saver.save(a_void("one"))
    assert sums(db) == [("acme", Decimal(-3), -1)]

    rebuild(db, NEW)

    assert sums(db) == [("acme", Decimal(4), 1)]
    assert verify(db).holds


@pytest.mark.usefixtures("metered")
def test_one_that_is_ended_in_the_middle_is_finished_by_the_next(
    saver: Saver, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild_module, "STEP_SIZE", 2)
    saver.save(*(a_pulse(1, f"sku-{n}") for n in range(9)))
    add_meter(db)

    def end(_added: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rebuild(db, NEW, on_step=end)
    halfway = verify(db)
    rest = rebuild(db, NEW)

    assert halfway.problems["total_differs"] == rest.totals == 7
    assert verify(db).holds


@pytest.mark.usefixtures("metered")
@pytest.mark.parametrize(
    "deed",
    [
        "UPDATE total SET value = value * 2, messages = 7",
        "DELETE FROM total",
        'UPDATE total SET group_key = \'{"product_sku": "other", "use_unity": "GB"}\'',
        "UPDATE total SET slot = 5, value = 0",
        "DELETE FROM message",
    ],
)
def test_what_somebody_did_to_totals_is_found_mended_and_closed_anew(saver: Saver, db: Db, deed: str) -> None:
    saver.save(a_pulse("1.1"), a_pulse("2.2"))
    db.execute("UPDATE total SET is_closed = true")
    db.execute(deed)
    assert not verify(db).holds

    rebuild(db, PULSE)

    assert verify(db).problems["total_differs"] == 0
    changed = db.execute("SELECT bool_or(is_closed) FROM total WHERE slot = 0").fetchone()
    assert changed == (False,)
    assert rebuild(db, PULSE).totals == 0


@pytest.mark.usefixtures("metered")
def test_what_retention_removed_stays_counted(saver: Saver, db: Db) -> None:
    saver.save(a_pulse("1.1", id="one"), a_pulse("2.2", id="two"))
    db.execute(
        "INSERT INTO usage_removal SELECT tenant_id, meter_id, window_start, group_key, 1.1, 1, now()"
        " FROM total"
    )
    db.execute("DELETE FROM message WHERE message_id = 'one'")

    report = verify(db)

    assert report.holds
    assert report.removed_window_count == 1
    assert report.removed_windows[0]["messages"] == 1
    assert rebuild(db, PULSE).totals == 0


@pytest.mark.usefixtures("metered")
def test_only_the_windows_that_are_named_are_counted(saver: Saver, db: Db) -> None:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)
    for hours in range(3):
        saver.save(a_pulse(10**hours, occurred_at=(hour + timedelta(hours=hours)).isoformat()))
    add_meter(db)
    until = hour + timedelta(hours=1)

    rebuild(db, TotalsSelection(meter="new", window_from=hour, window_until=until))

    assert sums(db) == [("acme", Decimal(1), 1)]
    assert verify(db).holds
    rebuild(db, TotalsSelection(meter="new", window_from=until))
    assert sums(db) == [("acme", Decimal(111), 3)]


@pytest.mark.usefixtures("metered")
def test_for_one_tenant_of_a_shared_meter_totals_are_mended_and_older_messages_left(
    saver: Saver, db: Db
) -> None:
    saver.save(a_pulse(1), a_pulse(1, tenant_id="globex"))
    add_meter(db)
    saver.save(a_pulse(2), a_pulse(2, tenant_id="globex"))
    db.execute(
        "UPDATE total SET value = 9 WHERE meter_id IN (SELECT meter_id FROM meter WHERE meter = 'new')"
    )

    rebuilt = rebuild(db, TotalsSelection(meter="new", tenant_id="acme"))

    assert not rebuilt.counts_older
    assert sums(db) == [("acme", Decimal(2), 1), ("globex", Decimal(9), 1)]
    [row] = verify(db).examples["total_differs"]
    assert row["tenant_id"] == "globex"


@pytest.mark.usefixtures("metered")
def test_a_tenants_own_meter_counts_its_older_messages(saver: Saver, db: Db) -> None:
    saver.save(a_pulse(1), a_pulse(1, tenant_id="globex"))
    add_meter(db, tenant_id="acme")

    rebuilt = rebuild(db, TotalsSelection(meter="new", tenant_id="acme"))

    assert rebuilt.counts_older
    assert sums(db) == [("acme", Decimal(1), 1)]
    assert verify(db).holds


@pytest.mark.usefixtures("metered")
@pytest.mark.parametrize(
    ("selection", "error", "words"),
    [
        (TotalsSelection(meter="nix"), NotFound, "no meter 'nix'"),
        (TotalsSelection(meter="pulse", tenant_id="nix"), NotFound, "no tenant 'nix'"),
        (TotalsSelection(meter="own", tenant_id="globex"), NotFound, "that counts for tenant 'globex'"),
        (TotalsSelection(meter="\0"), NotFound, "no meter"),
    ],
)
def test_what_is_not_there_is_said(
    db: Db, selection: TotalsSelection, error: type[Exception], words: str
) -> None:
    add_meter(db, "own", "acme")

    with pytest.raises(error, match=words):
        rebuild(db, selection)
    with pytest.raises(error, match=words):
        verify(db, selection)


@pytest.mark.usefixtures("metered")
def test_a_meter_without_windows_is_rebuilt_whole(saver: Saver, db: Db) -> None:
    saver.save(a_pulse(1))
    db.execute(
        "INSERT INTO meter (meter, event_type, aggregation, window_size)"
        " VALUES ('new', 'pulse', 'count', 'none')"
    )

    with pytest.raises(SettingsError, match="leave out --from and --until"):
        rebuild(db, TotalsSelection(meter="new", window_from=datetime.now(UTC)))
    rebuild(db, NEW)

    assert sums(db) == [("acme", Decimal(1), 1)]


@pytest.mark.usefixtures("metered")
def test_a_rebuild_whose_lock_was_lost_adds_nothing_more(
    saver: Saver, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another may have begun meanwhile, and would add the same once more."""
    saver.save(*(a_pulse(1, f"sku-{number}") for number in range(4)))
    db.execute("UPDATE total SET value = 0")
    monkeypatch.setattr(rebuild_module, "STEP_SIZE", 1)

    def end_its_lock(added: int) -> None:
        if added == 2:
            db.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_locks"
                " WHERE relation = 'public_locks.books_lock'::regclass AND database ="
                " (SELECT oid FROM pg_database WHERE datname = current_database())"
            )

    with pytest.raises(psycopg.OperationalError):
        rebuild(db, PULSE, on_step=end_its_lock)

    assert db.execute("SELECT sum(value) FROM total").fetchone() == (2,)
    assert rebuild(db, PULSE).totals == 2


@pytest.mark.usefixtures("metered")
def test_one_rebuild_is_at_work_at_a_time_and_none_beside_retention(database_url: str, db: Db) -> None:
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE public_locks.books_lock IN EXCLUSIVE MODE")

        with pytest.raises(Busy, match="let it end first"):
            rebuild(db, PULSE)

    assert rebuild(db, PULSE).totals == 0
