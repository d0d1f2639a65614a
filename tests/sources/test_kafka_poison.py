"""A message that kills whoever reads it blocks its partition for a few processes, and then is put aside."""

import os
import subprocess
import sys
from typing import Any

import psycopg

from processor.brokers.kafka import an_onlooker, lag_of
from processor.brokers.source_url import source_address
from tests.broker_servers.kafka import Mock
from tests.builders import a_body
from tests.chaos.victims.poisoned import POISON
from tests.fixtures.database import books

NEIGHBOURS = 40
KILLS_MAX = 12


def test_a_message_that_kills_its_readers_ends_as_a_rejection_and_its_neighbours_are_stored(
    kafka: Mock, database_url: str, db: psycopg.Connection[Any]
) -> None:
    """It lies in the middle of its partition, so that some come before it in every batch."""
    topic = kafka.topic(2)
    bodies = [a_body() for _ in range(NEIGHBOURS)]
    bodies[NEIGHBOURS // 3 : NEIGHBOURS // 3] = [POISON]
    kafka.sender.send_all(topic, [(int(place > NEIGHBOURS // 2), body) for place, body in enumerate(bodies)])
    url = kafka.url(topic, "poisoned")
    environment = os.environ | {
        "DATABASE_URL": database_url,
        "SOURCE_URL": url,
        "RECEIVE_COUNT_MAX": "4",
        "VISIBILITY_TIMEOUT_S": "2",
        "HTTP_PORT": "0",
        "LOG_FORMAT": "console",
    }
    command = [sys.executable, "-m", "tests.hasty_group", "run", "--until-idle", "1"]

    ends: list[int] = []
    while (not ends or ends[-1] != 0) and len(ends) < KILLS_MAX:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
        ends.append(done.returncode)

    assert ends == [-9] * 4 + [0], done.stderr.decode()[-2000:]
    assert books(db) == {"message": NEIGHBOURS, "duplicate": 0, "rejection": 1}
    assert db.execute("SELECT reason, convert_from(body, 'UTF8') FROM rejection").fetchall() == [
        ("dead_lettered", POISON.decode())
    ]
    with an_onlooker(source_address(url)) as onlooker:
        assert sum(lag_of(onlooker, topic, 5).values()) == 0
