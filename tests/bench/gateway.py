"""The HTTP gateway under load: at a steady rate with everything behind it, and alone against its floor.

    load ─▶ gateway ─▶ queue ─▶ processor ─▶ PostgreSQL       all on this machine, at a constant rate
    load ─▶ floor │ gateway │ plain handler ─▶ queue          as fast as each can, in turn, round by round

The queue server is the one of all load tests: the devstack's would be the bottleneck. Every event that was
answered by 202 must be on the queue or in the table, otherwise no figure is reported.
"""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

from processor.devstack.servers.children import Child, free_port
from processor.operations import registry
from tests.bench import events
from tests.bench.contestants import Contestant, ours
from tests.bench.faults import AuditFailed, LoadError
from tests.bench.figures import measures
from tests.bench.figures.rounds import Figures, audit, running, tag, wait_for_depth
from tests.bench.ground import Arena, Ground
from tests.bench.race import Entry, Race, race
from tests.bench.waiting import wait_until

GATEWAY, FLOOR, PLAIN = "gateway", "floor: answers 202", "plain FastAPI handler"
STREAM = "gRPC gateway, streams"
START_S = 20.0
GRACE_S = 60.0
WARM_UP_S = 2.0
MORE_THAN_ANY = 40_000
"""Requests a second that nobody here can answer."""


@dataclass(frozen=True)
class Sustained:
    """A constant rate with everything on this machine. Delays in milliseconds, from when each was due.

    CPU in microseconds for each pulse: of the gateway, the processor, the database, the queue server and the
    load producer.
    """

    rate_per_s: int
    seconds: int
    sent: int
    accepted: int
    accepted_per_s: float
    stored: int
    delay_ms: dict[str, float]
    emptied_s: float
    cpu_us: dict[str, float]

    @property
    def lost(self) -> int:
        """How many were accepted and are not in the table."""
        return self.accepted - self.stored


@dataclass
class Gateways:
    """What the gateway has shown."""

    sustained: list[Sustained] = field(default_factory=list)
    race: Race = field(default_factory=Race)


def gateway(
    ground: Ground, rate: int, seconds: int, rounds: int, say: Callable[[str], None] = print
) -> Gateways:
    """Hold the rate for so many seconds, then race."""
    found = Gateways()
    found.sustained.append(one := sustain(ground, rate, seconds))
    say(
        f"{one.rate_per_s:,}/s for {one.seconds} s: accepted {one.accepted:,} ({one.accepted_per_s:,.0f}/s), "
        f"p50 {one.delay_ms['p50']:.1f} ms, p99 {one.delay_ms['p99']:.1f} ms, lost {one.lost}"
    )
    found.race = race(ground, [contend(name) for name in (GATEWAY, FLOOR, PLAIN, STREAM)], rounds, 0, say)
    return found


def sustain(ground: Ground, rate: int, seconds: int, tenants: int = events.METERED_TENANTS) -> Sustained:
    """Send at this rate through everything. Raises AuditFailed unless each accepted pulse is one row."""
    with ground.arena(f"gateway-{rate}") as arena:
        prepare(arena, tenants)
        with running(ground, ours(), arena) as processor, serving(ground, arena, GATEWAY) as (server, url):
            pids = {
                "gateway": server.pid,
                "processor": processor.pid,
                "database": ground.postgres.pid or 0,
                "queue": ground.queue.pid,
            }
            options = ("--rate", str(rate), "--tenants", str(tenants))
            # Another seed, and so other pulses.
            warm = load(arena, url, WARM_UP_S, *options, "--seed", "1")
            before = {name: measures.cpu_s(pid) for name, pid in pids.items()}
            said = load(arena, url, seconds, *options, "--seed", "2")
            sent_at_s = time.monotonic()
            wait_for_depth(ground, processor, arena, 0)
            emptied_s = time.monotonic() - sent_at_s
            used_s = {name: measures.cpu_s(pid) - before[name] for name, pid in pids.items()}
        stored = _stored(arena) - warm["accepted"]
        audit(arena, warm["accepted"] + said["accepted"])
    used_s["load"] = said["cpu_s"]
    return Sustained(
        rate,
        seconds,
        said["sent"],
        said["accepted"],
        said["accepted_per_s"],
        stored,
        said["delay_ms"],
        emptied_s,
        {name: used / max(said["accepted"], 1) * 1e6 for name, used in used_s.items()},
    )


