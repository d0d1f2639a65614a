"""A kill at each step of an import of dead letters, and then rows are counted."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import closing
from typing import Any

import psycopg
import pytest

from processor.audit import audit
from processor.devstack.sqs import EmbeddedSqs
from processor.settings import Settings
from processor.sources.sqs import SqsSource
from processor.wiring import commands
from tests.builders import a_body
from tests.fix_database import books
from tests.rig import wait_until

KILLED = 3
"""Dead letters; each is saved in a transaction of its own, so the first commit leaves two to do."""

PLACES = {
    "after commit": (1, KILLED),
    "after settle": (KILLED, 0),
}
"""Where it dies: the rejections there are then, and the dead letters still queued."""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.visibility(0)
def test_a_killed_import_loses_nothing_and_doubles_nothing(
    settings: Settings, queue_url: str, sqs_server: EmbeddedSqs, db: psycopg.Connection[Any], place: str
) -> None:
    source = SqsSource.open(settings)
    _kill_messages(sqs_server, queue_url)
    rejections, queued = PLACES[place]

    assert _die_importing(settings, place) == -signal.SIGKILL

    assert books(db) == {"message": 0, "duplicate": 0, "rejection": rejections}
    assert source.depth_with_dead_letters()["dead_lettered"] == queued
    assert audit(db, [], source.depth_with_dead_letters).holds

    dead_letters = source.dead_letters(visibility_timeout_s=2)
    assert dead_letters is not None
    wait_until(lambda: dead_letters.depth()["visible"] == queued, "what it held is visible again")
    commands.import_dead_letters(
        settings, source_name=None, limit=None, unread=False, stop=threading.Event(), on_batch=lambda _: None
    )

    assert books(db) == {"message": 0, "duplicate": 0, "rejection": KILLED}
    assert source.depth_with_dead_letters()["dead_lettered"] == 0
    assert audit(db, [], source.depth_with_dead_letters).holds


def _kill_messages(sqs_server: EmbeddedSqs, queue_url: str) -> None:
    """Send messages that are received too often, until SQS has moved them."""
    with closing(sqs_server.client()) as client:
        redrive = client.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["RedrivePolicy"])
        policy = json.loads(redrive["Attributes"]["RedrivePolicy"]) | {"maxReceiveCount": 1}
        client.set_queue_attributes(QueueUrl=queue_url, Attributes={"RedrivePolicy": json.dumps(policy)})
        for _ in range(KILLED):
            client.send_message(QueueUrl=queue_url, MessageBody=a_body().decode())

        def moved() -> bool:
            return not client.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10).get("Messages")

        wait_until(moved, "SQS has moved them")


def _die_importing(settings: Settings, place: str) -> int:
    """Run an import that kills itself; gives how it ended."""
    environment = os.environ | {
        "DATABASE_URL": settings.need_database_url(),
        "SQS_QUEUE_URL": settings.need_queue_url(),
        "AWS_ENDPOINT_URL": str(settings.aws_endpoint_url),
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        # What a dead import held comes back after this.
        "VISIBILITY_TIMEOUT_S": "2",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-m", "tests.faults.dying", place, "dlq", "import"]
    return subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False).returncode
