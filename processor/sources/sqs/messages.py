"""Reads what SQS hands over, and takes nothing that its checksums call altered.

    answer ─▶ each message: body and attributes against their MD5 ─▶ Delivery
                                      └─ altered: left to its visibility timeout, counted

SQS names the MD5 of each body and of its attributes; neither boto3 nor plain HTTP compares them.
"""

import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import md5
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from processor.model import Delivery
from processor.wire.beside import from_outside
from processor.wire.bounds import count_of
from processor.wire.formats import Attribute

if TYPE_CHECKING:
    from mypy_boto3_sqs.literals import MessageSystemAttributeNameType

MOVED_FROM: "MessageSystemAttributeNameType" = "DeadLetterQueueSourceArn"
"""By this a dead letter names the queue that SQS moved it from."""

_TEXT, _BINARY = b"\x01", b"\x02"


def read_messages(messages: list[Any], queue: str | None, *, fifo: bool) -> tuple[list[Delivery], int]:
    """Give the deliveries in their order, and how many were left out as altered; empties `messages`.

    `queue` None: a dead-letter queue, whose deliveries bear the name of the queue that they were moved from.
    On a FIFO queue whatever stands behind an altered message is left out, too: it may be of its group.
    Raises ValueError, LookupError, TypeError or AttributeError where this is no answer of SQS.
    """
    now = datetime.now(UTC)
    deliveries: list[Delivery] = []
    altered = 0
    # Each is let go of once it is read: bodies may be large, and are copied here.
    messages.reverse()
    while messages:
        message = messages.pop()
        delivery = _delivery(message, queue, now, fifo=fifo)
        if _whole(message, delivery):
            deliveries.append(_safely_named(delivery) if delivery.attributes else delivery)
            continue
        altered += 1
        if fifo:
            altered += len(messages)
            break
    return deliveries, altered


def name_in(arn: str) -> str:
    """Give the name of a queue, the last part of its ARN."""
    return arn.rsplit(":", 1)[-1]


def _delivery(message: Any, queue: str | None, now: datetime, *, fifo: bool) -> Delivery:  # noqa: ANN401 - boto3's dictionary
    system = message.get("Attributes") or {}
    sent_ms = int(system.get("SentTimestamp", now.timestamp() * 1000))
    attributes = _attributes(message.get("MessageAttributes") or {})
    return Delivery(
        queue=name_in(system.get(MOVED_FROM, "")) if queue is None else queue,
        delivery_id=message["MessageId"],
        # A half of a surrogate pair can come out of the service's JSON; its bytes are then no UTF-8,
        # which is what the rejection will say.
        body=message["Body"].encode("utf-8", "surrogatepass"),
        receipt=message["ReceiptHandle"],
        # What is no number is no answer of SQS, which alone writes these two.
        receive_count=count_of(int(system.get("ApproximateReceiveCount", 1))),
        sent_at=datetime.fromtimestamp(sent_ms / 1000, UTC),
        received_at=now,
        attributes=attributes,
        sender_id=system.get("SenderId"),
        # Whatever a server may answer unasked: of a standard queue nothing is serialised.
        group=system.get("MessageGroupId") if fifo else None,
    )


def _safely_named(delivery: Delivery) -> Delivery:
    # After they were compared with what SQS has hashed, which is under the sender's names.
    attributes = from_outside(delivery.attributes)
    return delivery if attributes is delivery.attributes else replace(delivery, attributes=attributes)


def _attributes(given: Mapping[str, Any]) -> dict[str, Attribute]:
    """Read message attributes. One without a value that can be read is left out: the message is not whole."""
    found: dict[str, Attribute] = {}
    for name, attribute in given.items():
        value = attribute.get("BinaryValue", attribute.get("StringValue"))
        if isinstance(value, str | bytes):
            found[name] = value
    return found


def _whole(message: Any, delivery: Delivery) -> bool:  # noqa: ANN401 - boto3's dictionary
    """Tell whether body and attributes are what SQS has hashed; what it did not hash is believed."""
    body_md5 = message.get("MD5OfBody")
    if body_md5 is not None and md5(delivery.body, usedforsecurity=False).hexdigest() != body_md5:
        return False
    attributes = message.get("MessageAttributes") or {}
    if len(delivery.attributes) < len(attributes):
        return False
    attributes_md5 = message.get("MD5OfMessageAttributes")
    return attributes_md5 is None or _attributes_md5(attributes, delivery) == attributes_md5


def _attributes_md5(attributes: Mapping[str, Any], delivery: Delivery) -> str:
    """Hash attributes as SQS documents it: by name; each part with its length, the value with its kind."""
    pieces: list[bytes] = []
    for name in sorted(attributes):
        value = delivery.attributes[name]
        kind, content = (_BINARY, value) if isinstance(value, bytes) else (_TEXT, _utf8(value))
        pieces += [_part(_utf8(name)), _part(_utf8(attributes[name]["DataType"])), kind, _part(content)]
    return md5(b"".join(pieces), usedforsecurity=False).hexdigest()


def _utf8(text: str) -> bytes:
    # As with the body: half of a surrogate pair must not keep what came with it from being received.
    return text.encode("utf-8", "surrogatepass")


def _part(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content
