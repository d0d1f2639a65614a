"""The methods of the gRPC gateway. The intake behind them decides on each event.

call ─▶ API key ─▶ in debt? ─▶ a place in the tenant's share ─▶ read ─▶ Intake.take ─▶ reply, or status
"""

import asyncio
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, TypeVar

import grpc
import structlog
from google.protobuf.message import DecodeError

from processor.wire.formats import TRACE_NAMES
from producers.gateway.effort import ITEM
from producers.gateway.grpc import metrics
from producers.gateway.grpc.ends import abort, client_is_gone
from producers.gateway.grpc.front import Front, Pipe
from producers.gateway.grpc.items import (
    STATUS,
    Read,
    Results,
    read_event,
    status_words,
    taken,
    too_many_items,
    trailing,
    unreadable,
)
from producers.gateway.grpc.streams import FULL, Answered, EventStream, take
from producers.gateway.grpc.usage import UsageHandler, take_usage
from producers.gateway.items import Caller, Intake, Keys, Refusal, Why
from producers.gateway.shares import Shares
from producers.protos import ingest_pb2 as pb
from producers.protos import usage_pb2 as usage_pb

SERVICE = str(pb.DESCRIPTOR.services_by_name["Ingest"].full_name)

UPLOAD_ITEMS_MAX, UPLOAD_BYTES_MAX = 10_000, 2 * 1024 * 1024
"""Results after which IngestUpload replies early: a client accepts 4 MiB."""

log = structlog.get_logger(__name__)

KEY_LENGTH_MAX = 256

_ONCE = frozenset(("authorization", "x-api-key", "idempotency-key", "traceparent"))

MESSAGES_HELD_MAX = 64
"""The memory for unary messages, in messages of the largest size; ordinary messages never reach it."""

_STOPPING = Refusal(
    Why.UNAVAILABLE,
    "the gateway is stopping; what has no result has not been read: send it again, on a new connection",
)
_Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")
_Request = TypeVar("_Request", pb.IngestRequest, pb.IngestBatchRequest)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits: bytes of a message, events of a batch, concurrent calls, seconds to send a message."""

    message_bytes_max: int
    items_max: int
    calls_max: int
    read_timeout_s: float


@dataclass(slots=True)
class _Call:
    """The metadata of a call, its caller, and the bytes that it holds of the tenant's memory share."""

    authorization: str | None
    idempotency_key: str | None
    trace: dict[str, str]
    address: Hashable
    caller: Caller = field(default_factory=Caller)
    held_bytes: int = 0

    def key_of(self, place: int) -> str | None:
        """Return the idempotency key of one event of several."""
        return None if self.idempotency_key is None else f"{self.idempotency_key}:{place}"


