"""A hostile tenant, and clients without a key, attack every interface; the other tenants are not affected.

    quiet tenants ─▶ HTTP, gRPC (kept and new connections), the queue ─▶ as quick as before, none refused
    mallory       ─▶ HTTP, gRPC, the queue, psql ✗

Every attack is a process of its own (`tests.chaos.hostile`). Delays are compared with those of a phase
without attacks just before, on the same machine.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from urllib.parse import urlsplit

import click
import grpc
from pydantic import SecretStr

from processor.devstack.servers.children import free_port
from processor.operations.registry import add_key, add_tenant, publish_schema
from producers.protos.ingest_pb2_grpc import IngestStub
from producers.publishers.grpc import GrpcPublisher
from producers.publishers.http import HttpPublisher
from producers.publishers.sqs import SqsPublisher
from tests.bench.ground import TOOLS
from tests.bench.queue.queues import QueueServer
from tests.chaos.field import DATABASE, LOGIN, Field, ScenarioFailed
from tests.chaos.fleet import Fleet
from tests.chaos.hostile import Target
from tests.chaos.hostile.attacks import ATTACKS
from tests.chaos.hostile.bodies import DEAR_SCHEMA
from tests.chaos.run import Scenario
from tests.chaos.traffic.neighbours import Figures, Neighbour, Sent, figures
from tests.chaos.traffic.soak_load import LeanClient

_GATEWAY_LOGIN = "gateway"
_MALLORY = "mallory"
_LOGINS = (_MALLORY, "mallory_too")
_QUIET = ("quiet-http", "quiet-grpc", "quiet-sqs")
_SETTLE_S = 3.0
_ONSET_S = 6.0
"""Attackers start together: what the start of so many programs costs is this machine's affair."""
_ANSWER_S_MAX = 60.0
_FOR_A_REPLICA = ("psql_heavy",)
"""PostgreSQL has no quota of CPU: the recipe against long questions is a server of their own."""
_LATE_S = 1.0
_BACKLOG_MAX = 50
_NOISE_S = 0.1
"""What a p99 may come to by itself on a machine that carries servers, attackers and neighbours."""

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


@dataclass(frozen=True)
class _Books:
    """How much the benchmark's queue server still has."""

    queue: QueueServer
    queue_url: str

    def depth(self) -> dict[str, int]:
        return {"visible": self.queue.depth(self.queue_url)}

    def depth_with_dead_letters(self) -> dict[str, int]:
        return self.depth()


def _settle(field: Field) -> None:
    """Start both gateways, with keys for all, past the proxies and on the benchmark's queue server.

    It is the quickest that there is: a slow one that all share would be what is measured.
    """
    queue = field.cleanup.enter_context(QueueServer("own", field.folder, TOOLS))
    queue_url = queue.create("events")
    field.books = _Books(queue, queue_url)
    field.load.publisher = SqsPublisher(LeanClient(queue.endpoint_url), queue_url)
    straight = dict(field.fleet.environment) | {
        "DATABASE_URL": field.postgres.url(DATABASE, LOGIN),
        "AWS_ENDPOINT_URL": queue.endpoint_url,
        "SQS_QUEUE_URL": queue_url,
    }
    field.fleet.environment = straight
    keys = {}
    with field.admin() as admin:
        for tenant in (*_QUIET, _MALLORY):
            add_tenant(admin, tenant)
            keys[tenant] = add_key(admin, tenant)[1]
        publish_schema(admin, "dear", DEAR_SCHEMA, None)
        admin.execute(f"CREATE ROLE {_GATEWAY_LOGIN} LOGIN IN ROLE processor_gateway")
        # As docs/reference/roles.md says: without a limit one login may take all connections that there are.
        for login in _LOGINS:
            admin.execute(f"CREATE ROLE {login} LOGIN CONNECTION LIMIT 8 IN ROLE processor_tenant_reader")
            admin.execute("INSERT INTO tenant_reader VALUES (%s, %s)", (login, _MALLORY))
    ports = {"http": free_port(), "grpc": free_port()}
    gateway = straight | {
        "DATABASE_URL": field.postgres.url(DATABASE, _GATEWAY_LOGIN),
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
        queue_url,
        field.postgres.url(DATABASE, _LOGINS[0]),
        field.postgres.url(DATABASE, _LOGINS[1]),
    )
    _TOWNS[id(field)] = _Town(target, _neighbours(field, target, keys))
    field.cleanup.callback(lambda: _TOWNS.pop(id(field)))


def _neighbours(field: Field, target: Target, keys: dict[str, str]) -> list[Neighbour]:
    parts = urlsplit(target.queue_url)

    def over_http() -> HttpPublisher:
        return HttpPublisher(f"http://127.0.0.1:{target.http}", SecretStr(keys["quiet-http"]))

    def over_grpc() -> GrpcPublisher:
        publisher = GrpcPublisher(f"127.0.0.1:{target.grpc}", keys["quiet-grpc"])
        # Channels to one address share a connection, unless they are told not to.
        publisher._channel = grpc.insecure_channel(
            f"127.0.0.1:{target.grpc}", (("grpc.use_local_subchannel_pool", 1),)
        )
        publisher._stub = IngestStub(publisher._channel)
        return publisher

    def over_sqs() -> SqsPublisher:
        return SqsPublisher(LeanClient(f"{parts.scheme}://{parts.netloc}"), target.queue_url)

    made = [
        Neighbour("http", "quiet-http", over_http, 8, field.folder / "http.jsonl", keeps=True),
        Neighbour("http, new", "quiet-http", over_http, 4, field.folder / "http-new.jsonl", keeps=False),
        Neighbour("grpc", "quiet-grpc", over_grpc, 8, field.folder / "grpc.jsonl", keeps=True),
        Neighbour("grpc, new", "quiet-grpc", over_grpc, 4, field.folder / "grpc-new.jsonl", keeps=False),
        Neighbour("sqs", "quiet-sqs", over_sqs, 8, field.folder / "sqs.jsonl", keeps=True),
    ]
    field.load.more_manifests += [one.manifest for one in made]
    return made


