"""Ends gRPC calls whose client may have disconnected, without log entries that any client could cause."""

import asyncio
from typing import Any, NoReturn, TypeAlias

import grpc

_Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


async def abort(
    context: _Context, code: grpc.StatusCode, words: str, metadata: tuple[tuple[str, str | bytes], ...] = ()
) -> NoReturn:
    """End a call with this status; silently if its client has disconnected meanwhile."""
    try:
        await context.abort(code, words, metadata)
    except grpc.aio.AbortError:
        raise
    except grpc.aio.BaseError:
        # gRPC would log a traceback for each, as often as a client likes.
        raise asyncio.CancelledError from None


def client_is_gone(error: BaseException) -> bool:
    """Tell whether gRPC raises this when a client ends a call or violates the protocol."""
    if isinstance(error, BaseExceptionGroup):
        return all(client_is_gone(one) for one in error.exceptions)
    return isinstance(error, grpc.aio.BaseError | asyncio.CancelledError)
