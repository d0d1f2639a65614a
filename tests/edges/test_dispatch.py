"""Handing over: what the sink gets, when it counts as accepted, and what becomes of the rest."""

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trustme

from processor.devstack.sink import GOOD, Behaviour, Receiver, group_of
from processor.settings import Settings
from processor.usage.batches import Waiting
from processor.usage.dispatcher import Tally
from processor.usage.windows import close_due
from processor.wiring import dispatch
from tests.fix_database import LogIn, Saver
from tests.fix_usage import Command, a_pulse, a_void, an_hour_ago, lines, states
from tests.rig import wait_until
from tests.scripted_server import CLOSE, SILENCE, ScriptedServer, an_answer

Db = psycopg.Connection[Any]
HandOver = Callable[..., tuple[Tally, Waiting]]

ROOT = Path(__file__).resolve().parents[2]
THIRTY_DIGITS = "123456789012345678901234567.891"
HOUR_WRITTEN = r"\d{4}-\d\d-\d\dT\d\d:00:00Z"

pytestmark = pytest.mark.usefixtures("pulses")


@pytest.fixture
def hand_over(database_url: str, receiver: Receiver) -> HandOver:
    """Closes and sends all that waits, once, as `processor dispatch --once` does."""

    def run(**changes: Any) -> tuple[Tally, Waiting]:
        values = {
            "database_url": database_url,
            "usage_sink_url": receiver.url,
            "usage_sink_timeout_s": 5,
            "retry_wait_s_max": 0.1,
        }
        return dispatch.run_once(Settings.load(_env_file=None, **(values | changes)), threading.Event())

    return run


def waiting_troubles(db: Db) -> list[str | None]:
    rows = db.execute("SELECT trouble FROM usage_line WHERE handed_over_at IS NULL ORDER BY trouble")
    return [trouble for (trouble,) in rows]


def sums_in_the_database(db: Db) -> dict[tuple[str, ...], Decimal]:
    rows = db.execute(
        "SELECT tenant_id, group_by ->> 'product_sku', group_by ->> 'use_unity',"
        " to_char(window_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), value FROM usage"
        " WHERE meter = 'pulse' AND state <> 'open'"
    ).fetchall()
    return {tuple(row[:4]): row[4] for row in rows}


def assert_balanced(db: Db, receiver: Receiver) -> None:
    """The sink has every line, none changed, and its sums are those of the database."""
    assert receiver.books.changed == []
    assert receiver.books.missing_revisions() == []
    assert receiver.books.sums() == sums_in_the_database(db)
    assert db.execute("SELECT count(*) FROM usage_line").fetchone() == (len(receiver.books.lines),)


# ── what the sink gets ────────────────────────────────────────────────────────────────────────────────


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


# ── when it does not accept ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("behaviour", "words", "reached"),
    [
        (Behaviour(status=500, accepts=False), "status 500", True),
        (Behaviour(status=503, accepts=True), "status 503", True),
        (Behaviour(status=302, headers={"Location": "/"}), "redirects are not followed", True),
        (Behaviour(status=200, body=b"<html>log in</html>"), "a body that is not JSON", True),
        (Behaviour(status=200, body=b"[" * 70_000), "more than", True),
        (Behaviour(drops=True), "the connection broke", False),
        (Behaviour(wait_s=0.6), "no whole answer within 0.2 s", False),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
def test_nothing_is_marked_unless_accepted_and_the_same_is_sent_again(
    saver: Saver,
    db: Db,
    receiver: Receiver,
    hand_over: HandOver,
    behaviour: Behaviour,
    words: str,
    reached: bool,
) -> None:
    saver.save(a_pulse("0.1"), a_pulse(2, "cpu"))
    receiver.behaviour = behaviour

    tally, waiting = hand_over(usage_sink_timeout_s=0.2)

    assert words in tally.trouble
    assert (tally.reached, tally.lines_accepted, waiting.lines) == (reached, 0, 2)
    assert states(db) == {"cpu": "closed", "disk": "closed"}
    receiver.behaviour = GOOD

    tally, waiting = hand_over()

    assert (tally.trouble, tally.lines_accepted, waiting.lines) == ("", 2, 0)
    assert 1 < len(receiver.requests) <= 4
    assert len({(request.key, request.body) for request in receiver.requests}) == 1
    assert_balanced(db, receiver)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"220 mail.example.com ESMTP\r\n\r\n", "an answer that is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}", "no whole answer within"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n{}", "the connection broke"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", "the connection broke"),
        (SILENCE, "no whole answer within"),
        (CLOSE, "the connection broke"),
    ],
)
def test_an_answer_that_is_none_is_no_yes(
    saver: Saver, hand_over: HandOver, answer: bytes | None, words: str
) -> None:
    saver.save(a_pulse(1))
    with ScriptedServer(answer) as server:
        tally, waiting = hand_over(usage_sink_url=server.url, usage_sink_timeout_s=0.2)

    assert words in tally.trouble
    assert (tally.lines_accepted, waiting.lines) == (0, 1)


