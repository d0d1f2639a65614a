"""One event stays one line, whatever text comes to be in it and whoever logs it."""

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import structlog

from processor.runtime.escaping import escaped
from processor.runtime.logs import LINES_MAX, LINES_S, Limiter

HOSTILE = [
    "\n",
    "\r",
    "\r\n",
    "\x1b[2K",
    "\x85",
    "\u2028",
    "\u2029",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x00",
    "\u202e",
    "\x9b2J",
]
FORGED = '{"event": "forged", "level": "info"}'

SPEAKING = """
import json, logging, sys, warnings
import structlog
from processor.runtime import logs
log_format, text = sys.argv[1], json.loads(sys.argv[2])
logs.configure(log_format, "DEBUG")
log = structlog.get_logger("ours")
log.warning("outage", trouble=text, queue=text, several=[text], error=ValueError(text))
log.warning(text)
logging.getLogger("botocore.endpoint").warning("theirs %s", text)
logging.getLogger("urllib3").error(text)
warnings.warn(text)
log.info("end")
"""


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_text_ends_its_line(log_format: str) -> None:
    text = "".join(f"a{character}{FORGED}" for character in HOSTILE)

    done = subprocess.run(
        [sys.executable, "-c", SPEAKING, log_format, json.dumps(text)],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )

    lines = done.stderr.splitlines()
    assert len(lines) == 6, done.stderr
    assert done.stdout == ""
    assert all(character.isprintable() for line in lines for character in line)
    if log_format == "json":
        assert [json.loads(line)["event"] for line in lines if "forged" not in json.loads(line)["event"]] == [
            "outage",
            "end",
        ]


CRASHING = """
import json, sys
import structlog
from processor.runtime import logs
logs.configure("console", "DEBUG")
try:
    raise ValueError(json.loads(sys.argv[1]))
except ValueError:
    structlog.get_logger().exception("crashed")
"""


def test_a_traceback_on_a_console_can_not_look_like_another_event() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CRASHING, json.dumps(f"x\n{FORGED}\r{FORGED}")],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )

    first, *others = done.stderr.splitlines()
    assert "crashed" in first
    assert others
    assert all(line.startswith("    | ") for line in others if line)


@pytest.mark.parametrize("text", ["plain", "é 日本 \U0001f980", ""])
def test_printable_text_is_left_as_it_is(text: str) -> None:
    assert escaped(text) == text


def test_a_settings_error_of_a_command_is_escaped() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "processor", "check"],
        env={
            "SQS_QUEUE_URL": f"http://127.0.0.1:1/q\x1b[2K\u2028{FORGED}",
            "DATABASE_URL": "postgresql://x/\x85y",
        },
        capture_output=True,
        encoding="utf-8",
        check=False,
    )

    assert all(character.isprintable() or character == "\n" for character in done.stdout + done.stderr)


def test_json_begins_with_the_time() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SPEAKING, "json", json.dumps("a")],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )

    for line in done.stderr.splitlines():
        assert list(json.loads(line))[:3] == ["timestamp", "level", "event"]


def test_a_log_that_can_not_be_written_stops_nothing() -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-c", SPEAKING + "print('at the end')", "json", json.dumps("a")],
            stdout=subprocess.PIPE,
            stderr=full,
            encoding="utf-8",
            check=False,
        )

    assert done.stdout == "at the end\n"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def written(limiter: Limiter, event: str, times: int = 1) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for _ in range(times):
        with suppress(structlog.DropEvent):
            found.append(dict(limiter.of_ours(None, "info", {"event": event})))
    return found


def test_of_one_event_so_many_lines_are_written_and_the_next_says_how_many_were_not() -> None:
    clock = Clock()
    limiter = Limiter(clock)

    flood = written(limiter, "refused", 10_000)
    other = written(limiter, "another")
    clock.now = LINES_S
    after = written(limiter, "refused", 2)

    assert flood == [{"event": "refused"}] * LINES_MAX
    assert other == [{"event": "another"}]
    assert after == [{"event": "refused", "left_out": 10_000 - LINES_MAX}, {"event": "refused"}]


def test_each_delivery_has_its_line_where_that_was_asked_for() -> None:
    assert len(written(Limiter(), "delivery", 100)) == 100


def test_events_without_end_are_bounded_too() -> None:
    limiter = Limiter(Clock())

    assert sum(len(written(limiter, f"made-up-{number}")) for number in range(5000)) < 1100


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_flood_of_lines_of_a_library_is_counted(log_format: str) -> None:
    program = f"""
import logging
from processor.runtime import logs
logs.configure("{log_format}", "DEBUG")
def shout(number):
    try:
        raise ValueError(number)
    except ValueError:
        logging.getLogger("asyncio").exception("Task exception %d was never retrieved", number)
for number in range(1000):
    shout(number)
logs.LINES_S = 0
shout(1000)
"""
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True
    ).stderr

    assert said.count("ValueError") <= 3 * (LINES_MAX + 1)
    assert f"left out: {1000 - LINES_MAX} lines like this" in said
