"""Whatever ends a connection to RabbitMQ is an outage that says so, never an empty queue; nothing is lost."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pika.channel import Channel
from pika.connection import Connection

from processor.brokers import rabbitmq
from processor.brokers.rabbitmq import connection_parameters
from processor.brokers.source_refusal import REFUSED_S_MAX
from processor.brokers.source_url import SourceAddress
from processor.devstack.seed import seed
from processor.devstack.servers.children import free_port
from processor.errors import SettingsError, SourceFault, SourceUnavailable
from processor.operations.audit import audit
from processor.settings import Settings
from processor.sources.rabbitmq.source import RabbitMqSource, queue_depth
from processor.wire.manifest import ManifestWriter
from producers.fake.messages import FakePlan, fake_messages
from producers.publishers.publish import AcceptedMessage, PublishRun
from producers.publishers.rabbitmq import AmqpPublisher
from tests.broker_servers.rabbitmq import Broker, RabbitQueue
from tests.chaos.traffic.tcp_proxy import TcpProxy
from tests.conformance.test_source import settled
from tests.fixtures.database import books, count
from tests.rabbit_sources import a_rabbitmq_source, a_source_of
from tests.rig import wait_until
from tests.sources.test_rabbitmq import take

pytestmark = pytest.mark.xdist_group("rabbitmq")


def everything_raises(source: RabbitMqSource, words: str) -> None:
    for call in (lambda: source.receive(10, 0), source.depth):
        with pytest.raises(SourceUnavailable, match=words) as raised:
            call()
        assert "hunter2" not in str(raised.value)


def with_login(url: str, login: str) -> str:
    before, _, behind = url.partition("@")
    return f"{before.partition('://')[0]}://{login}@{behind}"


def test_a_broker_that_cannot_be_reached_is_an_outage() -> None:
    port = free_port()
    source = a_source_of(f"amqp://anna:hunter2@127.0.0.1:{port}/?queue=events")

    everything_raises(source, f"127.0.0.1:{port} can't be reached: ConnectionRefusedError")
    source.close()


def test_a_wrong_password_is_an_outage_and_after_minutes_a_fault(rabbitmq_queue: RabbitQueue) -> None:
    url = with_login(rabbitmq_queue.source_url, "guest:hunter2")
    address = Settings.load(_env_file=None, source_url=url).source_address()
    assert address is not None
    now = [0.0]
    source = RabbitMqSource(address, connection_parameters(address), prefetch=10, clock=lambda: now[0])

    everything_raises(source, "refuses the user or the password")
    now[0] = REFUSED_S_MAX - 1
    everything_raises(source, "refuses the user or the password")
    now[0] = REFUSED_S_MAX

    with pytest.raises(SourceFault, match="put a valid user and password into SOURCE_URL"):
        source.receive(10, 0)
    source.close()


def test_a_vhost_that_does_not_exist_is_an_outage_and_after_minutes_a_mistake(rabbitmq_url: str) -> None:
    url = f"{rabbitmq_url.rstrip('/')}/nowhere?queue=events"
    address = Settings.load(_env_file=None, source_url=url).source_address()
    assert address is not None
    now = [0.0]
    source = RabbitMqSource(address, connection_parameters(address), prefetch=10, clock=lambda: now[0])

    everything_raises(source, "'nowhere'")
    now[0] = REFUSED_S_MAX

    with pytest.raises(SettingsError, match="make the vhost"):
        source.receive(10, 0)
    source.close()


def test_a_queue_that_does_not_exist_is_an_outage_until_somebody_makes_it(
    rabbitmq_queue: RabbitQueue,
) -> None:
    late = RabbitQueue(rabbitmq_queue.url, f"{rabbitmq_queue.name}-late")
    source = a_rabbitmq_source(late)
    everything_raises(source, "has no queue")

    late.make()
    late.put(message_id="m")

    assert len(take(source)) == 1
    source.close()
    late.close()


def test_a_queue_that_is_deleted_is_an_outage_and_what_it_held_is_gone(rabbitmq_queue: RabbitQueue) -> None:
    rabbitmq_queue.put(b"old", message_id="m")
    source = a_rabbitmq_source(rabbitmq_queue)
    old = take(source)

    rabbitmq_queue.channel.queue_delete(rabbitmq_queue.name)
    wait_until(lambda: source._link is None, "the broker has said so")

    with pytest.raises(SourceUnavailable, match="has no queue"):
        source.settle(settled(old))
    rabbitmq_queue.make()
    source.settle(settled(old))
    rabbitmq_queue.put(b"new", message_id="m")
    assert [delivery.body for delivery in take(source)] == [b"new"]
    source.close()


def test_a_tag_of_a_connection_that_ended_acknowledges_nothing_on_the_next(
    rabbitmq_queue: RabbitQueue,
) -> None:
    """Tags count from one on each channel: by number alone, the first would settle the second."""
    rabbitmq_queue.put(b"first", message_id="m1")
    source, proxy = behind_a_proxy(rabbitmq_queue)
    [first] = take(source)
    proxy.cut()
    wait_until(lambda: source._link is None, "it has been noticed")
    rabbitmq_queue.put(b"second", message_id="m2")
    again = take(source, 2)

    source.settle(settled([first]))
    source.release([first])

    assert source.depth() == {"visible": 0, "in_flight": 2}
    assert {delivery.receipt for delivery in again}.isdisjoint({first.receipt})
    source.close()


def behind_a_proxy(queue: RabbitQueue) -> tuple[RabbitMqSource, TcpProxy]:
    address = Settings.load(_env_file=None, source_url=queue.source_url).source_address()
    assert address is not None
    [(_, port)] = address.hosts
    proxy = TcpProxy(port)
    parameters = connection_parameters(address, heartbeat_s=1)
    parameters.port = proxy.port
    return RabbitMqSource(address, parameters, prefetch=10), proxy


def test_a_broker_that_falls_silent_is_an_outage(rabbitmq_queue: RabbitQueue) -> None:
    source, proxy = behind_a_proxy(rabbitmq_queue)
    assert source.receive(1, 0) == []

    proxy.fall_silent()

    with pytest.raises(SourceUnavailable, match="can't be reached"):
        source.receive(1, 20)
    source.close()


def test_a_broker_that_lets_us_in_and_never_answers_for_the_queue_is_left(
    rabbitmq_queue: RabbitQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does that has just started, now and then."""
    for bound in ("STACK_TIMEOUT_S", "CONNECT_TIMEOUT_S"):
        monkeypatch.setattr(rabbitmq, bound, 1)
    with monkeypatch.context() as unanswered:
        unanswered.setattr(Channel, "basic_consume", lambda *_, **__: None)
        unanswered.setattr(Connection, "close", lambda *_, **__: None)
        source = a_rabbitmq_source(rabbitmq_queue)
        with pytest.raises(SourceUnavailable, match="has not handed the queue over"):
            source.receive(1, 0)

    rabbitmq_queue.put(b"{}")

    assert len(take(source, 1)) == 1
    source.close()


