"""Nothing is acknowledged that SQS has not accepted, whatever becomes of the call on its way."""

import asyncio
import contextlib
import json
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from processor.devstack.servers.children import free_port
from processor.devstack.servers.sqs import EmbeddedSqs
from processor.settings import Settings
from producers.gateway.intake import QueueIntake
from producers.gateway.items import Caller, Refusal, Why
from tests.builders import an_event
from tests.chaos.traffic.http_proxy import Answer, Call, Forward, HttpProxy, Interceptor, refusal
from tests.chaos.traffic.interceptors import lose_reply, lose_request
from tests.fixtures.servers import QUEUE_NUMBERS
from tests.gateway.taking import (
    a_pulse,
    an_intake,
    an_item,
    ids_on_the_queue,
    on_the_queue,
    refused,
    run,
    step,
    taken,
    words,
)

ANYBODY = Caller()
TIMEOUT_S = 25.0
"""Longer than a call takes on the busiest machine, and less than a test may take: it is stepped over."""
WAIT_S = 30.0
SEND = "SendMessageBatch"


@pytest.fixture(scope="module")
def one_proxy(sqs_server: EmbeddedSqs) -> Iterator[HttpProxy]:
    proxy = HttpProxy(sqs_server.endpoint_url)
    yield proxy
    proxy.close()


@pytest.fixture
def proxy(one_proxy: HttpProxy) -> HttpProxy:
    one_proxy.heal()
    return one_proxy


@pytest.fixture
def behind(queue_settings: Settings, proxy: HttpProxy) -> Settings:
    """Settings of a gateway that reaches the queue through the proxy alone.

    Its calls are lean, and boto3 makes those again that fail: so whatever fails here fails in both ways.
    """
    return queue_settings.model_copy(
        update={
            "aws_endpoint_url": proxy.url,
            "gateway_timeout_s": TIMEOUT_S,
            "gateway_linger_ms": 20,
        }
    )


class Script:
    """Faults for the first sends, one each; the sends after them are honest. Counts them all."""

    def __init__(self, *faults: Interceptor) -> None:
        self._faults = list(faults)
        self.sends = 0

    def __call__(self, call: Call, forward: Forward) -> Answer | None:
        if call.operation != SEND:
            return forward(call.fields)
        self.sends += 1
        return self._faults.pop(0)(call, forward) if self._faults else forward(call.fields)


def instead(answer: Answer) -> Interceptor:
    """Answer this, without asking SQS."""
    return lambda _call, _forward: answer


def forever(fault: Interceptor) -> Interceptor:
    return lambda call, forward: fault(call, forward) if call.operation == SEND else forward(call.fields)


def altered(change: Any) -> Interceptor:
    """Let SQS do it, and change what it answers."""

    def fault(call: Call, forward: Forward) -> Answer:
        answer = forward(call.fields)
        document = answer.document
        change(document)
        return Answer(answer.status, json.dumps(document).encode())

    return fault


def not_taken(code: str, *, sender_fault: bool, message: str = "") -> Interceptor:
    """Say of every entry that it has failed, without asking SQS."""

    def fault(call: Call, forward: Forward) -> Answer:
        failed = [
            {"Id": entry["Id"], "Code": code, "SenderFault": sender_fault, "Message": message}
            for entry in call.fields["Entries"]
        ]
        return Answer(200, json.dumps({"Successful": [], "Failed": failed}).encode())

    return fault


def take(settings: Settings, count: int = 1, **changes: Any) -> list[Any]:
    async def work() -> list[Any]:
        async with an_intake(settings, **changes) as intake:
            return await intake.take([an_item(id=f"e-{number}") for number in range(count)], ANYBODY)

    return run(work())


