"""What a hostile tenant does, and a client without any key: one attack in a process of its own, until it is killed.

HOSTILE_TARGET='{"http": 8090, ...}' python -m tests.faults.hostile http_idle

Attackers come from addresses of their own (127.0.0.2 and more), so that a share for each address can tell
them from their neighbours. They are as cheap as they can be, since they share the machine with whom they attack.
"""

import asyncio
import contextlib
import gzip
import json
import os
import random
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psycopg

from tests.faults import hostile_frames as frames

_PAUSE_S = 1.0
_READ_BYTES = 65_536
_LARGE = 4_000_000


@dataclass(frozen=True, slots=True)
class Target:
    """Where everything answers, the key and the login that the tenant `mallory` has, and from where it comes."""

    http: int
    grpc: int
    key: str
    queue_url: str
    database_url: str
    addresses: tuple[str, ...] = tuple(f"127.0.0.{number}" for number in range(2, 6))

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Target":
        said = json.loads(environment["HOSTILE_TARGET"])
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in said.items()})


Attack = Callable[[Target], Awaitable[None]]


# ── connections ───────────────────────────────────────────────────────────────────────────────────────


async def _held(target: Target, port: int, number: int, first: bytes, drip: bytes = b"") -> None:
    """Hold so many connections, each opened again when it is closed; with `drip` say that every second."""

    async def one(place: int) -> None:
        address = target.addresses[place % len(target.addresses)]
        while True:
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                reader, writer = await asyncio.wait_for(
                    asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0)), 10
                )
                try:
                    writer.write(first)
                    while not reader.at_eof():
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(reader.read(_READ_BYTES), _PAUSE_S if drip else None)
                        writer.write(drip)
                        await writer.drain()
                finally:
                    writer.close()
            await asyncio.sleep(random.uniform(0.5, 1.5) * _PAUSE_S)

    await asyncio.gather(*map(one, range(number)))


async def _asked(target: Target, port: int, number: int, request: Callable[[], bytes]) -> None:
    """Send requests one after the other on so many connections, each when the one before has some answer."""

    async def one(place: int) -> None:
        address = target.addresses[place % len(target.addresses)]
        while True:
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
                try:
                    while not reader.at_eof():
                        writer.write(request())
                        await asyncio.wait_for(writer.drain(), 10)
                        await asyncio.wait_for(reader.read(_READ_BYTES), 10)
                finally:
                    writer.close()
            await asyncio.sleep(0.05)

    await asyncio.gather(*map(one, range(number)))


# ── the HTTP door ─────────────────────────────────────────────────────────────────────────────────────


