"""`processor dev`: a stack that runs until it is stopped, with its data in `.processor/`.

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
# A processor that ran for so long was healthy, so the next restart has no backoff.
HEALTHY_S = 30.0
STOP = ((signal.SIGTERM, 40.0),)


def run_dev(*, env_file: Path | None, fresh: bool) -> int:
    """Run the stack until SIGINT or SIGTERM, the normal end, and return the exit code 0.

    130 or 143 if the signal arrived before the stack was ready; 1 if a server died or could not start; 2 if
    another `processor dev` runs in this directory, or the env file has foreign settings. `fresh` removes all
    earlier rows and messages.
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
                # A second Ctrl-C must not interrupt the cleanup at the end of this block.
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
    """Print a line unbuffered, into a pipe, too."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(error: Exception) -> None:
    """Print the error to stderr."""
    sys.stderr.write(f"Error: {error}\n")


@dataclass
class RunningProcessor:
    """The `processor run` of a stack, restarted when it dies."""

    stack: Stack
    http_port: int
    child: Child | None = None
    wait_s: float = 1.0
    started_at: float = 0.0

    def start(self) -> None:
        """Start it with a short poll, so that it stops within two seconds instead of twenty."""
        self.started_at = time.monotonic()
        with uninterrupted():
            self.child = self.stack.spawn_processor(self.http_port, RECEIVE_WAIT_S="2")

    def stop(self) -> None:
        """Stop it gracefully: it finishes its messages in flight first."""
        if self.child is not None:
            self.child.stop(*STOP)

    def keep_up(self, signals: Interrupts) -> Never:
        """Supervise servers and processor until Interrupted, or DevstackError if a server dies."""
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
    """Lock the directory, wait for the leftovers of a killed predecessor, and choose the ports."""
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
    # awslocal uses 4566; the previous port is second. Another process may take either before us.
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
    """Print the guide, then write the env files: last, because scripts wait for them."""
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
    """Remove all but our lock. Data is renamed first, so an interrupted removal leaves no partial data."""
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
