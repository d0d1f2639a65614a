"""A kill at each step of an import of dead letters, and then rows are counted."""

import os
import signal
import subprocess
import sys
from typing import Any

import psycopg
import pytest

from processor.devstack.servers.sqs import EmbeddedSqs
from processor.operations.audit import audit
from processor.settings import Settings
from processor.sources.sqs.source import SqsSource
from tests.builders import a_body
from tests.fixtures.database import books
from tests.fixtures.dead_letters import bring, environment_of, kill
from tests.rig import wait_until

KILLED = 3
"""Dead letters; each is saved in a transaction of its own, so the first commit leaves two to do."""

PLACES = {
    "after commit": (1, KILLED),
    "after settle": (KILLED, 0),
}
"""Where it dies: the rejections there are then, and the dead letters still queued."""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.usefixtures("nothing_is_set", "impatient")
def test_a_killed_import_loses_nothing_and_doubles_nothing(
    settings: Settings, queue_url: str, sqs_server: EmbeddedSqs, db: psycopg.Connection[Any], place: str
) -> None:
    source = SqsSource.open(settings)
    kill(sqs_server, queue_url, *[a_body() for _ in range(KILLED)])
    rejections, queued = PLACES[place]

    assert _die_importing(settings, place) == -signal.SIGKILL

    assert books(db) == {"message": 0, "duplicate": 0, "rejection": rejections}
    assert source.depth_with_dead_letters()["dead_lettered"] == queued
    assert audit(db, [], source.depth_with_dead_letters).holds

    dead_letters = source.dead_letters(visibility_timeout_s=2)
    assert dead_letters is not None
    wait_until(lambda: dead_letters.depth()["visible"] == queued, "what it held is visible again")
    bring(settings)

    assert books(db) == {"message": 0, "duplicate": 0, "rejection": KILLED}
    assert source.depth_with_dead_letters()["dead_lettered"] == 0
    assert audit(db, [], source.depth_with_dead_letters).holds


def _die_importing(settings: Settings, place: str) -> int:
    """Run an import that kills itself; gives how it ended."""
    environment = os.environ | environment_of(settings)
    # What a dead import held comes back after this.
    environment["VISIBILITY_TIMEOUT_S"] = "2"
    command = [sys.executable, "-m", "tests.chaos.victims.dying", place, "dlq", "import"]
    return subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False).returncode
