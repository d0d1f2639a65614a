"""The load tests' queue server is a queue: what it hands over is hidden, comes again, and leaves once."""

import hashlib
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.bench import events
from tests.bench.queue.client import QueueClient
from tests.bench.queue.queues import QueueServer
from tests.bench.waiting import wait_until

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

NUMBERS = itertools.count(1)
PATIENCE_S = 10


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueueServer]:
    folder = tmp_path_factory.mktemp("queue")
    with QueueServer("own", folder, folder) as running:
        yield running


@pytest.fixture(scope="module")
def sqs(server: QueueServer) -> Iterator["SQSClient"]:
    client: SQSClient = boto3.client(
        "sqs",
        endpoint_url=server.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    yield client
    client.close()


@pytest.fixture
def url(server: QueueServer) -> str:
    return server.create(f"queue-{next(NUMBERS)}")


def send(sqs: "SQSClient", url: str, *bodies: str) -> list[str]:
    return [sqs.send_message(QueueUrl=url, MessageBody=body)["MessageId"] for body in bodies]


def receive(sqs: "SQSClient", url: str, *, wait_s: int = 0, hidden_s: int = 60) -> list[Any]:
    answer = sqs.receive_message(
        QueueUrl=url,
        MaxNumberOfMessages=10,
        WaitTimeSeconds=wait_s,
        VisibilityTimeout=hidden_s,
        MessageSystemAttributeNames=["All"],
        MessageAttributeNames=["All"],
    )
    return list(answer.get("Messages", []))


def test_what_is_held_is_hidden_and_comes_again_after_its_timeout_with_a_new_receipt(
    sqs: "SQSClient", url: str
) -> None:
    [sent] = send(sqs, url, "body")
    [first] = receive(sqs, url, hidden_s=1)

    hidden = receive(sqs, url)
    [second] = receive(sqs, url, wait_s=PATIENCE_S)

    assert hidden == []
    assert (first["MessageId"], second["MessageId"]) == (sent, sent)
    assert first["ReceiptHandle"] != second["ReceiptHandle"]
    counts = [message["Attributes"]["ApproximateReceiveCount"] for message in (first, second)]
    assert counts == ["1", "2"]
    assert first["Attributes"]["SentTimestamp"] == second["Attributes"]["SentTimestamp"]


def test_a_receipt_grows_old_at_the_next_receive(sqs: "SQSClient", url: str) -> None:
    send(sqs, url, "body")
    [first] = receive(sqs, url, hidden_s=0)
    [second] = receive(sqs, url)

    with pytest.raises(ClientError, match="ReceiptHandleIsInvalid"):
        sqs.delete_message(QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=second["ReceiptHandle"], VisibilityTimeout=0)

    assert len(receive(sqs, url)) == 1


def test_what_is_deleted_never_comes_again_and_may_be_deleted_twice(
    server: QueueServer, sqs: "SQSClient", url: str
) -> None:
    send(sqs, url, "body")
    [message] = receive(sqs, url, hidden_s=0)

    for _ in range(2):
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    assert receive(sqs, url) == []
    assert server.depth(url) == 0


def test_an_entry_that_is_refused_fails_alone(sqs: "SQSClient", url: str) -> None:
    send(sqs, url, "good")
    [message] = receive(sqs, url)
    entries: Any = [
        {"Id": "good", "ReceiptHandle": message["ReceiptHandle"]},
        {"Id": "bad", "ReceiptHandle": "garbage"},
    ]

    answer = sqs.delete_message_batch(QueueUrl=url, Entries=entries)

    assert [entry["Id"] for entry in answer["Successful"]] == ["good"]
    [failed] = answer["Failed"]
    assert (failed["Id"], failed["Code"], failed["SenderFault"]) == ("bad", "ReceiptHandleIsInvalid", True)


def test_the_same_entry_twice_fails_the_whole_call(sqs: "SQSClient", url: str) -> None:
    entries: Any = [{"Id": "same", "MessageBody": "a"}, {"Id": "same", "MessageBody": "b"}]

    with pytest.raises(ClientError, match="BatchEntryIdsNotDistinct"):
        sqs.send_message_batch(QueueUrl=url, Entries=entries)

    assert receive(sqs, url) == []


def test_a_long_poll_ends_with_the_first_message(server: QueueServer, sqs: "SQSClient", url: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(receive, sqs, url, wait_s=2 * PATIENCE_S)
        wait_until(lambda: server.parked(url) == 1, PATIENCE_S, "the receive")
        [sent] = send(sqs, url, "body")
        [message] = waiting.result(PATIENCE_S)

    assert message["MessageId"] == sent


def test_a_batch_wakes_one_receive_with_all_of_it(server: QueueServer, sqs: "SQSClient", url: str) -> None:
    entries: Any = [{"Id": str(place), "MessageBody": f"{place}"} for place in range(10)]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(receive, sqs, url, wait_s=20)
        wait_until(lambda: server.parked(url) == 1, PATIENCE_S, "the receive")
        sqs.send_message_batch(QueueUrl=url, Entries=entries)

        assert len(waiting.result(PATIENCE_S)) == 10


def test_who_has_left_is_handed_nothing(server: QueueServer, sqs: "SQSClient", url: str) -> None:
    leaver = QueueClient(server.endpoint_url, timeout_s=0.05)
    with leaver, pytest.raises(TimeoutError):
        leaver.ask("ReceiveMessage", QueueUrl=url, WaitTimeSeconds=20)
    wait_until(lambda: server.parked(url) == 0, PATIENCE_S, "the server to notice")

    send(sqs, url, "body")

    assert len(receive(sqs, url)) == 1


def test_a_delayed_message_comes_when_its_delay_is_over(sqs: "SQSClient", url: str) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="late", DelaySeconds=1)

    assert receive(sqs, url) == []
    assert [message["Body"] for message in receive(sqs, url, wait_s=PATIENCE_S)] == ["late"]


def test_bodies_and_attributes_come_as_they_were_sent_with_their_digests(sqs: "SQSClient", url: str) -> None:
    body = '\U0001f980 é "quoted" \\ \t <xml/>'
    attributes: Any = {
        "tenant_id": {"DataType": "String", "StringValue": "acme é"},
        "binary": {"DataType": "Binary", "BinaryValue": bytes(range(256))},
    }

    sent = sqs.send_message(QueueUrl=url, MessageBody=body, MessageAttributes=attributes)
    [message] = receive(sqs, url)

    # The second digest is what another implementation of SQS says of the same attributes.
    digests = (
        hashlib.md5(body.encode(), usedforsecurity=False).hexdigest(),
        "78e3791ac9582525fe209f3c6623255a",
    )
    assert (message["Body"], message["MessageAttributes"]) == (body, attributes)
    assert (message["MD5OfBody"], message["MD5OfMessageAttributes"]) == digests
    assert (sent["MD5OfMessageBody"], sent["MD5OfMessageAttributes"]) == digests


def test_a_queue_that_does_not_exist_is_refused_by_the_name_that_aws_uses(sqs: "SQSClient", url: str) -> None:
    with pytest.raises(sqs.exceptions.QueueDoesNotExist) as refused:
        receive(sqs, f"{url}-not")

    assert refused.value.response["Error"]["Code"] == "AWS.SimpleQueueService.NonExistentQueue"


def test_what_was_filled_in_hidden_shows_at_once_and_as_a_whole(
    server: QueueServer, sqs: "SQSClient", url: str
) -> None:
    server.fill(url, events.template(), 0, 25, hidden=True)
    before = (server.depth(url), receive(sqs, url))

    server.reveal(url)

    assert before == (0, [])
    assert server.depth(url) == 25
    bodies = {message["Body"] for _ in range(3) for message in receive(sqs, url)}
    assert bodies == {events.body(number, events.template()) for number in range(25)}


def test_what_is_made_when_received_comes_after_what_was_sent(
    server: QueueServer, sqs: "SQSClient", url: str
) -> None:
    server.fill(url, events.template(), 0, 1_000_000, lazy=True)
    send(sqs, url, "sent")

    [first, *rest] = receive(sqs, url)

    assert server.depth(url) == 1_000_001
    assert first["Body"] == "sent"
    assert [message["Body"] for message in rest] == [events.body(n, events.template()) for n in range(9)]


def test_who_waits_is_handed_what_is_filled_in_to_be_made_later(
    server: QueueServer, sqs: "SQSClient", url: str
) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(receive, sqs, url, wait_s=20)
        wait_until(lambda: server.parked(url) == 1, PATIENCE_S, "the receive to wait")

        server.fill(url, events.template(), 0, 3, lazy=True)

        assert len(waiting.result(PATIENCE_S)) == 3


def test_calls_are_counted_by_operation(server: QueueServer, sqs: "SQSClient", url: str) -> None:
    send(sqs, url, "a", "b")
    receive(sqs, url)

    assert server.calls(url) == {"SendMessage": 2, "ReceiveMessage": 1}


def test_a_request_may_come_in_pieces_and_two_at_once(server: QueueServer, url: str) -> None:
    with QueueClient(server.endpoint_url) as client:
        body = b'{"QueueUrl":"%s"}' % url.encode()
        head = b"POST / HTTP/1.1\r\nx-AMZ-target: AmazonSQS.PurgeQueue\r\ncontent-LENGTH: %d\r\n\r\n"
        whole = head % len(body) + body
        for piece in (whole[:10], whole[10:40], whole[40:-3], whole[-3:] + whole):
            client._socket.sendall(piece)
        answers = b""
        while answers.count(b"200 OK") < 2:
            answers += client._more(b"")

    assert server.calls(url) == {"PurgeQueue": 2}
