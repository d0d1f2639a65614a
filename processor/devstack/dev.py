"""A stack that stays up until you stop it, with its data in `.processor/` beside you.

.processor/lock          held while `processor dev` runs
.processor/ports.json    the ports of last time, taken again if they are free
.processor/env           the settings of the running stack; gone when it stops
.processor/postgres, sqs, *.log
"""

import contextlib
import json
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Never

import psycopg
from botocore.exceptions import BotoCoreError, ClientError

from processor.devstack.directory import claim_directory
from processor.devstack.env_file import check_env_file, remove_env_file, write_env_file
from processor.devstack.guide import guide
from processor.devstack.interrupts import Interrupted, Interrupts, interrupts
from processor.devstack.servers.children import (
    Child,
    DevstackError,
    DirectoryLock,
    port_is_free,
    preferred_port,
    uninterrupted,
)
from processor.devstack.stack import Stack, wait_until_ready
from processor.errors import ProcessorError, SettingsError

DIRECTORY = ".processor"
PORTS = "ports.json"
SQS_PORT = 4566
LEFTOVER_S = 20.0
POLL_S = 0.2
RESTART_S_MAX = 10.0
# A processor that ran for so long was healthy, so the next restart need not wait.
HEALTHY_S = 30.0
STOP = ((signal.SIGTERM, 40.0),)


def run_dev(*, env_file: Path | None, fresh: bool) -> int:
    """Keep the stack up until SIGINT or SIGTERM, and return the exit code: 0, because that is how it ends.

    130 or 143 if that came before all was ready; 1 if a server died or something could not start; 2 if
    another `processor dev` runs in this directory, or the env file holds other settings than ours. `fresh`
    removes all rows and messages of before.
    """
    ready = False
    try:
        with interrupts() as signals, contextlib.ExitStack() as cleanup:
            try:
                if env_file is not None:
                    check_env_file(env_file.absolute())
                stack = _own_stack(cleanup, Path.cwd() / DIRECTORY, fresh=fresh)
                processor = _start(cleanup, stack)
                _publish(cleanup, processor, env_file.absolute() if env_file else None)
                ready = True
                processor.keep_up(signals)
            except Interrupted as stop:
                code = 0 if ready else stop.exit_code
                say(f"\n{stop}: stopping the processor, then SQS, then PostgreSQL ...")
            finally:
                # What cleans up at the end of this block must not be cut off by a second Ctrl-C.
                signals.ignore()
    except SettingsError as error:
        complain(error)
        return 2
    except (ProcessorError, psycopg.Error, BotoCoreError, ClientError, OSError) as error:
        complain(error)
        return 1
    say("Stopped. Rows and queued messages are kept for the next `processor dev`.")
    return code