@pytest.fixture(params=[b"X: x", b"\r\n "], ids=["head", "body"])
def dripping(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a sink that answers one byte at a time, each sooner than any time-out, and never ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            while True:
                try:
                    client, _ = server.accept()
                    with client:
                        client.sendall(b"HTTP/1.1 200 OK\r\n" + request.param)
                        while True:
                            client.sendall(request.param[-1:])
                            time.sleep(0.05)
                except OSError:
                    if server.fileno() < 0:
                        return

        threading.Thread(target=drip, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def test_an_answer_that_never_ends_is_cut_off(saver: Saver, hand_over: HandOver, dripping: str) -> None:
    saver.save(a_pulse(1))
    began_s = time.monotonic()

    tally, waiting = hand_over(usage_sink_url=dripping, usage_sink_timeout_s=0.2)

    assert "no whole answer within 0.2 s" in tally.trouble
    assert waiting.lines == 1
    assert time.monotonic() - began_s < 5


def test_a_sink_that_can_not_prove_its_name_gets_no_line(saver: Saver, hand_over: HandOver) -> None:
    saver.save(a_pulse(1))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)

    with ScriptedServer(an_answer(), tls=tls) as server:
        tally, waiting = hand_over(usage_sink_url=server.url)

    assert tally.trouble == "its certificate was not verified"
    assert (server.requests, waiting.lines) == ([], 1)


def test_a_sink_of_an_authority_of_ones_own_is_believed_where_that_is_named(
    saver: Saver, hand_over: HandOver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver.save(a_pulse(1))
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))

    with ScriptedServer(an_answer(), tls=tls) as server:
        _, waiting = hand_over(usage_sink_url=server.url)

    assert waiting.lines == 0


