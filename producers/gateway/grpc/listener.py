"""The gRPC server of the gateway: the service on a port, with health, reflection, limits and shutdown."""

import asyncio

import grpc
from grpc_health.v1 import health_pb2

from processor.runtime.thread_deaths import watch
from producers.gateway.grpc.front import Front
from producers.gateway.grpc.open_methods import CALLS_MAX, WATCHES_MAX, OpenCalls
from producers.gateway.grpc.service import SERVICE, Bounds, IngestService
from producers.gateway.grpc.usage import SERVICE as USAGE_SERVICE
from producers.gateway.items import Intake, Keys

HEALTH_EVERY_S, HEALTH_TIMEOUT_S = 1.0, 5.0
CONNECTIONS_MAX = 1000
"""The default number of connections; each may have many calls."""

LAST_WORDS_S = 0.5
"""The time to send the status of the last call after its handler has returned."""

_MINUTE_MS = 60_000


class GrpcListener:
    """A server on HOST:PORT; port 0 takes any free one. Used on one event loop.

    Health is SERVING while the intake and the keys are ready; `trouble` describes why it is not. With
    `serves_usage` it serves UsageService, too.
    """

    def __init__(
        self,
        intake: Intake,
        keys: Keys,
        bounds: Bounds,
        *,
        host: str,
        port: int,
        connections_max: int = CONNECTIONS_MAX,
        serves_usage: bool = False,
    ) -> None:
        self._intake = intake
        self._keys = keys
        self.front = Front(host, port, connections_max, bounds.read_timeout_s)
        self.port = self.front.port
        self.service = IngestService(intake, keys, bounds, self.front)
        self._names = [SERVICE, USAGE_SERVICE] if serves_usage else [SERVICE]
        self._open = OpenCalls(self.front, self._names)
        # The service limits calls by tenant and address; this limit is above those.
        self._server = grpc.aio.server(options=_options(bounds), maximum_concurrent_rpcs=_calls_max(bounds))
        usage = (self.service.usage_handler(),) if serves_usage else ()
        self._server.add_generic_rpc_handlers((self.service.handler(), *usage, self._open))
        self._server.add_insecure_port(f"unix:{self.front.behind}")
        self.trouble = "starting"

    async def start(self) -> None:
        """Start serving."""
        await self._tell("starting")
        await self._server.start()
        await self.front.start()
        self._looking = asyncio.create_task(self._keep_looking(), name="health")
        watch(self._looking)

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, let current calls finish within so many seconds, and stop."""
        self.trouble = "stopping"
        self._looking.cancel()
        # Any exception is ignored here: the death of a task is reported elsewhere.
        await asyncio.wait([self._looking])
        self.front.stop()
        await self._open.health.enter_graceful_shutdown()
        closing = asyncio.create_task(self._server.stop(grace_s))
        await self.service.stop(grace_s)
        # A client that watches health would otherwise hold the server for the whole grace period.
        await self._server.stop(LAST_WORDS_S)
        await closing
        await self.front.close()

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
            await self._open.health.set(name, status)


def _calls_max(bounds: Bounds) -> int:
    return 4 * (bounds.calls_max + CALLS_MAX + WATCHES_MAX)


def _options(bounds: Bounds) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", bounds.message_bytes_max),
        # The service refuses excess calls with a clear status before these limits are reached: at the first
        # one a gRPC client loses calls, and beyond the others (1,000 by default) gRPC cancels any calls.
        ("grpc.max_concurrent_streams", _calls_max(bounds)),
        ("grpc.server.max_pending_requests", _calls_max(bounds)),
        ("grpc.server.max_pending_requests_hard_limit", _calls_max(bounds)),
        ("grpc.server_handshake_timeout_ms", int(bounds.read_timeout_s * 1000)),
        # Keepalive pings detect clients that vanished, and free their places.
        ("grpc.keepalive_time_ms", _MINUTE_MS),
        ("grpc.keepalive_timeout_ms", _MINUTE_MS // 3),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _MINUTE_MS // 6),
        # Otherwise gRPC buffers megabytes of a stream that is paused, on a fast connection.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.max_connection_idle_ms", 10 * _MINUTE_MS),
    ]
