"""Reads the body of a request within the limits, and splits an array into items."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

import orjson

from processor.decoding.unpacking import BEFORE_JSON, unpack
from processor.errors import Reason
from processor.wire.formats import Malformed, pointer
from processor.wire.strict_json import JsonFault, elements, read
from producers.gateway.http import HttpLimits, cloudevents
from producers.gateway.http.heads import (
    KEY_LENGTH_MAX,
    Body,
    Fields,
    beside_of,
    body_of,
    idempotency_key_of,
    too_large,
)
from producers.gateway.http.places import Stay
from producers.gateway.http.problems import Headers, refused
from producers.gateway.items import Item, Refusal, Why

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

Found: TypeAlias = list[Item] | Item
"""The content of a request: one item, or the items of an array."""

LATE, CUT = "late", "cut"
"""Marks in the scope's state, set by the protocol when it stops waiting for a body."""


class Disconnected(Exception):
    """The client disconnected before its request was complete."""


async def read_body(
    scope: Scope,
    receive: Receive,
    announced: Body,
    limits: HttpLimits,
    held: Stay,
    charge: Callable[[int], None],
) -> bytes:
    """Read the whole body. Raises RequestRefused at the size limit, and reads no further.

    `charge` is called for each part of a body without Content-Length. The bytes are counted in `held` until
    the request ends.
    """
    message = await receive()
    chunks: list[bytes] = []
    size = 0
    while message["type"] == "http.request":
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limits.body_bytes_max:
            raise too_large(limits)
        held.add(len(chunk))
        if announced.length is None and chunk:
            charge(len(chunk))
        chunks.append(chunk)
        if not message.get("more_body"):
            break
        message = await receive()
    else:
        raise Disconnected
    state = scope.get("state", {})
    if state.get(LATE):
        raise refused(
            "timeout",
            f"the request body did not arrive within {limits.read_timeout_s:g} s (GATEWAY_READ_TIMEOUT_S)",
        )
    if state.get(CUT) or (announced.length is not None and size != announced.length):
        expected = "a last chunk" if announced.length is None else f"{announced.length} (Content-Length)"
        raise refused("malformed", f"the body ended after {size} bytes; expected {expected}")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def unpacked(body: bytes, encoding: str, limits: HttpLimits) -> bytes:
    """Decompress a body. Raises RequestRefused if it is malformed or too large."""
    found = unpack(body, {"content-encoding": encoding}, limits.body_bytes_max)
    if isinstance(found, Malformed):
        if found.reason is Reason.TOO_LARGE:
            raise too_large(limits)
        raise refused("malformed", str(found.detail["message"]))
    return found[0]


def items_of(
    body: bytes, announced: Body, fields: Fields, headers: Headers, limits: HttpLimits, event_type: str | None
) -> Found:
    """Return one item, or the items of an array. `event_type` is the only accepted type; None: any."""
    beside, key = beside_of(fields, headers), idempotency_key_of(fields)
    if cloudevents.VERSION in beside and not announced.media_type.startswith("application/cloudevents"):
        # The body is the data of one event, even if it is an array.
        return Item(body, beside, key, event_type)
    if body.startswith(BEFORE_JSON):
        found = unpack(body, beside, limits.body_bytes_max)
        if not isinstance(found, Malformed):
            body, beside = found[0], {name: str(value) for name, value in found[1].items()}
    is_batch = announced.media_type == cloudevents.BATCH_TYPE
    if body[:1] == b"{" or not body.lstrip(b" \t\r\n").startswith(b"["):
        if is_batch:
            raise refused("malformed", f"the body is not an array; {announced.media_type} requires one")
        return Item(body, beside, key, event_type)
    if announced.media_type == cloudevents.EVENT_TYPE:
        raise refused("malformed", f"the body is an array; send it as {cloudevents.BATCH_TYPE}")
    texts = _elements(body, limits, key)
    if not texts and not is_batch:
        raise refused("invalid", "the array is empty; expected at least one event")
    if any(name == "message_id" or name.startswith("ce-") for name in beside):
        words = "X-Message-Id or ce- headers beside an array: they are one event's; put them into the events"
        raise refused("malformed", words)
    return [
        Item(text.encode(), beside, None if key is None else f"{key}:{index}", event_type)
        for index, text in enumerate(texts)
    ]


def announced_body(fields: Fields, limits: HttpLimits) -> Body:
    """Read the headers about the body; the data of a binary CloudEvent is JSON by default."""
    return body_of(fields, limits, b"application/json" if b"ce-specversion" in fields else b"")


def _elements(body: bytes, limits: HttpLimits, key: str | None) -> list[str]:
    try:
        texts = elements(body.decode(), limits.json_depth_max, limits.json_values_max)
    except UnicodeDecodeError as error:
        raise refused("malformed", f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    except JsonFault as fault:
        raise refused("malformed", f"the body is invalid JSON: {fault}") from None
    if len(texts) > limits.items_max:
        raise refused(
            "too_large", f"{len(texts)} events; at most {limits.items_max} at once (GATEWAY_ITEMS_MAX)"
        )
    if key is not None and len(key) + 1 + len(str(len(texts) - 1)) > KEY_LENGTH_MAX:
        raise refused("malformed", "Idempotency-Key: too long for an array, which adds `:` and the index")
    return texts


# ── pulses ────────────────────────────────────────────────────────────────────────────────────────────


def no_pulse(body: bytes, limits: HttpLimits) -> Refusal | None:
    """Name the fields that a body lacks as a pulse; None: it is not JSON, or lacks none."""
    try:
        value = orjson.loads(body)
    except ValueError:
        try:
            value = read(body.decode(), limits.json_depth_max, limits.json_values_max).value
        except ValueError:
            return None
    if not isinstance(value, dict):
        return _refusal(
            "expected an object with tenant_id or tenant, product_sku, used_amount, and use_unity or use_unit"
        )
    missing = [name for name in ("product_sku", "used_amount") if name not in value]
    if not missing:
        return None
    return _refusal(
        f"not a pulse: {', '.join(missing)} missing; send other events to /v1/events",
        *({"pointer": pointer((name,)), "rule": "missing", "message": "Field required"} for name in missing),
    )


def _refusal(detail: str, *errors: dict[str, str]) -> Refusal:
    return Refusal(Why.INVALID, detail, errors)
