"""Runs the gRPC gateway: the intake and the keys behind it, probes beside it, and an orderly end."""

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
"""What is kept of STOP_TIMEOUT_S for whatever has to be closed behind it."""

log = structlog.get_logger(__name__)


def run(settings: GatewaySettings) -> None:
    """Run the gateway of these settings until it is told to stop. Raises SettingsError."""
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
    # By the time that anything may have to wait, a port that is taken has been told.
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
    """Let gRPC tell what kind of error a call ended by, and nothing of what was sent.

    It quotes metadata, keys among them, and prints tracebacks of what any client can do.
    """
    logging.getLogger("grpc._cython.cygrpc").addFilter(_by_kind)
    # In the few places where it prints a traceback it has logged it before.
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
    """Give the bounds as the settings have them."""
    return Bounds(
        message_bytes_max=settings.gateway_body_bytes_max,
        items_max=settings.gateway_items_max,
        calls_max=settings.gateway_requests_max,
        read_timeout_s=settings.gateway_read_timeout_s,
    )


@asynccontextmanager
async def _signals() -> AsyncIterator[asyncio.Event]:
    """Tell of the first SIGTERM or SIGINT; end at the second, where everything stands."""
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
