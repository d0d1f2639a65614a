"""What SQS hands over agrees with its checksums, and what is no answer of SQS is an outage, no idle queue."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import md5
from typing import Any

import pytest
from structlog.testing import capture_logs

from processor.devstack.servers.sqs import EmbeddedSqs
from processor.errors import SourceUnavailable
from processor.settings import Settings
from processor.sources.sqs.source import SqsSource
from tests.scripted_server import ScriptedServer, an_answer

pytestmark = pytest.mark.parametrize("sqs_client", ["lean", "boto3"])

ATTRIBUTES_MD5 = "039ac98297771c693f31ecca40fe5b40"
"""Of `attributes()`, as the local SQS hashes them."""


def attributes(tenant_id: str = "acme") -> dict[str, Any]:
    return {
        "tenant_id": {"DataType": "String", "StringValue": tenant_id},
        "n": {"DataType": "Number", "StringValue": "1.0"},
        "raw": {"DataType": "Binary", "BinaryValue": "AAH/"},
    }


def a_message(number: int, body: str = "{}", **changes: Any) -> dict[str, Any]:
    return {
        "MessageId": f"id-{number}",
        "ReceiptHandle": f"receipt-{number}",
        "Body": body,
        "MD5OfBody": md5(body.encode(), usedforsecurity=False).hexdigest(),
        "Attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1790000000000"},
    } | changes


def altered(number: int) -> dict[str, Any]:
    return a_message(number) | {"Body": "[]"}


def a_source(endpoint_url: str, sqs_client: str, queue: str = "events") -> SqsSource:
    return SqsSource.open(
        Settings.load(
            sqs_queue_url=f"{endpoint_url}/000000000000/{queue}",
            aws_endpoint_url=endpoint_url,
            aws_region="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            sqs_client=sqs_client,
            receive_wait_s=0,
        )
    )


@dataclass
class Queue:
    """A source, and the server that it believes to be SQS."""

    server: ScriptedServer
    source: SqsSource

    def receive(self, answer: bytes) -> list[str]:
        self.server.say(answer)
        return [each.delivery_id for each in self.source.receive(10, 0)]

    def hand_over(self, *messages: dict[str, Any]) -> list[str]:
        return self.receive(an_answer({"Messages": list(messages)}))


@pytest.fixture(scope="module")
def queues() -> Iterator[dict[str, Queue]]:
    """One by the name of the client; to make a client takes longer than to use it."""
    with ScriptedServer(an_answer()) as server:
        yield {name: Queue(server, a_source(server.url, name)) for name in ("lean", "boto3")}


@pytest.fixture
def queue(queues: dict[str, Queue], sqs_client: str) -> Queue:
    return queues[sqs_client]


def test_an_altered_body_is_not_received_and_its_neighbours_are(queue: Queue) -> None:
    with capture_logs() as logs:
        assert queue.hand_over(a_message(1), altered(2), a_message(3, "ü")) == ["id-1", "id-3"]

    assert [entry["count"] for entry in logs if entry["event"] == "altered_on_the_way"] == [1]


def test_an_altered_attribute_is_not_received(queue: Queue) -> None:
    """The tenant may stand in one."""
    told = {"MD5OfMessageAttributes": ATTRIBUTES_MD5}

    assert queue.hand_over(
        a_message(1, MessageAttributes=attributes(), **told),
        a_message(2, MessageAttributes=attributes("acma"), **told),
        a_message(3, **told),
    ) == ["id-1"]


@pytest.mark.parametrize("told", [{"MD5OfMessageAttributes": ATTRIBUTES_MD5}, {}], ids=["md5", "no md5"])
def test_an_attribute_without_a_value_that_can_be_read_is_altered(queue: Queue, told: dict[str, str]) -> None:
    """No sender can bring it about, so it is not the message's to be rejected for."""
    broken = attributes() | {"n": {"DataType": "Number", "StringValuf": "1.0"}}

    assert queue.hand_over(a_message(1), a_message(2, MessageAttributes=broken, **told)) == ["id-1"]


@pytest.mark.parametrize("answer", [{}, {"Attributes": {"ApproximateNumberOfMessages": "0"}}])
def test_an_answer_that_does_not_count_is_not_taken_for_nothing(queue: Queue, answer: dict[str, Any]) -> None:
    queue.server.say(an_answer(answer))

    with pytest.raises(SourceUnavailable, match="can't be read"):
        queue.source.depth()


def test_behind_an_altered_message_of_a_fifo_queue_nothing_is_received(queue: Queue, sqs_client: str) -> None:
    fifo = Queue(queue.server, a_source(queue.server.url, sqs_client, "events.fifo"))

    assert fifo.hand_over(a_message(1), altered(2), a_message(3)) == ["id-1"]


def test_where_all_is_altered_it_is_an_outage(queue: Queue) -> None:
    with pytest.raises(SourceUnavailable, match="MD5"):
        queue.hand_over(altered(1), altered(2))


def test_what_has_no_checksum_is_received(queue: Queue) -> None:
    bare = a_message(1)
    del bare["MD5OfBody"]

    assert queue.hand_over(bare) == ["id-1"]


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Please log in to this network</html>",
        b'{"Messages": [{"MessageId": "id-1", "Bo',
        b"[]",
        b'"all is well"',
        b'{"Messages": "none"}',
        b'{"Messages": [7]}',
        b'{"Messages": [{"MessageId": "id-1", "Body": "\xff", "ReceiptHandle": "r"}]}',
        json.dumps({"Messages": [{"MessageId": "id-1", "ReceiptHandle": "r"}]}).encode(),
        json.dumps({"Messages": [a_message(1, Attributes={"SentTimestamp": "179x"})]}).encode(),
        json.dumps({"Messages": [a_message(1, Attributes={"SentTimestamp": "9" * 30})]}).encode(),
        json.dumps({"Messages": [a_message(1, Attributes={"ApproximateReceiveCount": "?"})]}).encode(),
        json.dumps(
            {"Messages": [a_message(1, MessageAttributes={"a": {"DataType": "Binary", "BinaryValue": "A"}})]}
        ).encode(),
    ],
)
def test_what_is_no_answer_of_sqs_is_an_outage_and_no_idle_queue(queue: Queue, body: bytes) -> None:
    with pytest.raises(SourceUnavailable):
        queue.receive(an_answer(body=body))


def test_an_answer_without_a_body_is_an_empty_queue_and_not_asked_for_again(queue: Queue) -> None:
    queue.server.requests.clear()

    assert queue.receive(an_answer(body=b"")) == []

    assert len(queue.server.requests) == 1


def test_checksums_are_made_as_an_sqs_makes_them(
    sqs_client: str, sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    client = sqs_server.client()
    known: Any = attributes() | {
        "raw": {"DataType": "Binary.gz", "BinaryValue": bytes(range(256))},
        "größe": {"DataType": "String.label", "StringValue": "ß\U0001f600 "},
    }
    client.send_message(QueueUrl=queue_url, MessageBody="ü\U0001f600", MessageAttributes=known)

    source = a_source(sqs_server.endpoint_url, sqs_client, queue_url.rsplit("/", 1)[-1])
    [delivery] = source.receive(10, 1)

    assert (delivery.body.decode(), delivery.attributes["größe"]) == ("ü\U0001f600", "ß\U0001f600 ")