def _post(key: str | None, body: bytes, *more: str, length: int | None = None) -> bytes:
    named = [] if key is None else [f"Authorization: Bearer {key}"]
    lines = [
        *("POST /v1/events HTTP/1.1", "Host: gateway", "Content-Type: application/json"),
        *named,
        *more,
        f"Content-Length: {len(body) if length is None else length}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def an_event(payload: str = '{"n": 1}', event_type: str = "user.signed_up") -> str:
    """An event of the hostile tenant, under an id by chance."""
    message_id = f"m-{random.getrandbits(64):016x}"
    return (
        f'{{"tenant_id": "mallory", "event_type": "{event_type}", "id": "{message_id}", "payload": {payload}}}'
    )


def extreme_numbers(size_bytes: int) -> str:
    """A payload of numbers that are dear to read: digits, exponents and fractions without end."""
    kind = random.choice(("9" * 1000, "1e999999999", "0." + "0" * 1000 + "1", "1e-400", "123456789.5e30"))
    count = min(size_bytes // (len(kind) + 1), 90_000)
    return '{"n": [' + ",".join([kind] * count) + "]}"


async def http_idle(target: Target) -> None:
    """4,000 connections that have asked once, without a key, and say no more."""
    await _held(target, target.http, 4000, b"GET /livez HTTP/1.1\r\nHost: gateway\r\n\r\n")


async def http_slow(target: Target) -> None:
    """1,000 bodies with the key, each announced as large as it may be, and coming slowly."""
    await _held(target, target.http, 1000, _post(target.key, b"[", length=_LARGE), b" " * 4096)


async def http_slow_nobody(target: Target) -> None:
    """The same without a key."""
    await _held(target, target.http, 1000, _post(None, b"[", length=_LARGE), b" " * 4096)


async def http_numbers(target: Target) -> None:
    """Bodies of extreme numbers with the key."""
    await _asked(
        target, target.http, 16, lambda: _post(target.key, an_event(extreme_numbers(250_000)).encode())
    )


async def http_numbers_nobody(target: Target) -> None:
    """The same without a key, as large as a request may be."""
    body = f"[{','.join(an_event(extreme_numbers(250_000)) for _ in range(15))}]".encode()
    await _asked(target, target.http, 16, lambda: _post(None, body))


async def http_bombs(target: Target) -> None:
    """Packed bodies that become a thousand times as large, with the key and without."""
    bomb = gzip.compress(b"[" + b" " * 200_000_000)
    requests = [_post(key, bomb, "Content-Encoding: gzip") for key in (target.key, None)]
    await _asked(target, target.http, 8, lambda: random.choice(requests))


async def http_upgrade(target: Target) -> None:
    """Requests to upgrade, without a key, whose bodies look like requests."""
    inner = _post(None, b"[]")
    request = _post(None, inner, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    await _asked(target, target.http, 16, lambda: request)


async def http_flood(target: Target) -> None:
    """Valid batches beyond any quota, as fast as they are answered."""
    await _asked(
        target,
        target.http,
        8,
        lambda: _post(target.key, f"[{','.join(an_event() for _ in range(200))}]".encode()),
    )


# ── the gRPC door ─────────────────────────────────────────────────────────────────────────────────────

_INGEST = "/eventprocessor.ingest.v1.Ingest"


async def grpc_idle(target: Target) -> None:
    """1,100 connections that speak HTTP/2 and call nothing."""
    await _held(target, target.grpc, 1100, frames.OPENING)


async def grpc_watch(target: Target) -> None:
    """1,100 calls of Health/Watch, which need no key and never end, each on a connection of its own."""
    call = frames.headers(1, "/grpc.health.v1.Health/Watch") + frames.data(1, frames.message(b""), last=True)
    await _held(target, target.grpc, 1100, frames.OPENING + call)


async def grpc_slow(target: Target) -> None:
    """1,000 calls with the key whose message never comes, ten on a connection."""
    calls = b"".join(
        frames.headers(stream, f"{_INGEST}/Ingest", target.key) + frames.data(stream, b"\0\0\0\1\0")
        for stream in range(1, 20, 2)
    )
    await _held(target, target.grpc, 100, frames.OPENING + calls)


async def grpc_aborted(target: Target) -> None:
    """Calls without a key that are cancelled at once, or that announce more than anybody takes."""
    method, calls = f"{_INGEST}/Ingest", b""
    for stream in range(1, 100, 4):
        calls += frames.headers(stream, method) + frames.reset(stream)
        calls += frames.headers(stream + 2, method) + frames.data(stream + 2, b"\0\x7f\xff\xff\xff" + b"x" * 100)

    async def one(place: int) -> None:
        address = target.addresses[place % len(target.addresses)]
        while True:
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", target.grpc, local_addr=(address, 0)
                )
                writer.write(frames.OPENING + calls)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.3):
                        while await reader.read(_READ_BYTES):
                            pass
                writer.close()
            await asyncio.sleep(0.05)

    await asyncio.gather(*map(one, range(16)))


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

    async def one(place: int) -> None:
        address = target.addresses[place % len(target.addresses)]
        while True:
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", target.grpc, local_addr=(address, 0)
                )
                writer.write(frames.OPENING + call())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(2):
                        while b"grpc-status" not in await reader.read(_READ_BYTES):
                            pass
                writer.close()
            await asyncio.sleep(0.02)

    await asyncio.gather(*map(one, range(16)))


# ── the queue ─────────────────────────────────────────────────────────────────────────────────────────


async def _queued(target: Target, per_s: float, body: Callable[[], str], size: int = 10) -> None:
    """Send to the queue itself, as somebody who may."""
    parts = urlsplit(target.queue_url)
    interval_s = size / per_s
    headers = (
        f"POST / HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/x-amz-json-1.0\r\n"
        "X-Amz-Target: AmazonSQS.SendMessageBatch\r\n"
        "Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/sqs/aws4_request, "
        "SignedHeaders=host, Signature=0\r\n"
    )
    loop = asyncio.get_running_loop()
    while True:
        with contextlib.suppress(OSError, EOFError):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            due_at = loop.time()
            while not reader.at_eof():
                entries = [{"Id": str(number), "MessageBody": body()} for number in range(size)]
                sent = json.dumps({"QueueUrl": target.queue_url, "Entries": entries}).encode()
                writer.write(f"{headers}Content-Length: {len(sent)}\r\n\r\n".encode() + sent)
                await reader.read(_READ_BYTES)
                due_at += interval_s
                await asyncio.sleep(max(0.0, due_at - loop.time()))
            writer.close()
        await asyncio.sleep(0.1)


async def sqs_garbage(target: Target) -> None:
    """60 KB of garbage, forty times a second: each becomes a rejection."""
    await _queued(target, 40, lambda: "x" * 60_000, size=4)


async def sqs_numbers(target: Target) -> None:
    """Events of extreme numbers, 150 KB each, ten a second."""
    await _queued(target, 10, lambda: an_event(extreme_numbers(150_000)), size=1)


async def sqs_dear(target: Target) -> None:
    """Events that are as dear to judge as a schema allows, ten a second."""
    await _queued(target, 10, lambda: an_event(dear_payload(), "dear"), size=1)


