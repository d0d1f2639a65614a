"""Processes of `processor run` on one queue and one database, killed, frozen and started again for real."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from processor.devstack.servers.children import free_port

_END_S = 40.0
_PAUSE_S = 0.05


@dataclass
class Member:
    """One place in the fleet, and the process of the moment."""

    place: int
    http_port: int
    process: subprocess.Popen[bytes] | None = None
    expected_to_end: bool = False

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and self.process.poll() is None


@dataclass
class Fleet:
    """Starts its processes, and starts again whoever has fallen, at once: no pause hides a fault.

    `command` gives the words after `python -m` for a place, `own` the variables that it alone has. Ends that
    nobody asked for are noted in `falls`, as place and exit code; `on_fall` hears of each at once.
    """

    size: int
    environment: Mapping[str, str]
    log: Path
    command: Callable[[int], list[str]] = lambda _: ["processor", "run"]
    own: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    falls: list[tuple[int, int]] = field(default_factory=list)
    on_fall: Callable[[int], object] = lambda _code: None
    kills: int = 0
    members: list[Member] = field(default_factory=list)

    def start(self) -> None:
        """Start all processes."""
        self.members = [Member(place, free_port()) for place in range(self.size)]
        self.tend()

    def tend(self) -> None:
        """Start whoever does not run; to be called now and then while faults happen."""
        for member in self.members:
            if member.running:
                continue
            if member.process is not None and not member.expected_to_end:
                self.falls.append((member.place, member.process.returncode))
                self.on_fall(member.process.returncode)
            member.expected_to_end = False
            with self.log.open("ab") as log:
                member.process = subprocess.Popen(
                    [sys.executable, "-m", *self.command(member.place)],
                    env=dict(self.environment)
                    | {"HTTP_PORT": str(member.http_port)}
                    | dict(self.own.get(member.place, {})),
                    stderr=log,
                    stdout=log,
                    # A group of its own, so that a freeze takes its workers with it.
                    start_new_session=True,
                )

    def signal(self, place: int, number: signal.Signals) -> None:
        """Send a signal to one process, and a freeze to its workers, too; one that ends was asked to."""
        member = self.members[place]
        if member.running and member.process is not None:
            if number in (signal.SIGSTOP, signal.SIGCONT):
                member.expected_to_end = False
                os.killpg(member.process.pid, number)
            else:
                # To it alone: what becomes of its workers is its own affair.
                member.expected_to_end = True
                member.process.send_signal(number)

    def workers(self, place: int) -> list[int]:
        """Give the process ids of all that one process has started, and that they have."""
        process = self.members[place].process
        parents = {int(stat.parent.name): _parent(stat) for stat in Path("/proc").glob("[0-9]*/stat")}
        found = [] if process is None else [process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found[1:]

    def kill(self, place: int) -> None:
        """Kill one with -9, wait until it is dead, and start it again."""
        if not self.members[place].running:
            self.tend()
            return
        self.signal(place, signal.SIGKILL)
        process = self.members[place].process
        assert process is not None
        process.wait(10)
        self.kills += 1
        self.tend()

    def terminate(self, place: int, *, times: int = 1) -> int:
        """Send SIGTERM as often as told, and wait for the end; gives the exit code."""
        process = self.members[place].process
        assert process is not None
        for _ in range(times):
            self.signal(place, signal.SIGTERM)
            time.sleep(_PAUSE_S)
        return process.wait(_END_S)

    def ready(self, place: int) -> tuple[int, str]:
        """What /readyz of one process answers; 0 where nobody listens yet."""
        url = f"http://127.0.0.1:{self.members[place].http_port}/readyz"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, place: int, name: str) -> float:
        """Read one sample without labels from /metrics of one process; 0 where nobody listens yet."""
        url = f"http://127.0.0.1:{self.members[place].http_port}/metrics"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return 0
        return next((float(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0)

    def stop(self) -> None:
        """End all, gently first."""
        for member in self.members:
            if member.running:
                with contextlib.suppress(OSError):
                    self.signal(member.place, signal.SIGCONT)
                    self.signal(member.place, signal.SIGTERM)
        give_up_at = time.monotonic() + _END_S
        for member in self.members:
            if member.process is None:
                continue
            try:
                member.process.wait(max(0.1, give_up_at - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.kill(member.process.pid, signal.SIGKILL)
                member.process.wait()


def _parent(stat: Path) -> int:
    try:
        # Behind the name, which may have anything in it: state, then the parent.
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0