def refused_in_time(
    settings: Settings, proxy: HttpProxy, fault: Interceptor, times: int = 3, **changes: Any
) -> Refusal:
    """Take one event, whose every send meets the fault, until its time is over; give the word on it.

    Its time is over as soon as it was sent so often, which shows what was made of the sends before.
    """
    met = threading.Semaphore(0)

    def noted(call: Call, forward: Forward) -> Answer | None:
        met.release()
        return fault(call, forward)

    async def work() -> Refusal:
        async with an_intake(settings, **changes) as intake:
            taking = asyncio.create_task(intake.take([an_item()], ANYBODY))
            for _ in range(times):
                assert await asyncio.to_thread(met.acquire, timeout=WAIT_S)
            step(TIMEOUT_S)
            return refused(await taking)

    proxy.fault = forever(noted)
    return run(work())


def ids(proxy: HttpProxy, server: EmbeddedSqs, queue_url: str) -> list[str]:
    proxy.heal()
    return ids_on_the_queue(server, queue_url)


# ── no yes of SQS, no yes of ours ─────────────────────────────────────────────────────────────────────

NO_YES: dict[str, Interceptor] = {
    "no answer": lose_reply,
    "never arrived": lose_request,
    "an empty answer": instead(Answer(200, b"{}")),
    "no JSON": instead(Answer(200, b"<html>Please log in</html>")),
    "somebody else's entry": altered(lambda said: said["Successful"][0].update(Id="7")),
    "throttled": instead(refusal("RequestThrottled")),
    "broken": instead(refusal("InternalFailure", 500)),
    "failed": not_taken("InternalError", sender_fault=False),
}


@pytest.mark.parametrize(
    ("fault", "client"), [*((fault, "lean") for fault in NO_YES), ("no answer", "boto3"), ("failed", "boto3")]
)
def test_without_a_yes_that_names_it_no_event_is_acknowledged(
    fault: str, client: str, behind: Settings, proxy: HttpProxy
) -> None:
    refusal = refused_in_time(behind, proxy, NO_YES[fault], sqs_client=client)

    assert refusal.why is Why.UNAVAILABLE
    assert refusal.retry_after_s == 1


