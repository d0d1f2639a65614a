"""gRPC methods without a key: health, reflection, and the answer to unknown methods.

These calls have places of their own, shared by address. They take no place from calls with a key.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, NoReturn, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1.health import aio as health
from grpc_health.v1.health_pb2 import DESCRIPTOR, HealthCheckRequest
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from producers.gateway.grpc.ends import abort, client_is_gone
from producers.gateway.grpc.front import Front
from producers.gateway.shares import Shares

CALLS_MAX, WATCHES_MAX = 1000, 100
CALL_S, WATCH_S = 5.0, 3600.0
"""The timeout of such a call, and the time after which a health watch ends."""

_HEALTH = str(DESCRIPTOR.services_by_name["Health"].full_name)

_Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
_Request = TypeVar("_Request", bound=Message)


class OpenCalls(grpc.GenericRpcHandler):
    """Serves health, reflection of `names`, and all methods that no other handler has. Registered last."""

    def __init__(self, front: Front, names: Iterable[str]) -> None:
        self._front = front
        self.health = health.HealthServicer()
        self._reflection = reflection.aio.ReflectionServicer((*names, _HEALTH, reflection.SERVICE_NAME))
        calls, watches = Shares(CALLS_MAX), Shares(WATCHES_MAX)
        self._methods = {
            f"/{_HEALTH}/Check": self._handler(self._check, calls, CALL_S),
            f"/{_HEALTH}/Watch": self._handler(self._watch, watches, WATCH_S),
            f"/{reflection.SERVICE_NAME}/ServerReflectionInfo": self._handler(self._reflect, calls, CALL_S),
        }
        self._unknown = self._handler(_not_there, calls, CALL_S)

    def service(self, handler_call_details: Any) -> "grpc.RpcMethodHandler[Any, Any]":  # noqa: ANN401 - untyped
        """Return the method of a path."""
        return self._methods.get(handler_call_details.method, self._unknown)

    def _handler(
        self, answer: Callable[[_Context], Awaitable[None]], places: Shares, most_s: float
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        async def serve(_messages: object, context: _Context) -> None:
            async with self._place(context, places, most_s):
                await answer(context)

        # Raw bytes, read one message at a time: malformed messages get a clear error, and endless ones end.
        return grpc.stream_stream_rpc_method_handler(serve, None, lambda message: message.SerializeToString())

    @asynccontextmanager
    async def _place(self, context: _Context, places: Shares, most_s: float) -> AsyncIterator[None]:
        pipe = self._front.pipe_of(context.peer())
        holder = None if pipe is None else pipe.address
        if not places.take(holder):
            await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "too many such calls from this address")
        try:
            async with asyncio.timeout(most_s):
                yield
        except TimeoutError:
            await abort(context, grpc.StatusCode.DEADLINE_EXCEEDED, f"ended after {most_s:g} s; call again")
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            if not client_is_gone(error):
                raise
            raise asyncio.CancelledError from None
        finally:
            places.give_back(holder)

    async def _check(self, context: _Context) -> None:
        await context.write(await self.health.Check(await _read(HealthCheckRequest, context), context))

    async def _watch(self, context: _Context) -> None:
        async with asyncio.timeout(CALL_S):
            request = await _read(HealthCheckRequest, context)
        await self.health.Watch(request, context)

    async def _reflect(self, context: _Context) -> None:
        async def requests() -> AsyncIterator[ServerReflectionRequest]:
            while (data := await context.read()) is not grpc.aio.EOF:
                yield await _parsed(ServerReflectionRequest, data, context)

        answers: Any = self._reflection.ServerReflectionInfo(requests(), context)
        async for answer in answers:
            await context.write(answer)


async def _read(kind: type[_Request], context: _Context) -> _Request:
    data = await context.read()
    return await _parsed(kind, b"" if data is grpc.aio.EOF else data, context)


async def _parsed(kind: type[_Request], data: bytes, context: _Context) -> _Request:
    try:
        return kind.FromString(data)
    except DecodeError:
        await abort(context, grpc.StatusCode.INVALID_ARGUMENT, f"expected a {kind.DESCRIPTOR.full_name}")


async def _not_there(context: _Context) -> NoReturn:
    await abort(context, grpc.StatusCode.UNIMPLEMENTED, "unknown method")
