"""Removes the envelope of S3 notifications.

    {"Records": [{"eventSource": "aws:s3", "eventName", "eventTime", "s3": {"bucket", "object"}, ...}]}

The record is the payload. S3 may send one event twice and gives no id: bucket, key, sequencer and event name
identify an event.
"""

from hashlib import sha256
from typing import Any

from processor.decoding.unwrapping import Unwrapped, identifier, moment, refused
from processor.wire.formats import Claimed, Malformed
from processor.wire.strict_json import Document, elements

TEST_EVENT = "s3:TestEvent"
TEST_EVENT_WORDS = (
    "this is the test event that S3 sends when notifications are set up; to discard such events: "
    f"processor rejection rule add --reason envelope_invalid --when /Event={TEST_EVENT}"
)
_EXPECTED = (
    "expected an S3 notification, because of UNWRAP=s3: a JSON object with Records, and in "
    'there one record with eventSource "aws:s3", eventName, eventTime and s3'
)


def unwrap(document: Document, queue: str, *, typed: bool) -> Unwrapped | Malformed:  # noqa: ARG001 - ids of S3 are the same on all queues
    """Return the only record of a notification, with an id that is equal in all its deliveries."""
    fields = document.value if isinstance(document.value, dict) else {}
    if fields.get("Event") == TEST_EVENT:
        return refused(TEST_EVENT_WORDS)
    records = fields.get("Records")
    if not isinstance(records, list) or not records:
        return refused(f"the body is not an S3 notification; {_EXPECTED}")
    if len(records) > 1:
        return refused(f"the notification has {len(records)} records; {_EXPECTED}")
    implied = _implied(records[0])
    if implied is None:
        return refused(f"the record is not from S3; {_EXPECTED}")
    claimed = Claimed(None, implied["event_type"], implied["message_id"], implied["producer"])
    sent_at = moment("eventTime", implied["occurred_at"], _EXPECTED, claimed)
    if isinstance(sent_at, Malformed):
        return sent_at
    if typed:
        del implied["event_type"]
    # The original text keeps every digit; the body is within the limits already.
    [text] = elements(document.member_texts["Records"], len(document.text), len(document.text))
    return Unwrapped(text.encode("utf-8", "surrogatepass"), implied=implied, sent_at=sent_at)


def _implied(record: Any) -> dict[str, str] | None:  # noqa: ANN401 - any JSON value
    match record:
        case {
            "eventSource": str(source),
            "eventName": str(name),
            "eventTime": str(time),
            "s3": {"bucket": {"name": str(bucket), **of_bucket}, "object": {"key": str(key), **of_object}},
        } if source.endswith(":s3") and identifier(name) and identifier(bucket):
            return {
                "event_type": name,
                "message_id": _message_id(bucket, key, _moment_id(record, of_object.get("sequencer")), name),
                "producer": identifier(of_bucket.get("arn")) or bucket,
                "occurred_at": time,
            }
    return None


def _moment_id(record: dict[str, Any], sequencer: object) -> str:
    """Return what distinguishes events of one key and name; only puts and deletes have a sequencer."""
    if isinstance(sequencer, str) and sequencer:
        return sequencer
    response = record.get("responseElements")
    request_id = response.get("x-amz-request-id") if isinstance(response, dict) else None
    return f"{record['eventTime']}+{request_id}" if isinstance(request_id, str) else str(record["eventTime"])


def _message_id(bucket: str, key: str, moment_id: str, name: str) -> str:
    whole = f"{bucket}/{key}/{moment_id}/{name}"
    # A key may have 1,024 bytes. Bucket names have no slash, so the text is unambiguous.
    return identifier(whole) or f"{bucket}/{sha256(whole.encode('utf-8', 'surrogatepass')).hexdigest()}"
