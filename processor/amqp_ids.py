"""What a message of RabbitMQ is called: told alike by whoever sends it and by whoever receives it.

    message_id property, routing key, headers, body ─▶ "<message_id>:<16 hex digits of a digest>"

The property alone is what a client likes: two different messages under one id must never be taken for a
redelivery, or the second would be lost. With the digest, only a message that is equal in all of it can be.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from operator import itemgetter
from typing import Any

from processor.wire import Attribute

DELIVERY_ID_LENGTH_MAX = 200
_DIGEST_LENGTH = 16

_OF_THE_BROKER = ("x-delivery-count", "x-acquired-count", "x-death", "x-first-death-", "x-last-death-")
"""How the headers begin that RabbitMQ adds on the way: they change from one hand-over to the next."""

_KEPT = ("x-first-death-queue", "x-first-death-reason", "x-first-death-exchange")
"""Those of them that are worth keeping: where a message lay before it was dead-lettered, and why."""


def delivery_id(
    message_id: str, routing_key: str, headers: Mapping[str, Attribute] | None, body: bytes
) -> str:
    """Name a message by its message_id property and all it says, in 200 characters at most.

    `headers` are what `attributes_of` makes of them.
    """
    parts = [(b"p", _utf8(message_id)), (b"p", _utf8(routing_key))]
    for name, value in sorted((headers or {}).items(), key=itemgetter(0)):
        if not name.startswith(_OF_THE_BROKER):
            parts.append((b"n", _utf8(name)))
            parts.append((b"b", value) if isinstance(value, bytes) else (b"t", _utf8(value)))
    # Each part with its kind and its length, so that no other parts come to the same bytes.
    digest = sha256(b"".join(b"%s%d:%s" % (kind, len(part), part) for kind, part in parts))
    digest.update(body)
    if len(message_id) > DELIVERY_ID_LENGTH_MAX - 1 - _DIGEST_LENGTH or not message_id.isprintable():
        # Too long, or what no table takes: the id is part of the digest anyway.
        return digest.hexdigest()
    return f"{message_id}:{digest.hexdigest()[:_DIGEST_LENGTH]}"


def attributes_of(headers: Mapping[Any, object] | None) -> dict[str, Attribute]:
    """Give a message's headers as attributes: text and bytes as they are, anything else as its JSON text.

    A frame bounds them (128 KiB unless the broker is told otherwise). What RabbitMQ adds on the way is left
    out, but for where a dead letter came from.
    """
    if not headers:
        return {}
    return {
        name: _attribute(value)
        for name, value in ((_text(name), value) for name, value in headers.items())
        if name in _KEPT or not name.startswith(_OF_THE_BROKER)
    }


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(name: object) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _attribute(value: object) -> Attribute:
    if isinstance(value, str | bytes):
        return value
    try:
        return json.dumps(value, default=_plain, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return "unreadable"


def _plain(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case bytes():
            return value.hex()
        case Decimal():
            return str(value)
    raise TypeError
