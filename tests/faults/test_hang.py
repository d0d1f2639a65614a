"""A message that its readers hang at is put aside, and nothing beside it waits long."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from processor.devstack.servers.sqs import EmbeddedSqs
from processor.operations import registry
from processor.sources.sqs.source import SqsSource
from tests.builders import a_body
from tests.chaos.victims.hanging import POISON
from tests.fixtures.database import books
from tests.fixtures.servers import QUEUE_NUMBERS

Db = psycopg.Connection[Any]

NEIGHBOURS = 50
VISIBILITY_S = 2
JUDGE_TIMEOUT_S = 1.0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    give_up_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up_at, f"waited in vain until {what}"
        time.sleep(0.05)


@pytest.fixture
def queue(sqs_server: EmbeddedSqs) -> SqsSource:
    url = sqs_server.create_queue(
        f"events-{next(QUEUE_NUMBERS)}", visibility_timeout_s=VISIBILITY_S, max_receive_count=8
    )
    return SqsSource(sqs_server.client(), url, "events", visibility_timeout_s=VISIBILITY_S)


def hanging(how: str) -> list[str]:
    return ["tests.chaos.victims.hanging", how]


@contextmanager
def a_processor(
    program: list[str], sqs_server: EmbeddedSqs, queue: SqsSource, database_url: str, *options: str
) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {
        "DATABASE_URL": database_url,
        "SQS_QUEUE_URL": queue._queue_url,
        "AWS_ENDPOINT_URL": sqs_server.endpoint_url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "HTTP_PORT": "0",
        "VISIBILITY_TIMEOUT_S": str(VISIBILITY_S),
        "RECEIVE_WAIT_S": "1",
        "JUDGE_TIMEOUT_S": str(JUDGE_TIMEOUT_S),
        "STOP_TIMEOUT_S": "3",
    }
    command = [sys.executable, "-m", *program, "run", *options]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as processor:
        try:
            yield processor
        finally:
            processor.kill()


@pytest.mark.parametrize(("how", "processes"), [("interpreter", "1"), ("loop", "2"), ("sleep", "1")])
def test_a_message_that_its_reader_hangs_at_is_put_aside_and_its_neighbours_are_stored(
    how: str, processes: str, sqs_server: EmbeddedSqs, queue: SqsSource, database_url: str, db: Db
) -> None:
    """The queue hands over in the order of sending, so the same nine come beside it each time."""
    for body in [POISON] + [a_body() for _ in range(NEIGHBOURS)]:
        sqs_server.client().send_message(QueueUrl=queue._queue_url, MessageBody=body.decode())

    with a_processor(hanging(how), sqs_server, queue, database_url, "--processes", processes) as processor:
        wait_until(lambda: not sum(queue.depth_with_dead_letters().values()), "the queue is empty")
        processor.terminate()
        code = processor.wait(30)

    assert code == 0
    assert books(db) == {"message": NEIGHBOURS, "duplicate": 0, "rejection": 1}
    # Where two read it at once, because it came back while the first still hung, it may be more than two.
    put_aside = "SELECT reason, (detail ->> 'hangs')::int >= 2, body FROM rejection"
    assert db.execute(put_aside).fetchall() == [("unstorable", True, POISON)]
    assert db.execute("SELECT count(*) FROM attempt").fetchone() == (0,), "its note went with its outcome"


def test_a_stop_while_a_reader_hangs_ends_in_time_and_the_hang_is_noted(
    sqs_server: EmbeddedSqs, queue: SqsSource, database_url: str, db: Db
) -> None:
    sqs_server.client().send_message(QueueUrl=queue._queue_url, MessageBody=POISON.decode())

    with a_processor(hanging("interpreter"), sqs_server, queue, database_url) as processor:
        wait_until(lambda: queue.depth()["in_flight"] == 1, "it is being read")
        processor.send_signal(signal.SIGTERM)
        code = processor.wait(15)

    assert code == 4, "work is left"
    assert db.execute("SELECT attempts, hangs FROM attempt").fetchall() == [(0, 1)]


def test_an_event_that_its_schema_takes_minutes_for_is_put_aside(
    sqs_server: EmbeddedSqs, queue: SqsSource, database_url: str, db: Db
) -> None:
    """Each number of thirty digits is compared with each other, in one call that nothing interrupts."""
    registry.publish_schema(db, "reading", {"type": "array", "uniqueItems": True})
    numbers = ",".join(str(10**29 + number) for number in range(4900))
    body = f'{{"id": "r-1", "tenant_id": "acme", "event_type": "reading", "payload": [{numbers}]}}'
    for each in (body, a_body().decode()):
        sqs_server.client().send_message(QueueUrl=queue._queue_url, MessageBody=each)

    with a_processor(["processor"], sqs_server, queue, database_url) as processor:
        wait_until(lambda: not sum(queue.depth_with_dead_letters().values()), "the queue is empty")
        processor.terminate()
        code = processor.wait(30)

    assert code == 0
    assert books(db) == {"message": 1, "duplicate": 0, "rejection": 1}
    rejected = db.execute("SELECT reason, octet_length(body) FROM rejection").fetchall()
    assert rejected == [("unstorable", len(body))]
