"""How calls over gRPC end where the other side may have gone already: quietly, as any client can do that."""

import asyncio
from typing import Any, NoReturn, TypeAlias

import grpc

_Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


async def abort(
    context: _Context, code: grpc.StatusCode, words: str, metadata: tuple[tuple[str, str | bytes], ...] = ()
) -> NoReturn:
    """End a call with this status; where its client has gone in the meantime, quietly."""
    try:
        await context.abort(code, words, metadata)
    except grpc.aio.AbortError:
        raise
    except grpc.aio.BaseError:
        # gRPC would log each with a traceback, as often as a client likes.
        raise asyncio.CancelledError from None


def client_is_gone(error: BaseException) -> bool:
    """Say whether this is what gRPC raises when the other side has ended a call, or broken its rules."""
    if isinstance(error, BaseExceptionGroup):
        return all(client_is_gone(one) for one in error.exceptions)
    return isinstance(error, grpc.aio.BaseError | asyncio.CancelledError)
