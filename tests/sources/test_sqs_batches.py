"""What a batch call of SQS says of each entry: AWS answers 200 and lists what failed, so the list decides."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber

from processor.errors import SourceFault, SourceUnavailable
from processor.model import Delivery, Outcome, Settlement
from processor.sources.sqs import source as sqs
from processor.sources.sqs.source import SqsSource

URL = "https://sqs.eu-central-1.amazonaws.com/1/events"


@pytest.fixture
def stub() -> Iterator[Stubber]:
    """An SQS that answers as a test says, and fails where more or less is asked."""
    client = boto3.client(
        "sqs", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x", endpoint_url=URL
    )
    with Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


@pytest.fixture
def source(stub: Stubber, monkeypatch: pytest.MonkeyPatch) -> SqsSource:
    monkeypatch.setattr(sqs, "_SETTLE_PAUSES_S", (0.0, 0.0, 0.0))
    return SqsSource(stub.client, URL, "events", visibility_timeout_s=60)


def deliveries(count: int) -> list[Delivery]:
    now = datetime.now(UTC)
    return [Delivery("events", f"id-{n}", b"", f"receipt-{n}", 1, now, now) for n in range(count)]


def settled(count: int) -> list[Settlement]:
    return [Settlement(delivery, Outcome.STORED) for delivery in deliveries(count)]


def expect(stub: Stubber, call: str, size: int, failed: dict[str, bool]) -> None:
    """Expect one batch call over `size` entries; `failed` says by entry whether the fault was ours."""
    faults = [{"Id": name, "SenderFault": fault, "Code": "x"} for name, fault in failed.items()]
    stub.add_response(call, {"Successful": [], "Failed": faults}, {"QueueUrl": URL, "Entries": [ANY] * size})


def test_what_failed_through_no_fault_of_ours_is_deleted_again(stub: Stubber, source: SqsSource) -> None:
    entries: Any = [{"Id": str(place), "ReceiptHandle": f"receipt-{place}"} for place in range(3)]
    answers: list[tuple[list[Any], list[Any]]] = [
        (entries, [{"Id": "1", "SenderFault": False, "Code": "InternalError"}]),
        ([entries[1]], [{"Id": "1", "SenderFault": False, "Code": "InternalError"}]),
        ([entries[1]], []),
    ]
    for asked, failed in answers:
        stub.add_response(
            "delete_message_batch",
            {"Successful": [], "Failed": failed},
            {"QueueUrl": URL, "Entries": asked},
        )

    source.settle(settled(3))


def test_what_failed_by_an_outdated_receipt_is_not_tried_again(stub: Stubber, source: SqsSource) -> None:
    expect(stub, "delete_message_batch", 2, {"0": True})

    source.settle(settled(2))


def test_what_never_succeeds_is_given_up_and_the_next_ten_go_on(stub: Stubber, source: SqsSource) -> None:
    expect(stub, "delete_message_batch", 10, {"3": False})
    for _ in range(2):
        expect(stub, "delete_message_batch", 1, {"3": False})
    expect(stub, "delete_message_batch", 2, {})

    source.settle(settled(12))


def test_a_stop_ends_the_pauses_and_the_tries_to_delete(stub: Stubber) -> None:
    stop = threading.Event()
    stop.set()
    source = SqsSource(stub.client, URL, "events", visibility_timeout_s=60, stop=stop)
    expect(stub, "delete_message_batch", 10, {"3": False})
    expect(stub, "delete_message_batch", 2, {})

    source.settle(settled(12))


def test_an_outage_in_the_middle_is_raised(stub: Stubber, source: SqsSource) -> None:
    expect(stub, "delete_message_batch", 10, {})
    stub.add_client_error("delete_message_batch", "ServiceUnavailable")

    with pytest.raises(SourceUnavailable, match="ServiceUnavailable"):
        source.settle(settled(12))


def test_an_extension_that_fails_is_left_to_the_next_heartbeat(stub: Stubber, source: SqsSource) -> None:
    expect(stub, "change_message_visibility_batch", 3, {"0": False, "1": True})

    source.extend(deliveries(3))


# ── credentials that are refused ──────────────────────────────────────────────────────────────────────


class Refused:
    """A source whose credentials are refused, at moments that the test steps to."""

    def __init__(self, stub: Stubber, *, keys_given: bool) -> None:
        self.now_s = 0.0
        self._stub = stub
        self._source = SqsSource(
            stub.client,
            URL,
            "events",
            visibility_timeout_s=60,
            keys_given=keys_given,
            clock=lambda: self.now_s,
        )

    def outage(self, code: str) -> str:
        """Receive and be refused by this code; gives the words of the outage."""
        self._stub.add_client_error("receive_message", code)
        with pytest.raises(SourceUnavailable) as caught:
            self._source.receive(10, 0)
        return str(caught.value)

    def fault(self, code: str) -> str:
        self._stub.add_client_error("receive_message", code)
        with pytest.raises(SourceFault) as caught:
            self._source.receive(10, 0)
        return str(caught.value)

    def answered(self) -> None:
        self._stub.add_response("receive_message", {"Messages": []})
        assert self._source.receive(10, 0) == []


def test_a_key_of_the_settings_that_stays_refused_is_waited_for_and_then_a_fault(stub: Stubber) -> None:
    refused = Refused(stub, keys_given=True)

    assert "ExpiredToken; get new credentials" in refused.outage("ExpiredToken")
    refused.now_s = 299
    refused.outage("ExpiredToken")
    refused.now_s = 300
    words = refused.fault("ExpiredToken")

    assert "ExpiredToken" in words
    assert "AWS_SESSION_TOKEN" in words


def test_a_key_that_was_accepted_meanwhile_begins_anew(stub: Stubber) -> None:
    refused = Refused(stub, keys_given=True)
    refused.outage("InvalidClientTokenId")
    refused.answered()
    refused.now_s = 1000

    refused.outage("InvalidClientTokenId")


def test_what_can_mend_itself_is_waited_for_however_long(stub: Stubber) -> None:
    for keys_given, code in ((True, "AccessDenied"), (True, "ServiceUnavailable"), (False, "ExpiredToken")):
        refused = Refused(stub, keys_given=keys_given)
        refused.outage(code)
        refused.now_s = 100_000

        assert code in refused.outage(code)