def test_a_sink_that_asks_for_rest_gets_it(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(a_pulse(1))
    busy = Behaviour(status=429, accepts=False, headers={"Retry-After": "1"})
    receiver.behaviour = lambda number: busy if number == 0 else GOOD

    hand_over(retry_wait_s_max=5)

    first, second = receiver.requests
    assert second.began_s - first.ended_s >= 0.99
    assert_balanced(db, receiver)


def test_an_answer_after_we_gave_up_costs_a_second_sending_and_no_line_twice(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(a_pulse("0.1"))
    receiver.behaviour = lambda number: Behaviour(wait_s=0.6) if number == 0 else GOOD

    tally, _ = hand_over(usage_sink_timeout_s=0.2)

    assert (tally.requests, tally.lines_accepted, receiver.books.doubled) == (2, 1, 1)
    assert_balanced(db, receiver)


# ── line by line ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [422, 503])
def test_lines_that_are_refused_one_by_one_hold_up_no_other(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver, status: int
) -> None:
    saver.save(*(a_pulse(number, f"sku-{number}") for number in range(1, 9)))
    bad = {"sku-2", "sku-5"}
    receiver.behaviour = Behaviour(statuses=lambda line: status if line["product_sku"] in bad else 201)

    tally, waiting = hand_over()

    assert (tally.lines_accepted, waiting.lines, waiting.refused) == (6, 2, 2)
    assert waiting_troubles(db) == [f"status {status}"] * 2
    assert {sku for sku, state in states(db).items() if state == "closed"} == bad
    saver.save(a_pulse(1, "new"))
    tally, waiting = hand_over()
    assert (tally.lines_accepted, waiting.lines) == (1, 2)
    receiver.behaviour = GOOD

    tally, waiting = hand_over()

    assert (tally.lines_accepted, waiting.lines, waiting_troubles(db)) == (2, 0, [])
    assert len({request.key for request in receiver.requests}) == 3
    assert_balanced(db, receiver)


def test_a_line_that_the_sink_had_already_is_handed_over(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(a_pulse(1))
    receiver.behaviour = Behaviour(statuses=lambda _: 409)

    _, waiting = hand_over()

    assert waiting.lines == 0
    assert states(db) == {"disk": "handed_over"}


def test_a_line_that_the_answer_does_not_name_is_not_handed_over(
    saver: Saver, db: Db, hand_over: HandOver
) -> None:
    saver.save(a_pulse(1))

    with ScriptedServer(an_answer({"results": [{"key": "another", "status": 200}]})) as server:
        _, waiting = hand_over(usage_sink_url=server.url)

    assert waiting.lines == 1
    assert waiting_troubles(db) == ["not named in the answer"]


# ── a batch that is refused whole ─────────────────────────────────────────────────────────────────────


def test_a_line_that_spoils_its_batch_is_found_by_halves(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(*(a_pulse(number, f"sku-{number}") for number in range(40)))
    receiver.behaviour = Behaviour(refuses_batch_with=lambda line: line["product_sku"] == "sku-13")

    tally, waiting = hand_over()

    assert (tally.lines_accepted, waiting.lines, waiting.refused) == (39, 1, 1)
    assert waiting_troubles(db) == ["status 422"]
    assert tally.requests <= 2 * 6 + 1
    saver.save(a_pulse(1, "new"))
    assert hand_over()[0].lines_accepted == 1
    receiver.behaviour = GOOD
    assert hand_over()[1].lines == 0
    assert_balanced(db, receiver)


def test_a_sink_that_refuses_everything_is_not_asked_for_every_line(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(*(a_pulse(number, f"sku-{number}") for number in range(100)))
    receiver.behaviour = Behaviour(status=400, accepts=False)

    tally, waiting = hand_over()

    assert waiting.lines == 100
    assert tally.requests < 40
    receiver.behaviour = GOOD
    assert hand_over()[1].lines == 0
    assert_balanced(db, receiver)


def test_a_line_at_which_the_sink_breaks_down_holds_up_the_others_for_some_tries_only(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(*(a_pulse(number, f"sku-{number}") for number in range(8)))

    def breaks_at(number: int) -> Behaviour:
        spoilt = b'"sku-3"' in receiver.requests[number].body
        return Behaviour(status=500, accepts=False) if spoilt else GOOD

    receiver.behaviour = breaks_at

    waiting = None
    for _ in range(8):
        _, waiting = hand_over()

    assert waiting is not None
    assert (waiting.lines, waiting_troubles(db)) == (1, ["status 500"])


# ── several at once, and death ────────────────────────────────────────────────────────────────────────


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
    saver.save(a_pulse(1))
    receiver.behaviour = Behaviour(wait_s=0.5)
    first = threading.Thread(target=hand_over, daemon=True)
    first.start()
    wait_until(lambda: len(receiver.requests) == 1, "the first is sending")

    tally, waiting = hand_over()

    assert (tally.requests, waiting.lines) == (0, 1)
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


# ── the command ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("behaviour", "code", "words"),
    [
        (GOOD, 0, ""),
        (Behaviour(status=503, accepts=False), 1, "the sink: status 503"),
        (Behaviour(statuses=lambda _: 422), 1, "1 line(s) still wait, 1 of them refused"),
        (Behaviour(status=301, accepts=False), 1, "set USAGE_SINK_URL to where it leads"),
        (Behaviour(drops=True), 4, "the sink: the connection broke"),
    ],
)
def test_once_ends_with_what_became_of_it(
    saver: Saver, receiver: Receiver, processor: Command, behaviour: Behaviour, code: int, words: str
) -> None:
    saver.save(a_pulse(1))
    receiver.behaviour = behaviour

    answer = processor("dispatch", "--once", USAGE_SINK_URL=receiver.url)

    assert answer.code == code
    assert answer.out.startswith("1 window(s) closed, 1 line(s) written")
    assert words in answer.error


def test_once_says_it_as_json(saver: Saver, receiver: Receiver, processor: Command) -> None:
    saver.save(a_pulse(1))

    answer = processor("dispatch", "--once", "--json", USAGE_SINK_URL=receiver.url)

    assert answer.json == {
        "windows_closed": 1,
        "lines_written": 1,
        "requests": 1,
        "lines_accepted": 1,
        "lines_waiting": 0,
        "lines_refused": 0,
        "trouble": None,
    }


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "USAGE_SINK_URL is not set"),
        ("ftp://example.com/usage", "expected http://"),
        ("example.com", "expected http://"),
        ("https://", "expected http://"),
        ("https://example.com:99999/", "expected http://"),
        ("https://sesame:sesame@example.com/", "expected no user and no password"),
        ("https://example.com/a b", "without spaces"),
    ],
)
def test_a_sink_that_is_no_url_is_said_and_not_quoted(processor: Command, url: str, words: str) -> None:
    answer = processor("dispatch", "--once", USAGE_SINK_URL=url)

    assert answer.code == 2
    assert words in answer.error
    assert "sesame" not in answer.error


def test_a_sink_that_is_away_is_unreachable(saver: Saver, processor: Command) -> None:
    saver.save(a_pulse(1))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    answer = processor("dispatch", "--once", USAGE_SINK_URL=f"http://127.0.0.1:{port}/")

    assert answer.code == 4
    assert "the sink: connection refused" in answer.error


def test_a_login_of_the_biller_may_do_all_of_it(
    saver: Saver, db: Db, receiver: Receiver, processor: Command, log_in: LogIn
) -> None:
    biller = log_in("processor_biller")
    saver.save(a_pulse(1), a_pulse(2, "cpu"))
    window = an_hour_ago().isoformat()

    said = [
        processor(*words, DATABASE_URL=biller, USAGE_SINK_URL=receiver.url)
        for words in (
            ["usage", "reopen", "--meter", "pulse", "--window", window],
            ["usage", "close"],
            ["dispatch", "--once"],
        )
    ]

    assert [(answer.code, answer.error) for answer in said] == [(0, "")] * 3
    assert_balanced(db, receiver)


def test_a_role_that_may_not_hand_over_is_told_what_it_lacks(
    receiver: Receiver, processor: Command, log_in: LogIn
) -> None:
    answer = processor(
        "dispatch", "--once", DATABASE_URL=log_in("processor_reader"), USAGE_SINK_URL=receiver.url
    )

    assert answer.code == 1
    assert "make it a member of processor_biller" in answer.error


def test_a_database_that_is_away_is_unreachable(processor: Command, receiver: Receiver) -> None:
    answer = processor(
        "dispatch", "--once", USAGE_SINK_URL=receiver.url, DATABASE_URL="postgresql://x@127.0.0.1:1/x"
    )

    assert answer.code == 4
    assert "the database can't be reached" in answer.error


# ── to a file ─────────────────────────────────────────────────────────────────────────────────────────


def test_lines_go_to_a_new_file_and_are_marked(
    saver: Saver, db: Db, processor: Command, tmp_path: Path
) -> None:
    saver.save(a_pulse("0.1"), a_pulse("0.2"), a_pulse(THIRTY_DIGITS, "cpu"))

    answer = processor("dispatch", "--to", tmp_path / "lines.jsonl")

    written = (tmp_path / "lines.jsonl").read_text().splitlines()
    assert [json.loads(line, parse_float=str)["used_amount"] for line in written] == [THIRTY_DIGITS, "0.3"]
    assert answer.code == 0
    assert set(states(db).values()) == {"handed_over"}
    assert [path.name for path in tmp_path.iterdir()] == ["lines.jsonl"]


def test_a_file_that_is_there_is_not_written_over_and_nothing_is_marked(
    saver: Saver, db: Db, processor: Command, tmp_path: Path
) -> None:
    saver.save(a_pulse(1))
    (tmp_path / "lines.jsonl").write_text("yesterday's\n")

    answer = processor("dispatch", "--to", tmp_path / "lines.jsonl")

    assert answer.code == 2
    assert "is there already" in answer.error
    assert (tmp_path / "lines.jsonl").read_text() == "yesterday's\n"
    assert states(db) == {"disk": "closing"}


def test_lines_go_to_standard_output_and_nothing_else_does(saver: Saver, db: Db, processor: Command) -> None:
    saver.save(a_pulse("0.1"))

    first = processor("dispatch", "--to", "-")
    again = processor("dispatch", "--to", "-")

    [line] = first.out.splitlines()
    assert json.loads(line)["used_amount"] == 0.1
    assert "1 handed over" in first.error
    assert again.out == ""
    assert states(db) == {"disk": "handed_over"}


def test_a_disk_that_is_full_marks_nothing(saver: Saver, db: Db, database_url: str) -> None:
    saver.save(a_pulse(1))
    environment = {"DATABASE_URL": database_url, "PYTHONPATH": str(ROOT)}

    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "processor", "dispatch", "--to", "-"],
            env=os.environ | environment,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )

    assert done.returncode == 2
    assert b"can't be written to" in done.stderr
    assert states(db) == {"disk": "closed"}


def test_what_a_sink_did_not_take_goes_to_a_file(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver, processor: Command, tmp_path: Path
) -> None:
    saver.save(a_pulse(1), a_pulse(2, "cpu"))
    receiver.behaviour = Behaviour(statuses=lambda line: 422 if line["product_sku"] == "cpu" else 200)
    hand_over()

    processor("dispatch", "--to", tmp_path / "rest.jsonl")

    assert [
        json.loads(line)["product_sku"] for line in (tmp_path / "rest.jsonl").read_text().splitlines()
    ] == ["cpu"]
    assert set(states(db).values()) == {"handed_over"}


def test_two_batches_of_different_windows_keep_what_they_are_about(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(a_pulse(1, at=an_hour_ago(5)), a_pulse(2, at=an_hour_ago(4)), a_pulse(4, tenant="globex"))
    close_due(db)

    hand_over()

    assert len({group_of(line) for line in receiver.books.lines.values()}) == 3
    assert_balanced(db, receiver)
