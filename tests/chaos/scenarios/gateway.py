"""Faults of the HTTP gateway: it is killed with requests in progress, and its queue becomes unavailable.

    load ─▶ HttpPublisher ─▶ gateway ✗ ─▶ proxy ✗ ─▶ SQS ─▶ the fleet

Senders retry with the same ids. Every event that was answered by 202 must be in the table, once.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from processor.devstack.servers.children import free_port
from producers.publishers import Answer, CallFailed, Publisher
from producers.publishers.http import HttpPublisher
from producers.publishers.outgoing import Outgoing
from tests.chaos.field import Field, ScenarioFailed
from tests.chaos.fleet import Fleet
from tests.chaos.run import Scenario
from tests.chaos.sqs_outages import while_sqs
from tests.chaos.traffic.interceptors import delay, lose_reply

_SEND = ("SendMessageBatch",)


@dataclass(slots=True)
class CountingPublisher:
    """A door that counts what failed."""

    publisher: Publisher
    failed: Counter[str] = field(default_factory=Counter)

    @property
    def name(self) -> str:
        return self.publisher.name

    @property
    def ordered(self) -> bool:
        return self.publisher.ordered

    def send(self, batch: Mapping[int, Outgoing]) -> Answer:
        try:
            answer = self.publisher.send(batch)
        except CallFailed as error:
            self.failed[error.code] += 1
            raise
        self.failed.update(code for code, _ in answer.again.values())
        return answer

    def close(self) -> None:
        self.publisher.close()


def behind_a_gateway(field: Field) -> None:
    """Start a gateway, and let the load go by it."""
    port = free_port()
    environment = dict(field.fleet.environment) | {"GATEWAY_PORT": str(port), "GATEWAY_KEYS": "off"}
    field.gateways = Fleet(1, environment, field.folder / "gateway.log")
    field.gateways.command = lambda _: ["producers", "gateway", "http"]
    field.cleanup.callback(field.gateways.stop)
    field.gateways.start()
    publisher = CountingPublisher(HttpPublisher(f"http://127.0.0.1:{port}"))
    field.cleanup.callback(publisher.close)
    field.load.publisher = publisher


def kill_with_requests_inside(field: Field) -> None:
    """Kill -9 while SQS's answers are late: it has taken what nobody was told of yet."""
    gateways, publisher = field.gateways, field.load.publisher
    assert gateways is not None
    assert isinstance(publisher, CountingPublisher)
    died = 0
    with while_sqs(field, delay(field.chance, 0.05, 0.4), only=_SEND):
        for _ in range(field.rounds):
            field.pause(0.2, 1.0)
            before = publisher.failed["HttpTrouble"]
            with field.fault():
                gateways.kill(0)
            accepted = len(field.load.sent.accepted_at)
            field.wait_until(
                lambda accepted=accepted: len(field.load.sent.accepted_at) > accepted,  # type: ignore[misc]
                "the gateway takes something again",
            )
            died += publisher.failed["HttpTrouble"] > before
    if died < field.rounds / 2:
        raise ScenarioFailed(f"{died} of {field.rounds} kills met a request: nothing was shown")


def take_the_queue_away(field: Field) -> None:
    """Cut the gateway off from its queue, and lose SQS's answers on their way to it."""
    publisher = field.load.publisher
    assert isinstance(publisher, CountingPublisher)
    for _ in range(field.rounds):
        field.pause(0.5, 1)
        before = publisher.failed.total()
        with field.fault():
            field.queue.refuse()
            field.wait_until(
                lambda before=before: publisher.failed.total() > before,  # type: ignore[misc]
                "the gateway says that its queue is away",
            )
            field.queue.heal()
        field.pause(0.5, 1)
        with while_sqs(field, lose_reply, share=0.5, only=_SEND):
            field.pause(1, 2)
        field.wait_until_recovered()
    if not publisher.failed["unavailable"]:
        raise ScenarioFailed(f"the gateway never said `unavailable`, but {dict(publisher.failed)}")


def _scenario(scenario: Scenario) -> Scenario:
    return replace(scenario, family="gateway", prepare=behind_a_gateway)


SCENARIOS = [
    _scenario(
        Scenario("kill -9 with requests inside", "", kill_with_requests_inside, rounds=12, rounds_short=2)
    ),
    _scenario(Scenario("queue away, replies lost", "", take_the_queue_away, rounds=4)),
]
