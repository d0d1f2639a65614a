"""Sends events at a constant rate by a fixed timetable, in a process of its own.

    python -m tests.bench.queue.sender ENDPOINT_URL QUEUE_URL RATE COUNT TENANTS TEMPLATE_FILE

A message counts as sent at the moment that the timetable names, however late the call was made: a stalled
queue or sender shows in the latency instead of hiding there (no coordinated omission).
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import orjson

from tests.bench.queue.client import QueueClient

TICK_S_MIN = 0.001
BATCH_MAX = 10
START_S = 0.2


@dataclass(frozen=True)
class Timetable:
    """So many messages at each tick."""

    began_at: float
    tick_s: float
    per_tick: int

    @classmethod
    def of(cls, rate_per_s: int, began_at: float) -> "Timetable":
        """Give single messages up to 1,000 a second, and small batches each millisecond above."""
        per_tick = max(1, round(rate_per_s * TICK_S_MIN))
        return cls(began_at, per_tick / rate_per_s, per_tick)

    def due_at(self, number: int) -> float:
        """Give the moment at which the message of this number is to be sent, in Unix time."""
        return self.began_at + number // self.per_tick * self.tick_s


def main() -> None:
    endpoint_url, queue_url = sys.argv[1:3]
    rate, count, tenants = (int(word) for word in sys.argv[3:6])
    text = Path(sys.argv[6]).read_text()
    with QueueClient(endpoint_url) as client:
        timetable = Timetable.of(rate, time.time() + START_S)
        late_s = 0.0
        for first in range(0, count, timetable.per_tick):
            due_at = timetable.due_at(first)
            wait_s = due_at - time.time()
            if wait_s > 0:
                time.sleep(wait_s)
            late_s = max(late_s, time.time() - due_at)
            numbers = range(first, min(first + timetable.per_tick, count))
            bodies = [text % {"number": number, "tenant": number % tenants} for number in numbers]
            _send(client, queue_url, bodies)
    print(json.dumps({"began_at": timetable.began_at, "late_ms_max": late_s * 1000}))


def _send(client: QueueClient, queue_url: str, bodies: list[str]) -> None:
    if len(bodies) == 1:
        client.sqs("SendMessage", orjson.dumps({"QueueUrl": queue_url, "MessageBody": bodies[0]}))
        return
    for start in range(0, len(bodies), BATCH_MAX):
        entries = [
            {"Id": str(place), "MessageBody": body}
            for place, body in enumerate(bodies[start : start + BATCH_MAX])
        ]
        client.sqs("SendMessageBatch", orjson.dumps({"QueueUrl": queue_url, "Entries": entries}))


if __name__ == "__main__":
    main()
