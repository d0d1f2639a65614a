"""What a dead letter needs: messages that SQS itself gives up, and an import of them."""

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
import structlog

from processor.devstack.servers.sqs import EmbeddedSqs
from processor.operations.audit import audit
from processor.settings import Settings
from processor.sources.sqs.source import SqsSource
from processor.wiring import commands
from tests.rig import wait_until

Db = psycopg.Connection[Any]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty queue is believed at once: there is but one server to ask."""
    monkeypatch.setattr("processor.operations.dead_letters._POLL_S", 0)
    yield
    structlog.reset_defaults()


def queue_name(url: str) -> str:
    return url.rsplit("/", 1)[-1]


def kill(sqs_server: EmbeddedSqs, queue_url: str, *bodies: bytes) -> list[str]:
    """Send messages and receive each too often, until SQS has moved them; gives their ids in that order."""
    with closing(sqs_server.client()) as client:
        redrive = client.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["RedrivePolicy"])
        policy = json.loads(redrive["Attributes"]["RedrivePolicy"]) | {"maxReceiveCount": 2}
        client.set_queue_attributes(
            QueueUrl=queue_url, Attributes={"RedrivePolicy": json.dumps(policy), "VisibilityTimeout": "0"}
        )
        ids = [
            client.send_message(QueueUrl=queue_url, MessageBody=body.decode())["MessageId"] for body in bodies
        ]

        def emptied() -> bool:
            return not client.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10).get("Messages")

        wait_until(emptied, "SQS has moved them")
    return ids


def bring(settings: Settings, **changes: Any) -> dict[str, int]:
    """Import the dead letters; gives the outcomes."""
    arguments: dict[str, Any] = {"source_name": None, "limit": None, "unread": False}
    _, outcomes, _ = commands.import_dead_letters(
        settings, **arguments | changes, stop=threading.Event(), on_batch=lambda _count: None
    )
    return outcomes


def dead_letters(settings: Settings) -> SqsSource:
    source = SqsSource.open(settings).dead_letters(visibility_timeout_s=30)
    assert source is not None
    return source


def rejections(db: Db, columns: str) -> list[tuple[Any, ...]]:
    return db.execute(f"SELECT {columns} FROM rejection ORDER BY rejection_id").fetchall()


def holds(db: Db, settings: Settings) -> bool:
    return audit(db, [], SqsSource.open(settings).depth_with_dead_letters).holds


def waits(db: Db, kind: str) -> bool:
    """Whether somebody waits for a lock of this kind in our database."""
    row = db.execute(
        "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database "
        "WHERE datname = current_database() AND locktype = %s AND NOT granted",
        [kind],
    ).fetchone()
    return row is not None and row[0] > 0


def environment_of(settings: Settings) -> dict[str, str]:
    """These settings as the environment of a command, which is to run this very code."""
    return {
        "DATABASE_URL": settings.need_database_url(),
        "SQS_QUEUE_URL": settings.need_queue_url(),
        "AWS_ENDPOINT_URL": str(settings.aws_endpoint_url),
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
