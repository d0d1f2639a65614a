"""What happens to a broker that stands in for SQS: it is killed, and comes back with what it had on disk.

load ─▶ AmqpDoor ─▶ RabbitMQ ✗ ─▶ the fleet
"""

from dataclasses import dataclass, replace

from producers.doors.amqp import AmqpDoor
from tests.brokers.rabbitmq import Broker, RabbitQueue, program
from tests.faults.field import Field
from tests.faults.run import Scenario
from tests.faults.scenarios.gateway import PatientDoor

_TRY_AGAIN_S = 4.0
"""A broker takes up to ten seconds to be back, and who sends gives up at the seventh failure."""


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
    door = PatientDoor(AmqpDoor(queue.source_url), _TRY_AGAIN_S)
    field.cleanup.callback(door.close)
    field.load.door = door


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
        field.wait_until_recovered()


def _missing() -> str:
    return "" if program() is not None else "no RabbitMQ on this machine"


SCENARIOS = [
    replace(
        Scenario("RabbitMQ killed with -9", "brokers", kill_the_broker, rounds=4),
        prepare=from_rabbitmq,
        needs=_missing,
    )
]