class IngestService:
    """Ingest, IngestBatch, IngestStream and IngestUpload.

    Requests are received as bytes, so that malformed ones get our error messages. The unary methods are
    served as streams of one message, which is the same on the wire: so a sender that never completes its
    message gets a timeout, and its place is counted.
    """

    def __init__(self, intake: Intake, keys: Keys, bounds: Bounds, front: Front) -> None:
        self._intake = intake
        self._keys = keys
        self._bounds = bounds
        self._front = front
        self.places = Shares(bounds.calls_max)
        self.room = Shares(MESSAGES_HELD_MAX * bounds.message_bytes_max)
        self._streams: set[EventStream] = set()
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()
        metrics.in_flight.set_function(lambda: self.places.taken)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler to register with a server."""
        once, streamed = grpc.stream_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Ingest": once(self.ingest, None, pb.IngestReply.SerializeToString),
            "IngestBatch": once(self.ingest_batch, None, pb.IngestBatchReply.SerializeToString),
            "IngestStream": streamed(self.ingest_stream, None, pb.IngestStreamReply.SerializeToString),
            "IngestUpload": once(self.ingest_upload, None, pb.IngestUploadReply.SerializeToString),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def usage_handler(self) -> grpc.GenericRpcHandler:
        """Return the handler that serves UsageService."""
        return UsageHandler(self.consume)

    async def ingest(self, _messages: object, context: _Context) -> pb.IngestReply:
        """Take one event; a refusal ends the call with its status."""
        async with self._place("Ingest", context) as call:
            read = await self._read(
                pb.IngestRequest, lambda event: read_event(event, call.idempotency_key), call, context
            )
            [word] = await take(self._intake, [read], call.caller)
            if isinstance(word, Refusal):
                await _refuse(context, word, by_field=read.by_field)
            return pb.IngestReply(taken=taken(word))

    async def ingest_batch(self, _messages: object, context: _Context) -> pb.IngestBatchReply:
        """Take several events, and return a result for each, in order."""
        async with self._place("IngestBatch", context) as call:
            reads = await self._read(
                pb.IngestBatchRequest, lambda request: self._events(request, call), call, context
            )
            words_on_all = await take(self._intake, reads, call.caller)
            reply = lambda: pb.IngestBatchReply(results=Results().of_all(words_on_all, reads))  # noqa: E731
            return await self._intake.finish(call.caller, ITEM * len(reads), reply)

    async def ingest_stream(self, _messages: object, context: _Context) -> None:
        """Take a stream of events, and stream their results."""

        async def answer(answered: Answered) -> None:
            results = Results()
            await context.write(
                pb.IngestStreamReply(
                    results=[
                        pb.SequencedResult(sequence=one.sequence, result=results.of(word, one.read))
                        for one, word in zip(answered.arrived, answered.words, strict=True)
                    ]
                )
            )

        async with self._place("IngestStream", context) as call:
            stream = self._stream(call, answer)
            await self._run(call, stream, context)
            if stream.refusal is not None:
                await _refuse(context, stream.refusal)
            if self._stopping:
                await _refuse(context, _STOPPING)

    async def ingest_upload(self, _messages: object, context: _Context) -> pb.IngestUploadReply:
        """Take a stream of events, and reply once."""
        results, by_place = Results(), dict[int, pb.Result]()

        async def answer(answered: Answered) -> None:
            for one, word in zip(answered.arrived, answered.words, strict=True):
                by_place[one.sequence] = results.of(word, one.read)
            if len(by_place) >= UPLOAD_ITEMS_MAX or results.size_bytes >= UPLOAD_BYTES_MAX:
                stream.end()

        async with self._place("IngestUpload", context) as call:
            stream = self._stream(call, answer)
            await self._run(call, stream, context)
            if stream.refusal is not None and not by_place:
                await _refuse(context, stream.refusal)
            in_order = [by_place[place] for place in range(len(by_place))]
            return pb.IngestUploadReply(results=in_order, ended_early=stream.ended_early)

    async def consume(self, _messages: object, context: _Context) -> usage_pb.ConsumeReply:
        """Take usage from clients of UsageService, one message or a stream, and reply once."""

        async def following() -> bytes | None:
            data = await _next(context)
            if data is not None and self._stopping:
                await _refuse(context, _STOPPING)
            return data

        async with self._place("Consume", context) as call:
            first = await self._first(call, context)
            found = await take_usage(
                first,
                following,
                lambda reads: take(self._intake, reads, call.caller),
                partial(self._do, call.caller),
                call.idempotency_key,
            )
            if isinstance(found, Refusal):
                await _refuse(context, found)
            return usage_pb.ConsumeReply(success=True, message=f"{found} taken")

    async def stop(self, grace_s: float) -> None:
        """End the streams, and wait until all calls have ended, or until the timeout."""
        self._stopping = True
        for stream in self._streams:
            stream.end()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), grace_s)

    @asynccontextmanager
    async def _place(self, method: str, context: _Context) -> AsyncIterator[_Call]:
        """Hold one of the tenant's call places; a call without a key or a place is refused unread."""
        status, call, pipe = "UNKNOWN", None, self._front.pipe_of(context.peer())
        try:
            if self._stopping:
                await _refuse(context, _STOPPING)
            call = await self._known(context, pipe)
            if not self.places.take(call.caller.holder):
                call = None
                await _refuse(context, FULL)
            self._idle.clear()
            if pipe is not None:
                pipe.calls += 1
            yield call
            status = "OK"
        except grpc.aio.AbortError:
            status = context.code().name
            raise
        except asyncio.CancelledError:
            status = "CANCELLED"
            raise
        except Exception as error:  # noqa: BLE001 - gRPC would log the exception and show it to the caller
            status = "CANCELLED" if client_is_gone(error) else "INTERNAL"
            if status == "INTERNAL":
                # The text and the traceback are not logged, as they may contain the event.
                log.error("call_failed", method=method, error=_fault(error))  # noqa: TRY400
            await abort(context, grpc.StatusCode.INTERNAL, "a fault of the gateway; send it again")
        finally:
            metrics.calls.labels(method=method, status=status).inc()
            if call is not None:
                self._leave(call, pipe)

    def _leave(self, call: _Call, pipe: Pipe | None) -> None:
        self.places.give_back(call.caller.holder)
        if call.held_bytes:
            self.room.give_back(call.caller.holder, call.held_bytes)
        if pipe is not None:
            pipe.calls -= 1
        if not self.places.taken:
            self._idle.set()

    async def _known(self, context: _Context, pipe: Pipe | None) -> _Call:
        call = _call(context, None if pipe is None else pipe.address)
        if isinstance(call, Refusal):
            await _refuse(context, call)
        caller = await self._caller(call)
        if isinstance(caller, Refusal):
            await _refuse(context, caller)
        call.caller = caller
        if pipe is not None:
            pipe.known(caller.holder)
        if owing := self._intake.owing(caller):
            await _refuse(context, owing)
        return call

    async def _caller(self, call: _Call) -> Caller | Refusal:
        caller = await self._keys.caller(call.authorization)
        if isinstance(caller, Refusal):
            return caller
        return replace(caller, trace=call.trace, address=call.address)

    def _events(self, request: pb.IngestBatchRequest, call: _Call) -> list[Read] | Refusal:
        if too_many := too_many_items(len(request.items), self._bounds.items_max):
            return too_many
        return [read_event(item, call.key_of(place)) for place, item in enumerate(request.items)]

    async def _read(
        self,
        kind: type[_Request],
        read: Callable[[_Request], T | Refusal],
        call: _Call,
        context: _Context,
    ) -> T:
        """Read the message of a unary call."""
        data = await self._first(call, context)
        try:
            found = await self._do(call.caller, len(data), lambda: read(kind.FromString(data)))
        except DecodeError:
            await _refuse(context, unreadable(kind))
        if isinstance(found, Refusal):
            await _refuse(context, found)
        return found

    async def _do(self, caller: Caller, weight: int, work: Callable[[], T]) -> T | Refusal:
        """Charge a message of so many bytes, and do work on it."""
        if owing := self._intake.owing(caller):
            return owing
        self._intake.charge(caller, weight)
        return await self._intake.do(caller, weight, work)

    async def _first(self, call: _Call, context: _Context) -> bytes:
        """Return the first message of a call; refuse the call if it is late."""
        try:
            async with asyncio.timeout(self._bounds.read_timeout_s):
                data = await _next(context)
        except TimeoutError:
            words = f"the message did not arrive within {self._bounds.read_timeout_s:g} s"
            await abort(
                context,
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"{words} (GATEWAY_READ_TIMEOUT_S); nothing was accepted",
            )
        if data is None:
            await _refuse(context, Refusal(Why.MALFORMED, "the call came to its end without a message"))
        if not self.room.take(call.caller.holder, len(data)):
            await _refuse(context, FULL)
        call.held_bytes = len(data)
        return data

    def _stream(self, call: _Call, answer: Callable[[Answered], Awaitable[None]]) -> EventStream:
        return EventStream(
            self._intake,
            lambda: self._caller(call),
            answer,
            call.key_of,
            self._bounds.items_max,
            self.room,
            call.caller.holder,
        )

    async def _run(self, call: _Call, stream: EventStream, context: _Context) -> None:
        """Register a stream, so that a stop can end it."""
        self._streams.add(stream)
        if self._stopping:
            # The stop has begun, and did not see this stream.
            stream.end()
        try:
            await stream.run(lambda: _next(context), partial(self._do, call.caller))
        finally:
            self._streams.discard(stream)


