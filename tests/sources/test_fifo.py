"""A FIFO queue end to end: groups come from the queue, and each keeps its order into the table."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import psycopg
import pytest
from msgspec.structs import replace

from processor.devstack.servers.sqs import EmbeddedSqs
from processor.settings import Settings
from processor.sources.sqs.source import SqsSource
from producers.publishers.outgoing import Outgoing
from producers.publishers.publish import AcceptedMessage, PublishRun
from producers.publishers.sqs import SqsPublisher
from tests.builders import a_body, a_delivery
from tests.fixtures.database import Saver, books
from tests.fixtures.servers import QUEUE_NUMBERS

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

VISIBILITY_S = 2


@pytest.fixture
def client(sqs_server: EmbeddedSqs) -> "Iterator[SQSClient]":
    client = sqs_server.client()
    yield client
    client.close()


@pytest.fixture
def fifo_url(client: "SQSClient") -> str:
    """The URL of an empty FIFO queue of this test's own."""
    name = f"events-{next(QUEUE_NUMBERS)}.fifo"
    return client.create_queue(QueueName=name, Attributes={"FifoQueue": "true"})["QueueUrl"]


def an_environment(sqs_server: EmbeddedSqs, queue_url: str, database_url: str) -> dict[str, str]:
    return os.environ | {
        "DATABASE_URL": database_url,
        "SQS_QUEUE_URL": queue_url,
        "AWS_ENDPOINT_URL": sqs_server.endpoint_url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "HTTP_PORT": "0",
        "VISIBILITY_TIMEOUT_S": str(VISIBILITY_S),
        "RECEIVE_WAIT_S": "1",
        "WRITERS": "3",
    }


def a_source(sqs_server: EmbeddedSqs, queue_url: str, calls_by: Literal["lean", "boto3"]) -> SqsSource:
    settings = Settings(
        sqs_client=calls_by,
        sqs_queue_url=queue_url,
        aws_endpoint_url=sqs_server.endpoint_url,
        aws_region="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    return SqsSource.open(settings)


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


@pytest.mark.parametrize("calls_by", ["lean", "boto3"])
def test_a_group_is_an_order_on_a_fifo_queue_and_nothing_to_wait_for_on_a_standard_one(
    sqs_server: EmbeddedSqs,
    client: "SQSClient",
    queue_url: str,
    fifo_url: str,
    calls_by: Literal["lean", "boto3"],
) -> None:
    for url in (queue_url, fifo_url):
        assert list(PublishRun(SqsPublisher(client, url)).publish([Outgoing("{}", group="acme")]))

    [standard] = a_source(sqs_server, queue_url, calls_by).receive(10, 1)
    [ordered] = a_source(sqs_server, fifo_url, calls_by).receive(10, 1)

    assert standard.group is None
    assert ordered.group == "acme"


def test_a_store_saves_what_is_later_in_the_group_of_a_suspect_after_it(
    saver: Saver, db: psycopg.Connection[Any]
) -> None:
    came = [("a1", "a", 1), ("a2", "a", 3), ("b1", "b", 1), ("a3", "a", 1), ("b2", "b", 3), ("a4", "a", 1)]
    deliveries = [
        replace(a_delivery(id=name, receive_count=receive_count), group=group)
        for name, group, receive_count in came
    ]

    settlements = saver.save(*deliveries)

    transactions = db.execute(
        "SELECT string_agg(message_id, ' ' ORDER BY message_id) FROM message"
        " GROUP BY stored_at ORDER BY stored_at"
    ).fetchall()
    assert [settlement.delivery for settlement in settlements] == deliveries
    assert transactions == [("a1 b1",), ("a2",), ("a3",), ("b2",), ("a4",)]


def test_the_groups_of_a_queue_keep_their_order_over_kills_and_one_in_trouble_stops_no_other(
    sqs_server: EmbeddedSqs,
    client: "SQSClient",
    fifo_url: str,
    database_url: str,
    db: psycopg.Connection[Any],
) -> None:
    """Two processes are killed before their COMMIT; what came to both is suspect for the third.

    A group has some of each kind, and one group is in the hands of somebody else all that time.
    """
    environment = an_environment(sqs_server, fifo_url, database_url)
    source = SqsSource(client, fifo_url, "events", visibility_timeout_s=60)
    numbers = itertools.count()

    def send(group: str, count: int) -> None:
        bodies = [a_body(id=f"{group}-{next(numbers):03d}").decode() for _ in range(count)]
        outgoing = [Outgoing(body, group=group) for body in bodies]
        assert all(
            isinstance(receipt, AcceptedMessage)
            for receipt in PublishRun(SqsPublisher(client, fifo_url)).publish(outgoing)
        )

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "processor", "run"]
        return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)

    send("blocked", 3)
    elsewhere = source.receive(10, 1)
    send("blocked", 2)
    for _ in range(2):
        send("killed", 4)
        wait_until(lambda: source.depth()["in_flight"] == 3)
        with psycopg.connect(database_url) as locking:
            locking.execute("LOCK TABLE message IN SHARE MODE")
            process = start()
            wait_until(lambda: source.depth()["in_flight"] > 3)
            process.send_signal(signal.SIGKILL)
            process.wait(10)
    send("killed", 4)
    send("calm", 20)
    process = start()
    wait_until(lambda: books(db)["message"] == 32)
    saved_beside_the_blocked = stored(db)
    source.release(elsewhere)
    wait_until(lambda: not sum(source.depth().values()))
    process.terminate()

    assert process.wait(30) == 0
    assert saved_beside_the_blocked.keys() == {"killed", "calm"}
    groups = stored(db)
    assert {group: len(rows) for group, rows in groups.items()} == {"blocked": 5, "killed": 12, "calm": 20}
    for rows in groups.values():
        assert rows == sorted(rows)
    assert [receive_count for _, receive_count in groups["killed"]] == [3] * 4 + [2] * 4 + [1] * 4


def stored(db: psycopg.Connection[Any]) -> dict[str, list[tuple[str, int]]]:
    """By group, the ids and receive counts in the order of their transactions."""
    groups: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, receive_count in db.execute(
        "SELECT message_id, receive_count FROM message ORDER BY stored_at, message_id"
    ):
        groups[name.split("-")[0]].append((name, receive_count))
    return groups


def test_what_is_sent_twice_on_purpose_is_twice_on_a_fifo_queue(
    sqs_server: EmbeddedSqs, client: "SQSClient", fifo_url: str, database_url: str
) -> None:
    """SQS answers yes to what it takes for a retry, and queues nothing: the audit would call it lost."""
    environment = an_environment(sqs_server, fifo_url, database_url)
    command = [sys.executable, "-m", "producers", "fake", "--events", "60", "--seed", "1", "--json"]
    command += ["--duplicates", "0.3", "--invalid", "0.1"]

    sent = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True)

    depth = SqsSource(client, fifo_url, "events", visibility_timeout_s=VISIBILITY_S).depth()
    assert json.loads(sent.stdout)["accepted"] == 60
    assert depth == {"visible": 60, "in_flight": 0, "delayed": 0}
