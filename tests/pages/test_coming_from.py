"""The pages of `docs/howto/coming-from`: their commands as they stand, with clients as theirs are."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from processor.devstack.servers.binaries import find_binaries
from processor.devstack.servers.children import free_port
from processor.devstack.servers.sqs import EmbeddedSqs
from tests.broker_servers.kafka import Tansu
from tests.broker_servers.rabbitmq import RabbitQueue
from tests.fixtures.database import _at
from tests.journeys import dev

PAGES = dev.ROOT / "docs" / "howto" / "coming-from"
HTTP_CONNECTIONS = 3000
AWS = {"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
Rows = list[tuple[Any, ...]]


def scripts(heading: str) -> list[str]:
    """The blocks of commands of the page with this title."""
    texts = [page.read_text(encoding="utf-8") for page in PAGES.glob("*.md")]
    [text] = [text for text in texts if text.startswith(f"# {heading}\n")]
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)


@dataclass
class Page:
    """An empty database, a directory to work in, and the environment that a reader of the page has."""

    database_url: str
    directory: Path
    environment: dict[str, str]

    def run(self, script: str, *publisher: str) -> str:
        """Run one block, with a publisher where its comment stands; gives what it printed."""
        command = shlex.join([sys.executable, "-m", "tests.clients.publishers", *publisher])
        assert len(re.findall(r"^# .*$", script, re.MULTILINE)) == 1, "one place where their clients send"
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", re.sub(r"(?m)^# .*$", lambda _: command, script)],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def ask(self, query: str) -> Rows:
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(query.encode()).fetchall()

    def stored(self) -> Rows:
        """How many messages each tenant has of each event type; nothing may have been rejected."""
        assert self.ask("SELECT reason, detail ->> 'message' FROM rejection") == []
        return self.ask("SELECT tenant_id, event_type, count(*) FROM message GROUP BY 1, 2 ORDER BY 1, 2")


@pytest.fixture
def page(server_url: str, tmp_path: Path) -> Iterator[Page]:
    name = f"coming_from_{os.getpid()}"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        environment = dev.environment() | {
            "PATH": f"{Path(sys.prefix) / 'bin'}:{find_binaries(None)}:{dev.environment()['PATH']}",
            "DATABASE_URL": _at(server_url, name),
            "HTTP_PORT": "0",
            "GATEWAY_PROBES_PORT": "0",
            "RECEIVE_WAIT_S": "1",
        }
        yield Page(environment["DATABASE_URL"], tmp_path, environment)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def sqs_page(page: Page, sqs_server: EmbeddedSqs, queue_url: str) -> Page:
    """The same, with a queue of SQS."""
    page.environment |= AWS | {"AWS_ENDPOINT_URL": sqs_server.endpoint_url, "SQS_QUEUE_URL": queue_url}
    return page


@pytest.fixture
def classic_queue(rabbitmq_url: str) -> Iterator[Callable[[str], RabbitQueue]]:
    """A queue that the clients declare themselves; gone at the end."""
    made: list[RabbitQueue] = []

    def make(name: str) -> RabbitQueue:
        made.append(RabbitQueue(rabbitmq_url, name, "classic"))
        return made[-1]

    yield make
    for queue in made:
        queue.close()


@pytest.mark.xdist_group("rabbitmq")
def test_the_publishers_of_a_rabbitmq_pulse_ingestor_go_on(
    page: Page, classic_queue: Callable[[str], RabbitQueue]
) -> None:
    queue = classic_queue(f"pulses-{os.getpid()}")
    page.environment |= {"PULSE_QUEUE_URL": queue.url, "PULSE_QUEUE_NAME": queue.name}
    [script] = scripts("A RabbitMQ pulse ingestor")

    said = page.run(script, "pulses-to-rabbitmq", queue.url, queue.name, "60")

    assert page.stored() == [("magalu", "pulse", 60)]
    assert page.ask("SELECT sum(value), sum(messages) FROM total") == [(330, 60)]
    assert "loja-1" in said


@pytest.mark.timeout(300)
def test_three_thousand_connections_of_an_http_ingestor_are_answered_with_204(sqs_page: Page) -> None:
    script, of_the_sender = scripts("An HTTP consumption ingestor")
    port = str(free_port())
    script = script.replace("8070", port).replace("register tenants", "register tenants --register-max 4000")

    sqs_page.run(script, "load-client", f"http://127.0.0.1:{port}/ingest", str(HTTP_CONNECTIONS))

    stored = sqs_page.stored()
    assert len(stored) == HTTP_CONNECTIONS
    assert {count for _, _, count in stored} == {1}
    assert sqs_page.ask("SELECT DISTINCT payload - 'tenant_id' ? 'use_unity' FROM message") == [(True,)]

    of_the_sender = of_the_sender.replace("8071", port)
    sqs_page.run(of_the_sender, "hourly-sender", f"http://127.0.0.1:{port}/ingest", "50")

    assert len(sqs_page.stored()) == HTTP_CONNECTIONS + 50


@pytest.mark.xdist_group("rabbitmq")
def test_the_generator_of_an_event_counter_is_counted_as_it_counts_itself(
    page: Page, classic_queue: Callable[[str], RabbitQueue]
) -> None:
    queue = classic_queue("eventcountertest")
    page.environment["AMQP_URL"] = queue.url
    counts = page.directory / "generator.json"
    [script] = scripts("An event counter")

    page.run(script, "message-generator", queue.url, f"user-events-{os.getpid()}", "100", str(counts))

    written = {path.stem: json.loads(path.read_text()) for path in page.directory.glob("counts/*.json")}
    assert written == json.loads(counts.read_text())


def test_the_producers_of_an_event_process_app_go_on(
    page: Page, sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    name = queue_url.rpartition("/")[2]
    page.environment |= AWS | {"AWS_ENDPOINT": sqs_server.endpoint_url, "QUEUE_NAME": name}
    [script] = scripts("An event process app")

    said = page.run(script, "fake-producers", sqs_server.endpoint_url, name, "20")

    assert page.ask("SELECT reason, count(*) FROM rejection GROUP BY 1") == [("not_json", 2)]
    assert page.ask("SELECT tenant_id, event_type, count(*) FROM message GROUP BY 1, 2 ORDER BY 1") == [
        ("client-1", "monitor-app", 20),
        ("client-2", "transaction-app", 20),
        ("client-3", "user-app", 20),
    ]
    assert page.ask("SELECT payload FROM message WHERE tenant_id = 'client-1' ORDER BY sent_at LIMIT 1") == [
        ("SALVE 0",)
    ]
    outcomes = [json.loads(line) for line in said.splitlines() if '"event": "delivery"' in line]
    assert Counter(line["outcome"] for line in outcomes) == {"stored": 60, "rejected": 2}
    assert {line.get("tenant_id") for line in outcomes} == {"client-1", "client-2", "client-3", None}
    assert "SALVE" not in said, "no payload in a log"


def test_the_clients_of_a_grpc_ingestor_go_on_and_what_is_in_its_topic_is_taken(
    sqs_page: Page, tansu_broker: Tansu
) -> None:
    port = str(free_port())
    tansu_broker.topic(name="resource-consumption")
    sqs_page.environment |= {
        "GATEWAY_GRPC_PORT": port,
        "KAFKA_BROKER": tansu_broker.servers,
        "VISIBILITY_TIMEOUT_S": "6",
    }
    by_grpc, by_topic = scripts("A gRPC and Kafka ingestor")

    sqs_page.run(by_grpc, "usage-client", f"127.0.0.1:{port}", "20")
    assert sqs_page.stored() == [("user123", "pulse", 20)]
    sqs_page.run(by_topic, "usage-topic", tansu_broker.servers, "resource-consumption", "20")

    assert sqs_page.stored() == [("user123", "pulse", 40)]
    assert sqs_page.ask("SELECT sum(value) FROM total") == [(380,)]


def test_an_outpost_event_is_stored_by_a_mapping(page: Page, sqs_server: EmbeddedSqs) -> None:
    page.environment |= AWS | {
        "AWS_ENDPOINT_URL": sqs_server.endpoint_url,
        "SQS_QUEUE_URL": sqs_server.create_queue("outpost-pub-queue"),
    }
    event = {
        "id": "evt_123",
        "tenant_id": "your-tenant-id",
        "topic": "user.created",
        "eligible_for_retry": True,
        "time": "2024-06-01T08:23:36.082374Z",
        "metadata": {"source": "signup-service"},
        "data": {"user_id": "usr_789"},
    }
    [script] = scripts("Outpost")

    page.run(script, "bodies", sqs_server.endpoint_url, "outpost-pub-queue", *[json.dumps(event)] * 2)

    assert page.stored() == [("your-tenant-id", "user.created", 1)]
    assert page.ask("SELECT message_id, occurred_at::text, payload, context -> 'metadata' FROM message") == [
        ("evt_123", "2024-06-01 08:23:36.082374+00", event["data"], event["metadata"])
    ]
    assert page.ask("SELECT count(*) FROM duplicate") == [(1,)]


def test_an_openmeter_event_is_counted_for_its_subject(sqs_page: Page, queue_url: str) -> None:
    event = {
        "specversion": "1.0",
        "type": "request",
        "id": "00001",
        "time": "2026-11-29T00:00:00.001Z",
        "source": "service-0",
        "subject": "customer-1",
        "data": {"duration_seconds": "12", "method": "GET", "route": "/hello"},
    }
    [script] = scripts("OpenMeter")

    said = sqs_page.run(script, *_bodies(sqs_page, queue_url), json.dumps(event))

    assert sqs_page.stored() == [("customer-1", "request", 1)]
    assert sqs_page.ask("SELECT message_id, producer FROM message") == [("00001", "service-0")]
    assert sqs_page.ask("SELECT value FROM total") == [(12,)]
    assert "/hello" in said


def test_a_lago_event_is_counted_for_its_subscription(sqs_page: Page, queue_url: str) -> None:
    event = {
        "event": {
            "transaction_id": "transaction_1234567890",
            "external_subscription_id": "sub_1234567890",
            "code": "storage",
            "timestamp": 1795942800,
            "properties": {"gb": 10},
        }
    }
    [script] = scripts("Lago")

    sqs_page.run(script, *_bodies(sqs_page, queue_url), *[json.dumps(event)] * 2)

    assert sqs_page.stored() == [("sub_1234567890", "storage", 1)]
    assert sqs_page.ask("SELECT message_id, occurred_at::text FROM message") == [
        ("transaction_1234567890", "2026-11-29 09:00:00+00")
    ]
    assert sqs_page.ask("SELECT value FROM total") == [(10,)]


def test_a_queue_of_sqs_consumer_is_read(sqs_page: Page, queue_url: str) -> None:
    [script] = scripts("sqs-consumer")

    sqs_page.run(script, *_bodies(sqs_page, queue_url), "{}")

    assert sqs_page.ask("SELECT reason FROM rejection") == [("envelope_invalid",)]


def _bodies(page: Page, queue_url: str) -> tuple[str, ...]:
    return ("bodies", page.environment["AWS_ENDPOINT_URL"], queue_url.rpartition("/")[2])
