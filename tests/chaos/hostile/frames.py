"""Minimal HTTP/2 and protobuf encoders for attacks: no library would send such messages."""

from collections.abc import Mapping

_DATA, _HEADERS, _RESET, _SETTINGS, _PING = 0, 1, 3, 4, 6
_END_STREAM, _END_HEADERS = 1, 4
_FRAME_BYTES_MAX = 16_384
HEAD_BYTES = 9


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


OPENING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, b"")
PING = _frame(_PING, 0, 0, bytes(8))


def headers(
    stream: int, path: str | bytes, key: str | None = None, more: Mapping[str, str] | None = None
) -> bytes:
    """Begin a call; no word of it is in HPACK's tables, and none has 127 bytes."""
    named: dict[str, str | bytes] = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "gateway",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    if key is not None:
        named["authorization"] = f"Bearer {key}"
    named |= more or {}
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in named.items())
    return _frame(_HEADERS, _END_HEADERS, stream, block)


def _text(text: str | bytes) -> bytes:
    written = text.encode() if isinstance(text, str) else text
    return bytes((len(written),)) + written


def data(stream: int, payload: bytes, *, last: bool = False) -> bytes:
    """Send a piece of a call."""
    return _frame(_DATA, _END_STREAM if last else 0, stream, payload)


def data_in_pieces(stream: int, payload: bytes) -> bytes:
    """Send all of a call, as long as the window of flow control has room."""
    places = range(0, len(payload), _FRAME_BYTES_MAX)
    return b"".join(data(stream, payload[at : at + _FRAME_BYTES_MAX], last=at == places[-1]) for at in places)


def reset(stream: int) -> bytes:
    """Cancel a call."""
    return _frame(_RESET, 0, stream, (8).to_bytes(4, "big"))


def message(payload: bytes) -> bytes:
    """A message of gRPC: not packed, its length, and itself."""
    return b"\0" + len(payload).to_bytes(4, "big") + payload


def field(number: int, value: bytes) -> bytes:
    """A field of protobuf that has a length."""
    length, size = b"", len(value)
    while size > 0x7F:
        length, size = length + bytes((size & 0x7F | 0x80,)), size >> 7
    return bytes((number << 3 | 2,)) + length + bytes((size,)) + value


def size_of(head: bytes) -> int:
    """How many bytes follow the head of a frame."""
    return int.from_bytes(head[:3], "big")


def is_end(head: bytes) -> bool:
    """Whether this frame ends a call: with it come the trailers."""
    return head[3] == _HEADERS and bool(head[4] & _END_STREAM)
