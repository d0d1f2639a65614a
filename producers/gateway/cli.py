"""The commands `producers gateway …`: one per protocol; each exits with 0 after a stop."""

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

import click

from processor.errors import SettingsError
from processor.runtime import logs
from processor.runtime.process_tuning import tune_process
from processor.settings import GatewaySettings

_EXTRA = frozenset(
    (
        "uvicorn",
        "uvloop",
        "httptools",
        "grpc",
        "grpc_health",
        "grpc_reflection",
        "google",
    )
)
"""Packages that the extra `gateway` installs."""


@click.group()
def gateway() -> None:
    """Take events from producers that don't speak SQS, and put them on the queue.

    The sender hears that an event was taken once SQS has confirmed it, and not before. An event that is sent
    again counts once if it has an id, in its body or beside it (such as Idempotency-Key).
    """


def _options(port_setting: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give the options of every gateway; `port_setting` names the setting of its default port."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(
            (
                click.option(
                    "--host", metavar="ADDRESS", help="Listen on this address, instead of GATEWAY_HOST."
                ),
                click.option(
                    "--port",
                    type=click.IntRange(0, 65_535),
                    help=f"Listen on this port, instead of {port_setting}; 0: any.",
                ),
                click.option(
                    "--json-logs/--console-logs",
                    "json_logs",
                    default=None,
                    help="Log as JSON or for people, instead of what LOG_FORMAT says.",
                ),
            )
        ):
            command = option(command)
        return command

    return add


@gateway.command()
@_options("GATEWAY_PORT")
def http(host: str | None, port: int | None, json_logs: bool | None) -> None:
    """Take events over HTTP: POST /ingest (pulses) and POST /v1/events (all else), until SIGTERM or Ctrl-C.

    \b
    curl http://127.0.0.1:8090/ingest -H 'Authorization: Bearer ep_...' -H 'Idempotency-Key: my-1' \\
      -H 'Content-Type: application/json' \\
      -d '{"tenant_id": "acme", "product_sku": "storage", "used_amount": 1.5, "use_unity": "GB"}'

    After a stop nothing new is taken, and what was taken is answered within STOP_TIMEOUT_S; a second stop
    ends at once. /docs explains each route; /livez, /readyz and /metrics are for monitoring. The server
    speaks no TLS: put a proxy that does in front of it.

    \b
    Exit codes: 0 told to stop   1 failed   2 bad usage or settings (a port that is taken, too)
                4 what it needs can't be reached
    """  # noqa: D301 - click's mark for lines to be left as they are
    _run("producers.gateway.http.server", json_logs, gateway_host=host, gateway_port=port)


@gateway.command()
@_options("GATEWAY_GRPC_PORT")
@click.option(
    "--compat",
    type=click.Choice(["usage-service"]),
    help="Serve UsageService/Consume, too, instead of what GATEWAY_COMPAT says.",
)
def grpc(host: str | None, port: int | None, json_logs: bool | None, compat: str | None) -> None:
    """Take events over gRPC: one, a batch, or a stream of them, until SIGTERM or Ctrl-C.

    \b
    grpcurl -plaintext -H 'authorization: Bearer ep_...' -d '{"event": {"tenant_id": "acme",
      "event_type": "order.created", "id": "o-1", "payload_json": "{\\"total\\": 12.50}"}}'
      127.0.0.1:50051 eventprocessor.ingest.v1.Ingest/Ingest

    producers/protos/ingest.proto explains all of it, and the server tells it by reflection. Health is
    grpc.health.v1; /livez, /readyz and /metrics are on GATEWAY_PROBES_PORT.

    After a stop nothing new is taken, and what was taken is answered within STOP_TIMEOUT_S; a second stop
    ends at once. The server speaks no TLS: put a proxy that does in front of it.

    \b
    Exit codes: 0 told to stop   1 failed   2 bad usage or settings (a port that is taken, too)
                4 what it needs can't be reached
    """  # noqa: D301 - click's mark for lines to be left as they are
    # gRPC's C core reads this variable when it is loaded. Its messages bypass the log and are not bounded.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    _run(
        "producers.gateway.grpc.server",
        json_logs,
        gateway_host=host,
        gateway_grpc_port=port,
        gateway_compat=compat,
    )


def _run(server: str, json_logs: bool | None, **given: Any) -> None:  # noqa: ANN401 - whatever settings are
    """Run the gateway in module `server` by the settings; `given` overrides them."""
    if json_logs is not None:
        given["log_format"] = "json" if json_logs else "console"
    settings = GatewaySettings.load(**{name: value for name, value in given.items() if value is not None})
    logs.configure(settings.log_format, settings.log_level)
    try:
        # Imported here: the server's packages belong to an optional extra.
        run = import_module(server).run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise SettingsError(
            f"the package {error.name} is not installed; expected what the gateway runs on; "
            "run: pip install 'sqs-event-processor[gateway]'"
        ) from None
    # A garbage collection stops all threads, and parsing one large body caused a hundred collections.
    tune_process("off", 0)
    run(settings)
