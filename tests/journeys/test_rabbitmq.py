"""A stream as RabbitMQ users have it, through the processor and into files: unchanged, and counted once."""

import json
import os
import random
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from processor.devstack.seed import seed
from tests.broker_servers.rabbitmq import RabbitQueue
from tests.fixtures.database import books

pytestmark = pytest.mark.xdist_group("rabbitmq")

EXCHANGE = "user_events"
USERS = 7
EVENTS = 400


@pytest.fixture
def bound_queue(rabbitmq_queue: RabbitQueue) -> Iterator[RabbitQueue]:
    """A queue that a topic exchange fills with every event of every user."""
    exchange = f"{EXCHANGE}-{rabbitmq_queue.name}"
    rabbitmq_queue.channel.exchange_declare(exchange, "topic", durable=True)
    rabbitmq_queue.channel.queue_bind(rabbitmq_queue.name, exchange, "*.event.*")
    yield rabbitmq_queue
    rabbitmq_queue.channel.exchange_delete(exchange)


def send_events(queue: RabbitQueue, seed_number: int) -> dict[str, Counter[str]]:
    """Send what the counter challenge's generator sends; gives how many of each type each user really has.

    Some come twice, and all users share their ids: those are unique for one user and type alone.
    """
    chance = random.Random(seed_number)
    ids = [str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in range(EVENTS // 4)]
    sent: set[tuple[str, str, str]] = set()
    for _ in range(EVENTS):
        user, kind, event_id = (
            str(chance.randrange(USERS)),
            chance.choice(["created", "updated", "deleted"]),
            chance.choice(ids),
        )
        sent.add((user, kind, event_id))
        for _ in range(chance.choice([1, 1, 1, 2])):
            queue.put(
                json.dumps({"id": event_id}).encode(),
                exchange=f"{EXCHANGE}-{queue.name}",
                routing_key=f"{user}.event.{kind}",
                content_encoding="application/json",
            )
    counts: dict[str, Counter[str]] = {"created": Counter(), "updated": Counter(), "deleted": Counter()}
    for user, kind, _ in sent:
        counts[kind][user] += 1
    return counts


@pytest.mark.parametrize("processes", [1, 2])
def test_the_counter_challenges_stream_is_counted_as_it_comes(
    bound_queue: RabbitQueue, database_url: str, tmp_path: Path, processes: int, db: psycopg.Connection[Any]
) -> None:
    seed(database_url)
    expected = send_events(bound_queue, processes)

    done = run(
        {
            "DATABASE_URL": database_url,
            "SOURCE_URL": bound_queue.source_url.replace(f"?queue={bound_queue.name}", "?queue=another"),
            "ROUTING_KEY": "<user_id>.event.<event_type>",
            "ROUTING_KEY_TENANT": "acme",
        },
        *("--source", without_password(bound_queue.source_url), "--processes", str(processes)),
        *("--until-idle", "1", "--count-to", str(tmp_path / "counts")),
    )

    assert done.returncode == 0, done.stderr
    counted = {
        path.stem: Counter(json.loads(path.read_text())) for path in (tmp_path / "counts").glob("*.json")
    }
    assert counted == expected
    assert books(db)["rejection"] == 0
    assert bound_queue.depth() == 0
    assert "guest" not in done.stderr


def run(settings: dict[str, str], *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "processor", "run", *options],
        env=os.environ | {"HTTP_PORT": "0", "RECEIVE_WAIT_S": "1", "LOG_FORMAT": "console"} | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def without_password(url: str) -> str:
    before, _, behind = url.partition("@")
    return f"{before.partition('://')[0]}://{behind}"
