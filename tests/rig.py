"""A stack of real servers, with the processor and the producers as children of the test."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from processor.devstack.servers.children import free_port
from processor.devstack.stack import BAD_SHARES, Stack
from processor.operations.audit import AuditReport, audit
from processor.sources.sqs.source import SqsSource

VISIBILITY_S = 3
BUSY_MIN = 100
"""Messages still queued that count as busy."""


@dataclass
class Rig:
    """A stack, the processor of the moment, and the manifests of all that was sent."""

    stack: Stack
    directory: Path
    manifests: list[Path] = field(default_factory=list)
    processor: subprocess.Popen[bytes] | None = None
    http_port: int = 0

    def source(self) -> SqsSource:
        return SqsSource(self.stack.sqs.client(), self.stack.queue_url, "events", visibility_timeout_s=1)

    def environment(self) -> dict[str, str]:
        return (
            os.environ
            | self.stack.settings()
            | {
                "HTTP_PORT": str(self.http_port),
                "VISIBILITY_TIMEOUT_S": str(VISIBILITY_S),
                "RECEIVE_WAIT_S": "1",
                "LOG_FORMAT": "console",
                "RETRY_WAIT_S_MAX": "0.5",
            }
        )

    def start_processor(self, *options: str) -> subprocess.Popen[bytes]:
        with (self.directory / "processor.log").open("ab") as log:
            self.processor = subprocess.Popen(
                [sys.executable, "-m", "processor", "run", *options], env=self.environment(), stderr=log
            )
        return self.processor

    def log(self) -> str:
        return (self.directory / "processor.log").read_text()

    def ready(self, place: int = 0) -> tuple[int, str]:
        """What /readyz of the process at this place answers; 0 where nothing listens yet."""
        url = f"http://127.0.0.1:{self.http_port + place}/readyz"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str) -> float:
        """The sum of a metric's series."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def sessions(self) -> int:
        """How many connections to the database the processor has."""
        with psycopg.connect(self.stack.database_url, autocommit=True) as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'event-processor'"
            ).fetchone()
        return 0 if row is None else int(row[0])

    def kill_processor(self) -> None:
        assert self.processor is not None
        self.processor.send_signal(signal.SIGKILL)
        assert self.processor.wait(10) == -signal.SIGKILL

    def send(self, seed: int, events: int) -> subprocess.Popen[bytes]:
        """Start the fake producers; what they send is noted in a manifest."""
        manifest = self.directory / f"manifest-{seed}.jsonl"
        self.manifests.append(manifest)
        options = ["--events", str(events), "--seed", str(seed), "--manifest", str(manifest)]
        return subprocess.Popen(
            [sys.executable, "-m", "producers", "fake", *options, *BAD_SHARES],
            env=self.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait_until_busy(self) -> None:
        """Return while deliveries are held and messages still queued."""
        source, give_up_at = self.source(), time.monotonic() + 30
        while True:
            depth = source.depth()
            if depth["in_flight"] and depth["visible"] > BUSY_MIN:
                return
            assert time.monotonic() < give_up_at, f"never busy: {depth}"

    def wait_until_empty(self) -> None:
        source = self.source()
        wait_until(lambda: not sum(source.depth().values()), "the queue is empty", wait_s=60)

    def audit(self) -> AuditReport:
        with psycopg.connect(self.stack.database_url, autocommit=True) as connection:
            return audit(connection, self.manifests, self.source().depth_with_dead_letters)


def wait_until(condition: Callable[[], bool], what: str, *, wait_s: float = 30) -> None:
    give_up_at = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < give_up_at, f"waited in vain until {what}"
        time.sleep(0.05)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    # Fixed ports, so that a server that was away comes back where it was.
    stack = Stack(tmp_path / "stack", postgres_port=free_port(), sqs_port=free_port(), fsync=False)
    rig = Rig(stack, tmp_path, http_port=free_port())
    try:
        stack.start()
        yield rig
    finally:
        if rig.processor is not None and rig.processor.poll() is None:
            rig.processor.kill()
            rig.processor.wait()
        stack.stop()
