"""The command that hands over: what it says, how it ends, and the file it writes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from processor.devstack.servers.sink import GOOD, Behaviour, Receiver
from tests.fixtures.database import LogIn, Saver
from tests.fixtures.usage import Command, HandOver, a_pulse, an_hour_ago, assert_balanced, states

Db = psycopg.Connection[Any]
THIRTY_DIGITS = "123456789012345678901234567.891"
ABSURD = "Fri, 31 Dec 99999999999 23:59:59 GMT"
ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("pulses")


# ── the command ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("behaviour", "code", "words"),
    [
        (GOOD, 0, ""),
        (Behaviour(status=503, accepts=False), 1, "the sink: status 503"),
        (Behaviour(statuses=lambda _: 422), 1, "1 line(s) still wait, 1 of them refused"),
        (Behaviour(status=301, accepts=False), 1, "set USAGE_SINK_URL to the final URL"),
        (Behaviour(drops=True), 4, "the sink: connection lost"),
        (Behaviour(status=503, accepts=False, headers={"Retry-After": ABSURD}), 1, "the sink: status 503"),
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


# ── to a file ──────────────────────────────────────────────────────────────────────────────────────


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
