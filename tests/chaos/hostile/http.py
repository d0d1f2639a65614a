"""Attacks on the HTTP gateway."""

import gzip
import random

from tests.chaos.hostile import Target
from tests.chaos.hostile.bodies import an_event, extreme_numbers
from tests.chaos.hostile.connections import asked, held

_LARGE = 4_000_000


async def http_idle(target: Target) -> None:
    """4,000 connections that have asked once, without a key, and say no more."""
    await held(target, target.http, 4000, b"GET /livez HTTP/1.1\r\nHost: gateway\r\n\r\n")


async def http_slow(target: Target) -> None:
    """1,000 bodies with the key, each announced as large as it may be, and coming slowly."""
    await held(target, target.http, 1000, _post(target.key, b"[", length=_LARGE), b" " * 4096)


async def http_slow_nobody(target: Target) -> None:
    """The same without a key."""
    await held(target, target.http, 1000, _post(None, b"[", length=_LARGE), b" " * 4096)


async def http_numbers(target: Target) -> None:
    """Bodies of extreme numbers with the key."""
    await asked(
        target, target.http, 16, lambda: _post(target.key, an_event(extreme_numbers(250_000)).encode())
    )


async def http_numbers_nobody(target: Target) -> None:
    """The same without a key, as large as a request may be."""
    body = f"[{','.join(an_event(extreme_numbers(250_000)) for _ in range(15))}]".encode()
    await asked(target, target.http, 16, lambda: _post(None, body))


async def http_bombs(target: Target) -> None:
    """Packed bodies that become a thousand times as large, with the key and without."""
    bomb = gzip.compress(b"[" + b" " * 200_000_000)
    requests = [_post(key, bomb, "Content-Encoding: gzip") for key in (target.key, None)]
    await asked(target, target.http, 8, lambda: random.choice(requests))


async def http_upgrade(target: Target) -> None:
    """Requests to upgrade, without a key, whose bodies look like requests."""
    inner = _post(None, b"[]")
    request = _post(
        None, inner, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"
    )
    await asked(target, target.http, 16, lambda: request)


async def http_flood(target: Target) -> None:
    """Valid batches beyond any quota, as fast as they are answered."""
    await asked(
        target,
        target.http,
        8,
        lambda: _post(target.key, f"[{','.join(an_event() for _ in range(200))}]".encode()),
    )


def _post(key: str | None, body: bytes, *more: str, length: int | None = None) -> bytes:
    named = [] if key is None else [f"Authorization: Bearer {key}"]
    lines = [
        *("POST /v1/events HTTP/1.1", "Host: gateway", "Content-Type: application/json"),
        *named,
        *more,
        f"Content-Length: {len(body) if length is None else length}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
