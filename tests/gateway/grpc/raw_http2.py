"""HTTP/2 by hand, for what no client of gRPC does."""

import socket
import struct

from producers.gateway.grpc.service import SERVICE
from tests.gateway.grpc.parts import WAIT_S

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
INGEST, STREAM = f"/{SERVICE}/Ingest", f"/{SERVICE}/IngestStream"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

DATA, HEADERS, RST, SETTINGS, PING, CONTINUATION = 0, 1, 3, 4, 6, 9
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int = 0, stream: int = 0, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + data


def head(path: str | bytes, **more: str | bytes) -> bytes:
    """The head of a call; `more` are metadata, - as _."""
    names: dict[str, str | bytes] = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "x",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    names |= {name.replace("_", "-"): value for name, value in more.items()}
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in names.items())


NO_WINDOW = frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0))
"""What lets no byte of an answer out."""


def message(data: bytes = b"", *, announced: int | None = None, packed: bool = False) -> bytes:
    size = len(data) if announced is None else announced
    return bytes((packed,)) + struct.pack(">I", size) + data


def a_call(path: str | bytes, stream: int = 1, sent: bytes | None = None, **metadata: str | bytes) -> bytes:
    """A call from its head to its end; without `sent` it has no message, and goes on."""
    begun = frame(HEADERS, END_HEADERS, stream, head(path, **metadata))
    return begun if sent is None else begun + frame(DATA, END_STREAM, stream, sent)


def reset(stream: int = 1) -> bytes:
    return frame(RST, 0, stream, struct.pack(">I", 8))


def a_connection(port: int, *, address: str = "127.0.0.9", said: bool = True) -> socket.socket:
    """A connection from an address of this machine, with the beginning that each has."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S, source_address=(address, 0))
    if said:
        connection.sendall(PREFACE + frame(SETTINGS))
    return connection


def _text(text: str | bytes) -> bytes:
    data = text if isinstance(text, bytes) else text.encode()
    if len(data) < 127:
        return bytes((len(data),)) + data
    rest, length = len(data) - 127, b"\x7f"
    while rest >= 128:
        length += bytes((rest % 128 + 128,))
        rest //= 128
    return length + bytes((rest,)) + data
