"""To make an object starts nothing: a thread begins when the object is told to."""

import threading
from collections.abc import Callable

import pytest

from processor.brokers.rabbitmq import connection_parameters
from processor.brokers.source_url import source_address
from processor.pipeline.forgetter import SettledNoteCleaner
from processor.sources.kafka.assignment import Assignment
from processor.sources.kafka.group_member import Member
from processor.sources.kafka.source import KafkaSource
from processor.sources.rabbitmq.source import RabbitMqSource
from tests.pipeline.harness import Harness

KAFKA = source_address("kafka://127.0.0.1:9/events?group=ours")
RABBIT = source_address("amqp://127.0.0.1:9/%2F?queue=events")


def a_member() -> Member:
    assignment = Assignment(KAFKA, size_max=1, bytes_max=1)
    return Member(KAFKA, assignment, buffer_bytes_max=1, session_s=6, forgotten_before=lambda: None)


@pytest.mark.parametrize(
    "make",
    [
        a_member,
        lambda: KafkaSource(KAFKA),
        lambda: RabbitMqSource(RABBIT, connection_parameters(RABBIT), prefetch=1),
        lambda: SettledNoteCleaner(lambda: None, "events"),  # type: ignore[arg-type,return-value]
        Harness,
    ],
    ids=["member", "kafka", "rabbitmq", "forgetter", "pipeline"],
)
def test_what_is_made_has_started_no_thread(make: Callable[[], object]) -> None:
    before = set(threading.enumerate())

    made = make()

    assert set(threading.enumerate()) <= before, f"{made} has"
