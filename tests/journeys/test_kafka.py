"""A topic of bare pulses, through the processor and into sums; and a group whose members come, go and die."""

import json
import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import TopicPartition

from processor.brokers.kafka import an_onlooker
from processor.brokers.source_url import source_address
from processor.devstack.seed import seed
from processor.operations.audit import audit
from processor.sources.kafka.source import queue_depth
from processor.wire.manifest import ManifestLine, ManifestWriter, State
from producers.fake.messages import FakePlan, fake_messages
from producers.publishers.kafka import KafkaPublisher
from producers.publishers.outgoing import Outgoing
from producers.publishers.publish import AcceptedMessage, PublishRun
from tests.broker_servers.kafka import Mock, Tansu
from tests.fixtures.database import books
from tests.rig import wait_until

EVENTS = 400


def settings(database_url: str, source_url: str) -> dict[str, str]:
    return os.environ | {
        "DATABASE_URL": database_url,
        "SOURCE_URL": source_url,
        "HTTP_PORT": "0",
        "RECEIVE_WAIT_S": "1",
        "VISIBILITY_TIMEOUT_S": "2",
        "LOG_FORMAT": "console",
    }


def send(url: str, messages: Iterable[Outgoing]) -> int:
    publisher = KafkaPublisher(url)
    try:
        return sum(
            isinstance(receipt, AcceptedMessage) for receipt in PublishRun(publisher).publish(messages)
        )
    finally:
        publisher.close()


def test_pulses_of_a_topic_come_out_as_sums(
    tansu_broker: Tansu, database_url: str, db: psycopg.Connection[Any]
) -> None:
    seed(database_url)
    topic = tansu_broker.topic(3, "sums")
    expected: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    pulses = []
    for number in range(300):
        tenant, sku, amount = ("acme", "globex")[number % 2], f"sku-{number % 3}", Decimal(number) / 10
        expected[tenant, sku] += amount
        body = {"tenant_id": tenant, "product_sku": sku, "used_amount": float(amount), "use_unity": "GB"}
        pulses.append(Outgoing(json.dumps(body), group=tenant))
    assert send(tansu_broker.url(topic), pulses) == 300

    done = _processor(
        settings(database_url, "kafka://127.0.0.1:1/elsewhere"),
        *("run", "--source", tansu_broker.url(topic), "--until-idle", "1"),
    )
    asked = _processor(settings(database_url, ""), "usage", "query", "--json")

    assert done.returncode == 0, done.stderr
    assert books(db) == {"message": 300, "duplicate": 0, "rejection": 0}
    found: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for row in _rows(asked.stdout):
        found[row["tenant_id"], row["group"]["product_sku"]] += Decimal(str(row["value"]))
    assert found == expected


def test_a_new_group_counts_nothing_again_that_retention_has_removed(
    kafka: Mock, database_url: str, db: psycopg.Connection[Any]
) -> None:
    seed(database_url)
    topic = kafka.topic()
    body = {"tenant_id": "acme", "product_sku": "storage", "used_amount": 1, "use_unity": "GB"}
    kafka.sender.send(topic, json.dumps(body).encode(), partition=0, timestamp_ms=1_700_000_000_000)
    once = ("run", "--until-idle", "1")
    assert _processor(settings(database_url, kafka.url(topic, "first")), *once).returncode == 0
    db.execute("UPDATE message SET stored_at = now() - interval '100 days'")
    removed = _processor(settings(database_url, ""), "retention", "apply", "--message-days", "40")
    assert "message: 1 removed" in removed.stdout

    refused = _processor(settings(database_url, kafka.url(topic, "second")), *once)
    with an_onlooker(source_address(kafka.url(topic, "third"))) as admin:
        admin.commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)
    told = _processor(settings(database_url, kafka.url(topic, "third")), *once)

    assert (refused.returncode, told.returncode) == (2, 0), refused.stderr + told.stderr
    assert "the group second has no offset in partition 0" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert books(db) == {"message": 0, "duplicate": 0, "rejection": 0}


def test_nothing_is_lost_or_counted_twice_while_members_join_leave_and_are_killed(
    kafka: Mock, database_url: str, db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    seed(database_url)
    topic = kafka.topic(6)
    environment = settings(database_url, kafka.url(topic, "members"))
    manifests = [tmp_path / f"{number}.jsonl" for number in range(3)]
    logs = [tmp_path / f"{number}.log" for number in range(3)]
    members = []
    try:
        for number, (manifest, log) in enumerate(zip(manifests, logs, strict=True)):
            members.append(_member(environment, log))
            _send_noted(kafka, topic, number, manifest)
            wait_until(lambda log=log: "partitions=[" in log.read_text(), "it has joined")  # type: ignore[misc]
            if number == 1:
                members[0].kill()
        members[1].send_signal(signal.SIGTERM)
        assert members[1].wait(30) == 0
        wait_until(lambda: sum(books(db).values()) >= 3 * EVENTS, "all have an outcome", wait_s=60)
        members[2].send_signal(signal.SIGTERM)
        assert members[2].wait(30) == 0
    finally:
        for member in members:
            member.kill()
            member.wait()

    report = audit(db, manifests, lambda: queue_depth(source_address(kafka.url(topic, "members"))))
    assert report.holds, report.problems
    assert sum(books(db).values()) == 3 * EVENTS
    assert report.queued == {"visible": 0, "in_flight": 0}


def _send_noted(kafka: Mock, topic: str, seed_number: int, manifest: Path) -> None:
    """Send fake events to partitions by chance, noted as a publisher notes them."""
    messages = list(fake_messages(FakePlan(EVENTS, seed=seed_number, invalid=0.05, duplicates=0.05)))
    partition = random.Random(seed_number).randrange
    with ManifestWriter(manifest) as writer:
        for start in range(0, len(messages), 50):
            batch = messages[start : start + 50]
            writer.intend([_line("intended", message) for message in batch])
            for message in batch:
                delivery_id = kafka.sender.send(
                    topic, message.body.encode(), message.attributes, partition=partition(6)
                )
                writer.accept([_line("accepted", message, delivery_id)])


def _line(state: State, message: Outgoing, delivery_id: str | None = None) -> ManifestLine:
    return ManifestLine(state, message.tenant_id, message.message_id, message.digest, delivery_id)


def _member(environment: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.hasty_group", "run"], env=environment, stderr=output
        )


def _processor(environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "processor", *arguments]
    return subprocess.run(
        command,
        env={name: value for name, value in environment.items() if value},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def _rows(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(text)
    return found
