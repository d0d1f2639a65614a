"""Tests that the envelope of SNS is removed if the queue is configured for it, and only then."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from processor.errors import Reason
from processor.model import EventSchema, Message, QueueRules, Registry, Rejection, Verdict
from processor.settings import Settings
from processor.validation.validator import Schemas
from processor.wire.formats import Attribute
from processor.wiring import make_schemas
from tests.builders import SENT_AT, a_delivery, an_event

SNS_ID = "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324"


def a_notification(message: Any, **changes: Any) -> bytes:
    text = message if isinstance(message, str) else json.dumps(message)
    return json.dumps(
        {
            "Type": "Notification",
            "MessageId": SNS_ID,
            "TopicArn": "arn:aws:sns:us-east-1:000000000000:orders",
            "Message": text,
            "Timestamp": "2026-11-22T10:00:00.000Z",
            "SignatureVersion": "1",
        }
        | changes
    ).encode()


def judged(body: bytes, queue: str = "wrapped", attributes: dict[str, Attribute] | None = None) -> Verdict:
    schemas = Schemas(
        body_bytes_max=1024 * 1024, json_depth_max=64, said={"wrapped": QueueRules(unwrap="sns")}
    )
    schemas.install(Registry(1, {"acme": False}, (EventSchema(1, "order.created", None, 1, "true"),)))
    return schemas.validate(a_delivery(body, queue=queue, delivery_id="sqs-1", attributes=attributes))


def accepted(body: bytes) -> Message:
    verdict = judged(body)
    assert isinstance(verdict, Message), verdict
    return verdict


def refused(body: bytes, queue: str = "wrapped") -> Rejection:
    verdict = judged(body, queue)
    assert isinstance(verdict, Rejection), verdict
    return verdict


def test_the_event_in_the_notification_keeps_every_digit() -> None:
    event = json.dumps(an_event(id="o-1"))[:-1] + ', "extra": 1.500}'

    found = accepted(a_notification(event))

    assert (found.tenant_id, found.message_id) == ("acme", "o-1")
    assert found.context == '{"extra": 1.500}'


def test_published_attributes_act_as_sqs_attributes() -> None:
    attributes = {
        "tenant_id": {"Type": "String", "Value": "acme"},
        "event_type": {"Type": "String", "Value": "order.created"},
        "number": {"Type": "Number", "Value": "7"},
        "raw": {"Type": "Binary", "Value": base64.b64encode(b"\0").decode()},
    }

    found = accepted(a_notification({"n": 1}, MessageAttributes=attributes))

    assert found.payload == '{"n": 1}'
    assert json.loads(found.context or "") == {"number": "7", "raw": {"base64": "AA=="}}


def test_an_event_without_an_id_gets_the_stable_id_of_sns() -> None:
    event = an_event()
    del event["id"]

    assert accepted(a_notification(event)).message_id == f"wrapped/{SNS_ID}"
    assert accepted(a_notification(event, MessageId=None)).message_id == "wrapped/sqs-1"
    assert accepted(a_notification(event, MessageId="a\0b")).message_id == "wrapped/sqs-1"


def test_an_envelope_on_another_queue_is_not_removed() -> None:
    found = refused(a_notification(an_event()), queue="plain")

    assert found.reason is Reason.ENVELOPE_INVALID
    assert "an SNS notification" in found.detail["message"]
    assert "set UNWRAP=sns" in found.detail["message"]
    assert "processor queue set QUEUE --unwrap sns" in found.detail["message"]
    assert "processor rejection replay" in found.detail["message"]


@pytest.mark.parametrize(
    ("timestamp", "sent_at"),
    [
        ("2026-11-22T07:00:00.000Z", datetime(2026, 11, 22, 7, tzinfo=UTC)),
        ("2026-11-22T12:00:00.000+09:00", datetime(2026, 11, 22, 3, tzinfo=UTC)),
        ("2026-11-22T10:00:01Z", SENT_AT),
        (None, SENT_AT),
    ],
)
def test_sent_at_is_the_time_of_sns_and_never_later_than_the_queues(
    timestamp: str | None, sent_at: datetime
) -> None:
    found = accepted(a_notification(an_event(), Timestamp=timestamp))

    assert (found.sent_at, found.occurred_at) == (sent_at, None)
    assert found.delivery.sent_at == SENT_AT


def test_attributes_of_message_and_notification_must_agree() -> None:
    inside = {"trace": {"Type": "String", "Value": "a"}}
    body = a_notification(an_event(), MessageAttributes=inside)
    both = judged(body, attributes={"trace": "a", "hop": "1"})
    differing = judged(body, attributes={"trace": "b"})

    assert isinstance(both, Message)
    assert json.loads(both.context or "") == {"trace": "a", "hop": "1"}
    assert isinstance(differing, Rejection)
    assert "attribute trace" in differing.detail["message"]


@pytest.mark.parametrize(
    ("body", "reason", "words"),
    [
        (a_notification({}, Timestamp="yesterday"), Reason.ENVELOPE_INVALID, "Timestamp: expected an RFC"),
        (a_notification({}, Timestamp=1), Reason.ENVELOPE_INVALID, "Timestamp: expected an RFC"),
        (b"Hello World", Reason.NOT_JSON, "the body is invalid JSON"),
        (b"\xff", Reason.NOT_UTF8, "not UTF-8"),
        (b"[]", Reason.ENVELOPE_INVALID, "not an SNS notification"),
        (json.dumps(an_event()).encode(), Reason.ENVELOPE_INVALID, "with raw delivery, unset UNWRAP"),
        (a_notification("{}", Type="SubscriptionConfirmation"), Reason.ENVELOPE_INVALID, "confirm it in SNS"),
        (a_notification({}, Message={"an": "object"}), Reason.ENVELOPE_INVALID, "can't be read"),
        (a_notification({}, MessageAttributes=[]), Reason.ENVELOPE_INVALID, "can't be read"),
        (a_notification({}, MessageAttributes={"a": "b"}), Reason.ENVELOPE_INVALID, "can't be read"),
        (
            a_notification({}, MessageAttributes={"a": {"Type": "Binary", "Value": "?"}}),
            Reason.ENVELOPE_INVALID,
            "can't be read",
        ),
        (a_notification("Hello World"), Reason.NOT_JSON, "the body is invalid JSON"),
        (a_notification(""), Reason.NOT_JSON, "the body is invalid JSON"),
        (a_notification("\ud800"), Reason.NOT_UTF8, "not UTF-8"),
        (b" " * (1024 * 1024 + 1), Reason.TOO_LARGE, "BODY_BYTES_MAX"),
    ],
)
def test_an_invalid_notification_is_rejected(body: bytes, reason: Reason, words: str) -> None:
    found = refused(body)

    assert found.reason is reason
    assert words in found.detail["message"]


@pytest.mark.parametrize(
    "address",
    [
        {"sqs_queue_url": "http://127.0.0.1:1/0/wrapped"},
        {"source_url": "kafka://127.0.0.1:1/wrapped"},
        {"source_url": "amqp://127.0.0.1:1/?queue=wrapped"},
    ],
)
def test_the_setting_applies_to_the_consumed_queue_of_any_broker(address: dict[str, str]) -> None:
    body = a_notification(an_event())
    schemas = make_schemas(Settings.load(unwrap="sns", **address))

    verdicts = [schemas.validate(a_delivery(body, queue=name)) for name in ("wrapped", "another")]

    reasons = [verdict.reason for verdict in verdicts if isinstance(verdict, Rejection)]
    assert reasons == [Reason.UNKNOWN_TENANT, Reason.ENVELOPE_INVALID]
