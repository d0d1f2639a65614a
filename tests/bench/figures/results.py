"""All measurements of one command and the facts of the machine, as a JSON file."""

import dataclasses
import json
import os
import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psycopg

from tests.bench.figures.latency import Latency
from tests.bench.flood import Quiet
from tests.bench.gateway import GATEWAY, Gateways
from tests.bench.ground import TOOLS, Ground
from tests.bench.idle import Idle
from tests.bench.memory import Memory
from tests.bench.queue.node import SQS_CONSUMER, NodeMissing, find_node
from tests.bench.race import Race
from tests.bench.usage import COMPARED, Usage

RESULTS = TOOLS / "results"
PACKAGES = ("boto3", "psycopg", "jsonschema-rs", "orjson", "aws-lambda-powertools")

NOT_COMPARED = (
    "AWS itself: here a call takes no way through a network, no TLS, and nobody checks its signature",
    "several machines, Lambda's own scaling, FIFO queues, a database on another machine",
    "bad events, duplicates and redeliveries: ours keeps and counts them, the peers leave them on the queue",
)


@dataclass(frozen=True)
class Machine:
    """Where and with what it was measured."""

    made_at: str
    processor: str
    cores: int
    memory_gib: float
    system: str
    versions: dict[str, str]
    queue: str


@dataclass
class Results:
    """What was measured so far; the rest is empty."""

    machine: Machine
    race: Race | None = None
    scale: Race | None = None
    latencies: list[Latency] = field(default_factory=list)
    idle: Idle | None = None
    memory: list[Memory] = field(default_factory=list)
    flood: list[Quiet] = field(default_factory=list)
    usage: Usage | None = None
    gateways: Gateways | None = None
    sources: Race | None = None

    def save(self) -> Path:
        """Write the file; its name is the moment of making."""
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"{self.machine.made_at.replace(':', '').replace('-', '')[:15]}.json"
        said = dataclasses.asdict(self) | {"not_compared": NOT_COMPARED}
        for name in ("race", "scale", "sources"):
            result: Race | None = getattr(self, name)
            if result is not None:
                said[name]["summary"] = result.summary()
        if self.usage is not None:
            said["usage"]["race"]["summary"] = self.usage.race.summary()
            said["usage"]["kept"] = {shape: self.usage.kept(shape) for shape in COMPARED}
        if self.gateways is not None:
            race = self.gateways.race
            said["gateways"]["race"]["summary"] = race.summary() | {
                f"{name}, times the gateway": race.ratio(name, GATEWAY) for name in race.names
            }
        path.write_text(json.dumps(said, indent=2) + "\n")
        return path


def describe(ground: Ground) -> Machine:
    """Describe this machine and the versions of what takes part."""
    with psycopg.connect(ground.postgres.url()) as connection:
        row = connection.execute("SHOW server_version").fetchone()
    versions = {"Python": platform.python_version(), "PostgreSQL": "?" if row is None else row[0].split()[0]}
    try:
        versions["Node"] = find_node().version().removeprefix("v")
        versions |= {name: number for name, _, number in (one.rpartition("@") for one in SQS_CONSUMER)}
    except NodeMissing:
        versions["Node"] = "missing"
    return Machine(
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3, 1),
        system=f"{platform.system()} {platform.release()}",
        versions=versions | {name: _version(name) for name in PACKAGES},
        queue=ground.queue.kind,
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _processor() -> str:
    lines: list[Any] = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
