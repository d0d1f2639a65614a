"""One hostile tenant, and clients without any key, at every door; the others go on as if nobody were there.

    quiet tenants ─▶ HTTP, gRPC (kept and new connections), the queue ─▶ as quick as before, none refused
    mallory       ─▶ HTTP, gRPC, the queue, psql ✗

Every attack is a process of its own (`tests.faults.hostile`). Delays are compared with those of a calm phase just
before, on the same machine.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import grpc
from pydantic import SecretStr

from processor.devstack.children import free_port
from processor.registry import add_key, add_tenant, publish_schema
from producers.doors.grpc import GrpcDoor
from producers.doors.http import HttpDoor
from producers.doors.sqs import SqsDoor
from producers.gateway.protos.ingest_pb2_grpc import IngestStub
from tests.faults.field import Field, ScenarioFailed, environment
from tests.faults.fleet import Fleet
from tests.faults.hostile import ATTACKS, DEAR_SCHEMA, Target
from tests.faults.neighbours import Figures, Neighbour, figures
from tests.faults.run import Scenario

_GATEWAY_LOGIN = "gateway"
_MALLORY = "mallory"
_QUIET = ("quiet-http", "quiet-grpc", "quiet-sqs")
_SETTLE_S = 3.0
_ANSWER_S_MAX = 60.0

_STORED_AT = """
SELECT message_id, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM message
WHERE tenant_id = ANY (%(tenants)s)
"""


@dataclass
class _Town:
    """Who lives here: quiet tenants, and what their hostile neighbour may use."""

    target: Target
    neighbours: list[Neighbour]


_TOWNS: dict[int, _Town] = {}


def _settle(field: Field) -> None:
    """Start both gateways, with keys for all, past the proxies: their threads would be what is measured."""
    straight = dict(field.fleet.environment) | {
        "DATABASE_URL": field.postgres.url("events").replace("postgres@", "chaos@", 1),
        "AWS_ENDPOINT_URL": field.sqs.endpoint_url,
    }
    field.fleet.environment = straight
    keys = {}
    with field.admin() as admin:
        for tenant in (*_QUIET, _MALLORY):
            add_tenant(admin, tenant)
            keys[tenant] = add_key(admin, tenant)[1]
        publish_schema(admin, "dear", DEAR_SCHEMA, None)
        admin.execute(f"CREATE ROLE {_GATEWAY_LOGIN} LOGIN IN ROLE processor_gateway")
        admin.execute(f"CREATE ROLE {_MALLORY} LOGIN IN ROLE processor_tenant_reader")
        admin.execute("INSERT INTO tenant_reader VALUES (%(name)s, %(name)s)", {"name": _MALLORY})
    ports = {"http": free_port(), "grpc": free_port()}
    gateway = straight | {
        "DATABASE_URL": straight["DATABASE_URL"].replace("chaos@", f"{_GATEWAY_LOGIN}@", 1),
        "GATEWAY_PORT": str(ports["http"]),
        "GATEWAY_GRPC_PORT": str(ports["grpc"]),
        "GATEWAY_PROBES_PORT": "0",
        # A quarter of what is usual, so that a machine of two cores can fill it.
        "GATEWAY_REQUESTS_MAX": "1000",
        "GATEWAY_TENANT_RATES": json.dumps({_MALLORY: 200}),
    }
    field.gateways = Fleet(2, gateway, field.folder / "gateway.log")
    field.gateways.command = lambda place: ["producers", "gateway", ("http", "grpc")[place]]
    field.cleanup.callback(field.gateways.stop)
    field.gateways.start()
    target = Target(
        ports["http"],
        ports["grpc"],
        keys[_MALLORY],
        field.queue_url,
        straight["DATABASE_URL"].replace("chaos@", f"{_MALLORY}@", 1),
    )
    _TOWNS[id(field)] = _Town(target, _neighbours(field, target, keys))
    field.cleanup.callback(lambda: _TOWNS.pop(id(field)))


def _neighbours(field: Field, target: Target, keys: dict[str, str]) -> list[Neighbour]:
    def over_http() -> HttpDoor:
        return HttpDoor(f"http://127.0.0.1:{target.http}", SecretStr(keys["quiet-http"]), senders=1)

    def over_grpc() -> GrpcDoor:
        door = GrpcDoor(f"127.0.0.1:{target.grpc}", keys["quiet-grpc"])
        # Channels to one address share a connection, unless they are told not to.
        door._channel = grpc.insecure_channel(
            f"127.0.0.1:{target.grpc}", (("grpc.use_local_subchannel_pool", 1),)
        )
        door._stub = IngestStub(door._channel)
        return door

    def over_sqs() -> SqsDoor:
        return SqsDoor(field.sqs.client(), field.queue_url)

    made = [
        Neighbour("http", "quiet-http", over_http, 20, True, field.folder / "http.jsonl"),
        Neighbour("http, new", "quiet-http", over_http, 5, False, field.folder / "http-new.jsonl"),
        Neighbour("grpc", "quiet-grpc", over_grpc, 20, True, field.folder / "grpc.jsonl"),
        Neighbour("grpc, new", "quiet-grpc", over_grpc, 5, False, field.folder / "grpc-new.jsonl"),
        Neighbour("sqs", "quiet-sqs", over_sqs, 10, True, field.folder / "sqs.jsonl"),
    ]
    field.load.more_manifests += [one.manifest for one in made]
    return made


# ── phases ────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _attacked(field: Field, target: Target, attacks: Sequence[str]) -> Iterator[None]:
    """Let these attacks go on while the block runs."""
    environment = dict(os.environ) | {"HOSTILE_TARGET": json.dumps(asdict(target))}
    log = field.folder / "hostile.log"
    with ExitStack() as ended, log.open("ab") as file:
        processes = {}
        for name in attacks:
            command = [sys.executable, "-m", "tests.faults.hostile", name]
            processes[name] = process = subprocess.Popen(command, env=environment, stderr=file, stdout=file)
            ended.callback(process.wait)
            ended.callback(process.kill)
        yield
        if gone := [name for name, process in processes.items() if process.poll() is not None]:
            raise ScenarioFailed(f"these attacks ended by themselves: {gone}\n{log.read_text()[-2000:]}")


def _phase(field: Field, seconds: float) -> tuple[float, float]:
    since = time.time()
    field.pause(seconds, seconds)
    return since, time.time()


Served = dict[str, Figures]


def _served(field: Field, town: _Town, phases: Sequence[tuple[float, float]]) -> Served:
    """Say how each neighbour was served by its events of these phases, once all have come to the table."""

    def chosen(one: Neighbour) -> list:
        return [each for each in one.sent if any(since <= each.due_at < until for since, until in phases)]

    give_up_at = time.monotonic() + _ANSWER_S_MAX
    while True:
        with field.admin() as admin:
            stored_at = dict(admin.execute(_STORED_AT, {"tenants": list(_QUIET)}).fetchall())
        missing = [each for one in town.neighbours for each in chosen(one) if each.message_id not in stored_at]
        # Whoever had to wait for one answer sends the others late, and they count.
        late = [one.name for one in town.neighbours if one.sent[-1].due_at < phases[-1][1]]
        if not (missing or late) or time.monotonic() > give_up_at:
            return {one.name: figures(chosen(one), stored_at) for one in town.neighbours if chosen(one)}
        field.pause(0.2, 0.2)


def _said(title: str, calm: Served, hostile: Served) -> str:
    lines = []
    for name in hostile:
        lines.append(f"| {title} | {name} | calm | {calm[name].text()} |")
        lines.append(f"| {title} | {name} | hostile | {hostile[name].text()} |")
    return "\n".join(lines)


HEADING = (
    "| attack | neighbour | phase | events | answer p50, ms | p99 | commit p50, ms | p99 | refusals |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def one_after_the_other(field: Field) -> None:
    """Let each attack go on by itself for some seconds, each after a calm phase of its own; figures alone."""
    town = _TOWNS[id(field)]
    out = Path(os.environ.get("FAIRNESS_FIGURES", field.folder / "figures.md"))
    chosen = os.environ.get("FAIRNESS_ATTACKS", "").split() or list(ATTACKS)
    out.write_text(HEADING + "\n")
    for one in town.neighbours:
        one.start()
    field.pause(_SETTLE_S, _SETTLE_S)
    for name in chosen:
        calm = [_phase(field, 5)]
        with field.fault(), _attacked(field, town.target, [name]):
            field.pause(_SETTLE_S, _SETTLE_S)
            hostile = [_phase(field, 8)]
        said = _said(name, _served(field, town, calm), _served(field, town, hostile))
        with out.open("a") as file:
            file.write(said + "\n")
        field.pause(1, 1)
    for one in town.neighbours:
        one.stop(_ANSWER_S_MAX)


def _scenario(scenario: Scenario) -> Scenario:
    return replace(scenario, family="fairness", prepare=_settle)


SCENARIOS = [
    _scenario(Scenario("one attack after the other", "", one_after_the_other, rounds=1, rate=20)),
]
