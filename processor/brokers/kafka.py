"""Configure Kafka clients, and name messages and errors: for the source, checks and the publisher."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from processor.brokers.source_url import SourceAddress

SILENCE_S_MAX = 10
"""The timeout of a request, after which the broker counts as unavailable."""

REFUSED = frozenset({"_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED"})
"""Errors for invalid credentials. A missing right is not among them: it can be granted during a retry."""

NO_TOPIC = frozenset({"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"})

_quiet = logging.getLogger("processor.librdkafka")
_quiet.setLevel(logging.CRITICAL + 1)
# During an outage librdkafka logs twenty lines a second in its own format. We log outages ourselves.
_quiet.propagate = False


def configuration(address: SourceAddress) -> dict[str, Any]:
    """Return the configuration of librdkafka that every client of this address needs."""
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
    """Return the permanent id of a message.

    It contains the timestamp, because a topic that is deleted and created again starts at offset 0.
    """
    return f"{partition}-{offset}-{max(timestamp_ms, 0)}"


def place(address: SourceAddress) -> str:
    """Return the brokers as text, without user and password."""
    return ", ".join(f"{host}:{port}" for host, port in address.hosts)


def name_of(error: KafkaException) -> str:
    """Return the name of an error in librdkafka's documentation; its text may not be fit for a log."""
    [what, *_] = error.args
    return str(what.name())


@contextmanager
def an_onlooker(
    address: SourceAddress, on_error: Callable[[str], object] = lambda _name: None
) -> Iterator[Consumer]:
    """Open a client that can read the group's offsets without being a member.

    During polls, `on_error` gets the names of errors that belong to no call.
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
    """Return the lag of the group by partition. Raises KafkaException."""
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
    """Return the message why a group must not begin at its first record, and how to set its offsets."""
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
