"""Idle connections, and connections with endless requests."""

import asyncio
import contextlib
import random
from collections.abc import Callable

from tests.chaos.hostile import Target, frames

_PAUSE_S = 1.0
READ_BYTES = 65_536


async def held(target: Target, port: int, number: int, first: bytes, drip: bytes = b"") -> None:
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
                            await asyncio.wait_for(reader.read(READ_BYTES), _PAUSE_S if drip else None)
                        writer.write(drip)
                        await writer.drain()
                finally:
                    writer.close()
            await asyncio.sleep(random.uniform(0.5, 1.5) * _PAUSE_S)

    await asyncio.gather(*map(one, range(number)))


async def asked(target: Target, port: int, number: int, request: Callable[[], bytes]) -> None:
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
                        await asyncio.wait_for(reader.read(READ_BYTES), 10)
                finally:
                    writer.close()
            await asyncio.sleep(0.05)

    await asyncio.gather(*map(one, range(number)))


async def once(target: Target, port: int, said: Callable[[], bytes], *, wait_s: float) -> None:
    """Open a connection for each, and wait so long until a call on it has ended; sixteen at a time."""

    async def one(place: int) -> None:
        address = target.addresses[place % len(target.addresses)]
        while True:
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
                try:
                    writer.write(said())
                    async with asyncio.timeout(wait_s):
                        while not frames.is_end(head := await reader.readexactly(frames.HEAD_BYTES)):
                            await reader.readexactly(frames.size_of(head))
                finally:
                    writer.close()
            await asyncio.sleep(0.02)

    await asyncio.gather(*map(one, range(16)))
