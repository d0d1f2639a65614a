"""Producers against a real SQS API: what is sent, refused, tried again, written down, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from processor.devstack.servers.sqs import EmbeddedSqs
from processor.errors import SettingsError, SourceUnavailable
from processor.settings import Settings
from processor.wire.manifest import ManifestLine, ManifestWriter, read_manifest
from producers.publishers.outgoing import Outgoing
from producers.publishers.publish import BATCH_BYTES_MAX, AcceptedMessage, PublishRun, Receipt, RefusedMessage
from producers.publishers.session import open_client
from producers.publishers.sqs import SqsPublisher

QUEUE_URL = "https://sqs.eu-north-1.amazonaws.com/000000000000/events"
Entries = Sequence[Mapping[str, Any]]


class ScriptedQueue:
    """A client that answers as the test says, call by call, and then says yes to everything."""

    def __init__(self, *answers: Callable[[Entries], dict[str, Any]]) -> None:
        self.answers = list(answers)
        self.calls: list[Entries] = []
        self.before_answer: Callable[[Entries], object] = lambda _entries: None
        self._lock = threading.Lock()

    def send_message_batch(self, *, QueueUrl: str, Entries: Entries) -> Any:  # noqa: ARG002, N803 - boto3's
        self.before_answer(Entries)
        with self._lock:
            self.calls.append(Entries)
            answer = self.answers.pop(0) if self.answers else yes
        return answer(Entries)


def yes(entries: Entries) -> dict[str, Any]:
    return {
        "Successful": [{"Id": entry["Id"], "MessageId": f"d-{entry['MessageBody']}"} for entry in entries]
    }


def failing(code: str, message: str = "", status: int = 400) -> Callable[[Entries], dict[str, Any]]:
    def answer(_entries: Entries) -> dict[str, Any]:
        answered: Any = {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {"HTTPStatusCode": status},
        }
        raise ClientError(answered, "SendMessageBatch")

    return answer


def away(_entries: Entries) -> dict[str, Any]:
    raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")


def failing_first(*, sender_fault: bool, message: str = "why") -> Callable[[Entries], dict[str, Any]]:
    """Takes all but the first entry."""

    def answer(entries: Entries) -> dict[str, Any]:
        fault = {"Id": entries[0]["Id"], "Code": "Code", "Message": message, "SenderFault": sender_fault}
        return {**yes(entries[1:]), "Failed": [fault]}

    return answer


def messages(count: int, group: str | None = "acme") -> list[Outgoing]:
    return [
        Outgoing(f"m{number}", tenant_id="acme", message_id=f"m{number}", group=group)
        for number in range(count)
    ]


def a_publisher(
    client: ScriptedQueue,
    url: str = QUEUE_URL,
    manifest: ManifestWriter | None = None,
    outage_s_max: float = 60,
) -> PublishRun:
    return PublishRun(
        SqsPublisher(client, url), manifest, senders=1, wait_s_max=0.001, outage_s_max=outage_s_max
    )


def accepted(receipts: Sequence[Receipt]) -> list[str]:
    return sorted(receipt.message.body for receipt in receipts if isinstance(receipt, AcceptedMessage))


def refused(receipts: Sequence[Receipt]) -> list[tuple[str, str]]:
    return [
        (receipt.message.body, receipt.code) for receipt in receipts if isinstance(receipt, RefusedMessage)
    ]


def received(sqs: EmbeddedSqs, queue_url: str) -> Iterator[Any]:
    client = sqs.client()
    while answer := client.receive_message(
        QueueUrl=queue_url,
        MaxNumberOfMessages=10,
        MessageAttributeNames=["All"],
        MessageSystemAttributeNames=["All"],
    ).get("Messages"):
        yield from answer


def test_everything_arrives_once_with_its_attributes_and_its_group(
    sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    outgoing = [
        Outgoing(f"body {number} é", {"tenant_id": "acme", "n": str(number)}, group="acme")
        for number in range(95)
    ]

    receipts = list(PublishRun(SqsPublisher(sqs_server.client(), queue_url)).publish(outgoing))

    there = {message["MessageId"]: message for message in received(sqs_server, queue_url)}
    assert len(receipts) == len(there) == 95
    for receipt in receipts:
        assert isinstance(receipt, AcceptedMessage)
        message = there[receipt.delivery_id]
        assert message["Body"] == receipt.message.body
        values = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
        assert values == receipt.message.attributes
        assert message["Attributes"]["MessageGroupId"] == "acme"


def test_large_messages_share_calls_only_as_far_as_sqs_takes(sqs_server: EmbeddedSqs, queue_url: str) -> None:
    attributes = {"name": "v" * 100}
    around = len("name") + len("String") + 100
    sizes = [BATCH_BYTES_MAX - around, 400_000, 700_000, BATCH_BYTES_MAX - around + 1, 1]
    outgoing = [Outgoing("é" * (size // 2) + "x" * (size % 2), attributes) for size in sizes]

    receipts = list(PublishRun(SqsPublisher(sqs_server.client(), queue_url)).publish(outgoing))

    [refusal] = [receipt for receipt in receipts if isinstance(receipt, RefusedMessage)]
    assert (refusal.code, refusal.message) == ("too_large", outgoing[3])
    assert "1048577 bytes" in refusal.reason
    assert len(list(received(sqs_server, queue_url))) == 4


def test_what_sqs_refuses_is_told_with_its_words_and_its_neighbours_are_sent(
    sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    outgoing = [*messages(4), Outgoing("\ufffe"), Outgoing("")]

    receipts = list(PublishRun(SqsPublisher(sqs_server.client(), queue_url)).publish(outgoing))

    assert accepted(receipts) == ["m0", "m1", "m2", "m3"]
    assert refused(receipts) == [("\ufffe", "InvalidMessageContents"), ("", "MissingParameter")]


def test_a_fifo_queue_gets_groups_and_our_own_deduplication_ids(
    sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    url = sqs_server.client().create_queue(QueueName="events.fifo", Attributes={"FifoQueue": "true"})[
        "QueueUrl"
    ]
    twins = [Outgoing("same", group="acme"), Outgoing("same", group="acme"), Outgoing("other", group=None)]

    receipts = list(PublishRun(SqsPublisher(sqs_server.client(), url)).publish(twins))

    assert accepted(receipts) == ["other", "same", "same"]
    assert len({receipt.delivery_id for receipt in receipts if isinstance(receipt, AcceptedMessage)}) == 3


def test_a_missing_queue_is_a_setting_to_correct(sqs_server: EmbeddedSqs, queue_url: str) -> None:
    with pytest.raises(SettingsError, match=r"there is no queue .*nowhere.* SQS_QUEUE_URL"):
        list(PublishRun(SqsPublisher(sqs_server.client(), f"{queue_url}-nowhere")).publish(messages(1)))


def test_the_senders_fault_is_refused_at_once_and_the_queues_is_tried_again() -> None:
    theirs = ScriptedQueue(failing_first(sender_fault=True))
    ours = ScriptedQueue(failing_first(sender_fault=False), failing_first(sender_fault=False))

    refusals = refused(list(a_publisher(theirs).publish(messages(3))))
    taken = accepted(list(a_publisher(ours).publish(messages(3))))

    assert (refusals, len(theirs.calls)) == ([("m0", "Code")], 1)
    assert (taken, [len(call) for call in ours.calls]) == (["m0", "m1", "m2"], [3, 1, 1])


def test_tries_are_bounded() -> None:
    client = ScriptedQueue(*[failing_first(sender_fault=False)] * 100)

    receipts = list(a_publisher(client).publish(messages(2)))

    assert (accepted(receipts), refused(receipts)) == (["m1"], [("m0", "Code")])
    assert len(client.calls) == 7


@pytest.mark.parametrize(
    "outage", [away, failing("ServiceUnavailable", status=503), failing("RequestThrottled")]
)
def test_an_outage_is_waited_out(outage: Callable[[Entries], dict[str, Any]]) -> None:
    client = ScriptedQueue(outage, outage, outage)

    assert accepted(list(a_publisher(client).publish(messages(2)))) == ["m0", "m1"]


def test_an_outage_that_stays_is_told_after_the_receipts_of_all_that_was_taken() -> None:
    client = ScriptedQueue(yes, *[away] * 1000)
    receipts: list[Receipt] = []

    with pytest.raises(SourceUnavailable, match="can't be reached"):
        receipts.extend(a_publisher(client, outage_s_max=0.01).publish(messages(1000), 2))

    assert accepted(receipts) == ["m0", "m1"]


def test_a_lack_of_rights_is_no_outage() -> None:
    client = ScriptedQueue(failing("AccessDenied", "no", status=403))

    with pytest.raises(SettingsError, match="denies access"):
        list(a_publisher(client).publish(messages(1)))
    assert len(client.calls) == 1


def test_a_refused_call_is_split_so_that_only_the_guilty_is_refused() -> None:
    def choosy(entries: Entries) -> dict[str, Any]:
        if any(entry["MessageBody"] == "m1" for entry in entries):
            return failing("InvalidMessageContents")(entries)
        return yes(entries)

    client = ScriptedQueue(*[choosy] * 4)

    receipts = list(a_publisher(client).publish(messages(3)))

    assert (accepted(receipts), refused(receipts)) == (["m0", "m2"], [("m1", "InvalidMessageContents")])


@pytest.mark.parametrize("whole_call", [True, False])
def test_a_server_that_takes_no_groups_gets_none(*, whole_call: bool) -> None:
    words = "Value acme for parameter MessageGroupId is invalid."
    first = (
        failing("InvalidParameterValue", words)
        if whole_call
        else failing_first(sender_fault=True, message=words)
    )
    client = ScriptedQueue(first)

    receipts = list(a_publisher(client).publish(messages(12)))

    assert len(accepted(receipts)) == 12
    assert all("MessageGroupId" in entry for entry in client.calls[0])
    assert not any("MessageGroupId" in entry for call in client.calls[1:] for entry in call)


def test_a_tenant_whose_name_is_no_group_id_still_has_a_group_of_its_own() -> None:
    client = ScriptedQueue()

    list(
        a_publisher(client).publish([*messages(1, "ACME Corp."), *messages(1, "å" * 200), *messages(1, None)])
    )

    groups = [entry.get("MessageGroupId", "") for entry in client.calls[0]]
    assert not groups[2]
    assert len(set(groups)) == 3
    assert all(len(group) == 64 for group in groups[:2])


def test_the_manifest_knows_a_message_before_the_queue_does_and_its_acceptance_after(tmp_path: Path) -> None:
    client = ScriptedQueue(away, failing_first(sender_fault=True))
    before: list[list[ManifestLine]] = []
    client.before_answer = lambda _entries: before.append(list(read_manifest(tmp_path / "m")))

    with ManifestWriter(tmp_path / "m") as manifest:
        list(a_publisher(client, manifest=manifest).publish(messages(2)))

    intended = [ManifestLine("intended", "acme", name, None) for name in ("m0", "m1")]
    assert before == [intended, intended]
    assert list(read_manifest(tmp_path / "m")) == [
        *intended,
        ManifestLine("accepted", "acme", "m1", None, "d-m1"),
    ]


def test_no_more_is_taken_than_the_queue_takes() -> None:
    taken = 0
    gate = threading.Event()

    def endless() -> Iterator[Outgoing]:
        nonlocal taken
        while True:
            taken += 1
            yield Outgoing("x")

    client = ScriptedQueue()
    client.before_answer = lambda _entries: gate.wait(30)
    publish_run = PublishRun(SqsPublisher(client, QUEUE_URL), senders=2)
    publishing = threading.Thread(target=lambda: list(publish_run.publish(endless())))
    publishing.start()
    deadline_s = time.monotonic() + 10
    while taken < 41 and time.monotonic() < deadline_s:
        threading.Event().wait(0.01)
    threading.Event().wait(0.2)
    held = taken
    publish_run.stop()
    gate.set()
    publishing.join(10)

    assert not publishing.is_alive()
    # Two senders with a batch each, two batches that wait, and the first message of the next one.
    assert held == 41


def producers(sqs: EmbeddedSqs, queue_url: str, *words: str, **settings: str) -> subprocess.Popen[str]:
    environment = {
        "AWS_ENDPOINT_URL": sqs.endpoint_url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "SQS_QUEUE_URL": queue_url,
        "RETRY_WAIT_S_MAX": "0.05",
        "PYTHONUNBUFFERED": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "producers", *words],
        env={"PATH": os.environ["PATH"]} | environment | settings,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], text: str | None = None) -> tuple[int, str, str]:
    """Wait for the end; give the exit code, the output and the errors."""
    try:
        output, errors = process.communicate(text, timeout=60)
    finally:
        process.kill()
    return process.returncode, output, errors


def test_fake_sends_what_it_reports(sqs_server: EmbeddedSqs, queue_url: str, tmp_path: Path) -> None:
    words = ("--events", "300", "--seed", "7", "--invalid", "0.2", "--duplicates", "0.2", "--json")
    manifest = tmp_path / "manifest.jsonl"

    code, output, errors = ended(
        producers(sqs_server, queue_url, "fake", *words, "--manifest", str(manifest))
    )

    report = json.loads(output)
    assert (code, errors) == (0, "")
    assert (report["seed"], report["sent"], report["accepted"], report["refused"]) == (7, 300, 300, 0)
    assert sum(report["kinds"].values()) == 300
    there = {message["MessageId"] for message in received(sqs_server, queue_url)}
    lines = list(read_manifest(manifest))
    assert Counter(line.state for line in lines) == {"intended": 300, "accepted": 300}
    assert {line.delivery_id for line in lines if line.state == "accepted"} == there


def test_send_reports_what_it_did_not_send(sqs_server: EmbeddedSqs, queue_url: str) -> None:
    text = '{"id":"1","tenant_id":"acme","event_type":"x","payload":{}}\nHello World\n"\ufffe"\n'

    code, output, errors = ended(producers(sqs_server, queue_url, "send", "-"), text)

    assert (code, errors) == (1, "")
    assert "sent 2: accepted 1, refused 1" in output
    assert "refused 1 x InvalidMessageContents" in output
    assert "(first: line 3)" in output
    assert "not sent, line 2: not JSON" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "words", [("fake", "--events", "100000", "--rate", "200", "--json"), ("send", "-", "--json")]
)
def test_a_signal_ends_the_sending_with_the_report_so_far(
    sqs_server: EmbeddedSqs, queue_url: str, tmp_path: Path, words: tuple[str, ...], number: signal.Signals
) -> None:
    manifest = tmp_path / "manifest.jsonl"
    process = producers(sqs_server, queue_url, *words, "--manifest", str(manifest))
    assert process.stdin is not None
    process.stdin.write('{"id":"1"}\n' * 25)
    process.stdin.flush()
    deadline_s = time.monotonic() + 30
    # A batch is on the queue; `send` now waits for lines that never come.
    while not (manifest.exists() and '"accepted"' in manifest.read_text()) and time.monotonic() < deadline_s:
        threading.Event().wait(0.02)

    process.send_signal(number)
    process.wait(20)
    code, output, _ = ended(process)

    report = json.loads(output)
    lines = Counter(line.state for line in read_manifest(manifest))
    assert code == 128 + number
    assert report["interrupted"] is True
    assert report["accepted"] == lines["accepted"] == len(list(received(sqs_server, queue_url))) > 0


@pytest.mark.parametrize(
    ("words", "settings", "code", "why"),
    [
        (
            ("fake", "--events", "5", "--wait", "0"),
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
            4,
            "can't be reached",
        ),
        (("fake", "--events", "5"), {"SQS_QUEUE_URL": ""}, 2, "SQS_QUEUE_URL is not set"),
        (("fake", "--events", "5"), {"AWS_REGION": ""}, 2, "region"),
        (("fake", "--invalid", "0.8", "--duplicates", "0.8"), {}, 2, "more than all there is"),
        (("fake", "--tenants", "2", "--tenant", "acme"), {}, 2, "not both"),
        (("send", "/nowhere"), {}, 2, "No such file"),
        (("send", "-", "--tenant", "acme"), {}, 2, "go together"),
        (("fake", "--manifest", "/nowhere/m"), {}, 2, "can't be written"),
    ],
)
def test_what_is_wrong_is_said_in_words_with_its_exit_code(
    sqs_server: EmbeddedSqs,
    queue_url: str,
    words: tuple[str, ...],
    settings: dict[str, str],
    code: int,
    why: str,
) -> None:
    exit_code, _, errors = ended(producers(sqs_server, queue_url, *words, **settings))

    assert exit_code == code
    assert why in errors
    assert "Traceback" not in errors


def test_without_localstacks_client_its_host_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "localstack_client.session", None)

    with pytest.raises(SettingsError, match=r"LOCALSTACK_HOST needs .*\[devstack\]"):
        open_client(Settings.load(_env_file=None, localstack_host="127.0.0.1"), 1)


def test_localstacks_client_is_used_where_its_host_is_set(sqs_server: EmbeddedSqs, queue_url: str) -> None:
    host = sqs_server.endpoint_url.removeprefix("http://")

    process = producers(
        sqs_server,
        queue_url,
        "fake",
        "--events",
        "5",
        AWS_ENDPOINT_URL="",
        AWS_REGION="",
        LOCALSTACK_HOST=host,
    )

    assert ended(process)[0] == 0
