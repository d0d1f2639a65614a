"""The command `producers gateway grpc`: options in, a server that runs until told to stop."""

import click

from processor import logs
from processor.errors import SettingsError
from processor.settings import Settings

_EXTRA = frozenset(("grpc", "grpc_health", "grpc_reflection", "google", "uvloop"))


@click.command()
@click.option("--host", metavar="ADDRESS", help="Listen on this address, instead of GATEWAY_HOST.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    help="Listen on this port, instead of GATEWAY_GRPC_PORT; 0: any.",
)
@click.option(
    "--json-logs/--console-logs",
    "json_logs",
    default=None,
    help="Log as JSON or for people, instead of what LOG_FORMAT says.",
)
def grpc(host: str | None, port: int | None, json_logs: bool | None) -> None:
    """Take events over gRPC: one, a batch, or a stream of them, until SIGTERM or Ctrl-C.

    \b
    grpcurl -plaintext -H 'authorization: Bearer ep_...' -d '{"event": {"tenant_id": "acme",
      "event_type": "order.created", "id": "o-1", "payload_json": "{\\"total\\": 12.50}"}}'
      127.0.0.1:50051 eventprocessor.ingest.v1.Ingest/Ingest

    producers/gateway/protos/ingest.proto explains all of it, and the server tells it by reflection. Health is
    grpc.health.v1; /livez, /readyz and /metrics are on GATEWAY_PROBES_PORT.

    A stop takes in nothing new and gives what is inside its word, within STOP_TIMEOUT_S; a second one ends
    at once. It speaks no TLS: in front of it belongs a proxy that does.

    \b
    Exit codes: 0 told to stop   1 failed   2 bad usage or settings (a port that is taken, too)
                4 what it needs can't be reached
    """  # noqa: D301 - click's mark for lines to be left as they are
    given: dict[str, object] = {"gateway_host": host, "gateway_grpc_port": port}
    if json_logs is not None:
        given["log_format"] = "json" if json_logs else "console"
    settings = Settings.load(**{name: value for name, value in given.items() if value is not None})
    logs.configure(settings.log_format, settings.log_level)
    try:
        # Here, because nobody else needs them, and not everybody has them.
        from producers.gateway.grpc_server import run  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise SettingsError(
            f"the package {error.name} is not installed; expected what the gateway runs on; "
            "run: pip install 'event-processor[gateway]'"
        ) from None
    run(settings)
