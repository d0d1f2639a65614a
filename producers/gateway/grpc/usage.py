"""UsageService/Consume: converts the usage of other platforms' clients into pulses.

ConsumeRequest ─▶ Item, a bare pulse │ Refusal
"""

import json
import math
import re
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from producers.gateway.grpc.items import Read, invalid, unreadable
from producers.gateway.grpc.streams import WINDOW_BYTES, WINDOW_ITEMS
from producers.gateway.items import Item, Refusal, Word
from producers.protos import usage_pb2 as pb

SERVICE = str(pb.DESCRIPTOR.services_by_name["UsageService"].full_name)

_PATH = re.compile(r"/([A-Za-z_][\w.]*\.)?UsageService/Consume")
_FIELDS = pb.ConsumeRequest.DESCRIPTOR.fields_by_number
_USED_AMOUNT = 3
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DECIMAL = re.compile(rb"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


class UsageHandler(grpc.GenericRpcHandler):
    """Serves Consume by `consume`, for any package name of the service."""

    def __init__(self, consume: Callable[[Any, Any], Any]) -> None:
        # Unary and streaming clients both work: on the wire a unary call is a stream of one message.
        self._method: grpc.RpcMethodHandler[Any, Any] = grpc.stream_unary_rpc_method_handler(
            consume, None, pb.ConsumeReply.SerializeToString
        )

    def service(self, handler_call_details: Any) -> "grpc.RpcMethodHandler[Any, Any] | None":  # noqa: ANN401 - untyped
        """Return the method of a path; None: the path is not Consume."""
        return self._method if _PATH.fullmatch(handler_call_details.method) else None


async def take_usage(
    data: bytes | None,
    following: Callable[[], Awaitable[bytes | None]],
    take: Callable[[list[Read]], Awaitable[list[Word]]],
    do: Callable[[int, Callable[[], Read]], Awaitable[Read | Refusal]],
    key: str | None,
) -> int | Refusal:
    """Take `data` and the messages `following`; return their number, or the first refusal with a summary.

    `do` does work on so many bytes, such as parsing a message.
    The first message has the idempotency key as it is, the others have KEY:1 and so on.
    """
    reads: list[Read] = []
    refused: list[Refusal] = []
    number = size_bytes = refused_number = 0
    while data is not None:
        own_key = key if key is None or number == 0 else f"{key}:{number}"
        read = await do(len(data), partial(read_usage, data, own_key))
        reads.append(Read(read) if isinstance(read, Refusal) else read)
        size_bytes += len(data)
        number += 1
        data = await following()
        if data is None or len(reads) >= WINDOW_ITEMS or size_bytes >= WINDOW_BYTES:
            refusals = [word for word in await take(reads) if isinstance(word, Refusal)]
            refused += refusals[: 1 - len(refused)]
            refused_number += len(refusals)
            reads, size_bytes = [], 0
    if not refused:
        return number
    [first] = refused
    words = f"{refused_number} of {number} messages were refused, the first because: {first.detail}"
    return first if number == 1 else replace(first, detail=words)


def read_usage(data: bytes, idempotency_key: str | None) -> Read:
    """Convert one ConsumeRequest to an item."""
    try:
        request = pb.ConsumeRequest.FromString(data)
    except DecodeError:
        return Read(unreadable(pb.ConsumeRequest))
    amount: str | None = repr(request.used_amount) if math.isfinite(request.used_amount) else None
    context = {}
    others: Any = UnknownFieldSet(request)
    for unknown in others:
        number, kind, value = unknown.field_number, unknown.wire_type, unknown.data
        if number == _USED_AMOUNT:
            amount = _number(kind, value)
        elif number in _FIELDS:
            name = _FIELDS[number].name
            return Read(
                invalid(f"/{name}", "type", f"field {number} is not text; compare it with usage.proto")
            )
        else:
            context[f"field_{number}"] = _text(kind, value)
    if amount == "0.0" and context and not request.used_amount:
        words = "0 or not sent, and there are fields that are not ours; compare the numbers with usage.proto"
        return Read(invalid("/used_amount", "missing", words))
    if amount is None:
        return Read(
            invalid(
                "/used_amount",
                "number",
                "field 3 is not a finite number; expected a number, or a decimal as text",
            )
        )
    named = {"product_sku": request.product_sku, "use_unity": request.use_unity}
    for name, value in named.items():
        if not value:
            return Read(
                invalid(f"/{name}", "missing", "empty or not sent; compare the numbers with usage.proto")
            )
    if request.tenant_id:
        named["tenant_id"] = request.tenant_id
    body = f'{json.dumps(named)[:-1]}, "used_amount": {amount}}}'
    return Read(Item(body.encode(), context, idempotency_key))


def _number(kind: int, value: Any) -> str | None:  # noqa: ANN401 - as protobuf has it
    """Write a number that was sent in another type than double; None: it is not a number."""
    if kind == _VARINT:
        return str(value if value < 1 << 63 else value - (1 << 64))
    if kind == _FIXED32:
        packed = struct.pack("<I", value)
        [single] = struct.unpack("<f", packed)
        if not math.isfinite(single):
            return None
        # The shortest digits of this 32-bit float, as its sender wrote them, not those of the nearest double.
        digits = (f"{single:.{count}g}" for count in range(6, 10))
        return next((text for text in digits if struct.pack("<f", float(text)) == packed), None)
    return value.decode() if kind == _BYTES and _DECIMAL.fullmatch(value) else None


def _text(kind: int, value: Any) -> str:  # noqa: ANN401 - as protobuf has it
    return str(value) if kind in (_VARINT, _FIXED32, _FIXED64) else bytes(value).decode(errors="replace")
