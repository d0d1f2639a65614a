"""Read messages of SQS, and leave out messages whose checksums do not match.

    answer ─▶ each message: body and attributes against their MD5 ─▶ Delivery
                                      └─ altered: left to its visibility timeout, counted

SQS sends the MD5 of each body and of its attributes; neither boto3 nor plain HTTP compares them.
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
"""The attribute in which a dead letter names the queue that SQS moved it from."""

_TEXT, _BINARY = b"\x01", b"\x02"


def read_messages(messages: list[Any], queue: str | None, *, fifo: bool) -> tuple[list[Delivery], int]:
    """Return the deliveries in order, and the number of altered messages left out; empties `messages`.

    `queue` None: a dead-letter queue, whose deliveries have the name of the queue they were moved from.
    On a FIFO queue all messages after an altered one are left out, since they may be of its group.
    Raises ValueError, LookupError, TypeError or AttributeError if this is not an answer of SQS.
    """
    now = datetime.now(UTC)
    deliveries: list[Delivery] = []
    altered = 0
    # Each message is freed once it is read: bodies may be large, and are copied here.
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
    """Return the name of a queue, the last part of its ARN."""
    return arn.rsplit(":", 1)[-1]


def _delivery(message: Any, queue: str | None, now: datetime, *, fifo: bool) -> Delivery:  # noqa: ANN401 - boto3's dictionary
    system = message.get("Attributes") or {}
    sent_ms = int(system.get("SentTimestamp", now.timestamp() * 1000))
    attributes = _attributes(message.get("MessageAttributes") or {})
    return Delivery(
        queue=name_in(system.get(MOVED_FROM, "")) if queue is None else queue,
        delivery_id=message["MessageId"],
        # The service's JSON can contain an unpaired surrogate. Its bytes are not UTF-8, and the rejection
        # will say so.
        body=message["Body"].encode("utf-8", "surrogatepass"),
        receipt=message["ReceiptHandle"],
        # Only SQS writes these two values. A value that is not a number is not an answer of SQS.
        receive_count=count_of(int(system.get("ApproximateReceiveCount", 1))),
        sent_at=datetime.fromtimestamp(sent_ms / 1000, UTC),
        received_at=now,
        attributes=attributes,
        sender_id=system.get("SenderId"),
        # On a standard queue the message group does not mean order, even if a server sends one.
        group=system.get("MessageGroupId") if fifo else None,
    )


def _safely_named(delivery: Delivery) -> Delivery:
    # After the check of the MD5, which SQS computes from the sender's names.
    attributes = from_outside(delivery.attributes)
    return delivery if attributes is delivery.attributes else replace(delivery, attributes=attributes)


def _attributes(given: Mapping[str, Any]) -> dict[str, Attribute]:
    """Read message attributes. An attribute without a readable value is left out: the message is altered."""
    found: dict[str, Attribute] = {}
    for name, attribute in given.items():
        value = attribute.get("BinaryValue", attribute.get("StringValue"))
        if isinstance(value, str | bytes):
            found[name] = value
    return found


def _whole(message: Any, delivery: Delivery) -> bool:  # noqa: ANN401 - boto3's dictionary
    """Return whether body and attributes match their MD5; parts without an MD5 are accepted."""
    body_md5 = message.get("MD5OfBody")
    if body_md5 is not None and md5(delivery.body, usedforsecurity=False).hexdigest() != body_md5:
        return False
    attributes = message.get("MessageAttributes") or {}
    if len(delivery.attributes) < len(attributes):
        return False
    attributes_md5 = message.get("MD5OfMessageAttributes")
    return attributes_md5 is None or _attributes_md5(attributes, delivery) == attributes_md5


def _attributes_md5(attributes: Mapping[str, Any], delivery: Delivery) -> str:
    """Return the MD5 of attributes as SQS documents it: by name, each part with its length, values typed."""
    pieces: list[bytes] = []
    for name in sorted(attributes):
        value = delivery.attributes[name]
        kind, content = (_BINARY, value) if isinstance(value, bytes) else (_TEXT, _utf8(value))
        pieces += [_part(_utf8(name)), _part(_utf8(attributes[name]["DataType"])), kind, _part(content)]
    return md5(b"".join(pieces), usedforsecurity=False).hexdigest()


def _utf8(text: str) -> bytes:
    # As with the body: an unpaired surrogate must not block the messages beside it.
    return text.encode("utf-8", "surrogatepass")


def _part(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content
