"""Convert a Kafka message to a record: its delivery id, time and headers."""

from collections.abc import Mapping
from datetime import datetime
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from processor.brokers.kafka import delivery_id
from processor.sources.kafka.partitions import Record
from processor.wire.beside import free_name, speaks
from processor.wire.bounds import moment_of
from processor.wire.formats import Attribute

if TYPE_CHECKING:
    from confluent_kafka import Message

HEADERS_MAX = 64
HEADERS_BYTES_MAX = 64 * 1024
"""Limits of headers. A message beyond either is rejected: headers are context and not a second body."""


def record_of(message: "Message", now: datetime) -> Record:
    """Return the record of a message without an error. The body of a tombstone is empty."""
    offset, (_, timestamp_ms) = message.offset() or 0, message.timestamp()
    body = message.value()
    attributes, fault = _attributes(message)
    # The timestamp is the producer's clock. A missing or future time becomes now.
    moment = moment_of(timestamp_ms / 1000)
    return Record(
        offset,
        delivery_id(message.partition() or 0, offset, timestamp_ms),
        body.encode() if isinstance(body, str) else body or b"",
        now if moment is None else min(moment, now),
        attributes,
        fault,
    )


def _attributes(message: "Message") -> tuple[Mapping[str, Attribute], str | None]:
    """Return the headers, and as text which of them can't be read (None: all can)."""
    try:
        headers: Any = _headers(message) or ()
    except (ValueError, TypeError, SystemError) as error:
        # The driver returns all headers or none. An exception here would end the poll thread.
        return {}, f"the headers can't be read: a header's name must be UTF-8 ({type(error).__name__})"
    found: dict[str, Attribute] = {}
    size_bytes, fault = 0, None
    for name, value in headers[:HEADERS_MAX]:
        size_bytes += len(name) + len(value or b"")
        if size_bytes > HEADERS_BYTES_MAX:
            break
        if value is None:
            continue
        said = value if isinstance(value, str) else _text(value)
        if name in found and speaks(name):
            if found[name] == said:
                continue
            fault = fault or f"the header {name} is there twice, and differs; send it once"
        found[free_name(name, found)] = said
    if len(headers) > HEADERS_MAX or size_bytes > HEADERS_BYTES_MAX:
        return found, (
            f"the message has more than {HEADERS_MAX} headers, or more than {HEADERS_BYTES_MAX} bytes of "
            "them; the first are kept"
        )
    return found, fault


# Not `message.headers()`: if a name is not UTF-8, the driver returns a broken list and sets an exception.
# A specialised call in Python does not check for that, and raises much later or crashes.
_headers = methodcaller("headers")


def _text(value: bytes) -> Attribute:
    # Headers have no type. Valid UTF-8 is taken as text, which producers nearly always mean.
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
