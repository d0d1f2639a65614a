"""Loads the gRPC gateway by streams as fast as it answers, and prints what it took as JSON.

    python -m tests.bench.contestants.grpc_load TARGET SECONDS STREAMS WINDOW

On each stream at most WINDOW pulses are without an answer, each in a message of its own, as over HTTP.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator

import grpc

from producers.load.pulses import LoadPlan, pulse
from producers.protos import ingest_pb2 as pb
from producers.protos.ingest_pb2_grpc import IngestStub

GRACE_S = 10.0


async def stream(stub: IngestStub, plan: LoadPlan, tenant: int, window: int) -> int:
    """Send for as long as the plan says; gives how many were taken."""
    room = asyncio.Semaphore(window)
    until_s = time.monotonic() + plan.duration_s

    async def requests() -> AsyncIterator[pb.IngestStreamRequest]:
        number = 0
        while time.monotonic() < until_s:
            await room.acquire()
            one = pulse(plan, 0.0, tenant, number)
            item = pb.IngestRequest(raw=pb.Raw(body=one.body), idempotency_key=one.message_id)
            yield pb.IngestStreamRequest(items=[item])
            number += 1

    taken = 0
    async for reply in stub.IngestStream(requests(), timeout=plan.duration_s + GRACE_S):
        for result in reply.results:
            taken += result.result.WhichOneof("outcome") == "taken"
            room.release()
    return taken


async def main() -> None:
    target, seconds, streams, window = sys.argv[1], *map(float, sys.argv[2:5])
    plan = LoadPlan(seconds, seed=time.time_ns() % 10**9)
    async with grpc.aio.insecure_channel(target) as channel:
        stub = IngestStub(channel)
        began_at_s = time.monotonic()
        taken = sum(
            await asyncio.gather(*(stream(stub, plan, one, int(window)) for one in range(int(streams))))
        )
        took_s = time.monotonic() - began_at_s
    print(json.dumps({"accepted": taken, "accepted_per_s": taken / took_s}))


if __name__ == "__main__":
    asyncio.run(main())
