"""The gRPC server of the gateway: the service behind a port, with health, reflection, bounds and an end."""

import asyncio

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection

from processor.deaths import watch
from processor.errors import SettingsError
from producers.gateway.grpc_service import SERVICE, Bounds, IngestService
from producers.gateway.grpc_usage import SERVICE as USAGE_SERVICE
from producers.gateway.items import Intake, Keys

HEALTH_EVERY_S, HEALTH_TIMEOUT_S = 1.0, 5.0
OTHER_CALLS_MAX = 100
"""Calls for health and reflection beside those that send events: a full gateway still tells its health."""

LAST_WORDS_S = 0.5
"""How long the status of the last call may take to leave once its handler is done."""

_MINUTE_MS = 60_000


class GrpcDoor:
    """A server on HOST:PORT; port 0 takes any free one. All of it on one event loop.

    Health is SERVING while the intake and the keys are ready; `trouble` says in words why it is not. With
    `serves_usage` it serves UsageService, too.
    """

    def __init__(
        self, intake: Intake, keys: Keys, bounds: Bounds, *, host: str, port: int, serves_usage: bool = False
    ) -> None:
        self._intake = intake
        self._keys = keys
        self._service = IngestService(intake, keys, bounds)
        self._health = health.HealthServicer()
        self._server = grpc.aio.server(
            options=_options(bounds), maximum_concurrent_rpcs=bounds.calls_max + OTHER_CALLS_MAX
        )
        self._server.add_generic_rpc_handlers((self._service.handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._names = [SERVICE]
        if serves_usage:
            self._server.add_generic_rpc_handlers((self._service.usage_handler(),))
            self._names.append(USAGE_SERVICE)
        others = (health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
        reflection.enable_server_reflection((*self._names, *others), self._server)
        self.port = self._listen(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        self.trouble = "starting"

    async def start(self) -> None:
        """Begin to answer."""
        await self._tell("starting")
        await self._server.start()
        self._looking = asyncio.create_task(self._keep_looking(), name="health")
        watch(self._looking)

    async def stop(self, grace_s: float) -> None:
        """Take no further call, let those that are here have their word within so many seconds, and end."""
        self.trouble = "stopping"
        self._looking.cancel()
        # Whatever it ended by: a task that has died is told of elsewhere.
        await asyncio.wait([self._looking])
        await self._health.enter_graceful_shutdown()
        closing = asyncio.create_task(self._server.stop(grace_s))
        await self._service.stop(grace_s)
        # Who watches our health would else hold us for all of the grace.
        await self._server.stop(LAST_WORDS_S)
        await closing

    def _listen(self, address: str) -> int:
        try:
            return self._server.add_insecure_port(address)
        except RuntimeError:
            raise SettingsError(
                f"GATEWAY_GRPC_PORT: {address} can't be listened on; set GATEWAY_HOST to an address of this "
                "machine and GATEWAY_GRPC_PORT to a free port, or to 0 for any"
            ) from None

    async def _keep_looking(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(HEALTH_EVERY_S)

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                trouble = await self._intake.ready() or await self._keys.ready()
        except TimeoutError:
            trouble = f"no answer about the queue and the keys within {HEALTH_TIMEOUT_S:g} s"
        await self._tell(trouble)

    async def _tell(self, trouble: str) -> None:
        self.trouble = trouble
        said = health_pb2.HealthCheckResponse
        status = said.NOT_SERVING if trouble else said.SERVING
        for name in ("", *self._names):
            await self._health.set(name, status)


def _options(bounds: Bounds) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", bounds.message_bytes_max),
        # Two servers on one port would share its connections in silence.
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", bounds.calls_max + OTHER_CALLS_MAX),
        ("grpc.max_allowed_incoming_connections", bounds.calls_max + OTHER_CALLS_MAX),
        ("grpc.server_handshake_timeout_ms", int(bounds.read_timeout_s * 1000)),
        # Who vanished without a word is found out, and holds its place no longer.
        ("grpc.keepalive_time_ms", _MINUTE_MS),
        ("grpc.keepalive_timeout_ms", _MINUTE_MS // 3),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _MINUTE_MS // 6),
        # Else gRPC takes in megabytes more on a fast line, of a stream that we have stopped to read.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.max_connection_idle_ms", 10 * _MINUTE_MS),
    ]
