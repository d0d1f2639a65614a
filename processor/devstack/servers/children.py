"""Child processes that never outlive us, never hear our terminal, and are stopped in a fixed order.

    spawn ─▶ guard.py (drops privileges, dies with us) ─exec─▶ the program ─▶ its log file

A Ctrl-C goes to every process of the terminal's foreground group. Each child therefore gets a session of its
own, so that we alone hear it and can stop the processor before the servers that it needs.
"""

import contextlib
import fcntl
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from processor.errors import ProcessorError

GUARD = Path(__file__).with_name("guard.py")
INTERRUPTS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
POLL_S = 0.02
LOG_TAIL_LINES = 12
_PORTS = range(20_000, 30_000)
_PORT_TRIES = 100


class DevstackError(ProcessorError):
    """The local PostgreSQL or SQS can't be started or has died; says what was seen and what to do."""


@dataclass(frozen=True)
class Account:
    """The user whom a child runs as."""

    uid: int
    gid: int


@dataclass
class Child:
    """One running program in its own session; its output is in `log`, if it has one."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path | None = None

    @property
    def pid(self) -> int:
        """The process id of the program itself; the guard has become it."""
        return self.process.pid

    def exit_code(self) -> int | None:
        """Give None while it runs, else its exit code, negative for the signal that ended it."""
        return self.process.poll()

    def stop(self, *steps: tuple[signal.Signals, float]) -> int:
        """Send each signal and wait its seconds, at last SIGKILL to the whole session; return the exit code.

        Safe to call again, and for a child that has already ended.
        """
        for number, wait_s in steps:
            if self.process.poll() is not None:
                break
            self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(wait_s)
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()

    def log_tail(self) -> str:
        """Give the last lines of its log for an error message, indented; empty if there are none."""
        if self.log is None:
            return ""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "".join(f"\n    {line}" for line in lines[-LOG_TAIL_LINES:])


def spawn(  # noqa: PLR0913 - as many as a process has properties
    name: str,
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str],
    directory: Path,
    log: Path | None = None,
    stdin: BinaryIO | int = subprocess.DEVNULL,
    stdout: BinaryIO | int | None = None,
    account: Account | None = None,
    keep_open: Sequence[int] = (),
    death_signal: signal.Signals = signal.SIGTERM,
) -> Child:
    """Start a program in `directory` with exactly this environment; it gets `death_signal` if we die.

    Output goes to `log` (appended), or to `stdout` with errors on our own stderr. Call it from a thread that
    lives as long as the child may, because Linux counts the end of that thread as our death. The caller
    should hold interrupts back with `uninterrupted` until it has stored the result.
    """
    who = (str(account.uid), str(account.gid)) if account else ("-1", "-1")
    guard = [sys.executable, "-I", "-S", str(GUARD), str(os.getpid()), str(int(death_signal)), *who]
    output = log.open("ab") if log else None
    try:
        process = subprocess.Popen(  # noqa: S603 - the servers that we name
            [*guard, *(str(part) for part in command)],
            cwd=directory,
            env=dict(environment),
            stdin=stdin,
            stdout=output or stdout,
            stderr=subprocess.STDOUT if output else None,
            start_new_session=True,
            pass_fds=tuple(keep_open),
        )
    finally:
        if output:
            output.close()
    return Child(name, process, log)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold SIGINT, SIGTERM and SIGHUP back for these few lines, so that no child is started but forgotten."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass
class DirectoryLock:
    """A lock that the children of a server inherit, so that it is free only when the last of them is gone."""

    path: Path
    descriptor: int | None = field(default=None, init=False)

    def acquire(self, wait_s: float) -> bool:
        """Take the lock, waiting at most `wait_s` seconds; False if somebody still holds it then."""
        if self.descriptor is None:
            self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    self.release()
                    return False
                time.sleep(POLL_S)
            else:
                return True

    def release(self) -> None:
        """Close our handle; children that inherited it keep the lock until they end."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def free_port() -> int:
    """Give a TCP port of 127.0.0.1 that nobody listens on at this moment.

    From below the ports that systems give to outgoing connections: one of those could take the port before
    a server does that was told of it.
    """
    for _ in range(_PORT_TRIES):
        port = secrets.choice(_PORTS)
        if port_is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        bound: int = probe.getsockname()[1]
        return bound


def preferred_port(port: int | None) -> int:
    """Give this port if nobody listens there, else any free one."""
    return port if port is not None and port_is_free(port) else free_port()


def port_is_free(port: int) -> bool:
    """Say whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        # Connections that linger after a server has gone are no obstacle, to PostgreSQL neither.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def start_log(path: Path) -> None:
    """Begin a new log file and keep the one before under `.previous`, so that logs stay small."""
    if path.exists():
        path.replace(path.with_name(path.name + ".previous"))
    path.touch(mode=0o600)
