"""Tenants that send what is dear to judge, several at once and by every way in, stop nobody else."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import psycopg
import pytest

from processor.devstack.servers.sqs import EmbeddedSqs
from processor.operations import registry
from processor.settings import Settings
from producers.gateway.opening import open_intake
from producers.protos import ingest_pb2 as pb
from tests.broker_servers.kafka import Mock
from tests.broker_servers.rabbitmq import RabbitQueue
from tests.builders import a_body
from tests.chaos.victims.hanging import POISON
from tests.fixtures.database import books
from tests.fixtures.servers import QUEUE_NUMBERS
from tests.gateway.grpc.parts import WAIT_S, Loop, a_door
from tests.gateway.http.rig import a_gateway, settings_of
from tests.rig import wait_until

Db = psycopg.Connection[Any]

HOSTILE = ("evil-1", "evil-2", "evil-3")
EACH = 2
NEIGHBOURS = 30
VISIBILITY_S = 2
JUDGE_TIMEOUT_S = 1.0


@dataclass
class Way:
    """A way in: what puts a body there, and the settings by which the processor reads what comes out."""

    send: Callable[[bytes], object]
    environment: dict[str, str]


WAYS = ("sqs", "http", "grpc", "rabbitmq", "kafka")


@pytest.fixture
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    with ExitStack() as stack:
        yield _way(request, stack)


def _way(request: pytest.FixtureRequest, stack: ExitStack) -> Way:
    if request.param == "rabbitmq":
        queue: RabbitQueue = request.getfixturevalue("rabbitmq_queue")
        return Way(queue.put, {"SOURCE_URL": queue.source_url})
    if request.param == "kafka":
        kafka: Mock = request.getfixturevalue("kafka")
        topic = kafka.topic()
        return Way(lambda body: kafka.sender.send(topic, body, partition=0), {"SOURCE_URL": kafka.url(topic)})
    sqs: EmbeddedSqs = request.getfixturevalue("sqs_server")
    url = sqs.create_queue(
        f"hostile-{next(QUEUE_NUMBERS)}", visibility_timeout_s=VISIBILITY_S, max_receive_count=8
    )
    environment = {
        "SQS_QUEUE_URL": url,
        "AWS_ENDPOINT_URL": sqs.endpoint_url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "RECEIVE_WAIT_S": "1",
    }
    if request.param == "sqs":
        client = sqs.client()
        return Way(lambda body: client.send_message(QueueUrl=url, MessageBody=body.decode()), environment)
    settings = settings_of(sqs, url)
    send = _by_http(settings, sqs, stack) if request.param == "http" else _by_grpc(settings, stack)
    return Way(send, environment)


def _by_http(settings: Settings, sqs: EmbeddedSqs, stack: ExitStack) -> Callable[[bytes], None]:
    gateway = stack.enter_context(a_gateway(settings, sqs))
    client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{gateway.port}", timeout=30))

    def send(body: bytes) -> None:
        answer = client.post("/v1/events", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 202, answer.text

    return send


def _by_grpc(settings: Settings, stack: ExitStack) -> Callable[[bytes], None]:
    loop = stack.enter_context(Loop())
    intake = open_intake(settings)
    loop.run(intake.start())
    stack.callback(lambda: asyncio.run_coroutine_threadsafe(intake.close(), loop._loop).result(WAIT_S))
    door = stack.enter_context(a_door(loop, intake))

    def send(body: bytes) -> None:
        try:
            door.stub.Ingest(pb.IngestRequest(raw=pb.Raw(body=body)), timeout=WAIT_S)
        except grpc.RpcError as error:
            raise AssertionError(str(error)) from None

    return send


@contextmanager
def a_processor(program: list[str], way: Way, database_url: str) -> Iterator["subprocess.Popen[bytes]"]:
    environment = os.environ | way.environment
    environment |= {
        "DATABASE_URL": database_url,
        "HTTP_PORT": "0",
        "VISIBILITY_TIMEOUT_S": str(VISIBILITY_S),
        "JUDGE_TIMEOUT_S": str(JUDGE_TIMEOUT_S),
        "STOP_TIMEOUT_S": "3",
    }
    with subprocess.Popen([sys.executable, "-m", *program, "run"], env=environment) as processor:
        try:
            yield processor
        finally:
            processor.kill()


def a_bomb(tenant_id: str, number: int) -> bytes:
    numbers = ",".join(str(10**29 + each) for each in range(4900))
    event = f'"id": "b-{number}", "tenant_id": "{tenant_id}", "event_type": "reading"'
    return f'{{{event}, "payload": [{numbers}]}}'.encode()


@pytest.mark.parametrize("way", WAYS, indirect=True)
def test_what_takes_minutes_to_judge_is_put_aside_at_once(way: Way, database_url: str, db: Db) -> None:
    """Each number of thirty digits would be compared with each other: 152 KB that take two minutes."""
    registry.publish_schema(db, "reading", {"type": "array", "uniqueItems": True})
    for tenant_id in HOSTILE:
        registry.add_tenant(db, tenant_id)
    bombs = [a_bomb(tenant_id, number) for number in range(EACH) for tenant_id in HOSTILE]
    for bomb in bombs:
        for body in (bomb, a_body(), a_body()):
            way.send(body)
    sent = 2 * len(bombs)

    with a_processor(["processor"], way, database_url) as processor:
        wait_until(lambda: sum(books(db).values()) == sent + len(bombs), "all is in the books", wait_s=90)
        processor.terminate()
        code = processor.wait(30)

    assert code == 0
    assert books(db) == {"message": sent, "duplicate": 0, "rejection": len(bombs)}
    found = db.execute("SELECT tenant_id, reason, count(*) FROM rejection GROUP BY 1, 2 ORDER BY 1")
    assert found.fetchall() == [(tenant_id, "unstorable", EACH) for tenant_id in HOSTILE]
    assert db.execute("SELECT count(*) FROM rejection WHERE detail ? 'hangs'").fetchone() == (0,)


@pytest.mark.parametrize("way", ["sqs", "rabbitmq", "kafka"], indirect=True)
def test_what_hangs_its_readers_in_a_way_that_nobody_knows_is_put_aside_one_by_one(
    way: Way, database_url: str, db: Db
) -> None:
    for tenant_id in HOSTILE:
        registry.add_tenant(db, tenant_id)
        way.send(a_body(tenant_id=tenant_id, payload={"total": 1, "note": POISON.decode()}))
        for _ in range(NEIGHBOURS // len(HOSTILE)):
            way.send(a_body())

    with a_processor(["tests.chaos.victims.hanging", "interpreter"], way, database_url) as processor:
        wait_until(
            lambda: sum(books(db).values()) == NEIGHBOURS + len(HOSTILE), "all is in the books", wait_s=120
        )
        processor.terminate()
        code = processor.wait(30)

    assert code == 0
    assert books(db) == {"message": NEIGHBOURS, "duplicate": 0, "rejection": len(HOSTILE)}
    assert db.execute("SELECT DISTINCT reason FROM rejection").fetchall() == [("unstorable",)]
