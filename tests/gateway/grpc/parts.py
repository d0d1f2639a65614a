"""A gRPC server for tests, in a loop of its own, before an intake that does as it is told."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from producers.gateway.grpc.listener import GrpcListener
from producers.gateway.grpc.service import SERVICE, Bounds
from producers.gateway.items import Caller, Intake, Item, Keys, Refusal, Taken, Why, Word
from producers.protos import ingest_pb2 as pb
from producers.protos.ingest_pb2_grpc import IngestStub

Result = TypeVar("Result")

BOUNDS = Bounds(message_bytes_max=256 * 1024, items_max=100, calls_max=20, read_timeout_s=10.0)
WAIT_S = 20.0


@dataclass
class PlainIntake:
    """Takes everything but what `refuses` has a word on; answers only while `open`."""

    refuses: Callable[[Item], Refusal | None] = lambda _item: None
    trouble: str = ""
    items: list[Item] = field(default_factory=list)
    callers: list[Caller] = field(default_factory=list)
    debt: Refusal | None = None
    charged_bytes: int = 0
    waiting: int = 0
    waiting_most: int = 0
    cancelled: int = 0

    def __post_init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()

    def owing(self, caller: Caller) -> Refusal | None:  # noqa: ARG002 - whoever calls
        return self.debt

    async def do(self, caller: Caller, weight: int, work: Callable[[], Result]) -> Result | Refusal:
        return await self.finish(caller, weight, work)

    def charge(self, caller: Caller, size_bytes: int) -> None:  # noqa: ARG002 - whoever calls
        self.charged_bytes += size_bytes

    async def finish(self, caller: Caller, weight: int, work: Callable[[], Result]) -> Result:  # noqa: ARG002
        return work()

    async def take(self, items: list[Item], caller: Caller) -> list[Word]:
        self.callers.append(caller)
        self.items += items
        self.waiting += len(items)
        self.waiting_most = max(self.waiting_most, self.waiting)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += len(items)
            raise
        finally:
            self.waiting -= len(items)
        first = len(self.items) - len(items)
        return [self.refuses(item) or _taken(item, first + place) for place, item in enumerate(items)]

    async def ready(self) -> str:
        return self.trouble


def _taken(item: Item, number: int) -> Taken:
    own = item.attributes.get("message_id") or item.message_id
    return Taken(own or f"made-{number}", f"d-{number}", "acme", made_id=own is None)


@dataclass
class PlainKeys:
    """Knows one key."""

    known: str | None = None
    trouble: str = ""

    async def caller(self, authorization: str | None) -> Caller | Refusal:
        if self.known is None:
            return Caller()
        if authorization in (self.known, f"Bearer {self.known}"):
            return Caller("acme")
        return Refusal(Why.UNAUTHENTICATED, "no API key that is known")

    async def ready(self) -> str:
        return self.trouble


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def run(self, work: Coroutine[Any, Any, Result], wait_s: float = WAIT_S) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(wait_s)

    def call(self, work: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(work)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run(_cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)
        self._loop.close()


async def _cancel_all() -> None:
    """Do as `asyncio.run` does at its end."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class Door:
    """A server that runs, and a channel to it."""

    loop: Loop
    server: GrpcListener
    channel: grpc.Channel

    @property
    def stub(self) -> IngestStub:
        return IngestStub(self.channel)

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def bare(self, method: str) -> Any:
        """Give this method as one that streams bytes; a unary one is the same on the wire."""
        call: Any = self.channel.stream_stream(f"/{SERVICE}/{method}")
        return call

    def health(self, service: str = "") -> str:
        stub: Any = HealthStub(self.channel)
        said = stub.Check(HealthCheckRequest(service=service), timeout=WAIT_S)
        return HealthCheckResponse.ServingStatus.Name(said.status)


@contextmanager
def a_door(
    loop: Loop,
    intake: Intake,
    keys: Keys | None = None,
    *,
    connections_max: int = 1000,
    serves_usage: bool = False,
    **bounds: float,
) -> Iterator[Door]:
    async def opened() -> GrpcListener:
        chosen = replace(BOUNDS, **bounds)  # type: ignore[arg-type]  # numbers, whichever
        server = GrpcListener(
            intake,
            keys or PlainKeys(),
            chosen,
            host="127.0.0.1",
            port=0,
            connections_max=connections_max,
            serves_usage=serves_usage,
        )
        await server.start()
        return server

    server = loop.run(opened())
    try:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}", _CHANNEL_OPTIONS) as channel:
            yield Door(loop, server, channel)
    finally:
        loop.run(server.stop(0))


# Channels to one address share a connection, unless they are told not to.
_CHANNEL_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


def an_event(
    number: int = 0, *, payload: str = '{"total": 12.50}', tenant: str = "acme", **fields: Any
) -> pb.IngestRequest:
    event = pb.Event(tenant_id=tenant, event_type="order.created", payload_json=payload, id=f"o-{number}")
    event.MergeFrom(pb.Event(**fields))
    return pb.IngestRequest(event=event)


def a_raw(body: bytes, **attributes: str) -> pb.IngestRequest:
    return pb.IngestRequest(raw=pb.Raw(body=body, attributes=attributes))


def refusal_of(error: grpc.RpcError) -> pb.Refusal:
    """The whole refusal, as the trailing metadata have it."""
    said = trailing_of(error)["ingest-refusal-bin"]
    assert isinstance(said, bytes)
    return pb.Refusal.FromString(said)


def trailing_of(error: grpc.RpcError) -> dict[str, str | bytes]:
    return {pair.key: pair.value for pair in error.trailing_metadata()}


def answer_of(door: Door, method: str, requests: list[pb.IngestRequest], **options: Any) -> list[Any]:
    """Call one of the methods with these, and give all that it answers."""
    call, options = getattr(door.stub, method), {"timeout": WAIT_S} | options
    if method == "IngestStream":
        return list(call(streamed(requests), **options))
    if method == "IngestUpload":
        return [call(streamed(requests), **options)]
    sent = pb.IngestBatchRequest(items=requests) if method == "IngestBatch" else requests[0]
    return [call(sent, **options)]


def streamed(requests: Iterable[pb.IngestRequest], size: int = 1) -> Iterator[pb.IngestStreamRequest]:
    """Put so many into each message of a stream."""
    left = iter(requests)
    while items := list(islice(left, size)):
        yield pb.IngestStreamRequest(items=items)


METHODS = ("Ingest", "IngestBatch", "IngestStream", "IngestUpload")