@pytest.mark.parametrize("fault", NO_YES)
def test_what_goes_wrong_once_is_tried_again_in_time(
    fault: str, behind: Settings, proxy: HttpProxy, sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    proxy.fault = script = Script(NO_YES[fault])

    [word] = taken(take(behind))

    found = {
        message["MessageId"]: json.loads(message["Body"])["id"]
        for message in on_the_queue(sqs_server, queue_url)
    }
    assert found[word.delivery_id] == "e-0"
    # Where an answer was lost the event is there twice, under one id, by which it is stored once.
    assert set(found.values()) == {"e-0"}
    assert script.sends >= 2


def test_an_event_of_which_sqs_has_another_digest_is_sent_again(
    queue_settings: Settings, proxy: HttpProxy, sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    proxy.fault = Script(altered(lambda said: said["Successful"][1].update(MD5OfMessageBody="0" * 32)))

    taken(take(queue_settings, 3, aws_endpoint_url=proxy.url))

    assert ids(proxy, sqs_server, queue_url) == ["e-0", "e-1", "e-1", "e-2"]


def test_a_queue_that_hangs_is_waited_for_no_longer_than_it_may_take(
    behind: Settings, proxy: HttpProxy
) -> None:
    answered = threading.Event()

    def hang(call: Call, forward: Forward) -> Answer | None:
        answered.wait()
        return None

    try:
        word = refused_in_time(behind, proxy, hang, times=1)
    finally:
        answered.set()

    assert word.why is Why.UNAVAILABLE
    assert "may be on it all the same" in word.detail


# ── who is at fault ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("code", "message", "why"),
    [
        ("InvalidMessageContents", "bad characters", Why.INVALID),
        ("InvalidParameterValue", "Message must be shorter than 1048576 bytes.", Why.TOO_LARGE),
    ],
)
def test_an_event_that_sqs_refuses_is_not_tried_again(
    code: str, message: str, why: Why, behind: Settings, proxy: HttpProxy
) -> None:
    proxy.fault = script = Script(not_taken(code, sender_fault=True, message=message))

    refusal = refused(take(behind))

    assert refusal.why is why
    assert code in refusal.detail
    assert script.sends == 1


def test_a_key_of_kms_that_is_refused_is_no_fault_of_the_event(behind: Settings, proxy: HttpProxy) -> None:
    fault = not_taken("KmsAccessDenied", sender_fault=True)

    assert refused_in_time(behind, proxy, fault).why is Why.UNAVAILABLE


def test_where_a_whole_call_is_refused_the_guilty_event_alone_is(
    behind: Settings, proxy: HttpProxy, sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    def fault(call: Call, forward: Forward) -> Answer:
        guilty = any('"e-3"' in entry["MessageBody"] for entry in call.fields["Entries"])
        return refusal("InvalidMessageContents") if guilty else forward(call.fields)

    proxy.fault = forever(fault)

    found = take(behind, 8)

    assert words(found) == ["taken"] * 3 + ["invalid"] + ["taken"] * 4
    assert ids(proxy, sqs_server, queue_url) == [f"e-{number}" for number in range(8) if number != 3]


# ── a FIFO queue ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def fifo_url(sqs_server: EmbeddedSqs) -> str:
    """The URL of an empty FIFO queue of this test's own."""
    name = f"events-{next(QUEUE_NUMBERS)}.fifo"
    with contextlib.closing(sqs_server.client()) as client:
        return client.create_queue(QueueName=name, Attributes={"FifoQueue": "true"})["QueueUrl"]


def slow(call: Call, forward: Forward) -> Answer:
    time.sleep(0.2)
    return forward(call.fields)


@pytest.mark.parametrize(
    "faults",
    [(), (slow,), (not_taken("InternalError", sender_fault=False),)],
    ids=["plain", "slow", "failed"],
)
def test_a_fifo_queue_keeps_the_order_of_a_request(
    faults: tuple[Interceptor, ...],
    behind: Settings,
    proxy: HttpProxy,
    sqs_server: EmbeddedSqs,
    fifo_url: str,
) -> None:
    proxy.fault = Script(*faults)

    found = take(behind, 35, sqs_queue_url=fifo_url)

    taken(found)
    ids = [json.loads(message["Body"])["id"] for message in on_the_queue(sqs_server, fifo_url)]
    assert ids == [f"e-{number}" for number in range(35)]


def test_a_fifo_queue_knows_the_very_same_event_and_no_other(
    queue_settings: Settings, sqs_server: EmbeddedSqs, fifo_url: str
) -> None:
    """What differs under one id is no repetition: the tables must hear of it."""
    event = an_event(id="twice")
    events = [event, event, event | {"payload": {"total": 2}}]

    async def work() -> None:
        async with an_intake(queue_settings, sqs_queue_url=fifo_url) as intake:
            for each in events:
                taken(await intake.take([an_item(**each)], ANYBODY))

    run(work())

    assert ids_on_the_queue(sqs_server, fifo_url) == ["twice", "twice"]


# ── a queue that is not there ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("client", ["lean", "boto3"])
def test_a_missing_queue_is_said_at_once_and_logged_once(
    client: str, queue_settings: Settings, queue_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    # Longer than anybody waits for this test.
    changes = {"sqs_queue_url": queue_url + "-gone", "sqs_client": client, "gateway_timeout_s": 300}

    async def work() -> tuple[list[Any], str]:
        async with an_intake(queue_settings, **changes) as intake:
            before = await intake.ready()
            assert "NonExistentQueue" in before or "QueueDoesNotExist" in before
            found = [*await intake.take([an_item()], ANYBODY), *await intake.take([an_item()], ANYBODY)]
            return found, await intake.ready()

    with caplog.at_level(logging.INFO):
        found, ready = run(asyncio.wait_for(work(), WAIT_S))

    assert words(found) == ["unavailable"] * 2
    assert "see SQS_QUEUE_URL" in ready
    [record] = [record for record in caplog.records if record.name.startswith("producers.gateway")]
    assert record.levelno == logging.ERROR


def test_refused_credentials_are_said_without_what_sqs_quotes(
    queue_settings: Settings, proxy: HttpProxy, caplog: pytest.LogCaptureFixture
) -> None:
    document = {"__type": "com.amazonaws.sqs#SignatureDoesNotMatch", "message": "x-amz-security-token:SECRET"}
    proxy.fault = instead(Answer(403, json.dumps(document).encode()))

    async def work() -> tuple[Any, str]:
        async with an_intake(queue_settings, aws_endpoint_url=proxy.url) as intake:
            return refused(await intake.take([an_item()], ANYBODY)), await intake.ready()

    word, ready = run(work())

    assert word.why is Why.UNAVAILABLE
    assert "SignatureDoesNotMatch" in word.detail
    assert "SignatureDoesNotMatch" in ready
    assert "SECRET" not in word.detail + ready + caplog.text


async def time_is_over_in_an_outage(intake: QueueIntake) -> None:
    while "can't be reached" not in await intake.ready():  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(0.01)
    step(TIMEOUT_S)


def test_a_queue_that_goes_and_comes_back_loses_nothing_that_was_acknowledged(
    queue_settings: Settings,
) -> None:
    server = EmbeddedSqs(None, port=free_port())
    server.start()
    queue_url = server.create_queue("events")
    changes = {
        "aws_endpoint_url": server.endpoint_url,
        "sqs_queue_url": queue_url,
        "gateway_timeout_s": TIMEOUT_S,
    }

    async def work() -> None:
        async with an_intake(queue_settings, **changes) as intake:
            taken(await intake.take([an_item()], ANYBODY))
            assert await intake.ready() == ""

            await asyncio.to_thread(server.stop)
            found, _ = await asyncio.gather(
                intake.take([an_item() for _ in range(30)], ANYBODY), time_is_over_in_an_outage(intake)
            )
            assert words(found) == ["unavailable"] * 30

            await asyncio.to_thread(server.start)
            await asyncio.to_thread(server.create_queue, "events")
            # Whatever is said of it now: a word that it was taken means that it is there.
            found = await intake.take([an_item(id="after")], ANYBODY)
            while words(found) != ["taken"]:
                found = await intake.take([an_item(id="after")], ANYBODY)
            assert "after" in await asyncio.to_thread(ids_on_the_queue, server, queue_url)
            assert await intake.ready() == ""

    try:
        run(work())
    finally:
        server.stop()


def test_what_nobody_waits_for_is_not_tried_for_ever(behind: Settings, proxy: HttpProxy) -> None:
    proxy.fault = forever(instead(refusal("RequestThrottled")))

    async def work() -> int:
        async with an_intake(behind) as intake:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(intake.take([an_item() for _ in range(20)], ANYBODY), 0.001)
            assert intake._gather is not None
            assert intake._gather._waiting
            step(TIMEOUT_S)
            await intake._gather.drain()
            return intake._gather._waiting

    assert run(work()) == 0


def test_an_event_goes_on_its_way_even_if_nobody_waits_for_it_any_more(
    queue_settings: Settings, sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    async def work() -> None:
        async with an_intake(queue_settings, gateway_linger_ms=50) as intake:
            request = asyncio.create_task(intake.take([an_item(id="left"), a_pulse()], ANYBODY))
            await asyncio.sleep(0)
            request.cancel()
            taken(await intake.take([an_item(id="stayed")], ANYBODY))

    run(work())

    found = [json.loads(message["Body"])["id"] for message in on_the_queue(sqs_server, queue_url)]
    assert {"left", "stayed"} <= set(found)
