"""The demo's events, while the processor is killed with -9 twenty times; the audit must hold after each.

Nobody stops for the killing: events go on being sent, the next process begins on the same data at once.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from processor.audit import Report, audit
from processor.devstack.stack import BAD_SHARES, Stack
from processor.sources.sqs import SqsSource

KILLS = 20
EVENTS_PER_KILL = 500
VISIBILITY_S = 3


@dataclass
class Rig:
    """A stack, the processor of the moment, and the manifests of all that was sent."""

    stack: Stack
    directory: Path
    manifests: list[Path] = field(default_factory=list)
    processor: subprocess.Popen[bytes] | None = None

    def source(self) -> SqsSource:
        return SqsSource(self.stack.sqs.client(), self.stack.queue_url, "events", visibility_timeout_s=1)

    def environment(self) -> dict[str, str]:
        return (
            os.environ
            | self.stack.settings()
            | {
                "HTTP_PORT": "0",
                "VISIBILITY_TIMEOUT_S": str(VISIBILITY_S),
                "RECEIVE_WAIT_S": "1",
                "LOG_FORMAT": "console",
            }
        )

    def start_processor(self) -> None:
        with (self.directory / "processor.log").open("ab") as log:
            self.processor = subprocess.Popen(
                [sys.executable, "-m", "processor", "run"], env=self.environment(), stderr=log
            )

    def kill_processor(self) -> None:
        assert self.processor is not None
        self.processor.send_signal(signal.SIGKILL)
        assert self.processor.wait(10) == -signal.SIGKILL

    def send(self, seed: int) -> subprocess.Popen[bytes]:
        """Start the fake producers; what they send is noted in a manifest."""
        manifest = self.directory / f"manifest-{seed}.jsonl"
        self.manifests.append(manifest)
        options = ["--events", str(EVENTS_PER_KILL), "--seed", str(seed), "--manifest", str(manifest)]
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
            if depth["in_flight"] and depth["visible"] > EVENTS_PER_KILL // 5:
                return
            assert time.monotonic() < give_up_at, f"never busy: {depth}"

    def wait_until_empty(self) -> None:
        source, give_up_at = self.source(), time.monotonic() + 60
        while sum(source.depth().values()):
            assert time.monotonic() < give_up_at, f"the queue does not empty: {source.depth()}"
            time.sleep(0.1)

    def audit(self) -> Report:
        with psycopg.connect(self.stack.database_url, autocommit=True) as connection:
            return audit(connection, self.manifests, self.source().depth_with_dead_letters)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    stack = Stack(tmp_path / "stack", fsync=False)
    rig = Rig(stack, tmp_path)
    try:
        stack.start()
        yield rig
    finally:
        if rig.processor is not None and rig.processor.poll() is None:
            rig.processor.kill()
            rig.processor.wait()
        stack.stop()


@pytest.mark.timeout(400)
def test_twenty_kills_lose_nothing_and_double_nothing(rig: Rig, pytestconfig: pytest.Config) -> None:
    chaos_seed = random.SystemRandom().randrange(1_000_000)
    terminal = pytestconfig.pluginmanager.getplugin("terminalreporter")
    terminal.write_line(f"chaos seed {chaos_seed}; event seeds {chaos_seed} to {chaos_seed + KILLS - 1}")
    chance = random.Random(chaos_seed)

    for kill in range(KILLS):
        rig.start_processor()
        producers = rig.send(chaos_seed + kill)
        rig.wait_until_busy()
        time.sleep(chance.uniform(0, 0.1))
        rig.kill_processor()
        depth = rig.source().depth()
        assert depth["in_flight"], "deliveries were held when it was killed"
        assert depth["visible"], "and messages were still queued"
        assert producers.wait(60) == 0
        report = rig.audit()
        assert report.holds, report.text()

    rig.start_processor()
    rig.wait_until_empty()
    report = rig.audit()
    assert report.holds, report.text()
    assert report.accepted is not None
    assert report.accepted["accepted"] == KILLS * EVENTS_PER_KILL
    assert report.accepted["missing"] == 0
    assert report.outcomes["duplicate"] > 0
    assert report.outcomes["rejection_open"] > 0
