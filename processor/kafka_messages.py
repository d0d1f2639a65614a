"""A message of Kafka as a record of ours: its name, its moment and its headers."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from processor.kafka_client import delivery_id
from processor.kafka_partitions import Record
from processor.wire import Attribute

if TYPE_CHECKING:
    from confluent_kafka import Message

HEADERS_MAX = 64
HEADERS_BYTES_MAX = 64 * 1024
"""Headers beyond either bound are left out: they are an event's context, and no place for another body."""


def record_of(message: "Message", now: datetime) -> Record:
    """Read a message that is no error. A tombstone's body is empty; its key only chose the partition."""
    offset, (_, timestamp_ms) = message.offset() or 0, message.timestamp()
    body = message.value()
    return Record(
        offset,
        delivery_id(message.partition() or 0, offset, timestamp_ms),
        body.encode() if isinstance(body, str) else body or b"",
        _moment(timestamp_ms, now),
        _attributes(message.headers()),
    )


def _moment(timestamp_ms: int, now: datetime) -> datetime:
    """Take a producer's clock for what it is: a moment that is not given, or lies ahead, is now."""
    if not 0 < timestamp_ms <= now.timestamp() * 1000:
        return now
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC)


def _attributes(headers: object) -> Mapping[str, Attribute]:
    if not isinstance(headers, Sequence):
        return {}
    found: dict[str, Attribute] = {}
    size_bytes = 0
    for name, value in headers[:HEADERS_MAX]:
        size_bytes += len(name) + len(value or b"")
        if size_bytes > HEADERS_BYTES_MAX:
            break
        if value is not None:
            found[name] = value if isinstance(value, str) else _text(value)
    return found


def _text(value: bytes) -> Attribute:
    # Headers have no type: what reads as text is text, as a producer means it nearly always.
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
