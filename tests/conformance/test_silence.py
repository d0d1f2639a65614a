"""Silence is not emptiness: what each source promises while its broker is frozen, and how it counts.

A frozen broker takes connections, keeps those that it has, and says nothing, as one that was sent SIGSTOP.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from processor.brokers.rabbitmq import connection_parameters
from processor.brokers.source_refusal import REFUSED_S_MAX
from processor.brokers.source_url import source_address
from processor.devstack.servers.sqs import EmbeddedSqs
from processor.errors import SettingsError, SourceUnavailable
from processor.settings import Settings
from processor.sources import RunningSource
from processor.sources.kafka.source import KafkaSource
from processor.sources.rabbitmq.source import RabbitMqSource
from processor.sources.sqs.source import SqsSource
from processor.wire.formats import Attribute
from tests.broker_servers.kafka import Mock, Sender, Tansu, tansu
from tests.broker_servers.rabbitmq import Broker, RabbitQueue
from tests.chaos.traffic.tcp_proxy import TcpProxy
from tests.conformance.test_source import (
    PATIENCE_S,
    Queue,
    an_sqs_source,
    queue,
    sender,
    settled,
)
from tests.rabbit_sources import a_rabbitmq_source
from tests.rig import wait_until

__all__ = ["queue"]

SESSION_S = 6
"""Tansu holds the join of a lone member for half of it."""


@dataclass
class Freezable:
    """A source, its queue, and the broker's silence."""

    queue: Queue
    freeze: Callable[[], None]
    thaw: Callable[[], None]

    @property
    def source(self) -> RunningSource:
        return cast("RunningSource", self.queue.source)

    def receive_in_peace(self) -> None:
        """Settle whatever comes until the broker has said that there is nothing."""
        give_up_at = time.monotonic() + 3 * PATIENCE_S
        while True:
            try:
                deliveries = self.source.receive(10, 0.2)
            except SourceUnavailable:
                assert time.monotonic() < give_up_at, "it never works again"
                continue
            self.source.settle(settled(deliveries))
            if not deliveries:
                return


@pytest.fixture(
    params=["lean", "boto3", pytest.param("rabbitmq", marks=pytest.mark.xdist_group("rabbitmq")), "kafka"]
)
def freezable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Freezable]:
    """A source of each kind that has a broker, which has said that its queue is empty."""
    # A few seconds of silence are as telling as half a minute.
    for name in (
        "processor.sources.sqs.source._SILENCE_S_MAX",
        "processor.sources.rabbitmq.source._ANSWER_S_MAX",
        "processor.brokers.rabbitmq.STACK_TIMEOUT_S",
    ):
        monkeypatch.setattr(name, 2)
    match request.param:
        case "rabbitmq":
            made = a_freezable_rabbitmq(request.getfixturevalue("rabbitmq_broker"))
        case "kafka":
            made = a_freezable_kafka(request.getfixturevalue("tmp_path"))
        case calls_by:
            made = a_freezable_sqs(
                request.getfixturevalue("sqs_server"), request.getfixturevalue("queue_url"), calls_by
            )
    yield from made


def a_freezable_sqs(server: EmbeddedSqs, url: str, calls_by: str) -> Iterator[Freezable]:
    proxy = TcpProxy(server.port)
    source = an_sqs_source(url, f"http://127.0.0.1:{proxy.port}", calls_by=calls_by)  # type: ignore[arg-type]
    client = server.client()
    yield Freezable(Queue(source, sender(client, url)), proxy.fall_silent, proxy.heal)
    client.close()
    proxy.close()


def a_freezable_rabbitmq(broker: Broker) -> Iterator[Freezable]:
    rabbit = RabbitQueue(broker.url, f"frozen-{time.monotonic_ns()}")
    rabbit.make()
    source = a_rabbitmq_source(rabbit)

    def send(body: bytes, _attributes: Mapping[str, Attribute]) -> str:
        rabbit.put(body)
        return ""

    try:
        yield Freezable(Queue(source, send), broker.freeze, broker.thaw)
    finally:
        broker.thaw()
        source.close()
        rabbit.close()


