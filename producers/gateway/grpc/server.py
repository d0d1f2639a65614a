"""Runs the gRPC gateway: intake, keys, probes, and an orderly shutdown."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import structlog
import uvloop
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # of gRPC's own, without types

from processor.runtime.probes import Probes
from processor.runtime.thread_deaths import exit_on_thread_death
from processor.settings import GatewaySettings
from producers.gateway.grpc.front import FILES_PER_CONNECTION
from producers.gateway.grpc.listener import CONNECTIONS_MAX, GrpcListener
from producers.gateway.grpc.service import Bounds
from producers.gateway.open_files import connections_within
from producers.gateway.opening import open_intake, open_keys

CLOSING_S = 1.0
"""The part of STOP_TIMEOUT_S that is kept for closing the intake and the keys."""

log = structlog.get_logger(__name__)


def run(settings: GatewaySettings) -> None:
    """Run the gateway until a stop signal. Raises SettingsError."""
    quieten_grpc()
    with (
        exit_on_thread_death(settings.stop_timeout_s),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_run(settings))


async def _run(settings: GatewaySettings) -> None:
    intake, keys = open_intake(settings), open_keys(settings)
    wanted = max(settings.gateway_requests_max, CONNECTIONS_MAX)
    found = connections_within(FILES_PER_CONNECTION * wanted) // FILES_PER_CONNECTION
    listener = GrpcListener(
        intake,
        keys,
        bounds_of(settings),
        host=settings.gateway_host,
        port=settings.gateway_grpc_port,
        connections_max=max(1, found),
        serves_usage=settings.gateway_compat == "usage-service",
    )
    # The port is opened first: a port in use is reported before anything has to wait.
    probes = Probes(
        settings.http_host,
        settings.gateway_probes_port,
        alive=lambda: True,
        trouble=lambda: listener.trouble,
        setting="GATEWAY_PROBES_PORT",
    )
    async with _signals() as stopped:
        await keys.start()
        await intake.start()
        await listener.start()
        probes.start()
        log.info(
            "gateway_started",
            door="grpc",
            host=settings.gateway_host,
            port=listener.port,
            http_port=probes.port,
            keys=settings.gateway_keys,
        )
        try:
            await stopped.wait()
        finally:
            await listener.stop(max(0.0, settings.stop_timeout_s - CLOSING_S))
            await intake.close()
            await keys.close()
            probes.stop()
    log.info("gateway_stopped", door="grpc")


def quieten_grpc() -> None:
    """Reduce gRPC's log records to the kind of error.

    gRPC quotes metadata, including keys, and prints tracebacks for errors that any client can cause.
    """
    logging.getLogger("grpc._cython.cygrpc").addFilter(_by_kind)
    # Where gRPC prints a traceback, it has logged the error before.
    cygrpc.traceback = SimpleNamespace(
        print_exc=lambda: None, format_exception=lambda error: [type(error).__name__]
    )


def _by_kind(record: logging.LogRecord) -> bool:
    kind = record.exc_info[0] if record.exc_info else None
    record.msg, record.args = (
        "gRPC ended a call by itself: %s",
        (kind.__name__ if kind else record.levelname,),
    )
    record.exc_info = record.exc_text = None
    return True


def bounds_of(settings: GatewaySettings) -> Bounds:
    """Return the configured limits."""
    return Bounds(
        message_bytes_max=settings.gateway_body_bytes_max,
        items_max=settings.gateway_items_max,
        calls_max=settings.gateway_requests_max,
        read_timeout_s=settings.gateway_read_timeout_s,
    )


@asynccontextmanager
async def _signals() -> AsyncIterator[asyncio.Event]:
    """Set the event at the first SIGTERM or SIGINT; end the process at once at the second."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()

    def stop(number: int) -> None:
        if stopped.is_set():
            os._exit(128 + number)
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    try:
        yield stopped
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
