"""The Kafka sink: each line is one record of a topic.

    {"tenant_id": "acme", ..., "key": K}  ─▶  key acme, value the line, header Idempotency-Key of its batch

The lines of a tenant are in one partition, so a line that is retried after an outage is in the same partition
as its first copy, and a consumer can deduplicate by `key`.
"""

from collections.abc import Callable, Mapping, Sequence

import orjson
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from processor.brokers.kafka import configuration, name_of
from processor.brokers.source_url import SourceAddress
from processor.handover.sink import AllAccepted, Answer, PartlyAccepted, SinkUnavailable
from processor.wire.strict_json import elements

_DEPTH_MAX = 16
_OF_THE_LINE = frozenset({"MSG_SIZE_TOO_LARGE", "INVALID_RECORD", "INVALID_MSG"})
"""Errors of a single record; the other records of the batch may be accepted."""

_FLUSH_MARGIN_S = 1.0


class KafkaSink:
    """Writes to a topic, a new producer per batch; all in-sync replicas must confirm within `timeout_s`."""

    def __init__(self, address: SourceAddress, *, timeout_s: float) -> None:
        self._topic = address.queue
        self._timeout_s = timeout_s
        self._configuration = configuration(address) | {
            "acks": "all",
            "enable.idempotence": True,
            "message.timeout.ms": int(timeout_s * 1000),
        }

    def send(self, body: bytes, *, key: str, line_keys: Sequence[str]) -> Answer:
        """Send the batch once; see Sink."""
        said: dict[str, str | None] = {}

        def noted(line_key: str) -> Callable[[KafkaError | None, Message], None]:
            return lambda error, _message: said.update({line_key: None if error is None else error.name()})

        try:
            producer = Producer(self._configuration)
            for line_key, line in zip(line_keys, elements(body.decode(), _DEPTH_MAX), strict=True):
                producer.produce(
                    self._topic,
                    line.encode(),
                    orjson.loads(line)["tenant_id"].encode(),
                    headers={"Idempotency-Key": key, "content-type": "application/json"},
                    on_delivery=noted(line_key),
                )
            producer.flush(self._timeout_s + _FLUSH_MARGIN_S)
        except KafkaException as error:
            return SinkUnavailable(name_of(error), reached=False)
        return _meaning(said, line_keys)


def _meaning(said: Mapping[str, str | None], line_keys: Sequence[str]) -> Answer:
    """Translate the delivery reports (`said`: line key to None or an error's name) into an answer."""
    errors = {line_key: said.get(line_key, "_MSG_TIMED_OUT") for line_key in line_keys}
    troubles = {line_key: error for line_key, error in errors.items() if error is not None}
    for error in troubles.values():
        if error not in _OF_THE_LINE:
            # Names with a leading underscore are librdkafka's own: no broker has answered.
            return SinkUnavailable(error, reached=not error.startswith("_"))
    return PartlyAccepted(troubles) if troubles else AllAccepted()
