"""Handing over: what the sink gets, and that each line is sent by one at a time."""

import json
import os
import re
import subprocess
import sys
import threading
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest

from processor.devstack.servers.sink import GOOD, Behaviour, Receiver, group_of
from processor.handover.windows import close_due
from tests.fixtures.database import Saver
from tests.fixtures.usage import HandOver, a_pulse, a_void, an_hour_ago, assert_balanced, lines, states
from tests.rig import wait_until

Db = psycopg.Connection[Any]
THIRTY_DIGITS = "123456789012345678901234567.891"
HOUR_WRITTEN = r"\d{4}-\d\d-\d\dT\d\d:00:00Z"
ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("pulses")


# ── what the sink gets ─────────────────────────────────────────────────────────────────────────────


def test_a_pulse_line_has_its_names_and_every_digit(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(a_pulse("0.1"), a_pulse("0.2"), a_pulse(THIRTY_DIGITS, "cpu", "MB/sec"))

    tally, waiting = hand_over(usage_sink_token="sesame")

    [request] = receiver.requests
    second, first = json.loads(request.body, parse_float=str)
    assert list(first) == [
        *("tenant_id", "product_sku", "use_unity", "used_amount"),
        *("window_start", "window_end", "revision", "messages", "key"),
    ]
    assert (first["tenant_id"], first["product_sku"], first["use_unity"]) == ("acme", "cpu", "MB/sec")
    assert (first["used_amount"], second["used_amount"]) == (THIRTY_DIGITS, "0.3")
    assert (second["revision"], second["messages"]) == (1, 2)
    assert re.fullmatch(HOUR_WRITTEN, first["window_start"])
    assert re.fullmatch(HOUR_WRITTEN, first["window_end"])
    assert first["window_start"] == an_hour_ago().strftime("%Y-%m-%dT%H:%M:%SZ")
    assert all(re.fullmatch("[0-9a-f]{64}", key) for key in (first["key"], second["key"], request.key))
    assert request.authorization == "Bearer sesame"
    assert (tally.lines_accepted, waiting.lines) == (2, 0)
    assert states(db) == {"cpu": "handed_over", "disk": "handed_over"}
    assert_balanced(db, receiver)


def test_amounts_are_strings_where_the_sink_wants_them_so(
    saver: Saver, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(a_pulse("0.1"), a_pulse("0.2"), a_pulse("0.00000000000000000000", "zero"))

    hand_over(usage_sink_amounts="string")

    assert [line["used_amount"] for line in json.loads(receiver.requests[0].body)] == [
        "0.3",
        "0.00000000000000000000",
    ]


def test_a_line_of_another_meter_names_its_meter_and_groups(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    db.execute("UPDATE meter SET status = 'retired'")
    db.execute(
        "INSERT INTO meter (meter, event_type, aggregation, group_names, group_pointers, is_handed_over)"
        " VALUES ('pulses', 'pulse', 'count', '{unit}', '{/use_unity}', true)"
    )
    saver.save(a_pulse(1), a_pulse(2, "cpu"))

    hand_over()

    [line] = json.loads(receiver.requests[0].body)
    assert {name: line[name] for name in ("meter", "group", "value")} == {
        "meter": "pulses",
        "group": {"unit": "GB"},
        "value": 2,
    }
    assert list(line) == [
        *("tenant_id", "meter", "group", "value"),
        *("window_start", "window_end", "revision", "messages", "key"),
    ]


def test_a_meter_that_is_not_handed_over_keeps_its_lines(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    db.execute("UPDATE meter SET is_handed_over = false")
    saver.save(a_pulse(1))

    _, waiting = hand_over()

    assert (receiver.requests, waiting.lines) == ([], 0)
    assert states(db) == {"disk": "closed"}


def test_what_comes_late_is_a_signed_difference_of_its_own(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(a_pulse(5, message_id="one"))
    hand_over()
    before = dict(receiver.books.lines)

    saver.save(a_pulse("0.5"))
    hand_over()
    saver.save(a_void("one"))
    hand_over()

    assert [line["used_amount"] for line in receiver.books.lines.values()] == [5, Decimal("0.5"), -5]
    assert [line["messages"] for line in receiver.books.lines.values()] == [1, 1, -1]
    assert before.items() <= receiver.books.lines.items()
    assert_balanced(db, receiver)


def test_no_request_has_more_lines_than_allowed(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(*(a_pulse(1, f"sku-{number}") for number in range(7)))

    hand_over(usage_sink_lines_max=3)

    assert [len(json.loads(request.body)) for request in receiver.requests] == [3, 3, 1]
    assert_balanced(db, receiver)


def test_two_batches_of_different_windows_keep_what_they_are_about(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(a_pulse(1, at=an_hour_ago(5)), a_pulse(2, at=an_hour_ago(4)), a_pulse(4, tenant="globex"))
    close_due(db)

    hand_over()

    assert len({group_of(line) for line in receiver.books.lines.values()}) == 3
    assert_balanced(db, receiver)


# ── several at once, and death ─────────────────────────────────────────────────────────────────────


def test_several_dispatchers_hand_each_line_over_once(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(*(a_pulse(f"0.{number:04d}", f"sku-{number}") for number in range(1, 2001)))
    while (closed := close_due(db)) and closed.totals:
        pass
    # Long enough for requests to lie side by side.
    receiver.behaviour = Behaviour(wait_s=0.02)
    tallies = []

    def work() -> None:
        tallies.append(hand_over(usage_sink_lines_max=50)[0])

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert sum(tally.lines_accepted for tally in tallies) == 2000
    assert receiver.books.doubled == 0
    assert len({request.key for request in receiver.requests}) == len(receiver.requests)
    began = sorted((request.began_s, request.ended_s) for request in receiver.requests)
    assert any(later < ended for (_, ended), (later, _) in pairwise(began))
    assert_balanced(db, receiver)


def test_a_batch_that_somebody_is_sending_is_passed_over(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    asked = threading.Event()

    def answer(_number: int) -> Behaviour:
        asked.wait(30)
        return GOOD

    saver.save(a_pulse(1))
    receiver.behaviour = answer
    first = threading.Thread(target=hand_over, kwargs={"usage_sink_timeout_s": 60}, daemon=True)
    first.start()
    wait_until(lambda: len(receiver.requests) == 1, "the first is sending")

    tally, waiting = hand_over()

    assert (tally.requests, waiting.lines) == (0, 1)
    asked.set()
    first.join(10)
    assert len(receiver.requests) == 1
    assert_balanced(db, receiver)


def test_what_was_accepted_and_not_marked_before_a_kill_is_sent_again_byte_for_byte(
    saver: Saver, db: Db, database_url: str, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(a_pulse("0.1"), a_pulse(2, "cpu"))
    receiver.behaviour = lambda number: Behaviour(wait_s=30) if number == 0 else GOOD
    environment = {"DATABASE_URL": database_url, "USAGE_SINK_URL": receiver.url, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-m", "processor", "dispatch", "--once"], env=os.environ | environment
    ) as dispatcher:
        wait_until(lambda: len(receiver.requests) == 1, "the sink has the lines")
        dispatcher.kill()
    assert len(receiver.books.lines) == 2
    assert [line[-1] for line in lines(db)] == [False, False]

    wait_until(lambda: hand_over()[1].lines == 0, "the server has noticed the death")

    assert len({(request.key, request.body) for request in receiver.requests}) == 1
    assert receiver.books.doubled == 2
    assert_balanced(db, receiver)


def test_lines_whose_marks_a_person_took_off_are_sent_again(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(a_pulse(1))
    hand_over()
    db.execute("UPDATE usage_line SET handed_over_at = NULL, batch_id = NULL")

    _, waiting = hand_over()

    assert waiting.lines == 0
    assert len({(request.key, request.body) for request in receiver.requests}) == 1
    assert_balanced(db, receiver)


def test_a_batch_whose_lines_a_person_marked_is_not_sent(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(a_pulse(1))
    receiver.behaviour = Behaviour(status=503, accepts=False)
    hand_over()
    receiver.behaviour = GOOD
    sent = len(receiver.requests)
    db.execute("UPDATE usage_line SET handed_over_at = now()")

    _, waiting = hand_over()

    assert (waiting.lines, len(receiver.requests)) == (0, sent)
