"""From a request to items: its body within the limits, taken apart if it is an array."""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeAlias

import orjson

from processor.strict_json import JsonFault, elements, read
from processor.wire import pointer
from producers.gateway.http import Limits, cloudevents
from producers.gateway.http.heads import (
    KEY_LENGTH_MAX,
    Body,
    Fields,
    body_of,
    idempotency_key_of,
    too_large,
)
from producers.gateway.http.problems import RETRY_AFTER_S, Headers, refused
from producers.gateway.items import Item, Refusal, Why

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

Found: TypeAlias = Sequence[Item | Refusal] | Item
"""What a request brought: one item, or what stands at each place of an array."""

LATE, CUT = "late", "cut"
"""What the protocol notes in the scope's state when it gives up waiting for a body."""

_BATCH_TYPE = "application/cloudevents-batch+json"
_EVENT_TYPE = "application/cloudevents+json"


class Room:
    """The bytes of all bodies that are held at this moment, of which there may be so many."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.held_bytes = 0


class Held:
    """What one request holds of it."""

    __slots__ = ("_bytes", "_room")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._bytes = 0

    def add(self, size_bytes: int) -> None:
        """Hold so much more. Raises Refused if there is no room."""
        self._bytes += size_bytes
        self._room.held_bytes += size_bytes
        if self._room.held_bytes > self._room.bytes_max:
            raise refused(
                "over_quota", "the gateway is full of bodies; come again", retry_after_s=RETRY_AFTER_S
            )

    def release(self) -> None:
        """Give it all back."""
        self._room.held_bytes -= self._bytes
        self._bytes = 0


class Disconnected(Exception):
    """The client went away before its request was there."""


async def read_body(scope: Scope, receive: Receive, announced: Body, limits: Limits, held: Held) -> bytes:
    """Read the body to its end. Raises Refused beyond the limit, which is where reading stops.

    What was read counts as `held`, whatever comes of it, until that is released.
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
        chunks.append(chunk)
        if not message.get("more_body"):
            break
        message = await receive()
    else:
        raise Disconnected
    state = scope.get("state", {})
    if state.get(LATE):
        raise refused(
            "timeout", f"the body was not there within {limits.read_timeout_s:g} s (GATEWAY_READ_TIMEOUT_S)"
        )
    if state.get(CUT) or (announced.length is not None and size != announced.length):
        expected = "a last chunk" if announced.length is None else f"{announced.length} (Content-Length)"
        raise refused("malformed", f"the body ended after {size} bytes; expected {expected}")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def pulses_of(body: bytes, announced: Body, fields: Fields, limits: Limits) -> Found:
    """Give what /ingest was sent: one item, or as many as the array has, of which some may not be pulses."""
    if announced.media_type.startswith("application/cloudevents"):
        raise refused("unsupported_media_type", "CloudEvents go to /v1/events; expected application/json")
    found = _items(body, fields, limits)
    if isinstance(found, Item):
        fault = _no_pulse(found.body, limits)
        if fault is not None:
            raise refused("invalid", fault.detail, errors=fault.errors)
        return found
    return [_no_pulse(item.body, limits) or item for item in found]


def events_of(body: bytes, announced: Body, fields: Fields, headers: Headers, limits: Limits) -> Found:
    """Give what /v1/events was sent: one item, or as many as the array has."""
    if cloudevents.is_binary(announced.media_type, list(fields)):
        event = cloudevents.structured(headers, announced.media_type, body, limits)
        return Item(event, message_id=idempotency_key_of(fields))
    found = _items(body, fields, limits)
    if announced.media_type == _BATCH_TYPE and isinstance(found, Item):
        raise refused("malformed", f"the body is no array; expected one, as {_BATCH_TYPE} says")
    if announced.media_type == _EVENT_TYPE and not isinstance(found, Item):
        raise refused("malformed", f"the body is an array; send it as {_BATCH_TYPE}")
    return found


def announced_body(fields: Fields, limits: Limits, *, may_be_binary: bool) -> Body:
    """Say what the body is; a CloudEvent in binary mode need not name a type, which then is JSON."""
    binary = may_be_binary and b"ce-specversion" in fields
    return body_of(fields, limits, b"application/json" if binary else b"")


def _items(body: bytes, fields: Fields, limits: Limits) -> list[Item] | Item:
    key = idempotency_key_of(fields)
    if body[:1] == b"{" or not body.lstrip(b" \t\r\n").startswith(b"["):
        return Item(body, message_id=key)
    try:
        texts = elements(body.decode(), limits.json_depth_max, limits.json_values_max)
    except UnicodeDecodeError as error:
        raise refused("malformed", f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    except JsonFault as fault:
        raise refused("malformed", f"the body is not JSON as we take it: {fault}") from None
    if not texts:
        raise refused("invalid", "the array is empty; expected one event at least")
    if len(texts) > limits.items_max:
        raise refused(
            "too_large", f"{len(texts)} events; at most {limits.items_max} at once (GATEWAY_ITEMS_MAX)"
        )
    if key is None:
        return [Item(text.encode()) for text in texts]
    if len(key) + 1 + len(str(len(texts) - 1)) > KEY_LENGTH_MAX:
        raise refused("malformed", "Idempotency-Key: too long for an array, which adds `:` and the index")
    return [Item(text.encode(), message_id=f"{key}:{index}") for index, text in enumerate(texts)]


# ── pulses ────────────────────────────────────────────────────────────────────────────────────────────


def _no_pulse(body: bytes, limits: Limits) -> Refusal | None:
    """Say what makes a body no pulse; None: it is one, or no JSON at all, which the intake says better."""
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
    if "specversion" in value or ("event_type" in value and "payload" in value):
        return _refusal("an event in another format than the pulse's; send it to /v1/events")
    missing = [name for name in ("product_sku", "used_amount") if name not in value]
    if not missing:
        return None
    return _refusal(
        f"no pulse: {', '.join(missing)} missing; other events go to /v1/events",
        *({"pointer": pointer((name,)), "rule": "missing", "message": "Field required"} for name in missing),
    )


def _refusal(detail: str, *errors: dict[str, str]) -> Refusal:
    return Refusal(Why.INVALID, detail, errors)
