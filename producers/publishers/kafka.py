"""The publisher for Kafka: an idempotent producer that waits until all replicas have a message."""

import threading
import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, Message, Producer

from processor.brokers.kafka import NO_TOPIC, REFUSED, configuration, delivery_id, name_of, place
from processor.brokers.source_url import source_address
from processor.errors import SettingsError
from producers.publishers import Answer, CallFailed
from producers.publishers.outgoing import Outgoing

_ANSWER_S_MAX = 20.0
"""The delivery timeout of a message, including librdkafka's own retries."""

_MESSAGE_BYTES_MAX = 2 * 1024 * 1024
"""More than we ever send: the broker enforces the topic's own limit."""

_AWAY = "_ALL_BROKERS_DOWN"
_TICK_S = 0.05
_TOO_LARGE = frozenset({"MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE"})
_REFUSED_RIGHTS = frozenset({"TOPIC_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED"})


class KafkaPublisher:
    """One topic. The key is the tenant, so that one tenant's events are in one partition, in their order.

    `url` has the form of SOURCE_URL; its group is ignored. Raises SettingsError for a bad URL.
    """

    def __init__(self, url: str) -> None:
        try:
            self._address = source_address(url)
        except ValueError as error:
            raise SettingsError(f"the URL of Kafka: {error}") from None
        if self._address.kind != "kafka":
            raise SettingsError("the URL of Kafka: expected kafka:// or kafkas://")
        self._making = threading.Lock()
        self._made: Producer | None = None
        self._refused = ""
        self._away = False

    @property
    def name(self) -> str:
        """The URL without user and password."""
        scheme = "kafkas" if self._address.tls else "kafka"
        return f"{scheme}://{place(self._address).replace(' ', '')}/{self._address.queue}"

    @property
    def ordered(self) -> bool:
        """True: with two threads the order of a tenant's messages would be undefined."""
        return True

    def send(self, batch: Mapping[int, Outgoing]) -> Answer:
        """Send these messages and wait for the brokers' result for each."""
        producer = self._producer()
        # Errors from before this call, such as an idle connection that was closed, are out of date.
        producer.poll(0)
        self._away = False
        answer, unknown = Answer(), dict[int, str]()
        waiting = set(batch)
        for index, message in batch.items():
            self._produce(producer, index, message, _Reports(answer, unknown, waiting))
        give_up_at = time.monotonic() + _ANSWER_S_MAX + 5
        while waiting and time.monotonic() < give_up_at:
            producer.poll(_TICK_S)
            if self._refused:
                raise SettingsError(f"Kafka refuses the user of {self.name}: {self._refused}")
            if self._away and not answer.accepted:
                # The run retries with a log entry; librdkafka would retry for longer, and silently.
                self._give_up(producer)
                raise CallFailed(_AWAY, f"Kafka can't be reached at {self.name}", outage=True)
        missing = set(unknown.values()) & NO_TOPIC
        if missing:
            raise SettingsError(f"Kafka has no topic for {self.name}; make it first")
        if (unknown or waiting) and not answer.accepted and not answer.refused:
            name = next(iter(unknown.values()), "_TIMED_OUT")
            raise CallFailed(name, f"Kafka has not taken it at {self.name}", outage=True)
        # The state of a message without a result is unknown, so it is sent again.
        return answer

    def close(self) -> None:
        """Close the connections; every message that was sent has a result or was given up."""
        with self._making:
            self._made = None

    def _give_up(self, producer: Producer) -> None:
        """Drop messages that are under way; a retry opens new connections."""
        producer.purge()
        self.close()

    def _produce(self, producer: Producer, index: int, message: Outgoing, reports: "_Reports") -> None:
        timestamp_ms = time.time_ns() // 1_000_000
        key = message.group or message.tenant_id
        try:
            producer.produce(
                self._address.queue,
                message.body.encode("utf-8", "surrogatepass"),
                key=None if key is None else key.encode("utf-8", "surrogatepass"),
                headers=[
                    (name, value.encode("utf-8", "surrogatepass"))
                    for name, value in message.attributes.items()
                ],
                timestamp=timestamp_ms,
                on_delivery=lambda error, sent: reports.note(index, error, sent, timestamp_ms),
            )
        except BufferError:
            reports.answer.again[index] = ("_QUEUE_FULL", "too much is on its way already")
            reports.waiting.discard(index)
        except KafkaException as error:
            reports.fail(index, name_of(error))

    def _producer(self) -> Producer:
        with self._making:
            if self._made is None:
                self._made = Producer(self._configuration())
            return self._made

    def _configuration(self) -> dict[str, Any]:
        return configuration(self._address) | {
            "client.id": "event-producer",
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 0,
            "compression.type": "none",
            # The same partitioner as in Java's clients, so that a tenant has one partition for all senders.
            "partitioner": "murmur2_random",
            "message.max.bytes": _MESSAGE_BYTES_MAX,
            "message.timeout.ms": int(_ANSWER_S_MAX * 1000),
            "error_cb": self._on_error,
        }

    def _on_error(self, error: KafkaError) -> None:
        if error.name() in REFUSED:
            self._refused = error.name()
        self._away = self._away or error.name() == _AWAY


class _Reports:
    """The brokers' results for one batch, by message."""

    def __init__(self, answer: Answer, unknown: dict[int, str], waiting: set[int]) -> None:
        self.answer = answer
        self.unknown = unknown
        self.waiting = waiting

    def note(self, index: int, error: KafkaError | None, message: Message, timestamp_ms: int) -> None:
        if error is not None:
            self.fail(index, error.name())
            return
        kind, moment_ms = message.timestamp()
        if kind == TIMESTAMP_LOG_APPEND_TIME:
            # The topic replaces our timestamp by its own, which the source will read.
            timestamp_ms = moment_ms
        self.answer.accepted[index] = delivery_id(
            message.partition() or 0, message.offset() or 0, timestamp_ms
        )
        self.waiting.discard(index)

    def fail(self, index: int, name: str) -> None:
        if name in _TOO_LARGE:
            self.answer.refused[index] = (name, "larger than the topic takes (max.message.bytes)")
        elif name in _REFUSED_RIGHTS:
            self.answer.refused[index] = (name, "this user may not write to the topic")
        else:
            self.unknown[index] = name
        self.waiting.discard(index)
