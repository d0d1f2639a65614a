"""A message that kills whoever reads it ends in the dead-letter queue, and none of its neighbours does."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psycopg

from processor.devstack.servers.sqs import EmbeddedSqs
from processor.sources.sqs.source import SqsSource
from tests.builders import a_body
from tests.chaos.victims.poisoned import POISON
from tests.fixtures.database import books
from tests.fixtures.servers import QUEUE_NUMBERS

NEIGHBOURS = 50
VISIBILITY_S = 2


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def test_a_message_that_kills_the_process_takes_no_neighbour_to_the_dead_letter_queue(
    sqs_server: EmbeddedSqs, database_url: str, db: psycopg.Connection[Any]
) -> None:
    """The queue hands over in the order of sending, so the same nine come beside it each time."""
    queue_url = sqs_server.create_queue(
        f"events-{next(QUEUE_NUMBERS)}", visibility_timeout_s=VISIBILITY_S, max_receive_count=5
    )
    client = sqs_server.client()
    for body in [POISON] + [a_body() for _ in range(NEIGHBOURS)]:
        client.send_message(QueueUrl=queue_url, MessageBody=body.decode())
    environment = os.environ | {
        "DATABASE_URL": database_url,
        "SQS_QUEUE_URL": queue_url,
        "AWS_ENDPOINT_URL": sqs_server.endpoint_url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "HTTP_PORT": "0",
        "VISIBILITY_TIMEOUT_S": str(VISIBILITY_S),
        "RECEIVE_WAIT_S": "1",
    }
    source = SqsSource(client, queue_url, "events", visibility_timeout_s=VISIBILITY_S)
    dead_letters = SqsSource(client, f"{queue_url}-dlq", "events-dlq", visibility_timeout_s=VISIBILITY_S)

    command = [sys.executable, "-m", "tests.chaos.victims.poisoned", "run", "--processes", "2"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as processor:
        try:
            wait_until(lambda: dead_letters.depth()["visible"] > 0 and not sum(source.depth().values()))
        finally:
            processor.terminate()
        assert processor.wait(30) == 0

    assert [delivery.body for delivery in dead_letters.receive(10, 0)] == [POISON]
    assert books(db) == {"message": NEIGHBOURS, "duplicate": 0, "rejection": 0}
