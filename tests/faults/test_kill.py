"""For every step of the pipeline: a kill just before it and just after it, and then rows are counted."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from processor.devstack.servers.sqs import EmbeddedSqs
from processor.operations import registry
from processor.operations.audit import audit
from processor.operations.queue_rules import set_queue
from processor.sources.sqs.source import SqsSource
from processor.usage.verify import verify
from tests.bench.usage import METER
from tests.builders import a_body
from tests.chaos.victims.dying import COMMITTED, NOTHING_COMMITTED
from tests.fixtures.database import books

ALWAYS = {
    "after receive",
    "after insert_metered_messages",
    "before commit",
    "after commit",
    "after settle",
    "after register_tenants",
}
"""One kill for each state that the tables and the queue can be in; the other places leave the same behind."""

SENT = 24
STORED, DUPLICATES, REJECTED = 18, 3, 3
PULSES = 6
COUNTED = Decimal("1.5")
"""Of six pulses with 0.3 each, one of them voided."""


def a_place(place: str) -> object:
    """A place to die at; each takes two processes and the time until what they held comes back."""
    return pytest.param(
        place,
        marks=()
        if place in ALWAYS
        else pytest.mark.long("test_a_kill_loses_nothing_and_doubles_nothing, at the other places"),
    )


@dataclass
class Deployment:
    """One queue, one database, and `processor run` as a child, dying or not."""

    database_url: str
    queue_url: str
    sqs: EmbeddedSqs

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "DATABASE_URL": self.database_url,
            "SQS_QUEUE_URL": self.queue_url,
            "AWS_ENDPOINT_URL": self.sqs.endpoint_url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "HTTP_PORT": "0",
            # What a dead process held comes back after this. Its polls outlive it at the server, and must
            # have ended by then, lest they take it once more.
            "VISIBILITY_TIMEOUT_S": "2",
            "RECEIVE_WAIT_S": "1",
            "LINGER_MS": "300",
        }

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", *command, "run"], env=self.environment, stderr=subprocess.DEVNULL
        )

    def source(self) -> SqsSource:
        return SqsSource(self.sqs.client(), self.queue_url, "events", visibility_timeout_s=2)

    def queued(self) -> int:
        return sum(self.source().depth().values())


@pytest.fixture
def deployment(database_url: str, queue_url: str, sqs_server: EmbeddedSqs) -> Deployment:
    return Deployment(database_url, queue_url, sqs_server)


@pytest.fixture
def registered(db: psycopg.Connection[Any]) -> None:
    """Pulses and voids, which the database of the tests does not have by itself."""
    for event_type in ("pulse", "void"):
        registry.publish_schema(db, event_type, {"type": "object"})


def send(deployment: Deployment) -> None:
    """Eighteen messages, three of them a second time, and three that are no events."""
    client = deployment.sqs.client()
    bodies = [a_body(id=f"o-{place}") for place in range(STORED - PULSES - 1)]
    bodies += [a_pulse(f"p-{place}") for place in range(PULSES)]
    # Before its pulse and after it: one is a message, the other is noted as a duplicate.
    payload = {"message_id": "p-3", "producer": ""}
    void = a_body(id="v", event_type="void", payload=payload)
    bodies = [void, *bodies, *bodies[-2:], void] + [b"Hello World"] * REJECTED
    for start in range(0, len(bodies), 10):
        entries: Any = [
            {"Id": str(place), "MessageBody": body.decode()}
            for place, body in enumerate(bodies[start : start + 10])
        ]
        assert not client.send_message_batch(QueueUrl=deployment.queue_url, Entries=entries).get("Failed")


def a_pulse(message_id: str) -> bytes:
    payload = {"tenant_id": "acme", "product_sku": "disk", "used_amount": 0.3, "use_unity": "GB"}
    return a_body(id=message_id, event_type="pulse", payload=payload)


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


@pytest.mark.parametrize("place", [*map(a_place, NOTHING_COMMITTED + COMMITTED)])
@pytest.mark.visibility(2)
@pytest.mark.usefixtures("registered")
def test_a_kill_loses_nothing_and_doubles_nothing(
    deployment: Deployment, db: psycopg.Connection[Any], place: str
) -> None:
    db.execute(METER)
    send(deployment)

    assert deployment.start("tests.chaos.victims.dying", place).wait(30) == -signal.SIGKILL
    rows = Counter(books(db))
    queued = deployment.queued()
    settled_before_death = SENT - queued

    assert (rows.total() == 0) == (place in NOTHING_COMMITTED)
    assert settled_before_death <= rows.total(), "nothing leaves the queue before its row is committed"
    assert (settled_before_death > 0) == (place == "after settle")

    if queued:
        survivor = deployment.start("processor")
        wait_until(lambda: not deployment.queued())
        survivor.terminate()
        assert survivor.wait(30) == 0
    assert books(db) == {"message": STORED, "duplicate": DUPLICATES, "rejection": REJECTED}
    assert audit(db, [], deployment.source().depth).holds
    assert verify(db).holds
    assert db.execute("SELECT value, messages FROM usage").fetchall() == [(COUNTED, PULSES - 1)]


@pytest.mark.parametrize(
    "place", [*map(a_place, ("before register_tenants", "after register_tenants", "before insert_messages"))]
)
@pytest.mark.visibility(2)
def test_a_kill_around_the_registering_of_tenants_loses_nothing(
    deployment: Deployment, db: psycopg.Connection[Any], place: str
) -> None:
    queue = deployment.queue_url.rsplit("/", 1)[-1]
    set_queue(db, queue, {"registers_tenants": True})
    for name in ("new-1", "new-2"):
        body = a_body(id="o", tenant_id=name).decode()
        deployment.sqs.client().send_message(QueueUrl=deployment.queue_url, MessageBody=body)

    assert deployment.start("tests.chaos.victims.dying", place).wait(30) == -signal.SIGKILL
    registered = "SELECT count(*) FROM tenant WHERE registered_by = %s"
    before = db.execute(registered, [queue]).fetchone()
    assert (before == (0,)) == (place == "before register_tenants")
    assert books(db) == {"message": 0, "duplicate": 0, "rejection": 0}

    survivor = deployment.start("processor")
    wait_until(lambda: not deployment.queued())
    survivor.terminate()
    assert survivor.wait(30) == 0
    assert books(db) == {"message": 2, "duplicate": 0, "rejection": 0}
    assert db.execute(registered, [queue]).fetchone() == (2,)
