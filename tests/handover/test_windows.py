"""How windows close: what is written down, once and for ever, whatever comes late or at the same moment."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import psycopg
import pytest

from processor.database.queries import queries
from processor.handover import windows
from processor.handover.dispatcher import Dispatcher, DispatchLimits
from processor.handover.sink import HttpSink
from processor.handover.windows import Closed, close_due
from tests.fixtures.database import MakeSaver, Saver
from tests.fixtures.usage import HOUR, Command, a_pulse, a_void, an_hour_ago, lines, states
from tests.rig import wait_until

Db = psycopg.Connection[Any]

pytestmark = pytest.mark.usefixtures("pulses")


def close(db: Db) -> Closed:
    closed = close_due(db)
    assert closed is not None
    return closed


# ── what a line says ──────────────────────────────────────────────────────────────────────────────────


def test_a_window_closes_when_its_grace_is_over_and_not_before(saver: Saver, db: Db) -> None:
    db.execute("UPDATE meter SET grace = '90 minutes'")
    saver.save(
        a_pulse("0.1", "due", at=an_hour_ago(4)),
        a_pulse("0.2", "due", at=an_hour_ago(4)),
        a_pulse(5, "in grace", at=an_hour_ago(1)),
        a_pulse(7, "open", at=datetime.now(UTC)),
    )

    closed = close(db)

    assert (closed.totals, closed.lines) == (1, 1)
    assert lines(db) == [("due", 1, Decimal("0.3"), 2, False)]
    assert states(db) == {"due": "closed", "in grace": "closing", "open": "open"}
    assert close(db).totals == 0


def test_what_comes_late_makes_a_revision_and_changes_no_line(saver: Saver, db: Db) -> None:
    saver.save(a_pulse(5, message_id="one"), a_pulse(2))
    close(db)
    db.execute("UPDATE usage_line SET handed_over_at = now()")

    saver.save(a_pulse("0.25"))
    close(db)
    saver.save(a_void("one"))
    close(db)

    assert lines(db) == [
        ("disk", 1, 7, 2, True),
        ("disk", 2, Decimal("0.25"), 1, False),
        ("disk", 3, -5, -1, False),
    ]
    assert db.execute("SELECT max(total_value) FILTER (WHERE revision = 3) FROM usage_line").fetchone() == (
        Decimal("2.25"),
    )


def test_what_changes_nothing_in_the_end_makes_no_line(saver: Saver, db: Db) -> None:
    saver.save(a_pulse(5))
    close(db)
    saver.save(a_pulse(3, message_id="one"))
    saver.save(a_void("one"))
    saver.save(a_pulse(4, "cpu", message_id="two"))
    saver.save(a_void("two"))

    closed = close(db)

    assert (closed.totals, closed.lines) == (2, 0)
    assert lines(db) == [("disk", 1, 5, 1, False)]


def test_all_slots_of_a_total_make_one_line(saver: Saver, db: Db) -> None:
    saver.save(a_pulse(1))
    # So many at once go to a slot of the writer's own.
    saver.save(*(a_pulse("0.1") for _ in range(20)))
    assert db.execute("SELECT count(*) FROM total").fetchone() == (2,)

    close(db)

    assert lines(db) == [("disk", 1, Decimal("3.0"), 21, False)]


def test_a_meter_without_windows_never_closes(saver: Saver, db: Db, processor: Command) -> None:
    db.execute(
        "INSERT INTO meter (meter, event_type, aggregation, window_size)"
        " VALUES ('ever', 'pulse', 'count', 'none')"
    )
    saver.save(a_pulse(1))

    close(db)
    answer = processor("usage", "close", "--meter", "ever")

    assert db.execute(
        "SELECT count(*) FROM usage_line JOIN meter USING (meter_id) WHERE meter = 'ever'"
    ).fetchone() == (0,)
    assert answer.code == 2
    assert "no windows" in answer.error


def test_many_are_closed_in_steps(saver: Saver, db: Db) -> None:
    saver.save(*(a_pulse(1, f"sku-{number}") for number in range(7)))

    steps = []
    while (step := close_due(db, 3)) and step.totals:
        steps.append(step.totals)

    assert steps == [3, 3, 1]
    assert len(lines(db)) == 7


# ── at the same moment ────────────────────────────────────────────────────────────────────────────────


def waits_for_a_lock(db: Db) -> bool:
    row = db.execute(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    ).fetchone()
    return row == (1,)


def in_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_save_under_way_is_waited_for_and_counted(saver: Saver, db: Db, database_url: str) -> None:
    saver.save(a_pulse(1))
    with psycopg.connect(database_url) as saving, psycopg.connect(database_url, autocommit=True) as closing:
        saving.execute("UPDATE total SET value = value + 2, messages = messages + 1, is_closed = false")

        closer = in_background(lambda: close_due(closing))
        wait_until(lambda: waits_for_a_lock(db), "the closing waits")
        saving.commit()
        closer.join(10)

    assert lines(db) == [("disk", 1, 3, 2, False)]


def test_a_save_that_waited_for_the_closing_opens_the_window_again(
    saver: Saver, make_saver: MakeSaver, db: Db, database_url: str
) -> None:
    saver.save(a_pulse(1))
    late = make_saver()
    with psycopg.connect(database_url, autocommit=True) as closing:
        with closing.transaction():
            close(closing)
            thread = in_background(lambda: late.save(a_pulse(2)))
            wait_until(lambda: waits_for_a_lock(db), "the save waits")
        thread.join(10)

    assert states(db) == {"disk": "closing"}
    assert close(db).lines == 1
    assert lines(db) == [("disk", 1, 1, 1, False), ("disk", 2, 2, 1, False)]


def test_a_slot_that_comes_into_being_meanwhile_is_left_to_the_next_closing(
    saver: Saver, make_saver: MakeSaver, db: Db, database_url: str
) -> None:
    saver.save(a_pulse(1))
    other = make_saver()
    with psycopg.connect(database_url, autocommit=True) as closing, closing.transaction():
        locked = closing.execute(queries("windows")["lock_due"], {"limit": 10}).fetchall()
        other.save(*(a_pulse(1) for _ in range(20)))
        windows._close(closing, locked)

    assert lines(db) == [("disk", 1, 1, 1, False)]
    assert states(db) == {"disk": "closing"}
    assert close(db).lines == 1
    assert lines(db)[1:] == [("disk", 2, 20, 20, False)]


def test_one_closes_at_a_time_and_the_other_does_not_wait(saver: Saver, db: Db, database_url: str) -> None:
    saver.save(a_pulse(1))
    with psycopg.connect(database_url, autocommit=True) as first, first.transaction():
        close(first)

        assert close_due(db) is None

    assert close_due(db) == Closed()
    assert len(lines(db)) == 1


def test_who_dies_while_closing_has_done_nothing(saver: Saver, db: Db, database_url: str) -> None:
    saver.save(a_pulse(1))

    def close_and_die(closing: Db) -> None:
        with closing.transaction():
            close(closing)
            db.execute("SELECT pg_terminate_backend(%s)", [closing.info.backend_pid])
            closing.execute("SELECT 1")

    with psycopg.connect(database_url, autocommit=True) as doomed, pytest.raises(psycopg.OperationalError):
        close_and_die(doomed)

    assert lines(db) == []
    assert close(db).lines == 1


def test_lines_add_up_to_the_totals_while_many_save_and_several_close(
    make_saver: MakeSaver, db: Db, database_url: str
) -> None:
    ended = threading.Event()

    def save(saver: Saver) -> None:
        for number in range(12):
            hot = [a_pulse("0.01", "hot") for _ in range(18)]
            saver.save(*hot, *(a_pulse("1.5", f"sku-{(number + n) % 5}") for n in range(4)))

    def close_on() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            while not ended.is_set():
                close_due(connection, 2)

    closers = [in_background(close_on) for _ in range(2)]
    savers = [in_background(partial(save, make_saver())) for _ in range(3)]
    for thread in savers:
        thread.join(60)
    ended.set()
    for thread in closers:
        thread.join(10)
    while close(db).totals:
        pass

    sums = db.execute(
        "SELECT group_key, sum(value), sum(messages), max(revision) = count(*) FROM usage_line"
        " GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert [row[:3] for row in sums] == db.execute(
        "SELECT group_key, sum(value), sum(messages) FROM total GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert all(row[3] for row in sums)
    assert sum(row[2] for row in sums) == 3 * 12 * 22


def test_late_events_that_keep_coming_make_one_revision_a_round(saver: Saver, db: Db) -> None:
    saver.save(a_pulse(1), a_pulse(1, "cpu"))

    def transact(work: Callable[[Db], Any]) -> Any:
        done = work(db)
        saver.save(a_pulse(1))
        return done

    limits = DispatchLimits(lines_max=10, amounts="number", outage_wait_s_max=1, refused_wait_s_max=1)
    dispatcher = Dispatcher(transact, sink=HttpSink("http://x", token=None, timeout_s=1), limits=limits)

    dispatcher.close_round()
    dispatcher.close_round()

    assert [line[:2] for line in lines(db)] == [("cpu", 1), ("disk", 1), ("disk", 2)]


# ── by hand ───────────────────────────────────────────────────────────────────────────────────────────


def test_close_does_not_wait_for_the_grace_but_for_the_end(saver: Saver, db: Db, processor: Command) -> None:
    db.execute("UPDATE meter SET grace = '1 day'")
    saver.save(a_pulse(1), a_pulse(2, "open", at=datetime.now(UTC)))
    assert close(db).totals == 0

    first = processor("usage", "close", "--json")
    again = processor("usage", "close")

    assert first.json == {
        "windows_closed": 1,
        "lines_written": 1,
        "windows_released": 0,
        "windows_not_ended": 1,
    }
    assert again.out == "nothing to close; 1 window(s) have not ended and stay open\n"
    assert lines(db) == [("disk", 1, 1, 1, False)]


def test_close_keeps_to_the_meter_the_tenant_and_the_time_that_are_named(
    saver: Saver, db: Db, processor: Command
) -> None:
    db.execute("INSERT INTO meter (meter, event_type, aggregation) VALUES ('pulses', 'pulse', 'count')")
    early, late = an_hour_ago(5), an_hour_ago(3)
    saver.save(a_pulse(1, at=early), a_pulse(2, at=late), a_pulse(4, tenant="globex", at=early))

    processor("usage", "close", "--meter", "pulse", "--tenant", "acme", "--until", (early + HOUR).isoformat())

    assert db.execute("SELECT tenant_id, value FROM usage_line").fetchall() == [("acme", 1)]


def test_a_reopened_window_stays_open_until_it_is_closed_by_hand(
    saver: Saver, db: Db, processor: Command
) -> None:
    saver.save(a_pulse(1))
    close(db)
    db.execute("UPDATE usage_line SET handed_over_at = now()")
    moment = (an_hour_ago() + timedelta(minutes=17)).isoformat()

    first = processor("usage", "reopen", "--meter", "pulse", "--window", moment, "--json")
    again = processor("usage", "reopen", "--meter", "pulse", "--window", moment)

    assert first.code == again.code == 0
    assert [first.json[0][name] for name in ("was_reopened_before", "windows_opened")] == [False, 1]
    assert "was reopened already" in again.out
    assert states(db) == {"disk": "closing"}
    saver.save(a_pulse(2))
    assert close(db).totals == 0
    assert lines(db) == [("disk", 1, 1, 1, True)]

    closed = processor("usage", "close")

    assert closed.out == "1 window(s) closed, 1 line(s) written; 1 reopened window(s) released\n"
    assert lines(db) == [("disk", 1, 1, 1, True), ("disk", 2, 2, 1, False)]
    saver.save(a_pulse(4))
    assert close(db).lines == 1


def test_a_reopened_window_that_did_not_change_gets_no_line(saver: Saver, db: Db, processor: Command) -> None:
    saver.save(a_pulse(1))
    close(db)

    processor("usage", "reopen", "--meter", "pulse", "--window", an_hour_ago().isoformat())
    processor("usage", "close")

    assert len(lines(db)) == 1
    assert states(db) == {"disk": "closed"}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["close", "--meter", "pulsee"], 1, "there is no meter 'pulsee'"),
        (["close", "--until", "2999-01-01T00:00:00Z"], 2, "is still to come"),
        (["close", "--until", "yesterday"], 2, "is no time"),
        (["reopen", "--meter", "pulsee", "--window", "2026-01-01"], 1, "there is no meter"),
        (["reopen", "--meter", "pulse", "--window", "noon"], 2, "is no time"),
    ],
)
def test_what_can_not_be_closed_or_reopened_is_said(
    processor: Command, words: list[str], code: int, said: str
) -> None:
    answer = processor("usage", *words)

    assert answer.code == code
    assert said in answer.error
