"""Items with an article, an intake that is closed again, and what of it came to the queue."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from processor.devstack.servers.sqs import EmbeddedSqs
from processor.settings import Settings
from producers.gateway.intake import QueueIntake
from producers.gateway.items import Item, Refusal, Taken, Word
from producers.gateway.opening import open_intake
from tests.builders import a_body

T = TypeVar("T")

TEST_S = 60


def an_item(*, message_id: str | None = None, **changes: Any) -> Item:
    """A valid native event of tenant acme; `message_id` is its idempotency key."""
    return Item(a_body(**changes), message_id=message_id)


def a_pulse(body: str | None = None) -> Item:
    """A bare pulse of tenant acme, or one of this very text."""
    text = '{"tenant_id": "acme", "product_sku": "vm", "used_amount": 1.10, "use_unity": "KB"}'
    return Item((body or text).encode())


class SteppedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock a test may put forward, so that no test waits for a time to be over."""

    ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s


def step(seconds: float) -> None:
    """Let so much time go by at once, on the loop that runs."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteppedLoop)
    loop.ahead_s += seconds


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run it on a stepped loop of its own, for so long at the most."""

    async def bounded() -> T:
        async with asyncio.timeout(TEST_S):
            return await work

    with asyncio.Runner(loop_factory=SteppedLoop) as runner:
        return runner.run(bounded())


@asynccontextmanager
async def an_intake(settings: Settings, **changes: Any) -> AsyncIterator[QueueIntake]:
    intake = open_intake(settings.model_copy(update=changes))
    await intake.start()
    try:
        yield intake
    finally:
        await intake.close()


def words(found: list[Word]) -> list[str]:
    """What became of each, in a word."""
    return [word.why.word if isinstance(word, Refusal) else "taken" for word in found]


def taken(found: list[Word]) -> list[Taken]:
    assert all(isinstance(word, Taken) for word in found), found
    return [word for word in found if isinstance(word, Taken)]


def refused(found: list[Word]) -> Refusal:
    """The only word, which is a refusal."""
    [word] = found
    assert isinstance(word, Refusal), word
    return word


def on_the_queue(server: EmbeddedSqs, queue_url: str) -> list[Any]:
    """The messages that are on a queue, in their order; they are gone afterwards."""
    client = server.client()
    found: list[Any] = []
    while messages := client.receive_message(
        QueueUrl=queue_url,
        MaxNumberOfMessages=10,
        MessageAttributeNames=["All"],
        MessageSystemAttributeNames=["All"],
    ).get("Messages"):
        found += messages
        for message in messages:
            # Of a FIFO queue, the next ones of a group come only when these are gone.
            client.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])
    client.close()
    return found


def ids_on_the_queue(server: EmbeddedSqs, queue_url: str) -> list[str]:
    return sorted(json.loads(message["Body"])["id"] for message in on_the_queue(server, queue_url))
