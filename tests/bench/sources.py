"""RabbitMQ and Kafka beside SQS: the same messages, the same processor, each from a broker of its own kind.

    fill ─▶ broker ─▶ processor run ─▶ PostgreSQL        the clock runs from the commit that ends the warm-up

RabbitMQ is Debian's, with a quorum queue; Kafka is Tansu, in memory, with four partitions; SQS is the load
tests' own queue server. So the figures show the cost of our side, not the speed of these brokers.
"""

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias

import psycopg

from processor.devstack.servers.children import Child, free_port
from producers.publishers import Publisher
from producers.publishers.kafka import KafkaPublisher
from producers.publishers.outgoing import Outgoing
from producers.publishers.publish import AcceptedMessage, PublishRun
from producers.publishers.rabbitmq import AmqpPublisher
from tests.bench import events
from tests.bench.contestants import ours
from tests.bench.faults import LoadError
from tests.bench.figures import measures
from tests.bench.figures.gateway_report import SQS
from tests.bench.figures.rounds import Figures, audit, clock, drain, running, tag
from tests.bench.ground import Arena, Ground
from tests.bench.race import Entry, Race, race
from tests.broker_servers.kafka import Tansu
from tests.broker_servers.rabbitmq import Broker, RabbitQueue, program

RABBITMQ, KAFKA = "RabbitMQ", "Kafka"
WARM_UP = 1_000
STUCK_S = 60.0
Opening: TypeAlias = Callable[[str], AbstractContextManager[tuple[str, Publisher]]]
"""Makes a queue of this name for a while; gives its URL, and a door to it."""
POLL_S = 0.02
SESSION_S = 6
"""Short: Tansu lets a member that is alone in its group wait for half of it, whoever's client that is."""

_ROUNDS = itertools.count(1)


def sources(ground: Ground, rounds: int, messages: int, say: Callable[[str], None] = print) -> Race:
    """Let the processor drain each kind of broker in turn, round by round."""
    with tempfile.TemporaryDirectory(dir=ground.folder) as home, _brokers(Path(home)) as (rabbit, kafka):
        lacking = None if rabbit else "RabbitMQ is not installed: apt-get install rabbitmq-server"
        entries = [
            Entry(SQS, lambda ground, messages: drain(ground, ours(), messages, WARM_UP)),
            Entry(RABBITMQ, partial(_drain, RABBITMQ, partial(_rabbitmq, rabbit)), missing=lacking),
            Entry(KAFKA, partial(_drain, KAFKA, partial(_kafka, kafka))),
        ]
        return race(ground, entries, rounds, messages, say)


@contextmanager
def _brokers(home: Path) -> Iterator[tuple[Broker | None, Tansu]]:
    kafka, rabbit = Tansu(free_port()), Broker() if program() else None
    try:
        kafka.start(home)
        if rabbit is not None:
            rabbit.start()
        yield rabbit, kafka
    finally:
        kafka.stop()
        if rabbit is not None:
            rabbit.stop()


@contextmanager
def _rabbitmq(broker: Broker | None, name: str) -> Iterator[tuple[str, Publisher]]:
    assert broker is not None, "who is missing does not run"
    queue = RabbitQueue(broker.url, name)
    queue.make()
    try:
        yield queue.source_url, AmqpPublisher(queue.source_url)
    finally:
        queue.close()


@contextmanager
def _kafka(broker: Tansu, name: str) -> Iterator[tuple[str, Publisher]]:
    # A group of its own: Kafka would wait for a session's length for the members of the round before.
    topic = broker.topic(4, f"{name}-{next(_ROUNDS)}")
    url = broker.url(topic, group=topic)
    yield url, KafkaPublisher(url)


def _drain(
    name: str,
    queue: Opening,
    ground: Ground,
    messages: int,
) -> Figures:
    with ground.arena(f"source-{tag(name)}") as made, queue(made.name) as (url, publisher):
        more = {"SOURCE_URL": url, "VISIBILITY_TIMEOUT_S": str(SESSION_S)}
        arena = dataclasses.replace(made, environment=made.environment | more)
        _fill(publisher, WARM_UP + messages)
        with running(ground, ours(), arena) as child:
            warm = _wait_for_rows(arena, child, WARM_UP)
            left = WARM_UP + messages - warm
            client_s, database_s = _used(ground, child)
            _wait_for_rows(arena, child, WARM_UP + messages)
            client_end_s, database_end_s = _used(ground, child)
            rss_mib = measures.rss_peak_mib(child.pid)
        audit(arena, WARM_UP + messages)
        ticked = clock(arena, None, WARM_UP)
    return Figures(
        messages,
        messages / ticked.seconds,
        (client_end_s - client_s) / left * 1000,
        database_cpu_s=(database_end_s - database_s) / left * 1000,
        rss_peak_mib=rss_mib,
        transactions=ticked.transactions / messages * 1000,
        deadlocks=ticked.deadlocks,
    )


def _fill(publisher: Publisher, count: int) -> None:
    text = events.template()
    outgoing = (
        Outgoing(events.body(number, text), message_id=f"order-{number:09d}", tenant_id="t", group="t")
        for number in range(count)
    )
    try:
        accepted = sum(isinstance(one, AcceptedMessage) for one in PublishRun(publisher).publish(outgoing))
    finally:
        publisher.close()
    if accepted != count:
        raise LoadError(f"{publisher.name} took {accepted} of {count} messages")


def _used(ground: Ground, child: Child) -> tuple[float, float]:
    return measures.cpu_s(child.pid), measures.cpu_s(ground.postgres.pid or 0)


def _wait_for_rows(arena: Arena, child: Child, wanted: int) -> int:
    seen, moved_at_s = -1, time.monotonic()
    with psycopg.connect(arena.database_url, autocommit=True) as connection:
        while True:
            row = connection.execute("SELECT count(*) FROM message").fetchone()
            count = int(row[0]) if row else 0
            if count >= wanted:
                return count
            if count > seen:
                seen, moved_at_s = count, time.monotonic()
            if child.exit_code() is not None or time.monotonic() - moved_at_s > STUCK_S:
                raise LoadError(f"{child.name} stands at {count} of {wanted}; it said:{child.log_tail()}")
            time.sleep(POLL_S)
