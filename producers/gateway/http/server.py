"""Runs the HTTP gateway: a socket, uvicorn on uvloop, intake, keys, and an orderly shutdown."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Iterator
from types import FrameType

import structlog
import uvicorn
import uvloop

from processor.errors import SettingsError
from processor.runtime.thread_deaths import exit_on_thread_death
from processor.settings import GatewaySettings
from producers.gateway.http import HttpLimits
from producers.gateway.http.app import BODIES_HELD_MAX, make_app
from producers.gateway.http.protocol import guarded
from producers.gateway.items import Intake, Keys
from producers.gateway.open_files import connections_within
from producers.gateway.opening import open_intake, open_keys
from producers.gateway.shares import Shares

log = structlog.get_logger(__name__)

CONNECTIONS_PER_REQUEST = 4
"""Connections for each request of GATEWAY_REQUESTS_MAX: most are idle between two requests."""

_BACKLOG = 4096
_KEEP_ALIVE_S = 30


def limits_of(settings: GatewaySettings) -> HttpLimits:
    """Return the configured limits."""
    connections_max = connections_within(CONNECTIONS_PER_REQUEST * settings.gateway_requests_max)
    return HttpLimits(
        body_bytes_max=settings.gateway_body_bytes_max,
        items_max=settings.gateway_items_max,
        # If few files may be open, some connections are left for requests without a slot, such as probes.
        requests_max=min(settings.gateway_requests_max, max(1, connections_max * 3 // 4)),
        connections_max=connections_max,
        read_timeout_s=settings.gateway_read_timeout_s,
        json_depth_max=settings.json_depth_max,
        json_values_max=settings.json_values_max,
        rate=settings.gateway_tenant_rate,
        taken_status=int(settings.gateway_answer),
    )


def listen(host: str, port: int) -> socket.socket:
    """Open the socket, before slower steps. Raises SettingsError if that fails."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:
        words = getattr(error, "strerror", None) or "no such address"
        raise SettingsError(
            f"GATEWAY_PORT: {host}:{port} cannot listen ({words}); "
            "set GATEWAY_PORT to a free port, or to 0 for any, and GATEWAY_HOST to an address of this machine"
        ) from None


async def serve(intake: Intake, keys: Keys, settings: GatewaySettings, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; then refuse new requests, and answer the current ones."""
    host, port = listener.getsockname()[:2]
    log.info("gateway_started", door="http", host=host, port=port, keys=settings.gateway_keys)
    await Server(config_of(intake, keys, settings)).serve(sockets=[listener])
    log.info("gateway_stopped", door="http")


def config_of(intake: Intake, keys: Keys, settings: GatewaySettings) -> uvicorn.Config:
    """Return uvicorn's configuration: the application, on our protocol with its limits."""
    limits = limits_of(settings)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        # uvicorn warns of each bad request, and clients can send any number of them.
        logging.getLogger(name).setLevel(logging.ERROR)
    room = Shares(BODIES_HELD_MAX * limits.body_bytes_max)
    return uvicorn.Config(
        make_app(intake, keys, limits, room),
        http=guarded(limits, room),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        # One second is kept for closing the intake and the keys.
        timeout_graceful_shutdown=max(1, int(settings.stop_timeout_s) - 1),
        backlog=_BACKLOG,
    )


class Server(uvicorn.Server):
    """uvicorn's server, but it exits with 0 after a stop: the original raises the signal again at the end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at the first signal; end the process at once at the second."""
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if self.should_exit:
            os._exit(128 + number)
        self.should_exit = True


def run(settings: GatewaySettings) -> None:
    """Run the gateway until a stop signal. Raises SettingsError."""
    listener = listen(settings.gateway_host, settings.gateway_port)
    with (
        contextlib.closing(listener),
        exit_on_thread_death(settings.stop_timeout_s),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_run(settings, listener))


async def _run(settings: GatewaySettings, listener: socket.socket) -> None:
    intake, keys = open_intake(settings), open_keys(settings)
    await keys.start()
    try:
        await intake.start()
        try:
            await serve(intake, keys, settings, listener)
        finally:
            await intake.close()
    finally:
        await keys.close()
