"""The envelope that SNS puts around a message on its way to SQS, taken off where an operator said so.

    {"Type": "Notification", "MessageId", "Message": "<the event>", "MessageAttributes": {...}, ...}

Never guessed from a body: any tenant could write such an object, and would choose the attributes in it.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from processor.errors import Reason
from processor.wire import Attribute, Claimed, Malformed, read_body

_EXPECTED = (
    "expected an SNS notification, as UNWRAP=sns says of this queue: a JSON object with Type "
    '"Notification" and the event as text in Message; with raw delivery, leave UNWRAP unset'
)
_ID_LENGTH_MAX = 100
"""SNS's own ids are UUIDs of 36 characters."""


@dataclass(frozen=True, slots=True)
class Notification:
    """What was in the envelope; `message_id` is SNS's, the same at each of its deliveries. None: none."""

    body: bytes
    attributes: Mapping[str, Attribute]
    message_id: str | None


def unwrap(body: bytes, *, size_bytes_max: int, depth_max: int, values_max: int) -> Notification | Malformed:
    """Take the envelope off one body. Never raises, whatever the bytes are."""
    document = read_body(body, {}, size_bytes_max=size_bytes_max, depth_max=depth_max, values_max=values_max)
    if isinstance(document, Malformed):
        return document
    fields = document.value if isinstance(document.value, dict) else {}
    if fields.get("Type") == "SubscriptionConfirmation":
        return _invalid("this asks to confirm the subscription of the queue to a topic; confirm it in SNS")
    if fields.get("Type") != "Notification":
        return _invalid(f"the body is no SNS notification; {_EXPECTED}")
    inner = fields.get("Message")
    attributes = _attributes(fields.get("MessageAttributes"))
    if not isinstance(inner, str) or attributes is None:
        return _invalid(f"Message or MessageAttributes of the notification can't be read; {_EXPECTED}")
    # Half of a surrogate pair is for the event's own reader to refuse.
    return Notification(
        inner.encode("utf-8", "surrogatepass"), attributes, _identifier(fields.get("MessageId"))
    )


def _attributes(given: Any) -> dict[str, Attribute] | None:  # noqa: ANN401 - any JSON value
    """Read the attributes that were published with the message; None: they are none of SNS's."""
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


def _identifier(value: object) -> str | None:
    usable = isinstance(value, str) and 0 < len(value) <= _ID_LENGTH_MAX and value.isprintable()
    return value if isinstance(value, str) and usable else None


def _invalid(message: str) -> Malformed:
    return Malformed(Reason.ENVELOPE_INVALID, {"message": message}, Claimed())
