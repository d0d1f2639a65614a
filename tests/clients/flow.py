"""From what a client has sent to the rows that it became: one run of the processor, by settings alone."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
import pytest

from processor.devstack.servers.sqs import EmbeddedSqs
from processor.operations import registry

Db = psycopg.Connection[Any]

PULSE = {"tenant_id": "acme", "product_sku": "vm-small", "used_amount": 3, "use_unity": "GB"}
FREE = "free"
"""An event type whose payload may be any JSON."""


class Row(NamedTuple):
    """What is stored of an event, without the context."""

    tenant_id: str
    message_id: str
    producer: str
    event_type: str
    occurred_at: datetime | None
    payload: Any


@dataclass
class Flow:
    """A database of a test's own, and how the processor is started on it."""

    db: Db
    environment: dict[str, str]
    contexts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(self, *options: str, **settings: str) -> str:
        """Let the processor take what is there and end; gives what it logged."""
        done = subprocess.run(
            [sys.executable, "-m", "processor", "run", "--until-idle", "1", *options],
            env=self.environment | settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    def command(self, *words: str, **settings: str) -> str:
        """Run any command of the processor; gives what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "processor", *words],
            env=self.environment | settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def rows(self) -> list[Row]:
        """What was stored, by message id; nothing may have been rejected."""
        assert not self.rejections(), self.rejections()
        found = self.db.execute(
            "SELECT tenant_id, message_id, producer, event_type, occurred_at, payload, context "
            "FROM message ORDER BY message_id, event_type"
        ).fetchall()
        self.contexts = {row[1]: row[6] or {} for row in found}
        return [Row(*row[:6]) for row in found]

    def rejections(self) -> list[tuple[str, str]]:
        """Reason and words of each rejection."""
        return self.db.execute("SELECT reason, detail ->> 'message' FROM rejection ORDER BY 1, 2").fetchall()

    def duplicates(self) -> list[str]:
        """The ids of what came again."""
        return [row[0] for row in self.db.execute("SELECT message_id FROM duplicate ORDER BY 1").fetchall()]


@pytest.fixture
def flow(db: Db, database_url: str) -> Flow:
    """A registry with acme, globex, pulses and an event type that takes anything; no queue is named yet."""
    registry.publish_schema(db, "pulse", {"type": "object"})
    registry.publish_schema(db, FREE, {})
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    clean.pop("SQS_QUEUE_URL", None)
    clean.pop("SOURCE_URL", None)
    return Flow(
        db,
        clean
        | {
            "DATABASE_URL": database_url,
            "HTTP_PORT": "0",
            "RECEIVE_WAIT_S": "1",
            "LOG_FORMAT": "console",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
    )


def of_queue(sqs: EmbeddedSqs, queue_url: str) -> dict[str, str]:
    """The settings by which anybody finds a queue of the tests' SQS."""
    return {
        "SQS_QUEUE_URL": queue_url,
        "AWS_ENDPOINT_URL": sqs.endpoint_url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
