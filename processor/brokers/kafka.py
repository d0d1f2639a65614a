"""How Kafka is reached, and what it calls messages and errors: for source, check and publisher."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from processor.brokers.source_url import SourceAddress

SILENCE_S_MAX = 10
"""For how long a request may stay without an answer before the broker counts as away."""

REFUSED = frozenset({"_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED"})
"""Errors that speak of the credentials themselves. A missing right is none: it can be given while we wait."""

NO_TOPIC = frozenset({"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"})

_quiet = logging.getLogger("processor.librdkafka")
_quiet.setLevel(logging.CRITICAL + 1)
# Twenty lines a second while a broker is away, in a form of its own: what matters of it, we say ourselves.
_quiet.propagate = False


def configuration(address: SourceAddress) -> dict[str, Any]:
    """Give librdkafka's configuration that every client of this address needs."""
    found: dict[str, Any] = {
        "bootstrap.servers": ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in address.hosts
        ),
        "client.id": "event-processor",
        "security.protocol": _protocol(address),
        "socket.timeout.ms": SILENCE_S_MAX * 1000,
        "socket.keepalive.enable": True,
        "reconnect.backoff.max.ms": 2000,
        "logger": _quiet,
    }
    if address.user is not None:
        found["sasl.mechanism"] = address.sasl
        found["sasl.username"] = address.user
        found["sasl.password"] = address.password.get_secret_value() if address.password else ""
    return found


def delivery_id(partition: int, offset: int, timestamp_ms: int) -> str:
    """Name a message for good.

    With its moment, because a topic that is made anew under the old name begins at offset 0 again.
    """
    return f"{partition}-{offset}-{max(timestamp_ms, 0)}"


def place(address: SourceAddress) -> str:
    """Name the brokers, without user and password."""
    return ", ".join(f"{host}:{port}" for host, port in address.hosts)


def name_of(error: KafkaException) -> str:
    """Name what went wrong, as librdkafka's documentation does; its text may say more than a log should."""
    [what, *_] = error.args
    return str(what.name())


@contextmanager
def an_onlooker(
    address: SourceAddress, on_error: Callable[[str], object] = lambda _name: None
) -> Iterator[Consumer]:
    """Give a client that may ask for the group's offsets, and is no member of it.

    `on_error` is told the names of errors that belong to no call, whenever the client is polled.
    """
    consumer = Consumer(
        configuration(address)
        | {
            "group.id": address.group,
            "enable.auto.commit": False,
            "error_cb": lambda error: on_error(error.name()),
        }
    )
    try:
        yield consumer
    finally:
        consumer.close()


def lag_of(consumer: Consumer, topic: str, timeout_s: float) -> dict[int, int]:
    """Count by partition what lies beyond the group's offsets. Raises KafkaException."""
    found = consumer.list_topics(topic, timeout=timeout_s).topics[topic]
    if found.error is not None:
        raise KafkaException(found.error)
    places = [TopicPartition(topic, number) for number in sorted(found.partitions)]
    lag: dict[int, int] = {}
    for line in consumer.committed(places, timeout=timeout_s):
        first, end = consumer.get_watermark_offsets(TopicPartition(topic, line.partition), timeout=timeout_s)
        lag[line.partition] = max(0, end - max(line.offset, first))
    return lag


def forgotten(address: SourceAddress, number: int, sent_at: datetime, before: datetime) -> str:
    """Say why a group must not begin where its partition does, and how to tell it where to begin."""
    servers, day = place(address).replace(" ", ""), f"{before:%Y-%m-%d}"
    return (
        f"the group {address.group} has no offset in partition {number} of {address.queue}, which begins on "
        f"{sent_at:%Y-%m-%d}; what was sent before {day} may have been stored here and removed since, and "
        "would count again. Say where the group is to begin: "
        f"kafka-consumer-groups.sh --bootstrap-server {servers} --group {address.group} "
        f"--topic {address.queue} --reset-offsets --execute --to-datetime {before:%Y-%m-%dT%H:%M:%S}.000, or "
        "--to-earliest if nothing of this topic was ever stored here"
    )


def _protocol(address: SourceAddress) -> str:
    if address.user is None:
        return "SSL" if address.tls else "PLAINTEXT"
    return "SASL_SSL" if address.tls else "SASL_PLAINTEXT"