def say(text: str) -> None:
    """Print a line at once, into a pipe, too."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(error: Exception) -> None:
    """Print why it ended, to stderr."""
    sys.stderr.write(f"Error: {error}\n")


@dataclass
class RunningProcessor:
    """The `processor run` of a stack, started again when it dies."""

    stack: Stack
    http_port: int
    child: Child | None = None
    wait_s: float = 1.0
    started_at: float = 0.0

    def start(self) -> None:
        """Start it; its short poll lets it stop within two seconds, where AWS would be polled for twenty."""
        self.started_at = time.monotonic()
        with uninterrupted():
            self.child = self.stack.spawn_processor(self.http_port, RECEIVE_WAIT_S="2")

    def stop(self) -> None:
        """Let it settle what it holds, then end."""
        if self.child is not None:
            self.child.stop(*STOP)

    def keep_up(self, signals: Interrupts) -> Never:
        """Watch over servers and processor; ends by Interrupted, or DevstackError if a server has died."""
        while True:
            signals.obey()
            self.stack.check_servers()
            if self.child is not None and self.child.exit_code() is not None:
                code = self.child.exit_code()
                if time.monotonic() - self.started_at > HEALTHY_S:
                    self.wait_s = 1.0
                say(
                    f"`processor run` has ended with exit code {code}; starting it again in "
                    f"{self.wait_s:.0f} s. Nothing is lost: what it held comes back from the queue within "
                    f"a minute. Its log ends with:{self.child.log_tail()}"
                )
                self._wait(signals)
                self.start()
                say("`processor run` has been started again.")
            time.sleep(POLL_S)

    def _wait(self, signals: Interrupts) -> None:
        until = time.monotonic() + self.wait_s
        self.wait_s = min(self.wait_s * 2, RESTART_S_MAX)
        while time.monotonic() < until:
            signals.obey()
            self.stack.check_servers()
            time.sleep(POLL_S)


def _own_stack(cleanup: contextlib.ExitStack, directory: Path, *, fresh: bool) -> Stack:
    """Take the directory for us alone, wait for what a killed predecessor left, and choose the ports."""
    claim_directory(directory)
    (directory / ".gitignore").write_text("*\n")
    lock = DirectoryLock(directory / "lock")
    if not lock.acquire(0):
        raise SettingsError(
            f"another `processor dev` runs in {directory.parent}; expected one per directory; "
            "stop that one, or start this one in another directory"
        )
    cleanup.callback(lock.release)
    free = _wait_for_leftovers(directory)
    if fresh:
        if not free:
            raise DevstackError(
                f"servers of an earlier `processor dev` still work in {directory}; stop them first"
            )
        _remove_data(directory)
    ports = _ports_of_last_time(directory)
    # awslocal looks at 4566; the port of last time comes second. Others may take either before we do.
    sqs = next((port for port in (SQS_PORT, ports.get("sqs")) if port and port_is_free(port)), None)
    stack = Stack(directory, postgres_port=ports.get("postgres"), sqs_port=sqs, only_there=False)
    cleanup.callback(stack.stop)
    return stack


def _start(cleanup: contextlib.ExitStack, stack: Stack) -> RunningProcessor:
    """Start the servers, then the processor; return once it is ready."""
    say(f"Starting PostgreSQL and SQS on 127.0.0.1, with their data in {stack.directory} ...")
    stack.start()
    port = _ports_of_last_time(stack.directory).get("http")
    processor = RunningProcessor(stack, preferred_port(port))
    cleanup.callback(processor.stop)
    processor.start()
    ports = {"postgres": stack.postgres.port, "sqs": stack.sqs.port, "http": processor.http_port}
    (stack.directory / PORTS).write_text(json.dumps(ports) + "\n")
    if processor.child is not None:
        wait_until_ready(processor.child, processor.http_port)
    return processor


def _publish(cleanup: contextlib.ExitStack, processor: RunningProcessor, wanted: Path | None) -> None:
    """Print the guide, then write the env files: last, because a script waits for them to appear."""
    stack = processor.stack
    ours = stack.directory / "env"
    settings = stack.settings() | {"HTTP_PORT": str(processor.http_port)}
    for line in guide(stack, processor.http_port, wanted or ours):
        say(line)
    for path in (ours, wanted):
        if path is not None:
            cleanup.callback(remove_env_file, path)
            write_env_file(path, settings)


def _wait_for_leftovers(directory: Path) -> bool:
    """Wait until servers whose parent was killed have saved and ended; False if one of them still runs.

    Without the wait, SQS would still hold its port, and what it is saving would be read too early.
    """
    deadline = time.monotonic() + LEFTOVER_S
    free = True
    for name in ("sqs", "postgres"):
        lock = DirectoryLock(directory / name / "lock")
        if lock.path.exists():
            free = lock.acquire(max(0, deadline - time.monotonic())) and free
            lock.release()
    return free


def _remove_data(directory: Path) -> None:
    """Remove all but our lock. Data is renamed first: a cut-off removal leaves no half of it in use."""
    trash = Path(tempfile.mkdtemp(prefix="trash-", dir=directory))
    for path in directory.iterdir():
        if path.name in ("lock", ".gitignore"):
            continue
        if not path.name.startswith("trash-"):
            path.rename(trash / path.name)
    for path in directory.glob("trash-*"):
        shutil.rmtree(path, ignore_errors=True)


def _ports_of_last_time(directory: Path) -> dict[str, int]:
    try:
        ports = json.loads((directory / PORTS).read_text())
    except (OSError, ValueError):
        return {}
    return (
        {name: port for name, port in ports.items() if isinstance(port, int)}
        if isinstance(ports, dict)
        else {}
    )
