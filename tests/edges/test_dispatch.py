"""Handing over: what the sink gets, when it counts as accepted, and what becomes of the rest."""

import threading
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from processor.devstack.sink import Receiver
from processor.settings import Settings
from processor.wiring import dispatch
from tests.fix_database import Saver
from tests.fix_usage import a_pulse, lines

Db = psycopg.Connection[Any]

pytestmark = pytest.mark.usefixtures("pulses")


def hand_over(url: str, receiver: Receiver, **changes: Any) -> Any:
    settings = Settings.load(
        _env_file=None, database_url=url, usage_sink_url=receiver.url, **({"retry_wait_s_max": 0.1} | changes)
    )
    return dispatch.run_once(settings, threading.Event())


def test_lines_of_windows_that_are_over_are_handed_over(
    saver: Saver, db: Db, database_url: str, receiver: Receiver
) -> None:
    saver.save(a_pulse("0.1"), a_pulse("0.2"), a_pulse(5, "cpu"))

    tally, waiting = hand_over(database_url, receiver)

    assert (tally.lines_written, tally.lines_accepted, waiting.lines) == (2, 2, 0)
    assert lines(db) == [("cpu", 1, 5, 1, True), ("disk", 1, Decimal("0.3"), 2, True)]
    assert len(receiver.books.lines) == 2