async def _next(context: _Context) -> bytes | None:
    """Read one message; None at the end. gRPC's iterator would leak a task at an early end."""
    data = await context.read()
    return None if data is grpc.aio.EOF else data


async def _refuse(context: _Context, refusal: Refusal, *, by_field: bool = False) -> NoReturn:
    words = status_words(refusal)
    await abort(context, STATUS[refusal.why], words, trailing(refusal, by_field=by_field))


def _fault(error: BaseException) -> str:
    """Name an error's type and place in the code; of a group those of its first error."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    last = traceback.extract_tb(error.__traceback__)[-1:]
    return " ".join([type(error).__name__, *(f"{Path(one.filename).name}:{one.lineno}" for one in last)])


def _call(context: _Context, address: Hashable) -> _Call | Refusal:
    named: dict[str, str] = {}
    for name, value in context.invocation_metadata() or ():
        if isinstance(value, bytes):
            continue
        if name in named and name in _ONCE:
            return Refusal(Why.MALFORMED, f"the metadata {name} is repeated; send it once")
        # W3C allows tracestate to be split into several headers.
        named[name] = f"{named[name]},{value}" if name in named else value
    key = named.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= KEY_LENGTH_MAX:
        return Refusal(Why.MALFORMED, f"idempotency-key: expected 1 to {KEY_LENGTH_MAX} characters")
    return _Call(
        named.get("x-api-key") or named.get("authorization"),
        key,
        {name: named[name] for name in TRACE_NAMES if name in named},
        address,
    )
