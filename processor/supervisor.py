"""Several processes side by side: one supervisor starts them, restarts the fallen, and stops them cleanly."""

import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Protocol

import structlog

log = structlog.get_logger(__name__)

_TICK_S = 0.2
_RESTART_PAUSE_S_MAX = 30.0
_LIVED_LONG_S = 60.0


class Event(Protocol):
    """What the supervisor asks of a threading.Event."""

    def is_set(self) -> bool: ...  # noqa: D102
    def wait(self, timeout: float | None = None) -> bool: ...  # noqa: D102


@dataclass(slots=True)
class _Child:
    place: int
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    falls: int = 0
    start_at: float = 0.0
    done: bool = False


def supervise(
    processes: int, *, http_port: int, until_idle_s: float | None, stop_gently: Event, stop_now: Event
) -> int:
    """Keep `processes` children of `processor run` alive until told to stop, or until all have ended.

    Each child gets an HTTP port of its own: `http_port` and the ones after it (0 stays 0). Gives the exit
    code: 0, or that of a child that ended with a mistake no restart would mend (2).
    """
    children = [_Child(place) for place in range(processes)]
    command = [sys.executable, "-m", "processor", "run"]
    if until_idle_s is not None:
        command += ["--until-idle", str(until_idle_s)]
    worst = 0
    try:
        while not stop_gently.is_set() and not all(child.done for child in children):
            for child in children:
                worst = max(worst, _tend(child, command, http_port))
            if worst:
                return worst
            stop_gently.wait(_TICK_S)
    finally:
        _end(children, stop_now)
    return worst


def _tend(child: _Child, command: list[str], http_port: int) -> int:
    """Start a child whose time has come, look at one that has ended; gives an exit code that ends all."""
    now = time.monotonic()
    if child.done:
        return 0
    if child.process is None:
        if now >= child.start_at:
            port = http_port + child.place if http_port else 0
            # Sessions of their own, so that Ctrl-C reaches them through us and once.
            child.process = subprocess.Popen(
                command, env=os.environ | {"HTTP_PORT": str(port)}, start_new_session=True
            )
            child.started_at = now
        return 0
    code = child.process.poll()
    if code is None:
        return 0
    child.process = None
    if code == 0:
        child.done = True
        return 0
    if code == 2:  # noqa: PLR2004 - usage: the same settings would end the same way
        child.done = True
        return code
    child.falls = 1 if now - child.started_at > _LIVED_LONG_S else child.falls + 1
    pause_s = min(_RESTART_PAUSE_S_MAX, 0.5 * 2**child.falls) * random.uniform(0.5, 1)  # noqa: S311 - jitter
    child.start_at = now + pause_s
    log.error("process_fell", place=child.place, exit_code=code, restart_in_s=round(pause_s, 1))
    return 0


def _end(children: list[_Child], stop_now: Event) -> None:
    alive = [child.process for child in children if child.process is not None]
    for process in alive:
        process.terminate()
    hurried = False
    while any(process.poll() is None for process in alive):
        if stop_now.is_set() and not hurried:
            hurried = True
            for process in alive:
                process.terminate()
        stop_now.wait(_TICK_S)
        time.sleep(0.01)
