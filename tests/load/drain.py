"""How fast one process empties a queue: `python -m tests.load.drain [--messages N] [--rounds N]`.

Each round fills a fresh queue, starts `processor run --until-idle` on a fresh database, and counts rows while
they appear. A round whose audit fails prints no figure.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import psycopg

from processor import registry
from processor.devstack.postgres import EmbeddedPostgres
from processor.migrations import migrate
from tests.load.fauxqs import Fauxqs

SCHEMA = {
    "type": "object",
    "properties": {
        "order_id": {"type": "string", "minLength": 1},
        "total": {"type": "number", "minimum": 0},
        "currency": {"enum": ["EUR", "USD"]},
        "items": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "required": ["sku", "quantity"]},
        },
        "note": {"type": "string"},
    },
    "required": ["order_id", "total", "currency", "items"],
}


def body(number: int, size_bytes: int = 500) -> str:
    """Give a native event of about `size_bytes`."""
    event: dict[str, Any] = {
        "id": f"order-{number:09d}",
        "tenant_id": f"tenant-{number % 10}",
        "event_type": "order.created",
        "producer": "shop",
        "occurred_at": "2026-11-22T10:00:00Z",
        "payload": {
            "order_id": f"o-{number}",
            "total": number / 100,
            "currency": "EUR",
            "items": [{"sku": f"sku-{place}", "quantity": place + 1} for place in range(5)],
            "note": "",
        },
    }
    event["payload"]["note"] = "x" * max(0, size_bytes - len(json.dumps(event)))
    return json.dumps(event)


def fill(client: Any, queue_url: str, messages: int) -> None:
    def send(start: int) -> None:
        numbers = range(start, min(start + 10, messages))
        entries = [{"Id": str(place), "MessageBody": body(number)} for place, number in enumerate(numbers)]
        answer = client.send_message_batch(QueueUrl=queue_url, Entries=entries)
        assert not answer.get("Failed"), "the queue refused a message of the load test"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(0, messages, 10)))


def prepare_database(server_url: str, name: str) -> str:
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    url = server_url.rsplit("/", 1)[0] + "/" + name
    with psycopg.connect(url, autocommit=True) as connection:
        migrate(connection)
        for number in range(10):
            registry.add_tenant(connection, f"tenant-{number}")
        registry.publish_schema(connection, "order.created", SCHEMA)
    return url


def drain_once(environment: Mapping[str, str], database_url: str, messages: int) -> dict[str, float]:
    """Run the processor until the queue is empty; gives rate_per_s, cpu_s_per_1000 and rss_mib."""
    began = time.monotonic()
    first_at: float | None = None
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    child = subprocess.Popen(
        [sys.executable, "-m", "processor", "run", "--until-idle", "1"],
        env=environment,
        stderr=subprocess.PIPE,
    )
    rss_mib = 0.0
    with psycopg.connect(database_url, autocommit=True) as connection:
        while True:
            row = connection.execute("SELECT count(*) FROM message").fetchone()
            stored, now = (0 if row is None else int(row[0])), time.monotonic()
            rss_mib = max(rss_mib, _peak_rss_mib(child.pid))
            if stored and first_at is None:
                first_at = now
            if stored >= messages or child.poll() is not None:
                break
            time.sleep(0.05)
    ended = time.monotonic()
    _, errors = child.communicate()
    if child.returncode:
        raise SystemExit(f"the processor ended with {child.returncode}: {errors.decode()[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # Starting Python is not draining: the clock runs from the first row that was seen.
    return {
        "rate_per_s": messages / (ended - (first_at or began)),
        "rate_with_start_per_s": messages / (ended - began),
        "cpu_s_per_1000": cpu_s / messages * 1000,
        "rss_mib": rss_mib,
    }


def _peak_rss_mib(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next(
        (int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0.0
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    results = []
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres(Path(folder) / "postgres") as postgres,
        Fauxqs(Path(".processor/load").absolute()) as queue,
    ):
        credentials = {
            "aws_access_key_id": "test",
            "aws_secret_access_key": "test",
            "region_name": "us-east-1",
        }
        client = boto3.client("sqs", endpoint_url=queue.endpoint_url, **credentials)
        for place in range(arguments.rounds):
            queue_url = client.create_queue(QueueName=f"load-{place}")["QueueUrl"]
            fill(client, queue_url, arguments.messages)
            database_url = prepare_database(postgres.url(), f"load_{place}")
            environment = os.environ | {
                "DATABASE_URL": database_url,
                "SQS_QUEUE_URL": queue_url,
                "AWS_ENDPOINT_URL": queue.endpoint_url,
                "AWS_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "HTTP_PORT": "0",
            }
            result = drain_once(environment, database_url, arguments.messages)
            audit = subprocess.run(
                [sys.executable, "-m", "processor", "audit", "--json"],
                env=environment,
                capture_output=True,
                check=False,
            )
            books = json.loads(audit.stdout)["outcomes"] if audit.stdout else {}
            if audit.returncode or books.get("message") != arguments.messages:
                raise SystemExit(
                    f"round {place + 1}: the audit does not hold, so there is no figure: {books}"
                )
            results.append(result)
            print(
                f"round {place + 1}: " + "  ".join(f"{name} {value:.3f}" for name, value in result.items()),
                flush=True,
            )
    print(
        "median:  "
        + "  ".join(f"{name} {statistics.median(r[name] for r in results):.3f}" for name in results[0])
    )


if __name__ == "__main__":
    main()
