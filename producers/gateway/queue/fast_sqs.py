"""SendMessageBatch without boto3's overhead; boto3 handles everything unusual, in a thread.

    batch ─▶ sign ─▶ POST ─▶ 200, and every MD5 matches? ─▶ Answer
                      └─ otherwise ─▶ Senders: boto3 makes the same call again, and its result counts

A repeated call is harmless: each event has an id by which it is stored once.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from hashlib import md5
from typing import Any

import orjson

from processor.brokers.fast_sqs.signature import Signer
from processor.brokers.http_client import HttpTimeout, HttpTrouble
from processor.runtime.thread_deaths import watch
from producers.gateway.queue.posting import AsyncEndpoint
from producers.gateway.queue.sending import Sendable, Senders, Sent, Told
from producers.publishers import Answer
from producers.publishers.sqs import SqsPublisher

STRIKES_MAX = 10
"""Consecutive calls that failed here and worked with boto3; from then on boto3 makes all calls."""

_OK = 200

log = logging.getLogger(__name__)


class LeanSenders:
    """Sends over one endpoint on the event loop, with `by_boto3` as the fallback."""

    def __init__(
        self,
        publisher: SqsPublisher,
        endpoint: AsyncEndpoint,
        signer: Signer,
        by_boto3: Senders,
        *,
        user_agent: str,
    ) -> None:
        self._publisher = publisher
        self._endpoint = endpoint
        self._signer = signer
        self._user_agent = ("user-agent", user_agent)
        self._by_boto3 = by_boto3
        self._strikes = 0
        self._calls: set[asyncio.Task[None]] = set()
        self.count = by_boto3.count
        self.ordered = by_boto3.ordered

    def start(self) -> None:
        """Start the threads of the fallback."""
        self._by_boto3.start()

    def send(self, batch: Sequence[Sendable], told: Told) -> None:
        """Send a batch now, then call `told` with its result."""
        if self._strikes >= STRIKES_MAX:
            self._by_boto3.send(batch, told)
            return
        call = asyncio.get_running_loop().create_task(self._send(batch, told))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        watch(call)

    def stop(self) -> None:
        """Close connections and threads, and abandon calls that are still under way."""
        for call in self._calls:
            call.cancel()
        self._endpoint.close()
        self._by_boto3.stop()

    async def trouble(self) -> str:
        """Describe why sending fails; empty if it works."""
        return await self._by_boto3.trouble()

    async def _send(self, batch: Sequence[Sendable], told: Told) -> None:
        began = time.perf_counter()
        try:
            answer = await self._ask(batch)
        except HttpTimeout:
            # No second attempt: the callers would have timed out before its end.
            told(batch, Sent(self._by_boto3.timed_out(), time.perf_counter() - began))
        except Exception as error:  # noqa: BLE001 - boto3 may succeed, and callers wait for a result
            log.debug("a lean call failed: %s", type(error).__name__)
            self._by_boto3.send(batch, lambda _, sent: self._judged(batch, sent, told))
        else:
            self._strikes = 0
            if answer.accepted:
                self._by_boto3.worked()
            told(batch, Sent(answer, time.perf_counter() - began))

    async def _ask(self, batch: Sequence[Sendable]) -> Answer:
        request = self._publisher.request({index: entry.event.outgoing for index, entry in enumerate(batch)})
        body = orjson.dumps(request)
        headers = self._signer.headers("AmazonSQS.SendMessageBatch", body)
        answer = await self._endpoint.post([*headers, self._user_agent], body)
        if answer.status != _OK:
            raise HttpTrouble(f"status {answer.status}")
        return self._publisher.read(_unaltered(request["Entries"], orjson.loads(answer.body)))

    def _judged(self, batch: Sequence[Sendable], sent: Sent, told: Told) -> None:
        """Pass on boto3's result, and count a success of boto3 after a failure here."""
        if isinstance(sent.answer, Answer):
            self._strikes += 1
            if self._strikes == STRIKES_MAX:
                log.warning("lean calls have failed %d times; boto3 makes all calls now", STRIKES_MAX)
        told(batch, sent)


def _unaltered(entries: Sequence[Mapping[str, Any]], said: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the entries whose MD5 differs: SQS holds another body than was sent, so they are not confirmed."""
    bodies = {entry["Id"]: entry["MessageBody"] for entry in entries}
    successful = []
    for entry in said.get("Successful") or ():
        digest = md5(bodies[entry["Id"]].encode(), usedforsecurity=False).hexdigest()
        if entry["MD5OfMessageBody"] == digest and entry["MessageId"]:
            successful.append(entry)
        else:
            log.warning("an event was altered on its way to the queue; it is sent again")
    return {"Successful": successful, "Failed": said.get("Failed") or ()}
