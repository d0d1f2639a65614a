"""`processor run --until-idle` amid silence: a frozen broker, a killed process, a stop during an outage.

What is counted at the end must be all that was sent, or there must be no count at all.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from processor.devstack.seed import seed
from tests.broker_servers.kafka import Sender, tansu
from tests.broker_servers.rabbitmq import Broker, RabbitQueue
from tests.fixtures.database import count
from tests.journeys.test_run import UNFINISHED, children
from tests.rig import wait_until

EVENTS = 600
IDLE_S = 3
FROZEN_S = 4 * IDLE_S
"""For how long a broker is silent; a run that takes silence for emptiness has ended by then."""


@dataclass
class Run:
    """`processor run --until-idle --count-to` on a queue, and what it has written."""

    database_url: str
    directory: Path
    source_url: str
    process: "subprocess.Popen[bytes] | None" = None
    settings: dict[str, str] = field(default_factory=dict)

    def start(self, *options: str) -> "subprocess.Popen[bytes]":
        environment = os.environ | {
            "DATABASE_URL": self.database_url,
            "SOURCE_URL": self.source_url,
            "HTTP_PORT": "0",
            "RECEIVE_WAIT_S": "1",
            # Small, so that there is a middle in which to do something.
            "BATCH_SIZE_MAX": "5",
            "BUFFER_SIZE_MAX": "10",
            "VISIBILITY_TIMEOUT_S": "6",
            "RETRY_WAIT_S_MAX": "0.5",
            "STOP_TIMEOUT_S": "4",
            "LOG_FORMAT": "console",
        }
        command = [sys.executable, "-m", "processor", "run", "--until-idle", str(IDLE_S), *options]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--count-to", str(self.directory / "counts")],
                env=environment | self.settings,
                stdout=log,
                stderr=log,
            )
        return self.process

    @property
    def _log(self) -> Path:
        return self.directory / "run.log"

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def files(self) -> list[Path]:
        return sorted((self.directory / "counts").glob("*.json"))

    def counted(self) -> int:
        return sum(sum(json.loads(path.read_text()).values()) for path in self.files())

    def goes_on_for(self, wait_s: float) -> bool:
        """Whether it does not end within `wait_s`."""
        assert self.process is not None
        try:
            self.process.wait(wait_s)
        except subprocess.TimeoutExpired:
            return True
        return False


@dataclass
class Frozen:
    """A run on a queue full of events, and the broker's silence."""

    run: Run
    freeze: Callable[[], None]
    thaw: Callable[[], None]


def bodies() -> list[bytes]:
    return [
        json.dumps(
            {
                "id": str(number),
                "tenant_id": "acme",
                "event_type": "created",
                "payload": {"user_id": f"user-{number % 7}"},
            }
        ).encode()
        for number in range(EVENTS)
    ]


@pytest.fixture
def a_run(database_url: str, tmp_path: Path) -> Iterator[Run]:
    seed(database_url)
    run = Run(database_url, tmp_path, "")
    yield run
    if run.process is not None and run.process.poll() is None:
        run.process.kill()
        run.process.wait()


@pytest.fixture
def rabbitmq_run(a_run: Run, rabbitmq_broker: Broker) -> Iterator[Frozen]:
    queue = RabbitQueue(rabbitmq_broker.url, f"idle-{os.getpid()}-{time.monotonic_ns()}")
    queue.make()
    for body in bodies():
        queue.put(body)
    a_run.source_url = queue.source_url
    yield Frozen(a_run, rabbitmq_broker.freeze, rabbitmq_broker.thaw)
    rabbitmq_broker.thaw()
    queue.close()


@pytest.fixture
def kafka_run(a_run: Run, tmp_path: Path) -> Iterator[Frozen]:
    with tansu(tmp_path) as broker:
        topic = broker.topic(2)
        Sender(broker.servers).send_all(topic, [(number % 2, body) for number, body in enumerate(bodies())])
        a_run.source_url = broker.url(topic)
        yield Frozen(a_run, broker.freeze, broker.thaw)
        broker.thaw()


@pytest.fixture(params=[pytest.param("rabbitmq_run", marks=pytest.mark.xdist_group("rabbitmq")), "kafka_run"])
def frozen(request: pytest.FixtureRequest) -> Frozen:
    made: Frozen = request.getfixturevalue(request.param)
    return made


def test_a_broker_that_freezes_is_not_idle_and_after_its_thaw_all_is_counted(
    frozen: Frozen, db: psycopg.Connection[Any]
) -> None:
    process = frozen.run.start()
    wait_until(lambda: count(db, "message") > 20, "some are stored")

    frozen.freeze()
    goes_on = frozen.run.goes_on_for(FROZEN_S)
    files = frozen.run.files()
    frozen.thaw()

    assert goes_on, frozen.run.log()
    assert files == []
    assert process.wait(90) == 0, frozen.run.log()
    assert frozen.run.counted() == EVENTS


def test_a_stop_while_the_broker_is_frozen_writes_no_count_and_says_what_is_left(
    frozen: Frozen, db: psycopg.Connection[Any]
) -> None:
    process = frozen.run.start()
    wait_until(lambda: count(db, "message") > 20, "some are stored")

    frozen.freeze()
    wait_until(lambda: "outage" in frozen.run.log(), "it has noticed")
    process.send_signal(signal.SIGTERM)

    assert process.wait(40) == UNFINISHED, frozen.run.log()
    assert frozen.run.files() == []
    assert "outage_over" not in frozen.run.log()
    assert "the queue has not answered since 20" in frozen.run.log()


@pytest.mark.xdist_group("rabbitmq")
def test_a_process_that_is_killed_in_the_middle_keeps_the_others_from_ending(
    rabbitmq_run: Frozen, db: psycopg.Connection[Any]
) -> None:
    """And what the killed one had stored is the run's own all the same."""
    run = rabbitmq_run.run
    process = run.start("--processes", "2", "--this-run")
    wait_until(lambda: count(db, "message") > 20 and len(children(process.pid)) == 2, "both work")

    os.kill(children(process.pid)[0], signal.SIGKILL)

    assert process.wait(90) == 0, run.log()
    assert "process_fell" in run.log()
    assert run.counted() == EVENTS


@pytest.mark.xdist_group("rabbitmq")
def test_a_stop_of_a_run_that_works_writes_what_is_committed(
    rabbitmq_run: Frozen, db: psycopg.Connection[Any]
) -> None:
    run = rabbitmq_run.run
    process = run.start()
    wait_until(lambda: count(db, "message") > 20, "some are stored")

    process.send_signal(signal.SIGTERM)

    assert process.wait(40) == 0, run.log()
    assert run.counted() == count(db, "message") > 0