def test_a_broker_that_is_killed_under_load_costs_no_event_and_counts_none_twice(
    rabbitmq_broker: Broker, database_url: str, db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    seed(database_url)
    queue = RabbitQueue(rabbitmq_broker.url, f"killed-{os.getpid()}")
    queue.make()
    plan = FakePlan(events=600, seed=5, invalid=0.1, duplicates=0.1)
    publisher, manifest = AmqpPublisher(queue.source_url), tmp_path / "manifest.jsonl"
    with ManifestWriter(manifest) as writer:
        receipts = list(PublishRun(publisher, writer).publish(fake_messages(plan)))
    assert sum(isinstance(receipt, AcceptedMessage) for receipt in receipts) == 600
    publisher.close()
    address = Settings.load(_env_file=None, source_url=queue.source_url).source_address()
    assert address is not None
    with processor(database_url, queue.source_url, tmp_path) as running:
        wait_until(lambda: count(db, "message") > 20, "some are stored")
        rabbitmq_broker.kill()
        wait_until(lambda: "outage" in (tmp_path / "processor.log").read_text(), "it has been noticed")
        rabbitmq_broker.start()
        wait_until(lambda: nothing_is_left(db, address), "all has been read")
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0

    report = audit(db, [manifest], lambda: queue_depth(address))
    assert report.holds, report.text()
    queue.close()


def nothing_is_left(db: psycopg.Connection[Any], address: SourceAddress) -> bool:
    """Whether the broker has nothing left to hand over, and what it had handed over has stopped to come."""
    before = sum(books(db).values())
    left = queue_depth(address)["visible"]
    return left == 0 and before == sum(books(db).values()) and before > 500


class processor:  # noqa: N801 - reads as what it starts
    """`processor run` on a queue of RabbitMQ, for as long as the block lasts."""

    def __init__(
        self, database_url: str, source_url: str, directory: Path, module: tuple[str, ...] = ("processor",)
    ) -> None:
        self._module = module
        self._environment = os.environ | {
            "DATABASE_URL": database_url,
            "SOURCE_URL": source_url,
            "HTTP_PORT": "0",
            "RECEIVE_WAIT_S": "1",
            # Small, so that there is a while in which to pull the plug.
            "BATCH_SIZE_MAX": "5",
            "BUFFER_SIZE_MAX": "10",
            "RETRY_WAIT_S_MAX": "0.5",
            "LOG_FORMAT": "console",
        }
        self._log = directory / "processor.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "subprocess.Popen[bytes]":
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self._module, "run"], env=self._environment, stdout=log, stderr=log
            )
        return self._process

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
