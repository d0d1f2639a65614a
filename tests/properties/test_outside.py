"""Whatever is written beside a body, by whomever, is a delivery that the tables take."""

import json
from datetime import UTC, datetime
from typing import Any

import psycopg
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import ConnectionParameters
from pika.spec import Basic, BasicProperties

from processor.brokers.source_url import source_address
from processor.model import Delivery
from processor.sources.kafka.partitions import Mark, Partition
from processor.sources.kafka.records import record_of
from processor.sources.rabbitmq.source import RabbitMqSource
from processor.sources.sqs.messages import read_messages
from processor.wire import beside
from processor.wire.bounds import COUNT_MAX
from tests.builders import a_body
from tests.fixtures.database import Saver, books

NOW = datetime.now(UTC)

numbers = st.one_of(
    st.integers(),
    st.sampled_from([-1, 0, 10, 2**31 - 1, 2**31, 2**63, 2**64, 10**30]),
    st.floats(),
)
texts = st.one_of(st.text(max_size=20), st.sampled_from(["", "\0", "\ud800", "x" * 255, "é" * 127, "10"]))
NAMES = [
    "x-delivery-count",
    "x-death",
    "amqp.message_id",
    "amqp.timestamp",
    "routing_key",
    "fault",
    *beside.NAMES,
]
names = st.one_of(texts, st.sampled_from(NAMES))
values = st.recursive(
    st.one_of(numbers, texts, st.binary(max_size=20), st.none(), st.booleans(), st.datetimes()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=5,
)
bodies = st.sampled_from([a_body(), a_body(id=None), b"", b"[1]", b"\xff"])


@st.composite
def of_rabbitmq(draw: st.DrawFn) -> Delivery:
    # What is no UTF-8 pika gives as bytes, whatever its types say.
    odd: Any = st.one_of(st.none(), texts, st.binary(max_size=9))
    timestamp: Any = draw(st.one_of(st.none(), numbers))
    properties = BasicProperties(
        message_id=draw(odd),
        timestamp=timestamp,
        headers=draw(st.one_of(st.none(), st.dictionaries(st.one_of(names, st.binary(max_size=5)), values))),
        app_id=draw(odd),
        content_type=draw(odd),
    )
    method = Basic.Deliver("c", 1, draw(st.booleans()), "", draw(odd) or "")
    address = source_address("amqp://localhost/?queue=events")
    source = RabbitMqSource(address, ConnectionParameters(), prefetch=1)
    return source._delivery(method, properties, draw(bodies))


class AMessage:
    """What confluent-kafka gives of a message."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self._headers = draw(
            st.one_of(
                st.none(),
                st.lists(st.tuples(names, st.one_of(texts, st.binary(max_size=9), st.none())), max_size=70),
            )
        )

    def offset(self) -> int:
        return self._draw(st.integers(0, 2**63 - 1))

    def partition(self) -> int:
        return self._draw(st.integers(0, 2**31 - 1))

    def timestamp(self) -> tuple[int, int]:
        return 1, self._draw(st.integers(-(2**63), 2**63 - 1))

    def value(self) -> bytes | None:
        return self._draw(st.one_of(st.none(), bodies))

    def headers(self) -> Any:
        return self._headers


@st.composite
def of_kafka(draw: st.DrawFn) -> Delivery:
    partition = Partition(0, 1)
    said = {"attempts": draw(numbers), "until": draw(numbers)}
    metadata = draw(st.one_of(texts, st.just(json.dumps(said))))
    partition.load(Mark.read(draw(st.integers(0, 2**63 - 1)), metadata))
    record = record_of(AMessage(draw), NOW)  # type: ignore[arg-type]  # what we ask of one
    partition.add(record)
    if (mark := partition.announcement()) is not None:
        partition.wrote(mark)
    [record] = partition.take(1)
    return Delivery(
        "events",
        record.delivery_id,
        record.body,
        "receipt",
        partition.receive_count(record),
        record.sent_at,
        NOW,
        record.attributes,
        fault=record.fault,
    )


@st.composite
def of_sqs(draw: st.DrawFn) -> Delivery:
    kinds = st.fixed_dictionaries({"DataType": st.sampled_from(["String", "Number", "Binary"])})
    # One without a value is no sender's: it was altered on its way, and is left to SQS.
    values = st.one_of(
        st.fixed_dictionaries({"StringValue": texts}),
        st.fixed_dictionaries({"BinaryValue": st.binary(max_size=9)}),
    )
    attribute = st.builds(lambda kind, value: kind | value, kinds, values)
    message = {
        "MessageId": str(draw(st.uuids())),
        "ReceiptHandle": "receipt",
        "Body": draw(texts),
        "Attributes": {
            # What is no moment is no answer of SQS.
            "SentTimestamp": str(draw(st.integers(1, 253_370_000_000_000))),
            "ApproximateReceiveCount": str(draw(st.integers())),
        },
        "MessageAttributes": draw(st.dictionaries(names, attribute, max_size=5)),
    }
    [delivery], altered = read_messages([message], "events", fifo=False)
    assert altered == 0
    return delivery


def test_whatever_stands_beside_a_body_is_a_delivery_that_the_tables_take(
    saver: Saver, db: psycopg.Connection[Any]
) -> None:
    @settings(max_examples=settings().max_examples * 6 // 10)
    @given(st.lists(st.one_of(of_rabbitmq(), of_kafka(), of_sqs()), min_size=1, max_size=20))
    def holds(deliveries: list[Delivery]) -> None:
        before = sum(books(db).values())

        settlements = saver.save(*deliveries)

        assert all(1 <= delivery.receive_count <= COUNT_MAX for delivery in deliveries)
        redelivered = sum(settlement.outcome == "redelivered" for settlement in settlements)
        assert sum(books(db).values()) == before + len(deliveries) - redelivered

    holds()
