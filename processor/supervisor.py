"""Several processes side by side: one supervisor starts them, restarts the fallen, and stops them cleanly."""

import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import Protocol

import structlog

log = structlog.get_logger(__name__)

_TICK_S = 0.2
_POLL_S = 0.05
_RESTART_PAUSE_S_MAX = 30.0
_LIVED_LONG_S = 60.0

_END_MARGIN_S = 10.0
"""For how long after STOP_TIMEOUT_S a child may take to end; then it is killed, which costs no event."""

_PID_VARIABLE = "PROCESSOR_SUPERVISOR_PID"
_PLACE_VARIABLE = "PROCESSOR_SUPERVISOR_PLACE"
"""How a child is told who supervises it: between us two, and no setting."""


class Event(Protocol):
    """What the supervisor asks of a threading.Event."""

    def is_set(self) -> bool: ...  # noqa: D102
    def set(self) -> None: ...  # noqa: D102
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
    processes: int,
    *,
    http_port: int,
    until_idle_s: float | None,
    stop_timeout_s: float,
    stop_gently: Event,
    stop_now: Event,
    source_url: str | None = None,
) -> int:
    """Keep `processes` children of `processor run` alive until told to stop, or until all have ended.

    Each child gets an HTTP port of its own: `http_port` and the ones after it (0 stays 0), and `source_url`,
    which may have come by an argument, through its environment: there may be a password in it. Gives the exit
    code: 0, or that of a child that ended with a mistake no restart would mend (2). At a stop, a child that
    takes longer than `stop_timeout_s` and a margin is killed.
    """
    children = [_Child(place) for place in range(processes)]
    command = [sys.executable, "-m", "processor", "run"]
    if until_idle_s is not None:
        command += ["--until-idle", str(until_idle_s)]
    worst = 0
    try:
        while not stop_gently.is_set() and not all(child.done for child in children):
            for child in children:
                worst = max(worst, _tend(child, command, http_port, source_url))
            if worst:
                return worst
            stop_gently.wait(_TICK_S)
    finally:
        _end(children, stop_now, stop_timeout_s)
    return worst


def follow(stop_gently: Event) -> None:
    """In a child: stop as if told to when its supervisor is gone, `kill -9` included. Elsewhere do nothing.

    The parent's process id is asked for now and then: unlike the kernel's parent-death signal that works on
    every Unix, and does not depend on the thread that started us.
    """
    supervisor = os.environ.get(_PID_VARIABLE)
    if supervisor is None:
        return

    def watch() -> None:
        while not stop_gently.wait(_TICK_S):
            if str(os.getppid()) != supervisor:
                log.warning("supervisor_gone", consequence="stopping")
                stop_gently.set()

    threading.Thread(target=watch, name="follow", daemon=True).start()


def place() -> int:
    """Give a number that tells processes side by side apart: the supervisor's count, else the process id."""
    return int(os.environ.get(_PLACE_VARIABLE, os.getpid()))


def _tend(child: _Child, command: list[str], http_port: int, source_url: str | None) -> int:
    """Start a child whose time has come, look at one that has ended; gives an exit code that ends all."""
    now = time.monotonic()
    if child.done:
        return 0
    if child.process is None:
        if now >= child.start_at:
            port = http_port + child.place if http_port else 0
            # Sessions of their own, so that Ctrl-C reaches them through us and once.
            told = {
                "HTTP_PORT": str(port),
                _PID_VARIABLE: str(os.getpid()),
                _PLACE_VARIABLE: str(child.place),
            }
            if source_url is not None:
                told["SOURCE_URL"] = source_url
            child.process = subprocess.Popen(command, env=os.environ | told, start_new_session=True)
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


def _end(children: list[_Child], stop_now: Event, stop_timeout_s: float) -> None:
    alive = [child.process for child in children if child.process is not None]
    for process in alive:
        process.terminate()
    kill_at = time.monotonic() + stop_timeout_s + _END_MARGIN_S
    hurried = False
    while any(process.poll() is None for process in alive):
        if stop_now.is_set() and not hurried:
            hurried = True
            kill_at = min(kill_at, time.monotonic() + _END_MARGIN_S)
            for process in alive:
                process.terminate()
        if time.monotonic() >= kill_at:
            _kill(alive)
            return
        # Not on the event, which may be set already.
        time.sleep(_POLL_S)


def _kill(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            log.error("process_killed", pid=process.pid, consequence="what it held is delivered again")
            process.kill()
            process.wait()
