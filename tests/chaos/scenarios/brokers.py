"""Faults of RabbitMQ and Kafka: the broker is killed and restarted, or hangs; consumers die.

load ─▶ AmqpPublisher ─▶ RabbitMQ ✗ ─▶ the fleet
load ─▶ KafkaPublisher ─▶ Tansu ✗ ─▶ the fleet ✗
"""

from dataclasses import dataclass, replace

from producers.publishers.kafka import KafkaPublisher
from producers.publishers.rabbitmq import AmqpPublisher
from tests.broker_servers.kafka import Tansu, tansu
from tests.broker_servers.rabbitmq import Broker, RabbitQueue, program
from tests.chaos.field import Field
from tests.chaos.run import Scenario


@dataclass(slots=True)
class BrokersBooks:
    """What a broker itself says that it still has, handed over or not; AMQP tells of the rest alone."""

    broker: Broker

    def depth(self) -> dict[str, int]:
        [messages] = self.broker.control("-q", "list_queues", "messages", "--no-table-headers").split()
        return {"visible": int(messages)}

    def depth_with_dead_letters(self) -> dict[str, int]:
        return self.depth()


def from_rabbitmq(field: Field) -> None:
    """Start a broker with a quorum queue, let the load go there, and the fleet read it."""
    broker = Broker()
    field.cleanup.callback(broker.stop)
    broker.start()
    queue = RabbitQueue(broker.url, "events")
    queue.make()
    field.broker, field.books = broker, BrokersBooks(broker)
    field.fleet.environment = dict(field.fleet.environment) | {"SOURCE_URL": queue.source_url}
    publisher = AmqpPublisher(queue.source_url)
    field.cleanup.callback(publisher.close)
    field.load.publisher = publisher
    # Of two equal messages RabbitMQ does not say which one comes again: the other's row may then be missing.
    field.load.duplicates = 0.0


def kill_the_broker(field: Field) -> None:
    """Kill -9 the broker under load, with messages handed over and not yet acknowledged."""
    broker = field.broker
    assert broker is not None
    for _ in range(field.rounds):
        field.pause(1, 3)
        with field.fault():
            broker.kill()
            field.pause(0.5, 2)
            broker.start()
        accepted = len(field.load.sent.accepted_at)
        # Who sends looks now and then whether it is back; killed before that, it would be away all along.
        field.wait_until(
            lambda accepted=accepted: len(field.load.sent.accepted_at) > accepted,  # type: ignore[misc]
            "the broker takes something again",
        )
        field.wait_until_recovered()


@dataclass(slots=True)
class AcceptedBooks:
    """What a broker should still have: what has no outcome yet. Tansu itself counts too little."""

    field: Field
    tansu: Tansu

    def depth(self) -> dict[str, int]:
        return {"visible": self.field.left()}

    def depth_with_dead_letters(self) -> dict[str, int]:
        return self.depth()


def from_kafka(field: Field) -> None:
    """Start a broker with a topic of four partitions, let the load go there, and the fleet read it."""
    broker = field.cleanup.enter_context(tansu(field.folder))
    url = broker.url(broker.topic(4, "events"))
    field.books = AcceptedBooks(field, broker)
    field.fleet.environment = dict(field.fleet.environment) | {"SOURCE_URL": url}
    publisher = KafkaPublisher(url)
    field.cleanup.callback(publisher.close)
    field.load.publisher = publisher


def freeze_the_broker_and_kill_readers(field: Field) -> None:
    """Let the broker fall silent, and kill -9 one of its readers, whose partitions go to the others."""
    books = field.books
    assert isinstance(books, AcceptedBooks)
    for number in range(field.rounds):
        field.pause(1, 3)
        with field.fault():
            books.tansu.freeze()
            try:
                field.pause(2, 6)
            finally:
                books.tansu.thaw()
        field.pause(1, 2)
        with field.fault():
            field.fleet.kill(number % field.fleet.size)
        field.wait_until_recovered()


def missing() -> str:
    return "" if program() is not None else "no RabbitMQ on this machine"


SCENARIOS = [
    replace(
        Scenario("RabbitMQ killed with -9", "brokers", kill_the_broker, rounds=4),
        prepare=from_rabbitmq,
        needs=missing,
    ),
    replace(
        Scenario(
            "Kafka frozen, readers killed with -9", "brokers", freeze_the_broker_and_kill_readers, rounds=4
        ),
        prepare=from_kafka,
    ),
]