async def sqs_flood(target: Target) -> None:
    """500 small events a second."""
    await _queued(target, 500, an_event)


DEAR_SCHEMA = {
    "type": "object",
    "properties": {
        "texts": {"type": "array", "maxItems": 2000, "items": {"type": "string", "pattern": "^(a|b|ab)*c$"}},
        "things": {"type": "array", "maxItems": 1000, "uniqueItems": True, "items": {"type": "object"}},
    },
}
"""What may be published, and takes its time."""


def dear_payload() -> str:
    texts = ["ab" * 25] * 2000
    things = [{"n": number, "m": {"n": number}} for number in range(1000)]
    return json.dumps({"texts": texts, "things": things})


# ── psql ──────────────────────────────────────────────────────────────────────────────────────────────


async def _sessions(target: Target, number: int, *statements: str, hold: bool = False) -> None:
    """Run these on so many connections, again and again; `hold`: once, in a transaction that stays open."""

    async def one() -> None:
        while True:
            with contextlib.suppress(psycopg.Error):
                connection = await psycopg.AsyncConnection.connect(target.database_url, autocommit=not hold)
                async with connection:
                    # What follows then is a part of this transaction, and keeps its locks.
                    await connection.execute("SELECT 1")
                    while not connection.closed:
                        for statement in statements:
                            await _tried(connection, statement)
                        await asyncio.sleep(3600 if hold else 0.01)
            await asyncio.sleep(0.2)

    await asyncio.gather(*(one() for _ in range(number)))


async def _tried(connection: "psycopg.AsyncConnection[Any]", statement: str) -> None:
    """Try a statement, which may be refused, and keep the transaction."""
    try:
        if connection.autocommit:
            await connection.execute(statement)
        else:
            async with connection.transaction():
                await connection.execute(statement)
    except psycopg.Error:
        if connection.broken:
            raise


_KEYS = range(7309453202311081, 7309453202311100)
"""Of the advisory locks that there were, and some more."""
_MODES = ("ACCESS EXCLUSIVE", "SHARE", "SHARE UPDATE EXCLUSIVE", "ROW EXCLUSIVE", "ROW SHARE", "ACCESS SHARE")


async def psql_locks(target: Target) -> None:
    """A transaction that takes every lock that it can, and stays."""
    async with await psycopg.AsyncConnection.connect(target.database_url, autocommit=True) as connection:
        cursor = await connection.execute("SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'v')")
        # The server's own, too: whoever may lock one of those stops more than us.
        tables = [name for (name,) in await cursor.fetchall()]
    await _sessions(
        target,
        1,
        "SET statement_timeout = 0",
        "SET lock_timeout = '100ms'",
        "SET idle_in_transaction_session_timeout = 0",
        *(f"SELECT pg_advisory_xact_lock({key})" for key in _KEYS),
        *(f"LOCK TABLE {table} IN {mode} MODE" for table in tables for mode in _MODES),
        *(f"SELECT FROM {table} FOR KEY SHARE" for table in tables),
        hold=True,
    )


async def psql_bulk(target: Target) -> None:
    """Large objects, WAL and temporary tables, as much as there is room for; a pause keeps the disk from filling."""
    await asyncio.gather(
        _sessions(target, 1, "SELECT lo_from_bytea(0, convert_to(repeat('x', 4000000), 'UTF8'))"),
        _sessions(target, 1, "SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000))"),
        _sessions(
            target,
            1,
            "CREATE TEMPORARY TABLE IF NOT EXISTS bulk (x text)",
            "INSERT INTO bulk SELECT repeat('x', 1000) FROM generate_series(1, 2000)",
            "TRUNCATE bulk",
        ),
    )


async def psql_heavy(target: Target) -> None:
    """Questions without end, without bounds: four at once."""
    await _sessions(
        target,
        4,
        "SET statement_timeout = 0",
        "SET work_mem = '1GB'",
        "SELECT count(DISTINCT md5((a * b)::text)) FROM generate_series(1, 3000) a, generate_series(1, 300) b",
    )


async def psql_connections(target: Target) -> None:
    """As many connections as there are."""
    await _sessions(target, 60, "SELECT pg_sleep(3600)")


ATTACKS: dict[str, Attack] = {
    attack.__name__: attack
    for attack in (
        http_idle,
        http_slow,
        http_slow_nobody,
        http_numbers,
        http_numbers_nobody,
        http_bombs,
        http_upgrade,
        http_flood,
        grpc_idle,
        grpc_watch,
        grpc_slow,
        grpc_aborted,
        grpc_numbers,
        sqs_garbage,
        sqs_numbers,
        sqs_dear,
        sqs_flood,
        psql_locks,
        psql_bulk,
        psql_heavy,
        psql_connections,
    )
}


if __name__ == "__main__":
    os.nice(19)
    asyncio.run(ATTACKS[sys.argv[1]](Target.of(os.environ)))  # type: ignore[arg-type]  # a coroutine each
