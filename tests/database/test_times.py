"""What is printed with Z is UTC, whatever zone the server, the database, the role or this machine is in."""

import re
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from processor.database.connection import connect
from processor.operations import registry
from tests.builders import a_delivery
from tests.fixtures.database import Saver
from tests.fixtures.usage import Command, a_pulse, a_void

ODD = "Asia/Kathmandu"

ASKED = [
    "tenant list",
    "key list",
    "key list --json",
    "schema list",
    "meter list",
    "meter show pulse",
    "meter show pulse --json",
    "rejection list",
    "rejection list --json",
    "rejection stats",
    "rejection show {rejection}",
    "trace twice",
    "trace twice --json",
    "usage query",
    "usage query --json",
    "usage query --by day",
    "usage voids",
    "usage voids --json",
    "usage verify",
]


@pytest.fixture
def _filled(db: psycopg.Connection[Any], saver: Saver, pulses: None) -> None:
    registry.add_tenant(db, "acme", "")
    registry.add_key(db, "acme", "")
    saver.store.load_registry()
    twice = a_pulse(message_id="twice")
    saver.outcomes(twice, a_pulse(message_id="twice"), a_void("unseen"), a_delivery(b"no JSON"))


@pytest.fixture
def _in_an_odd_zone(db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    row = db.execute("SELECT current_database()").fetchone()
    assert row is not None
    db.execute(sql.SQL("ALTER DATABASE {} SET timezone = {}").format(sql.Identifier(row[0]), ODD))
    monkeypatch.setenv("PGTZ", ODD)
    monkeypatch.setenv("TZ", ODD)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_filled")
def test_the_zones_of_others_change_nothing_that_is_printed(
    processor: Command, db: psycopg.Connection[Any], request: pytest.FixtureRequest
) -> None:
    row = db.execute("SELECT rejection_id FROM rejection ORDER BY 1 LIMIT 1").fetchone()
    assert row is not None
    asked = [words.format(rejection=row[0]) for words in ASKED]
    before = {words: processor(*words.split()).out for words in asked}

    request.getfixturevalue("_in_an_odd_zone")
    after = {words: processor(*words.split()).out for words in asked}

    assert after == before
    moments = re.findall(r"\d\d:\d\d:\d\d[^\s\",]*", "".join(after.values()))
    assert len(moments) > 10
    assert [moment for moment in moments if not moment.endswith(("Z", "+00:00"))] == []


@pytest.mark.usefixtures("_in_an_odd_zone")
def test_every_connection_of_ours_is_in_utc(database_url: str) -> None:
    with connect(database_url) as connection:
        assert connection.execute("SHOW TimeZone").fetchone() == ("UTC",)
