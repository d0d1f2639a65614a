"""Attacks on the gRPC gateway."""

from tests.chaos.hostile import Target, frames
from tests.chaos.hostile.bodies import an_event, extreme_numbers
from tests.chaos.hostile.connections import held, once

_INGEST = "/eventprocessor.ingest.v1.Ingest"


async def grpc_idle(target: Target) -> None:
    """1,100 connections that speak HTTP/2 and call nothing."""
    await held(target, target.grpc, 1100, frames.OPENING)


async def grpc_watch(target: Target) -> None:
    """1,100 calls of Health/Watch, which need no key and never end, each on a connection of its own."""
    call = frames.headers(1, "/grpc.health.v1.Health/Watch") + frames.data(1, frames.message(b""), last=True)
    await held(target, target.grpc, 1100, frames.OPENING + call)


async def grpc_slow(target: Target) -> None:
    """1,000 calls with the key whose message never comes, ten on a connection."""
    calls = b"".join(
        frames.headers(stream, f"{_INGEST}/Ingest", target.key) + frames.data(stream, b"\0\0\0\1\0")
        for stream in range(1, 20, 2)
    )
    await held(target, target.grpc, 100, frames.OPENING + calls)


async def grpc_aborted(target: Target) -> None:
    """Calls without a key that are cancelled at once, or that announce more than anybody takes."""
    method, calls = f"{_INGEST}/Ingest", b""
    for stream in range(1, 100, 4):
        calls += frames.headers(stream, method) + frames.reset(stream)
        calls += frames.headers(stream + 2, method) + frames.data(
            stream + 2, b"\0\x7f\xff\xff\xff" + b"x" * 100
        )

    await once(target, target.grpc, lambda: frames.OPENING + calls, wait_s=0.3)


async def grpc_reflection(target: Target) -> None:
    """What needs no key, without end: calls of reflection, and of methods that there are not."""
    question = frames.message(frames.field(4, b"eventprocessor.ingest.v1.Ingest"))
    calls = b"".join(
        frames.headers(stream, path) + frames.data(stream, question, last=True)
        for stream in range(1, 100, 4)
        for stream, path in (
            (stream, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
            (stream + 2, "/no.such.Service/Method"),
        )
    )
    await once(target, target.grpc, lambda: frames.OPENING + calls, wait_s=0.3)


async def grpc_odd(target: Target) -> None:
    """Paths that are no UTF-8, metadata of 14 KiB, and pings."""
    metadata = {f"x-{number:05}": "y" * 120 for number in range(100)}
    said = b"".join(
        frames.headers(stream, b"/\xff\xfe")
        + frames.headers(stream + 2, f"{_INGEST}/Ingest", more=metadata)
        + 10 * frames.PING
        for stream in range(1, 40, 4)
    )
    await once(target, target.grpc, lambda: frames.OPENING + said, wait_s=0.3)


async def grpc_numbers(target: Target) -> None:
    """Messages of extreme numbers with the key."""
    method, key = f"{_INGEST}/Ingest", target.key

    def call() -> bytes:
        event = an_event(extreme_numbers(50_000)).encode()
        # IngestRequest.raw (2) with its body (1).
        raw = frames.field(1, event)
        sent = frames.message(frames.field(2, raw))
        # A call a connection: the window of flow control has 64 KiB.
        return frames.headers(1, method, key) + frames.data_in_pieces(1, sent)

    await once(target, target.grpc, lambda: frames.OPENING + call(), wait_s=5)
