"""The page of the counter, typed word for word: from an empty database and a queue to the files."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.broker_servers.rabbitmq import RabbitQueue
from tests.journeys import dev

pytestmark = pytest.mark.xdist_group("rabbitmq")

PAGE = dev.ROOT / "docs/howto/counter.md"


@pytest.fixture
def empty_url(database_url: str, db: psycopg.Connection[Any]) -> str:
    """A database that has been created, and nothing more."""
    db.execute("DROP SCHEMA public CASCADE")
    db.execute("CREATE SCHEMA public")
    return database_url


def test_three_commands_lead_from_nothing_to_the_three_files(
    rabbitmq_queue: RabbitQueue, empty_url: str, tmp_path: Path
) -> None:
    text = PAGE.read_text()
    script = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    [shown] = re.findall(r"```\n(\{.*?)```", text, re.DOTALL)
    rabbitmq_queue.make()
    exchange = f"user_events-{rabbitmq_queue.name}"
    rabbitmq_queue.channel.exchange_declare(exchange, "topic", durable=True)
    rabbitmq_queue.channel.queue_bind(rabbitmq_queue.name, exchange, "*.event.*")
    for key, number in (("u1.event.created", "1"), ("u1.event.created", "2"), ("u2.event.created", "1")):
        for _ in range(2):
            body = json.dumps({"id": number}).encode()
            rabbitmq_queue.put(body, exchange=exchange, routing_key=key)
    rabbitmq_queue.put(b'{"id": "1"}', exchange=exchange, routing_key="u2.event.updated")

    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=tmp_path,
        env=dev.environment()
        | {
            "PATH": f"{Path(sys.prefix) / 'bin'}:{dev.environment()['PATH']}",
            "DATABASE": empty_url,
            "RABBITMQ": rabbitmq_queue.source_url,
            "HTTP_PORT": "0",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    rabbitmq_queue.channel.exchange_delete(exchange)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(shown), done.stdout
    assert {path.name: json.loads(path.read_text()) for path in (tmp_path / "counts").iterdir()} == {
        "created.json": {"u1": 2, "u2": 1},
        "updated.json": {"u2": 1},
        "deleted.json": {},
    }
    for name, messages in (("created", 3), ("updated", 1), ("deleted", 0)):
        [line] = [line for line in done.stderr.splitlines() if f"counts/{name}.json" in line]
        assert re.search(rf"\bmessages\W+{messages}\b", line), line


def test_at_most_three_commands_are_asked_for() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)

    assert [line.split()[:2] for line in "".join(blocks).splitlines() if line.startswith("processor")] == [
        ["processor", "migrate"],
        ["processor", "counter"],
        ["processor", "run"],
    ]