def contend(name: str, seconds: float = 5.0) -> Entry:
    """Let one server answer as fast as it can, with 32 requests on their way all the time."""

    def run(ground: Ground, _messages: int) -> Figures:
        with ground.arena(tag(name)) as arena, serving(ground, arena, name) as (server, url):
            warm = _flat_out(arena, name, url, WARM_UP_S)
            queue_before_s, before_s = measures.cpu_s(ground.queue.pid), measures.cpu_s(server.pid)
            said = _flat_out(arena, name, url, seconds)
            used_s = measures.cpu_s(server.pid) - before_s
            queue_s = measures.cpu_s(ground.queue.pid) - queue_before_s
            rss_mib = measures.rss_peak_mib(server.pid)
            accepted = warm["accepted"] + said["accepted"]
            if name != FLOOR and (depth := ground.queue.depth(arena.queue_url)) < accepted:
                raise AuditFailed(f"{name} has said yes to {accepted} pulses, and {depth} are on the queue")
        thousands = max(said["accepted"], 1) / 1000
        return Figures(
            said["accepted"],
            said["accepted_per_s"],
            used_s / thousands,
            queue_cpu_s=queue_s / thousands,
            rss_peak_mib=rss_mib,
        )

    return Entry(name, run)


def _flat_out(arena: Arena, name: str, url: str, seconds: float) -> dict[str, Any]:
    """Have 32 pulses on their way all the time."""
    if name != STREAM:
        options = ("--rate", str(MORE_THAN_ANY), "--connections", "32", "--timeout", "2")
        return load(arena, url, seconds, *options)
    words = ("tests.bench.contestants.grpc_load", url, str(seconds), "4", "8")
    return _report(arena, words, seconds)


def prepare(arena: Arena, tenants: int) -> None:
    """Add the tenants of the load and the schema of a pulse."""
    with psycopg.connect(arena.database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO tenant (tenant_id, name)"
            " SELECT 'tenant-' || to_char(number, 'FM0000'), 'load' FROM generate_series(1, %s) AS number",
            (tenants,),
        )
        registry.publish_schema(connection, events.PULSE, events.PULSE_SCHEMA)
        connection.execute("VACUUM ANALYZE")


@contextmanager
def serving(ground: Ground, arena: Arena, name: str) -> Iterator[tuple[Child, str]]:
    """Start a server that takes pulses; gives it and its URL once it answers."""
    port, probes_port = free_port(), free_port()
    words = {
        STREAM: ("producers", "gateway", "grpc", "--port", str(port)),
        GATEWAY: ("producers", "gateway", "http", "--port", str(port)),
        FLOOR: ("tests.bench.contestants.http_floor", str(port)),
        PLAIN: ("tests.bench.contestants.http_plain", str(port)),
    }[name]
    # Over gRPC nobody asks by HTTP: its probes have a port of their own.
    probes = {"HTTP_PORT": str(probes_port), "GATEWAY_PROBES_PORT": str(probes_port)}
    contestant = Contestant(name, (sys.executable, "-m", *words), {"GATEWAY_KEYS": "off"} | probes)
    asked = f"http://127.0.0.1:{probes_port if name == STREAM else port}"
    with running(ground, contestant, arena) as child:
        wait_until(lambda: _answers(child, asked), START_S, f"{name} to be ready")
        yield child, f"127.0.0.1:{port}" if name == STREAM else f"http://127.0.0.1:{port}"


def _answers(child: Child, url: str) -> bool:
    if child.exit_code() is not None:
        raise LoadError(f"{child.name} ended with {child.exit_code()}; it said:{child.log_tail()}")
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
            return int(answer.status) < 300
    except (urllib.error.URLError, OSError):
        return False


def load(arena: Arena, url: str, seconds: float, *options: str) -> dict[str, Any]:
    """Run the load producer to its end; gives its report. What was refused or late is in it."""
    words = ("producers", "load", "--url", url, "--duration", str(seconds), "--json", *options)
    return _report(arena, words, seconds)


def _report(arena: Arena, words: tuple[str, ...], seconds: float) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", *words],
        env=arena.environment,
        cwd=arena.environment["PYTHONPATH"],
        capture_output=True,
        timeout=seconds + GRACE_S,
        check=False,
    )
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise LoadError(f"the load producer failed: {done.stderr.decode().strip()[-500:]}") from None
    return found


def _stored(arena: Arena) -> int:
    with psycopg.connect(arena.database_url) as connection:
        row = connection.execute("SELECT count(*) FROM message").fetchone()
    return 0 if row is None else int(row[0])
