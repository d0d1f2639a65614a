"""Derive the delivery id and the attributes of a RabbitMQ message, alike for publisher and consumer.

    properties, headers, routing key ─▶ attributes ┬─▶ base      "<message_id>:<16 hex digits of a digest>"
                                            body ──┘
    base + "~" + 12 hex digits of one delivery ──▶ delivery id

AMQP has no message ids. The property message_id is the client's choice, and different messages may have the
same one. So each delivery gets an id of its own, and ids of equal messages have the same prefix, by which a
redelivery is matched to an earlier outcome.
"""

import json
from collections.abc import Container, Mapping
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from operator import itemgetter
from typing import Any

from processor.wire.beside import (
    AMQP_MESSAGE_ID,
    AMQP_TIMESTAMP,
    AMQP_USER_ID,
    OF_A_DEAD_LETTER,
    OF_THE_BROKER,
    ROUTING_KEY,
    Attribute,
    from_outside,
    no_identifier,
    of_the_transport,
)
from processor.wire.bounds import moment_of
from processor.wire.hand_overs import HAND_OVER_LENGTH

DELIVERY_ID_LENGTH_MAX = 200

_DIGEST_LENGTH = 16
_BASE_LENGTH_MAX = DELIVERY_ID_LENGTH_MAX - 1 - HAND_OVER_LENGTH

_PROPERTIES = ("content_type", "content_encoding", "correlation_id", "reply_to", "type", "app_id")
"""Properties that describe the event, beside message_id, timestamp and user_id, which get names of ours.

The other properties concern the transport.
"""


_MILLISECONDS_FROM = 100_000_000_000


class UnreadableHeaders(dict[Any, Any]):
    """Headers that the driver can't read, with the reason."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words = words


def delivery_base(attributes: Mapping[str, Attribute], body: bytes) -> str:
    """Return the message_id with a digest of the message, in 187 characters at most.

    `attributes` are the result of `attributes_of`. The digest leaves out what may differ when one message is
    published twice: trace context, transport headers and the user.
    """
    parts = []
    for name, value in sorted(attributes.items(), key=itemgetter(0)):
        if not name.startswith(OF_THE_BROKER) and name != AMQP_USER_ID and not of_the_transport(name):
            parts.append((b"n", _utf8(name)))
            parts.append((b"b", value) if isinstance(value, bytes) else (b"t", _utf8(value)))
    # Each part has its kind and length, so that different parts can't give the same bytes.
    digest = sha256(b"".join(b"%s%d:%s" % (kind, len(part), part) for kind, part in parts))
    digest.update(body)
    message_id = attributes.get(AMQP_MESSAGE_ID)
    if not message_id or not isinstance(message_id, str):
        return digest.hexdigest()
    if len(message_id) > _BASE_LENGTH_MAX - 1 - _DIGEST_LENGTH:
        # Too long for the id; the digest contains it.
        return digest.hexdigest()
    return f"{message_id}:{digest.hexdigest()[:_DIGEST_LENGTH]}"


def attributes_of(properties: object, routing_key: str | bytes) -> tuple[dict[str, Attribute], str | None]:
    """Return headers and properties as attributes, and as text which can't be read (None: all can).

    Text and bytes stay as they are, other values become JSON, and nulls are left out. Headers added by
    RabbitMQ are left out too, except for the origin of a dead letter. `properties` are pika's. The frame size
    limits them (128 KiB by default).
    """
    headers = getattr(properties, "headers", None)
    fault = f"the headers can't be read: {headers.words}" if isinstance(headers, UnreadableHeaders) else None
    attributes: dict[str, Attribute] = {}
    for name, value in (headers or {}).items():
        if not isinstance(name, str):
            fault = "a header's name is not UTF-8"
        elif value is not None and (name in OF_A_DEAD_LETTER or not name.startswith(OF_THE_BROKER)):
            written = _attribute(value)
            if written is None:
                fault = f"the header {name[:64]!r} can't be written as JSON"
            else:
                attributes[name] = written
    # The broker writes the origin of a dead letter into the headers.
    dead = {name: attributes.pop(name) for name in OF_A_DEAD_LETTER if name in attributes}
    attributes = {**from_outside(attributes, dead), **dead}
    attributes |= _named_by_properties(properties, attributes)
    if timestamp := getattr(properties, "timestamp", None):
        # AMQP defines seconds. Values after the year 5138 are milliseconds, which many clients send.
        moment = moment_of(timestamp / 1000 if timestamp >= _MILLISECONDS_FROM else timestamp)
        if moment is None:
            attributes["amqp.timestamp.raw"] = str(timestamp)
            fault = f"the property timestamp is no moment: {str(timestamp)[:64]}; expected seconds since 1970"
        else:
            attributes[AMQP_TIMESTAMP] = moment.isoformat()
    return attributes | {ROUTING_KEY: routing_key}, fault


def _named_by_properties(properties: object, headers: Container[str]) -> dict[str, Attribute]:
    found: dict[str, Attribute] = {}
    for name in _PROPERTIES:
        value = getattr(properties, name, None)
        if value is not None:
            # A header may have the name of a property.
            found[f"amqp.{name}" if name in headers else name] = value
    if (user_id := getattr(properties, "user_id", None)) is not None:
        found[AMQP_USER_ID] = user_id
    if (message_id := getattr(properties, "message_id", None)) is not None:
        # A message_id that can't be an event id is refused where an id is needed. Here it is kept as bytes,
        # which every context accepts.
        unusable = isinstance(message_id, str) and no_identifier(message_id)
        found[AMQP_MESSAGE_ID] = _utf8(message_id) if unusable else message_id
    return found


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _attribute(value: object) -> Attribute | None:
    if isinstance(value, str | bytes):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    try:
        return json.dumps(value, default=_plain, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return None


def _plain(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case bytes():
            return value.hex()
        case Decimal():
            return str(value)
    raise TypeError
