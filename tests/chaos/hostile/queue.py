"""Attacks on a queue that tenants share."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from urllib.parse import urlsplit

from tests.chaos.hostile import Target
from tests.chaos.hostile.bodies import an_event, dear_payload, extreme_numbers
from tests.chaos.hostile.connections import READ_BYTES


async def _queued(target: Target, per_s: float, body: Callable[[], str], size: int = 10) -> None:
    """Send to the queue itself, as somebody who may."""
    parts = urlsplit(target.queue_url)
    interval_s = size / per_s
    headers = (
        f"POST / HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/x-amz-json-1.0\r\n"
        "X-Amz-Target: AmazonSQS.SendMessageBatch\r\n"
        "Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/sqs/aws4_request, "
        "SignedHeaders=host, Signature=0\r\n"
    )
    loop = asyncio.get_running_loop()
    while True:
        with contextlib.suppress(OSError, EOFError):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            due_at = loop.time()
            while not reader.at_eof():
                entries = [{"Id": str(number), "MessageBody": body()} for number in range(size)]
                sent = json.dumps({"QueueUrl": target.queue_url, "Entries": entries}).encode()
                writer.write(f"{headers}Content-Length: {len(sent)}\r\n\r\n".encode() + sent)
                await reader.read(READ_BYTES)
                due_at += interval_s
                await asyncio.sleep(max(0.0, due_at - loop.time()))
            writer.close()
        await asyncio.sleep(0.1)


async def sqs_garbage(target: Target) -> None:
    """60 KB of garbage, forty times a second: each becomes a rejection."""
    await _queued(target, 40, lambda: "x" * 60_000, size=4)


async def sqs_numbers(target: Target) -> None:
    """Events of extreme numbers, 150 KB each, ten a second."""
    await _queued(target, 10, lambda: an_event(extreme_numbers(150_000)), size=1)


async def sqs_dear(target: Target) -> None:
    """Events that are as dear to judge as a schema allows, ten a second."""
    await _queued(target, 10, lambda: an_event(dear_payload(), "dear"), size=1)


async def sqs_flood(target: Target) -> None:
    """500 small events a second."""
    await _queued(target, 500, an_event)
