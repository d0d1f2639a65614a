"""Verify says that the totals are what the messages say, or what exactly is not."""

from typing import Any

import psycopg
import pytest

from processor.usage.selection import Selection
from processor.usage.verify import verify
from tests.edges.test_metering import a_pulse, a_void, metered
from tests.fix_database import Saver

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
    assert (row["tenant"], row["meter"], row["group"]) == (
        "acme", "pulse", {"product_sku": "disk", "use_unity": "GB"},
    )  # fmt: skip


def test_where_nothing_is_counted_all_holds(db: Db) -> None:
    assert verify(db, Selection(tenant_id="acme")).holds