def _chosen() -> list[str]:
    """Name the attacks to try: all, or what FAIRNESS_ATTACKS has."""
    return os.environ.get("FAIRNESS_ATTACKS", "").split() or list(ATTACKS)


# ── phases ────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _attacked(field: Field, target: Target, attacks: Sequence[str]) -> Iterator[None]:
    """Let these attacks go on while the block runs."""
    named = dict(os.environ) | {"HOSTILE_TARGET": json.dumps(asdict(target))}
    log = field.folder / "hostile.log"
    with ExitStack() as ended, log.open("ab") as file:
        processes = {}
        for name in attacks:
            command = [sys.executable, "-m", "tests.chaos.hostile", name]
            processes[name] = process = subprocess.Popen(command, env=named, stderr=file, stdout=file)
            ended.callback(process.wait)
            ended.callback(process.kill)
        yield
        if gone := [name for name, process in processes.items() if process.poll() is not None]:
            raise ScenarioFailed(f"these attacks ended by themselves: {gone}\n{log.read_text()[-2000:]}")


def _phase(field: Field, seconds: float) -> tuple[float, float]:
    since = time.time()
    field.pause(seconds, seconds)
    return since, time.time()


def _recover(field: Field, town: _Town) -> None:
    """Wait until nobody is late any more: what an attack leaves behind is no calm."""
    field.wait_until(
        lambda: (
            all(one.sent[-1].due_at > time.time() - _LATE_S for one in town.neighbours)
            and field.depths().depth()["visible"] <= _BACKLOG_MAX
        ),
        "all have recovered from the attack",
        wait_s=_ANSWER_S_MAX,
    )
    field.pause(_SETTLE_S, _SETTLE_S)


Served = dict[str, Figures]


def _served(field: Field, town: _Town, phases: Sequence[tuple[float, float]]) -> Served:
    """Say how each neighbour was served by its events of these phases, once all have come to the table."""

    def chosen(one: Neighbour) -> list[Sent]:
        return [each for each in one.sent if any(since <= each.due_at < until for since, until in phases)]

    give_up_at = time.monotonic() + _ANSWER_S_MAX
    while True:
        with field.admin() as admin:
            stored_at = dict(admin.execute(_STORED_AT, {"tenants": list(_QUIET)}).fetchall())
        missing = [
            each for one in town.neighbours for each in chosen(one) if each.message_id not in stored_at
        ]
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
    """Let each attack go on by itself for some seconds, after a calm phase of its own; shows figures."""
    town = _TOWNS[id(field)]
    click.echo(HEADING)
    with _served_all_the_time(field, town):
        for name in _chosen():
            calm = [_phase(field, 5)]
            with field.fault(), _attacked(field, town.target, [name]):
                field.pause(_ONSET_S, _ONSET_S)
                hostile = [_phase(field, 8)]
            click.echo(_said(name, _served(field, town, calm), _served(field, town, hostile)))
            _recover(field, town)


def all_at_once(field: Field) -> None:
    """Let all attacks go on together for a minute, in rounds with a calm phase before each."""
    town = _TOWNS[id(field)]
    together = [name for name in _chosen() if name not in _FOR_A_REPLICA]
    calm, hostile = [], []
    with _served_all_the_time(field, town):
        for _ in range(field.rounds):
            calm.append(_phase(field, 15))
            with field.fault(), _attacked(field, town.target, together):
                field.pause(_ONSET_S, _ONSET_S)
                hostile.append(_phase(field, 60 / field.rounds))
            _recover(field, town)
        before, during = _served(field, town, calm), _served(field, town, hostile)
    click.echo(f"{HEADING}\n{_said('all', before, during)}")
    for name in during:
        field.complaints += _unfair(name, before[name], during[name])


def _unfair(name: str, calm: Figures, hostile: Figures) -> Iterator[str]:
    if hostile.refusals:
        yield f"{name} was refused: {dict(hostile.refusals)}"
    for what in ("answered_p99_s", "stored_p99_s"):
        before, during = getattr(calm, what), getattr(hostile, what)
        if during > 2 * max(before, _NOISE_S):
            yield f"{name}: {what} went from {before:.3f} to {during:.3f}"


@contextmanager
def _served_all_the_time(field: Field, town: _Town) -> Iterator[None]:
    """Let the neighbours send while the block runs."""
    for one in town.neighbours:
        one.start()
    try:
        field.pause(_SETTLE_S, _SETTLE_S)
        yield
    finally:
        for one in town.neighbours:
            one.stop(_ANSWER_S_MAX)


def _scenario(scenario: Scenario) -> Scenario:
    return replace(scenario, family="fairness", prepare=_settle, rate=20)


SCENARIOS = [
    _scenario(Scenario("one attack after the other", "", one_after_the_other, rounds=1)),
    _scenario(Scenario("all attacks at once", "", all_at_once, rounds=3)),
]
