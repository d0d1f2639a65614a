"""The stack of demo and dev: both servers, their database and queues, and our commands as child processes.

Stack ─┬─ EmbeddedPostgres   database `events`
       ├─ EmbeddedSqs        queues `events` and `events-dlq`
       └─ environment ─▶ python -m processor migrate | run | audit, python -m producers fake
"""

import os
import shlex
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import psycopg

from processor.database.queries import queries
from processor.devstack.seed import seed
from processor.devstack.servers.children import Child, DevstackError, spawn, start_log, uninterrupted
from processor.devstack.servers.postgres import EmbeddedPostgres
from processor.devstack.servers.sqs import CREDENTIAL, REGION, EmbeddedSqs

DATABASE = "events"
QUEUE = "events"
# Enough of each kind to show in a table of 5,000 events.
BAD_SHARES = ("--invalid", "0.04", "--duplicates", "0.05")
READY_S = 30.0
POLL_S = 0.05
# Variables with addresses of dependencies; child processes must not inherit them from the shell.
ADDRESSES = ("DATABASE_URL", "SQS_QUEUE_URL", "HTTP_HOST", "HTTP_PORT", "AWS_", "LOCALSTACK_", "PG", "BOTO")


class Stack:
    """Both servers below one directory, and the environment that points our commands to them.

    Without `only_there`, a server whose port is in use listens on another one.
    """

    def __init__(
        self,
        directory: Path,
        *,
        postgres_port: int | None = None,
        sqs_port: int | None = None,
        only_there: bool = True,
        fsync: bool = True,
    ) -> None:
        self.directory = directory
        self.postgres = EmbeddedPostgres(
            directory / "postgres", port=postgres_port, only_there=only_there, fsync=fsync
        )
        self.sqs = EmbeddedSqs(directory / "sqs", port=sqs_port, only_there=only_there)
        self.queue_url = ""

    def start(self) -> None:
        """Start the servers, create database and queue, migrate the tables, and seed the registry.

        Raises DevstackError; call `stop` in any case.
        """
        self.postgres.start()
        self.sqs.start()
        with psycopg.connect(self.postgres.url(), autocommit=True) as connection:
            if connection.execute(queries("devstack")["database_exists"]).fetchone() is None:
                connection.execute(queries("devstack")["make_database"])
        self.queue_url = self.sqs.create_queue(QUEUE)
        code, said = self.run_to_end("migrate", [sys.executable, "-m", "processor", "migrate"])
        if code != 0:
            raise DevstackError(f"`processor migrate` ended with exit code {code}; it said:\n{said}")
        seed(self.database_url)

    def stop(self) -> None:
        """Stop SQS, which saves its queues, then PostgreSQL; safe to call at any time."""
        try:
            self.sqs.stop()
        finally:
            self.postgres.stop()

    @property
    def database_url(self) -> str:
        """The URL of the database, as its owner."""
        return self.postgres.url(DATABASE)

    def settings(self) -> dict[str, str]:
        """Return the settings that point our commands, and any AWS tool, to this stack."""
        return {
            "DATABASE_URL": self.database_url,
            "SQS_QUEUE_URL": self.queue_url,
            "AWS_ENDPOINT_URL": self.sqs.endpoint_url,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": CREDENTIAL,
            "AWS_SECRET_ACCESS_KEY": CREDENTIAL,
        }

    def spawn(self, name: str, command: Sequence[str], **settings: str) -> Child:
        """Start one of our commands; its output goes to a new `<name>.log`. Interrupts are blocked meanwhile.

        It runs in the stack's directory, so that no `.env` of the project reaches it.
        """
        log = self.directory / f"{name}.log"
        start_log(log)
        environment = {n: v for n, v in os.environ.items() if not n.startswith(ADDRESSES)}
        for variable in ("NO_PROXY", "no_proxy"):
            # A proxy can't reach the loopback of this machine.
            environment[variable] = ",".join(filter(None, [environment.get(variable), "127.0.0.1"]))
        return spawn(
            name,
            command,
            environment=environment | self.settings() | {"PYTHONPATH": _python_path()} | settings,
            directory=self.directory,
            log=log,
        )

    def run_to_end(self, name: str, command: Sequence[str], **settings: str) -> tuple[int, str]:
        """Run one of our commands to its end; return its exit code and output."""
        with uninterrupted():
            child = self.spawn(name, command, **settings)
        try:
            code = child.process.wait()
        finally:
            child.stop()
        return code, (self.directory / f"{name}.log").read_text(errors="replace")

    def spawn_processor(self, http_port: int, **settings: str) -> Child:
        """Start `processor run` with its health and metrics on this port of 127.0.0.1."""
        ours = {"HTTP_PORT": str(http_port), "LOG_FORMAT": os.environ.get("LOG_FORMAT", "console")}
        return self.spawn("processor", [sys.executable, "-m", "processor", "run"], **ours, **settings)

    def check_servers(self) -> None:
        """Raise DevstackError, with the end of its log, if one of the servers has died."""
        servers: dict[str, EmbeddedPostgres | EmbeddedSqs] = {"PostgreSQL": self.postgres, "SQS": self.sqs}
        for name, server in servers.items():
            code = server.exit_code()
            if code is not None:
                raise DevstackError(
                    f"{name} has died (exit code {code}); its log ends with:{server.log_tail()}"
                )


def wait_until_ready(processor: Child, http_port: int) -> None:
    """Return once /readyz says that the processor is at work; DevstackError if it ends or takes too long."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        code = processor.exit_code()
        if code is not None:
            raise DevstackError(
                f"`processor run` ended at once with exit code {code}; it said:{processor.log_tail()}"
            )
        try:
            with opener.open(f"http://127.0.0.1:{http_port}/readyz", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(POLL_S)
    raise DevstackError(
        f"`processor run` is not ready after {READY_S:.0f} s; its log ends with:{processor.log_tail()}"
    )


def program(name: str) -> str:
    """Return the shell command that starts an installed program from the current directory."""
    path = Path(sys.executable).parent / name
    if shutil.which(name) == str(path) or not path.exists():
        return name
    return shell_path(path)


def shell_path(path: Path) -> str:
    """Quote a path for a shell, relative if it is below the current directory."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def _python_path() -> str:
    """Build PYTHONPATH so that child processes import the same code, whatever the current directory."""
    root = Path(__file__).resolve().parents[2]
    ours = [] if root.name == "site-packages" else [str(root)]
    return os.pathsep.join([*ours, *filter(None, [os.environ.get("PYTHONPATH")])])
