"""Sends the events of a soak, in a process of its own.

    python -m tests.chaos.traffic.soak_load ENDPOINT_URL QUEUE_URL COUNT SEED FOLDER

The process keeps a backlog on the queue, so that every kill interrupts work. It writes the manifest, and at
the end the expected sums.
"""

import json
import random
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from processor.wire.manifest import ManifestWriter
from producers.fake.messages import SAMPLE_TENANTS, FakePlan, fake_messages
from producers.publishers.outgoing import Outgoing
from producers.publishers.publish import AcceptedMessage, PublishRun
from producers.publishers.sqs import SqsPublisher
from tests.bench.queue.client import QueueClient
from tests.chaos.traffic.pulses import Key, Row, add_up, load_since, with_voids
from tests.chaos.traffic.steady_load import Sent

BACKLOG_MAX = 20_000
_LOOK_EVERY = 2000
_PAUSE_S = 0.05


class LeanClient:
    """What the publisher needs of boto3, at a fraction of its price: the senders are not what is tried."""

    def __init__(self, endpoint_url: str) -> None:
        self._endpoint_url = endpoint_url
        self._own = threading.local()

    def send_message_batch(self, *, QueueUrl: str, Entries: Sequence[Mapping[str, Any]]) -> Any:  # noqa: N803
        return self.ask("SendMessageBatch", QueueUrl=QueueUrl, Entries=list(Entries))

    def ask(self, operation: str, **fields: Any) -> Any:
        if not hasattr(self._own, "client"):
            self._own.client = QueueClient(self._endpoint_url)
        return self._own.client.ask(operation, **fields)


def send(endpoint_url: str, queue_url: str, count: int, seed: int, folder: Path) -> None:
    """Send `count` messages; leaves DIR/manifest.jsonl and DIR/sums.json."""
    client, sent, accepted = LeanClient(endpoint_url), Sent(), 0
    plan = FakePlan(
        events=count, seed=seed, tenants=SAMPLE_TENANTS, invalid=0.08, duplicates=0.05, since=load_since()
    )
    messages = with_voids(random.Random(seed), fake_messages(plan))
    with ManifestWriter(folder / "manifest.jsonl") as manifest:
        publish_run = PublishRun(SqsPublisher(client, queue_url), manifest, senders=2)
        for receipt in publish_run.publish(_paced(client, queue_url, messages)):
            assert isinstance(receipt, AcceptedMessage), receipt
            sent.note(receipt, keep_moment=False)
            accepted += 1
    (folder / "sums.json").write_text(
        json.dumps(
            {
                "accepted": accepted,
                "total": str(sent.total()),
                "rivals": sorted(sent.rivals, key=str),
                "pulses": [
                    [tenant_id, hour.isoformat(), sku, unit, str(amount), count]
                    for (tenant_id, hour, sku, unit), (amount, count) in add_up(sent.pulses.rows()).items()
                ],
                "pulse_rivals": sent.pulses.open_rivals(),
            }
        )
    )


def _paced(client: LeanClient, queue_url: str, messages: Iterator[Outgoing]) -> Iterator[Outgoing]:
    for number, message in enumerate(messages):
        while number % _LOOK_EVERY == 0 and _depth(client, queue_url) > BACKLOG_MAX:
            time.sleep(_PAUSE_S)
        yield message


def _depth(client: LeanClient, queue_url: str) -> int:
    counts = client.ask("GetQueueAttributes", QueueUrl=queue_url, AttributeNames=["All"])["Attributes"]
    return int(counts["ApproximateNumberOfMessages"])


def expected_sums(folder: Path) -> tuple[Decimal, list[tuple[str, str]]]:
    """Read what `send` left: the sum, and the keys of events that have a rival and are not in it."""
    said = json.loads((folder / "sums.json").read_text())
    return Decimal(said["total"]), [(tenant, message) for tenant, message in said["rivals"]]


def expected_usage(folder: Path) -> tuple[list[Row], list[Key]]:
    """Read what `send` left: what the pulses come to, and the keys of which one of two counts."""
    said = json.loads((folder / "sums.json").read_text())
    rows: list[Row] = [
        (tenant_id, datetime.fromisoformat(hour), sku, unit, Decimal(amount), count)
        for tenant_id, hour, sku, unit, amount, count in said["pulses"]
    ]
    return rows, [(tenant, message) for tenant, message in said["pulse_rivals"]]


if __name__ == "__main__":
    send(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