def a_freezable_kafka(home: Path) -> Iterator[Freezable]:
    with tansu(home) as broker:
        topic = broker.topic(2)
        source = KafkaSource(source_address(broker.url(topic)), session_s=SESSION_S)
        yield Freezable(Queue(source, _kafka_sender(broker, topic)), broker.freeze, broker.thaw)
        broker.thaw()
        source.close()


def _kafka_sender(broker: Tansu, topic: str) -> Callable[[bytes, Mapping[str, Attribute]], str]:
    made = Sender(broker.servers)
    return lambda body, attributes: made.send(topic, body, attributes, partition=0)


# ── a frozen broker ───────────────────────────────────────────────────────────────────────────────────


def test_a_frozen_broker_is_an_outage_and_after_its_thaw_all_comes(freezable: Freezable) -> None:
    freezable.receive_in_peace()
    freezable.queue.put(b"before")
    held = freezable.queue.take()

    freezable.freeze()

    with pytest.raises(SourceUnavailable):
        freezable.source.receive(10, 0)
    with pytest.raises(SourceUnavailable):
        freezable.source.receive(10, 1)
    with pytest.raises(SourceUnavailable):
        freezable.source.depth()
    freezable.thaw()
    freezable.receive_in_peace()
    freezable.source.settle(settled(held))
    freezable.queue.put(b"after")
    assert [delivery.body for delivery in freezable.queue.take()] == [b"after"]


# ── the depth, which says whether a run is idle ───────────────────────────────────────────────────────


def test_a_queue_counts_nothing_only_once_all_is_settled(queue: Queue) -> None:
    source = cast("RunningSource", queue.source)
    queue.put()
    wait_until(lambda: sum(source.depth().values()) == 1, "what waits is counted")
    taken = queue.take()
    assert sum(source.depth().values()) == 1, "what is held is counted"

    source.settle(settled(taken))

    wait_until(lambda: sum(source.depth().values()) == 0, "nothing is left")


# ── a queue that does not exist ───────────────────────────────────────────────────────────────────────


def _an_sqs_source_of_nothing(request: pytest.FixtureRequest, clock: Callable[[], float]) -> RunningSource:
    server: EmbeddedSqs = request.getfixturevalue("sqs_server")
    return SqsSource(
        server.client(), server.queue_url("nowhere"), "nowhere", visibility_timeout_s=60, clock=clock
    )


def _a_rabbitmq_source_of_nothing(
    request: pytest.FixtureRequest, clock: Callable[[], float]
) -> RunningSource:
    url: str = request.getfixturevalue("rabbitmq_url")
    address = Settings.load(_env_file=None, source_url=f"{url}?queue=nowhere").source_address()
    assert address is not None
    return RabbitMqSource(address, connection_parameters(address), prefetch=10, clock=clock)


def _a_kafka_source_of_nothing(request: pytest.FixtureRequest, clock: Callable[[], float]) -> RunningSource:
    kafka: Mock = request.getfixturevalue("kafka")
    return KafkaSource(source_address(kafka.url("nowhere")), session_s=2, clock=clock)


@pytest.mark.parametrize(
    "make",
    [
        _an_sqs_source_of_nothing,
        pytest.param(_a_rabbitmq_source_of_nothing, marks=pytest.mark.xdist_group("rabbitmq")),
        _a_kafka_source_of_nothing,
    ],
)
def test_a_queue_that_does_not_exist_is_waited_for_and_then_a_mistake_that_says_what_to_do(
    make: Callable[[pytest.FixtureRequest, Callable[[], float]], RunningSource],
    request: pytest.FixtureRequest,
) -> None:
    now = [0.0]
    source = make(request, lambda: now[0])
    with pytest.raises(SourceUnavailable):
        source.receive(10, 0)
    now[0] = REFUSED_S_MAX - 1
    with pytest.raises(SourceUnavailable):
        source.receive(10, 0)
    now[0] = REFUSED_S_MAX

    with pytest.raises(SettingsError, match=r"make the .*, or mend S"):
        source.receive(10, 0)
    source.close()
