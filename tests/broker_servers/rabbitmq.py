"""A RabbitMQ for the tests: the one that RABBITMQ_URL_TEST names, else one of our own from Debian's package.

    Broker ─▶ rabbitmq-server in the foreground, with directories, ports and an epmd of its own

Tests with one carry `xdist_group("rabbitmq")`: a broker takes seconds to start, so one worker has it.
"""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pika
import pika.exceptions
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from processor.devstack.servers.children import Child, free_port, spawn, uninterrupted
from tests.broker_servers import require

START_S = 60.0
HOW = (
    "install it (apt-get install rabbitmq-server; the tests start one of their own) "
    "or set RABBITMQ_URL_TEST=amqp://USER:PASSWORD@HOST:PORT/VHOST"
)
_PROGRAMS = (
    Path("/usr/lib/rabbitmq/bin/rabbitmq-server"),
    Path("/usr/local/lib/rabbitmq/bin/rabbitmq-server"),
)


def program() -> Path | None:
    """The broker's start script, without Debian's wrapper, which changes the user; None: not installed."""
    return next((path for path in _PROGRAMS if path.exists()), None)


@dataclass
class Broker:
    """A broker of our own, which a test may kill and start again: queues that are durable outlive it."""

    port: int = field(default_factory=free_port)
    directory: Path = field(
        default_factory=lambda: Path(tempfile.mkdtemp(prefix="event-processor-rabbitmq-"))
    )
    _child: Child | None = None
    _epmd: Child | None = None
    _epmd_port: int = field(default_factory=free_port)
    _node_port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Return once it takes connections."""
        found = program()
        assert found is not None
        with uninterrupted():
            if self._epmd is None:
                # Started by us, else Erlang starts one that outlives everybody.
                self._epmd = self._spawn(
                    "epmd", [shutil.which("epmd") or "epmd", "-port", str(self._epmd_port)]
                )
            self._child = self._spawn("rabbitmq", [found])
        give_up_at = time.monotonic() + START_S
        while not self._answers():
            ended = self._child.exit_code() is not None
            if ended or time.monotonic() > give_up_at:
                raise RuntimeError(f"RabbitMQ does not start; its log ends with:{self._child.log_tail()}")
            time.sleep(0.1)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.process.wait(20)
            self._child = None

    def freeze(self) -> None:
        """Let it take connections and say nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on; harmless where it does."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._child is not None
        os.killpg(self._child.pid, number)

    def stop(self) -> None:
        """End it and all that belongs to it, and leave nothing behind."""
        self.kill()
        if self._epmd is not None:
            self._epmd.stop((signal.SIGTERM, 2.0))
            self._epmd = None
        shutil.rmtree(self.directory, ignore_errors=True)

    def control(self, *words: str) -> str:
        """Run rabbitmqctl, which takes a second or two."""
        found = program()
        assert found is not None
        command = [str(found.with_name("rabbitmqctl")), *words]
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=True)
        return done.stdout

    def _spawn(self, name: str, command: list[str | Path]) -> Child:
        return spawn(
            name,
            command,
            environment=self._environment(),
            directory=self.directory,
            log=self.directory / f"{name}.log",
            death_signal=signal.SIGKILL if name == "epmd" else signal.SIGTERM,
        )

    def _environment(self) -> Mapping[str, str]:
        (self.directory / "enabled_plugins").write_text("[].\n")
        (self.directory / "rabbitmq.conf").write_text("")
        (self.directory / "advanced.config").write_text("[].\n")
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "LANG": "C.UTF-8",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": f"events-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._node_port),
            # Schedulers that don't spin while they wait, and no port open to other machines.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none "
            "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.directory / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_LOGS": "-",
        }

    def _answers(self) -> bool:
        with contextlib.suppress(pika.exceptions.AMQPError, OSError):
            pika.BlockingConnection(pika.URLParameters(self.url + "%2F")).close()
            return True
        return False


@dataclass
class RabbitQueue:
    """One queue of a test's own, and a channel beside the source's that fills it and looks at it."""

    url: str
    name: str
    kind: str = "quorum"
    _connection: pika.BlockingConnection | None = None

    @property
    def source_url(self) -> str:
        """What SOURCE_URL is to be."""
        return f"{self.url}?queue={quote(self.name)}"

    @property
    def channel(self) -> BlockingChannel:
        """A channel in confirm mode; a new one where the last was closed."""
        if self._connection is None or self._connection.is_closed:
            self._connection = pika.BlockingConnection(parameters(self.url))
            self._channel = self._connection.channel()
            self._channel.confirm_delivery()
        return self._channel

    def reconnect(self) -> None:
        """Leave a channel that the broker has closed."""
        if self._connection is not None and self._connection.is_open:
            self._connection.close()

    def make(self, **arguments: object) -> None:
        """Declare it, durable and empty."""
        self.channel.queue_declare(
            self.name, durable=True, arguments={"x-queue-type": self.kind, **arguments}
        )

    def put(
        self,
        body: bytes = b"{}",
        *,
        message_id: str | None = None,
        routing_key: str | None = None,
        exchange: str = "",
        headers: Mapping[str, Any] | None = None,
        **properties: object,
    ) -> None:
        """Put a message on it, or publish it elsewhere; return once the broker has it."""
        self.channel.basic_publish(
            exchange,
            self.name if routing_key is None else routing_key,
            body,
            pika.BasicProperties(
                message_id=message_id,
                headers=dict(headers) if headers else None,
                delivery_mode=2,
                **properties,  # type: ignore[arg-type]  # whatever AMQP's properties are
            ),
        )

    def depth(self) -> int:
        """How many messages wait on it; what is handed over and not yet acknowledged is not among them."""
        return int(self.channel.queue_declare(self.name, passive=True).method.message_count)

    def close(self) -> None:
        with contextlib.suppress(pika.exceptions.AMQPError, OSError):
            self.channel.queue_delete(self.name)
        with contextlib.suppress(pika.exceptions.AMQPError, OSError):
            if self._connection is not None:
                self._connection.close()


def parameters(url: str) -> pika.URLParameters:
    """Read a URL as we do: without a path it is the vhost /."""
    parts = urlsplit(url)
    return pika.URLParameters(parts._replace(path="/%2F" if parts.path in ("", "/") else parts.path).geturl())


_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def rabbitmq_broker() -> Iterator[Broker]:
    """A broker of our own, which a test may kill, but must start again."""
    if program() is None:
        require("RabbitMQ", HOW)
    broker = Broker()
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


@pytest.fixture(scope="session")
def rabbitmq_url(request: pytest.FixtureRequest) -> str:
    """The URL of a vhost on a broker: RABBITMQ_URL_TEST if set, else one of our own."""
    given = os.environ.get("RABBITMQ_URL_TEST")
    if given:
        return given
    broker: Broker = request.getfixturevalue("rabbitmq_broker")
    return broker.url


@pytest.fixture
def rabbitmq_queue(rabbitmq_url: str) -> Iterator[RabbitQueue]:
    """An empty quorum queue of this test's own."""
    queue = RabbitQueue(rabbitmq_url, f"events-{os.getpid()}-{next(_numbers)}")
    queue.make()
    yield queue
    queue.close()
