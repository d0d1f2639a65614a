"""Sources of Kafka for the tests, and how one of them loses what it holds."""

from typing import Any

from processor.brokers.source_url import source_address
from processor.sources.kafka.source import KafkaSource
from tests.broker_servers.kafka import Mock

SESSION_S = 2.0
"""Short, because the mock lets a group wait for nearly as long whenever a member comes or goes."""


def a_kafka_source(
    kafka: Mock, topic: str, *, group: str | None = None, session_s: float = SESSION_S, **options: Any
) -> KafkaSource:
    """A source in a group of its own, unless one is named."""
    return KafkaSource(
        source_address(kafka.url(topic, group or f"of-{topic}")), session_s=session_s, **options
    )


def end_membership(source: KafkaSource) -> None:
    """Let the source lose its partitions with all that is held; it joins anew at its next call."""
    member, source._made = source._made, None
    assert member is not None
    member.close(10)
