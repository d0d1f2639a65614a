"""Tests that the envelopes of EventBridge and S3 are removed if the queue is configured for them."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from processor.decoding.decoder import Decoder
from processor.decoding.unwrapping.s3 import TEST_EVENT_WORDS
from processor.decoding.unwrapping.shapes import _SHAPES, _UNMISTAKABLE, NO_TENANT, pointer_words, shape_words
from processor.errors import Reason
from processor.model import Delivery, EventSchema, Message, QueueRules, Registry, Rejection, Verdict
from processor.store.rows import TEXT_LENGTH_MAX
from processor.validation.tenant_bindings import UNBOUND, Bindings
from processor.validation.validator import Schemas
from processor.wire.formats import Attribute, Envelope, Malformed
from tests.builders import SENT_AT, a_delivery, an_event
from tests.wire.reading import a_cloudevent, a_pulse

TYPES = ("pulse", "order.created", "Order Created", "ObjectCreated:Put", "s3.object")
AT = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)


def an_eventbridge_event(detail: Any, /, **changes: Any) -> dict[str, Any]:
    event = {
        "version": "0",
        "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
        "detail-type": "Order Created",
        "source": "acme.shop",
        "account": "111122223333",
        "time": "2026-11-22T09:30:00Z",
        "region": "us-west-1",
        "resources": ["arn:aws:ec2:us-west-1:123456789012:instance/i-1234567890abcdef0"],
        "detail": detail,
    } | changes
    return {name: value for name, value in event.items() if value is not ...}


def an_s3_record(**changes: Any) -> dict[str, Any]:
    """An example in the form of
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html.
    """
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-west-2",
        "eventTime": "2026-11-22T09:30:00.000Z",
        "eventName": "ObjectCreated:Put",
        "userIdentity": {"principalId": "AIDAJDPLRKLG7UEXAMPLE"},
        "requestParameters": {"sourceIPAddress": "127.0.0.1"},
        "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810", "x-amz-id-2": "FMyUVURIY8"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "testConfigRule",
            "bucket": {
                "name": "amzn-s3-demo-bucket",
                "ownerIdentity": {"principalId": "A3NL1KOZZKExample"},
                "arn": "arn:aws:s3:::amzn-s3-demo-bucket",
            },
            "object": {
                "key": "HappyFace.jpg",
                "size": 1024,
                "eTag": "d41d8cd98f00b204e9800998ecf8427e",
                "versionId": "096fKKXTRTtl3on89fVO.nfljtsv6qko",
                "sequencer": "0055AED6DCD90281E5",
            },
        },
    } | changes


def of_an_object(**changes: Any) -> dict[str, Any]:
    record = an_s3_record()
    parts = record["s3"] | {"object": record["s3"]["object"] | changes}
    parts["object"] = {name: value for name, value in parts["object"].items() if value is not ...}
    return an_s3_record(s3=parts)


def judged(
    body: Any,
    unwrap: str | None,
    *,
    bound: str | None = None,
    attributes: dict[str, Attribute] | None = None,
    event_type: str | None = None,
) -> Verdict:
    schemas = Schemas(
        body_bytes_max=1024 * 1024,
        json_depth_max=64,
        bindings=Bindings("wrapped", frozenset([bound]), None) if bound else UNBOUND,
        said={"wrapped": QueueRules(unwrap=unwrap, event_type=event_type)},
    )
    versions = tuple(EventSchema(place, name, None, 1, "true") for place, name in enumerate(TYPES))
    schemas.install(Registry(1, {"acme": False, "globex": False}, versions))
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return schemas.validate(a_delivery(raw, queue="wrapped", delivery_id="sqs-1", attributes=attributes))


def accepted(body: Any, unwrap: str | None, **options: Any) -> Message:
    verdict = judged(body, unwrap, **options)
    assert isinstance(verdict, Message), verdict
    return verdict


def refused(body: Any, unwrap: str | None, **options: Any) -> Rejection:
    verdict = judged(body, unwrap, **options)
    assert isinstance(verdict, Rejection), verdict
    return verdict


def test_the_detail_is_the_payload_and_eventbridge_fields_complete_it() -> None:
    body = json.dumps(an_eventbridge_event({"tenant_id": "acme", "n": 1})).replace('"n": 1', '"n": 1.500')

    found = accepted(body.encode(), "eventbridge")

    assert (found.tenant_id, found.event_type, found.producer) == ("acme", "Order Created", "acme.shop")
    assert found.message_id == "6a7e8feb-b491-4cf7-a9f1-bf3703467718"
    assert (found.occurred_at, found.sent_at) == (AT, AT)
    assert found.payload == '{"tenant_id": "acme", "n": 1.500}'
    assert json.loads(found.context or "") == {
        "version": "0",
        "account": "111122223333",
        "region": "us-west-1",
        "resources": ["arn:aws:ec2:us-west-1:123456789012:instance/i-1234567890abcdef0"],
    }


def test_a_pulse_in_the_detail_is_a_pulse_with_any_detail_type() -> None:
    found = accepted(an_eventbridge_event(a_pulse()), "eventbridge")

    assert (found.event_type, found.producer, found.occurred_at) == ("pulse", "acme.shop", AT)
    assert found.message_id == "6a7e8feb-b491-4cf7-a9f1-bf3703467718"
    assert json.loads(found.context or "")["detail-type"] == "Order Created"


@pytest.mark.parametrize(
    "detail",
    [
        an_event(id="o-1", producer="/till", occurred_at="2026-11-22T08:00:00Z", region="moon"),
        a_cloudevent(id="o-1", source="/till", time="2026-11-22T08:00:00Z", region="moon"),
    ],
)
def test_an_envelope_in_the_detail_keeps_its_fields(detail: dict[str, Any]) -> None:
    found = accepted(an_eventbridge_event(detail), "eventbridge")

    assert (found.tenant_id, found.message_id, found.producer) == ("acme", "o-1", "/till")
    assert found.event_type == "order.created"
    assert found.occurred_at == datetime(2026, 11, 22, 8, tzinfo=UTC)
    context = json.loads(found.context or "")
    assert (context["region"], context["account"]) == ("moon", "111122223333")
    assert context["detail-type"] == "Order Created"


def test_eventbridge_fields_fill_an_envelope_in_the_detail() -> None:
    native = an_event()
    del native["id"]

    found = accepted(an_eventbridge_event(native), "eventbridge")

    assert (found.message_id, found.producer) == ("6a7e8feb-b491-4cf7-a9f1-bf3703467718", "acme.shop")
    assert (found.event_type, found.occurred_at) == ("order.created", AT)


def test_a_detail_without_a_tenant_gets_the_bound_tenant() -> None:
    scheduled = an_eventbridge_event({}, source="aws.events")

    assert accepted(scheduled, "eventbridge", bound="acme").tenant_id == "acme"
    unbound = refused(scheduled, "eventbridge")
    assert unbound.reason is Reason.ENVELOPE_INVALID
    assert "the tenant is unknown" in unbound.detail["message"]
    foreign = refused(an_eventbridge_event({"tenant_id": "globex"}), "eventbridge", bound="acme")
    assert foreign.claimed.tenant_id == "globex"


def test_the_time_of_eventbridge_is_never_later_than_the_queues() -> None:
    late = an_eventbridge_event({"tenant_id": "acme"}, time="2026-11-22T10:00:01Z")

    found = accepted(late, "eventbridge")

    assert found.sent_at == SENT_AT
    assert found.occurred_at == datetime(2026, 11, 22, 10, 0, 1, tzinfo=UTC)


def test_the_event_type_of_a_queue_precedes_the_services() -> None:
    event = accepted(an_eventbridge_event({"tenant_id": "acme"}), "eventbridge", event_type="order.created")
    record = accepted({"Records": [an_s3_record()]}, "s3", bound="acme", event_type="s3.object")

    assert (event.event_type, record.event_type) == ("order.created", "s3.object")
    assert json.loads(event.context or "")["detail-type"] == "Order Created"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"detail": ...}, "not an EventBridge event"),
        ({"id": ...}, "not an EventBridge event"),
        ({"id": "a\0b"}, "not an EventBridge event"),
        ({"detail-type": 7}, "not an EventBridge event"),
        ({"source": ""}, "not an EventBridge event"),
        ({"time": ...}, "time: expected an RFC 3339"),
        ({"time": "today"}, "time: expected an RFC 3339"),
    ],
)
def test_an_invalid_eventbridge_event_is_rejected(changes: dict[str, Any], words: str) -> None:
    found = refused(an_eventbridge_event({"tenant_id": "acme"}, **changes), "eventbridge")

    assert found.reason is Reason.ENVELOPE_INVALID
    assert words in found.detail["message"]
    assert "UNWRAP=eventbridge" in found.detail["message"]


def test_an_s3_record_has_the_same_id_in_each_delivery() -> None:
    text = json.dumps({"Records": [an_s3_record()]}).replace("1024", "1024.50")

    found = accepted(text.encode(), "s3", bound="acme")

    assert (found.tenant_id, found.event_type) == ("acme", "ObjectCreated:Put")
    assert found.producer == "arn:aws:s3:::amzn-s3-demo-bucket"
    assert found.message_id == "amzn-s3-demo-bucket/HappyFace.jpg/0055AED6DCD90281E5/ObjectCreated:Put"
    assert (found.occurred_at, found.sent_at, found.context) == (AT, AT, None)
    assert found.payload == text.removeprefix('{"Records": [').removesuffix("]}")


def test_an_s3_record_without_a_sequencer_is_identified_by_request_and_time() -> None:
    plain = of_an_object(sequencer=...)
    bare = plain | {"responseElements": None, "eventName": "ObjectCreated:Put"}

    ids = [accepted({"Records": [one]}, "s3", bound="acme").message_id for one in (plain, bare)]

    start = "amzn-s3-demo-bucket/HappyFace.jpg/2026-11-22T09:30:00.000Z"
    assert ids == [f"{start}+C3D13FE58DE4C810/ObjectCreated:Put", f"{start}/ObjectCreated:Put"]


def test_long_and_unusual_s3_keys_get_valid_unique_ids() -> None:
    keys = ["a" * 1024, "b" * 1024, "c\0d", "\u00e9"]

    ids = [accepted({"Records": [of_an_object(key=key)]}, "s3", bound="acme").message_id for key in keys]
    again = accepted({"Records": [of_an_object(key=keys[0])]}, "s3", bound="acme").message_id

    assert len(set(ids)) == len(keys)
    assert all(len(one) <= 256 and one.isprintable() for one in ids)
    assert again == ids[0]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"Records": []}, "not an S3 notification"),
        ([], "not an S3 notification"),
        ({"Records": [an_s3_record(), an_s3_record()]}, "2 records"),
        ({"Records": [an_s3_record(eventSource="aws:ses")]}, "the record is not from S3"),
        ({"Records": [an_s3_record(s3={})]}, "the record is not from S3"),
        ({"Records": [7]}, "the record is not from S3"),
        ({"Records": [an_s3_record(eventTime="now")]}, "eventTime: expected an RFC 3339"),
        (
            {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "drop", "RequestId": "R1"},
            "--when /Event=s3:TestEvent",
        ),
    ],
)
def test_an_s3_notification_without_exactly_one_record_is_rejected(body: Any, words: str) -> None:
    found = refused(body, "s3", bound="acme")

    assert found.reason is Reason.ENVELOPE_INVALID
    assert words in found.detail["message"]


POINTERS = [
    '["software.amazon.payloadoffloading.PayloadS3Pointer",{"s3BucketName":"big","s3Key":"b0c4"}]',
    ' [ "software.amazon.payloadoffloading.PayloadS3Pointer", {"s3BucketName": "big", "s3Key": "b0c4"}]',
    '["com.amazon.sqs.javamessaging.MessageS3Pointer",{"s3BucketName":"big","s3Key":"b0c4"}]',
]


@pytest.mark.parametrize("body", POINTERS)
@pytest.mark.parametrize("size", ["ExtendedPayloadSize", "SQSLargePayloadSize", None])
@pytest.mark.parametrize("in_sns", [True, False])
def test_a_pointer_to_s3_is_never_the_payload(body: str, size: str | None, in_sns: bool) -> None:
    attributes: dict[str, Attribute] = {"tenant_id": "acme", "event_type": "order.created"}
    if size:
        attributes[size] = "300000"
    wrapped = json.dumps({"Type": "Notification", "MessageId": "n-1", "Message": body})

    found = refused((wrapped if in_sns else body).encode(), "sns" if in_sns else None, attributes=attributes)

    assert (found.reason, found.claimed.tenant_id) == (Reason.ENVELOPE_INVALID, "acme")
    assert "pointer of the SQS extended client" in found.detail["message"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (an_eventbridge_event({"tenant_id": "acme"}), "UNWRAP=eventbridge"),
        ({"Records": [an_s3_record()]}, "UNWRAP=s3"),
        ({"Type": "SubscriptionConfirmation", "TopicArn": "arn"}, "UNWRAP=sns"),
        (
            {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "drop", "RequestId": "R1"},
            "test event",
        ),
        ({"schema": {}, "payload": {}}, "Kafka Connect"),
        ({"op": "c", "source": {}, "after": {}, "ts_ms": 1}, "Debezium"),
        ({"body": "", "content-encoding": "utf-8", "properties": {}}, "Celery"),
        ({"resourceMetrics": []}, "OTLP"),
        ({"notificationType": "Bounce", "mail": {}}, "SES"),
    ],
)
@pytest.mark.parametrize("unwrap", [None, "sns"])
def test_a_recognized_format_is_named_with_its_setting(body: Any, words: str, unwrap: str | None) -> None:
    found = refused(body, unwrap)

    assert found.reason is Reason.ENVELOPE_INVALID
    assert words in found.detail["message"] or unwrap == "sns"
    unnamed = refused({"Type": "Notification", "n": 1}, None)
    assert "UNWRAP" not in unnamed.detail["message"]


def read(delivery: Delivery, rules: QueueRules) -> Envelope | Malformed:
    return Decoder(1024 * 1024, 64).read(delivery, rules)


WHOLE = [
    an_eventbridge_event({"n": 1}),
    {"Records": [an_s3_record()]},
    {"Type": "Notification", "TopicArn": "arn", "MessageId": "m", "Message": "{}"},
    {"Type": "SubscriptionConfirmation", "TopicArn": "arn", "MessageId": "m", "Token": "t"},
    {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "drop", "RequestId": "R1"},
    {"resourceSpans": []},
    [a_cloudevent(id="1"), a_cloudevent(id="2")],
]


@pytest.mark.parametrize("body", WHOLE)
def test_a_service_envelope_is_stored_as_payload_only_if_configured(body: Any) -> None:
    """Stored whole, the body would have no id of its own, and would count once for each delivery."""
    beside: dict[str, Attribute] = {"tenant_id": "acme", "event_type": "order.created"}
    delivery = a_delivery(json.dumps(body).encode(), attributes=beside)
    inside = a_delivery(tenant_id="acme", event_type="order.created", payload=body)

    refusal, whole = read(delivery, QueueRules()), read(delivery, QueueRules(unwrap="none"))

    assert isinstance(refusal, Malformed), refusal
    assert "--unwrap none" in refusal.detail["message"]
    assert isinstance(whole, Envelope), whole
    assert whole.payload_value == body
    assert isinstance(read(inside, QueueRules()), Envelope)


def test_the_tenant_of_an_eventbridge_event_must_agree_with_its_attributes() -> None:
    body = json.dumps(an_eventbridge_event({"tenant_id": "acme"})).encode()

    found = read(a_delivery(body, attributes={"tenant_id": "globex"}), QueueRules(unwrap="eventbridge"))

    assert isinstance(found, Malformed), found
    assert "tenant_id differs from the one in the body" in found.detail["message"]


def test_an_event_type_of_a_service_may_be_any_identifier() -> None:
    """A no-break space is not a control character, and is valid in all identifiers."""
    body = an_eventbridge_event({"tenant_id": "ac\u00a0me"}, source="caf\u00e9\u00a0till")

    found = read(a_delivery(json.dumps(body).encode()), QueueRules(unwrap="eventbridge"))

    assert isinstance(found, Envelope), found
    assert (found.tenant_id, found.producer) == ("ac\u00a0me", "caf\u00e9\u00a0till")


def test_the_message_for_a_wrapped_event_starts_with_the_actual_fault() -> None:
    message = json.dumps(an_event(id="u4"))
    body = {"Type": "Notification", "TopicArn": "arn", "MessageId": "m", "Message": message}
    body["MessageAttributes"] = {"message_id": {"Type": "String", "Value": "other"}}  # type: ignore[assignment]

    found = read(a_delivery(json.dumps(body).encode()), QueueRules(unwrap="sns"))

    assert isinstance(found, Malformed), found
    assert found.detail["message"].startswith("the message attribute message_id differs")


def test_messages_are_short_enough_to_be_stored_whole() -> None:
    """A rejection keeps 256 characters of a message."""
    words = [NO_TENANT, TEST_EVENT_WORDS, *(words.replace("@", "sns,") for _, words in _SHAPES)]
    words += [pointer_words(pointer.encode()) or "" for pointer in POINTERS]
    words += [shape_words(dict.fromkeys(names), is_payload=True) or "" for names, _ in _UNMISTAKABLE]

    assert max(len(one) for one in words) <= TEXT_LENGTH_MAX


def test_a_recognized_format_in_a_broken_envelope_is_not_named() -> None:
    broken = an_event(tenant_id="") | {"Type": "Notification", "TopicArn": "arn"}

    assert "UNWRAP" not in refused(broken, None).detail["message"]


def in_sns(body: Any) -> dict[str, Any]:
    return {
        "Type": "Notification",
        "MessageId": "n-1",
        "TopicArn": "arn:aws:sns:us-east-1:000000000000:t",
        "Message": json.dumps(body),
        "Timestamp": "2026-11-22T09:45:00.000Z",
    }


def test_an_envelope_in_sns_is_removed_too_and_its_fields_precede() -> None:
    record = accepted(in_sns({"Records": [an_s3_record()]}), "sns,s3", bound="acme")
    event = accepted(in_sns(an_eventbridge_event(a_pulse())), "sns,eventbridge")

    assert record == accepted({"Records": [an_s3_record()]}, "s3", bound="acme").__replace__(
        delivery=record.delivery
    )
    assert (event.message_id, event.sent_at) == ("6a7e8feb-b491-4cf7-a9f1-bf3703467718", AT)
    assert json.loads(event.context or "")["account"] == "111122223333"


@pytest.mark.parametrize(
    ("body", "unwrap"),
    [({"Records": [an_s3_record()]}, "s3"), (an_eventbridge_event(a_pulse()), "eventbridge")],
)
def test_two_nested_envelopes_are_both_named(body: Any, unwrap: str) -> None:
    first = refused(in_sns(body), None).detail["message"]
    second = refused(in_sns(body), "sns").detail["message"]
    turned = refused(in_sns(body), unwrap).detail["message"]

    assert "set UNWRAP=sns (or" in first
    assert f"set UNWRAP=sns,{unwrap} (or: processor queue set QUEUE --unwrap sns,{unwrap})" in second
    assert "set UNWRAP=sns (or" in turned


def test_an_unknown_unwrap_value_is_rejected() -> None:
    assert "expected sns, eventbridge, s3" in refused(an_event(), "carrier-pigeon").detail["message"]


@pytest.mark.parametrize(
    ("own", "both"),
    [
        ({"region": "eu"}, {"region": "eu", "region#2": "us-west-1"}),
        ({"region": "us-west-1"}, {"region": "us-west-1"}),
        ({"region": "eu", "region#2": 1}, {"region": "eu", "region#2": 1, "region#3": "us-west-1"}),
    ],
)
def test_a_context_name_in_event_and_envelope_keeps_both_values(
    own: dict[str, Any], both: dict[str, Any]
) -> None:
    found = accepted(an_eventbridge_event(an_event() | own, account=..., resources=...), "eventbridge")

    assert found.context is not None
    assert json.loads(found.context) == {"version": "0", "detail-type": "Order Created", **both}
