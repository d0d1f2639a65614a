"""Removes the envelope of SNS (without raw delivery).

    {"Type": "Notification", "MessageId", "Message": "<the event>", "MessageAttributes": {...}, "Timestamp"}

SNS may put one message on the queue twice, with two delivery ids but the same MessageId, which is the default
for the event's id.
"""

import base64
import binascii
from typing import Any

from processor.decoding.unwrapping import NOTHING, Unwrapped, identifier, moment, refused
from processor.wire.beside import from_outside
from processor.wire.formats import Attribute, Malformed, derived_id
from processor.wire.strict_json import Document

_EXPECTED = (
    "expected an SNS notification, because of UNWRAP=sns: a JSON object with Type "
    '"Notification" and the event as text in Message; with raw delivery, unset UNWRAP'
)


def unwrap(document: Document, queue: str, *, typed: bool) -> Unwrapped | Malformed:  # noqa: ARG001 - SNS names no types
    """Return the message and its published attributes."""
    fields = document.value if isinstance(document.value, dict) else {}
    if fields.get("Type") == "SubscriptionConfirmation":
        return refused(
            "this is a request to confirm the subscription of the queue to a topic; confirm it in SNS"
        )
    if fields.get("Type") != "Notification":
        return refused(f"the body is not an SNS notification; {_EXPECTED}")
    inner = fields.get("Message")
    attributes = _attributes(fields.get("MessageAttributes"))
    if not isinstance(inner, str) or attributes is None:
        return refused(f"Message or MessageAttributes of the notification can't be read; {_EXPECTED}")
    named = fields.get("Timestamp")
    sent_at = None if named is None else moment("Timestamp", named, _EXPECTED)
    if isinstance(sent_at, Malformed):
        return sent_at
    message_id = identifier(fields.get("MessageId"))
    return Unwrapped(
        # Lone surrogates are rejected when the event is decoded.
        inner.encode("utf-8", "surrogatepass"),
        from_outside(attributes),
        NOTHING if message_id is None else {"message_id": derived_id(queue, message_id)},
        sent_at=sent_at,
    )


def _attributes(given: Any) -> dict[str, Attribute] | None:  # noqa: ANN401 - any JSON value
    """Parse the published attributes; None: invalid."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        return None
    found: dict[str, Attribute] = {}
    for name, attribute in given.items():
        value = attribute.get("Value") if isinstance(attribute, dict) else None
        if not isinstance(value, str):
            return None
        if attribute.get("Type") != "Binary":
            found[name] = value
            continue
        try:
            found[name] = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return None
    return found
