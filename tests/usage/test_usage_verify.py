"""Verify says that the totals are what the messages say, or what exactly is not."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from processor.usage import verify as verify_module
from processor.usage.selection import TotalsSelection, choose
from processor.usage.verify import verify
from tests.fixtures.database import Saver
from tests.usage.test_metering import a_pulse, a_void, metered

__all__ = ["metered"]

Db = psycopg.Connection[Any]


@pytest.mark.usefixtures("metered")
def test_totals_that_saves_raised_hold(saver: Saver, db: Db) -> None:
    saver.save(
        *(a_pulse("0.1", f"sku-{n % 3}", id=f"pulse-{n}") for n in range(50)), a_pulse("1e3", id="last")
    )
    saver.save(a_void("pulse-7"), a_pulse(1, id="pulse-7"), a_pulse(2, sku="x" * 1100))

    report = verify(db)

    assert report.holds
    assert (report.totals, report.messages, report.misses) == (4, 50, 1)


@pytest.mark.usefixtures("metered")
@pytest.mark.parametrize(
    ("deed", "expected", "found"),
    [
        ("UPDATE total SET value = value + 1e-30", ("3.3", 2), ("3.300000000000000000000000000001", 2)),
        ("UPDATE total SET messages = messages - 1", ("3.3", 2), ("3.3", 1)),
        ("DELETE FROM total", ("3.3", 2), ("0", 0)),
        ("DELETE FROM message WHERE message_id = 'one'", ("2.2", 1), ("3.3", 2)),
        ("DELETE FROM message", ("0", 0), ("3.3", 2)),
    ],
)
def test_a_total_that_differs_is_named_with_what_was_expected(
    saver: Saver, db: Db, deed: str, expected: tuple[str, int], found: tuple[str, int]
) -> None:
    saver.save(a_pulse("1.1", id="one"), a_pulse("2.2", id="two"))
    db.execute(deed)

    report = verify(db)

    assert not report.holds
    assert report.problems["total_differs"] == 1
    [row] = report.examples["total_differs"]
    assert (row["expected"], row["expected_messages"]) == expected
    assert (row["found"], row["found_messages"]) == found
    assert (row["tenant_id"], row["meter"], row["group"]) == (
        "acme", "pulse", {"product_sku": "disk", "use_unity": "GB"},
    )  # fmt: skip


def close(db: Db, revision: int, value: str, messages: int, total_value: str, total_messages: int) -> None:
    db.execute(
        "INSERT INTO usage_line (tenant_id, meter_id, window_start, group_key, revision, value, messages,"
        " total_value, total_messages)"
        " SELECT tenant_id, meter_id, window_start, group_key, %s, %s, %s, %s, %s"
        " FROM total LIMIT 1",
        (revision, value, messages, total_value, total_messages),
    )
    db.execute("UPDATE total SET is_closed = true")


@pytest.mark.usefixtures("metered")
def test_lines_that_add_up_to_their_closed_total_hold(saver: Saver, db: Db) -> None:
    saver.save(a_pulse("1.1"), a_pulse("2.2"))
    close(db, 1, "1.1", 1, "1.1", 1)
    assert verify(db).problems == {"total_differs": 0, "line_differs": 0, "closing_differs": 1}

    close(db, 2, "2.2", 1, "3.3", 2)

    assert verify(db).holds


@pytest.mark.usefixtures("metered")
@pytest.mark.parametrize(
    ("deed", "problem", "shown"),
    [
        ("UPDATE usage_line SET revision = 3 WHERE revision = 2", "line_differs", ("3.3", "3.3")),
        ("UPDATE usage_line SET value = 2 WHERE revision = 2", "line_differs", ("3.1", "3.3")),
        ("UPDATE usage_line SET messages = 2 WHERE revision = 2", "line_differs", ("3.3", "3.3")),
        ("DELETE FROM usage_line WHERE revision = 2", "closing_differs", ("3.3", "1.1")),
        ("DELETE FROM usage_line", "closing_differs", ("3.3", "0")),
        ("DELETE FROM total", "closing_differs", ("0", "3.3")),
    ],
)
def test_lines_that_do_not_follow_or_end_elsewhere_are_named(
    saver: Saver, db: Db, deed: str, problem: str, shown: tuple[str, str]
) -> None:
    saver.save(a_pulse("1.1"), a_pulse("2.2"))
    close(db, 1, "1.1", 1, "1.1", 1)
    close(db, 2, "2.2", 1, "3.3", 2)
    db.execute(deed)

    report = verify(db)

    assert not report.holds
    assert report.problems[problem] == 1
    [row] = report.examples[problem]
    assert (row["expected"], row["found"]) == shown


@pytest.mark.usefixtures("metered")
def test_all_answers_are_of_one_moment(saver: Saver, db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    saver.save(a_pulse(1))

    def choose_late(*arguments: Any) -> Any:
        saver.save(a_pulse(1))
        return choose(*arguments)

    monkeypatch.setattr(verify_module, "choose", choose_late)

    assert verify(db).messages == 1


@pytest.mark.usefixtures("metered")
@pytest.mark.parametrize("hours", [-50, 3])
def test_the_messages_of_a_window_are_found_and_no_others_however_early_or_late_they_were_stored(
    saver: Saver, db: Db, hours: int
) -> None:
    db.execute(
        "INSERT INTO meter (meter, event_type, aggregation, past_limit, future_limit)"
        " VALUES ('wide', 'pulse', 'count', '3 days', '5 hours')"
    )
    at = datetime.now(UTC) + timedelta(hours=hours)
    window = at.replace(minute=0, second=0, microsecond=0)
    neighbours = [window - timedelta(minutes=30), window + timedelta(minutes=90)]
    saver.save(*(a_pulse(1, occurred_at=moment.isoformat()) for moment in (at, *neighbours)))

    report = verify(
        db, TotalsSelection(meter="wide", window_from=window, window_until=window + timedelta(hours=1))
    )

    assert (report.holds, report.messages) == (True, 1)


@pytest.mark.usefixtures("metered")
def test_a_list_of_differences_ends_and_says_how_many_there_are(saver: Saver, db: Db) -> None:
    saver.save(*(a_pulse(1, f"sku-{n:02}") for n in range(25)))
    db.execute("UPDATE total SET value = 2")

    report = verify(db)

    assert report.problems["total_differs"] == 25
    assert "sku-19" in report.text()
    assert "sku-20" not in report.text()
    assert "... and 5 more" in report.text()


@pytest.mark.usefixtures("metered")
def test_totals_of_a_meter_that_somebody_deleted_are_found(saver: Saver, db: Db) -> None:
    saver.save(a_pulse(1))
    [(meter_id,)] = db.execute("DELETE FROM meter RETURNING meter_id").fetchall()

    [row] = verify(db).examples["total_differs"]

    assert (row["meter"], row["expected"], row["found"]) == (f"meter_id {meter_id}", "0", "1")


def test_where_nothing_is_counted_all_holds(db: Db) -> None:
    assert verify(db, TotalsSelection(tenant_id="acme")).holds
