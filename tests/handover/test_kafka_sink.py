"""A topic of Kafka as the sink of `processor dispatch`: each line once, or again under the same key."""

import json
from typing import Any

import psycopg
import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from processor.brokers.kafka import configuration
from processor.brokers.source_url import source_address
from processor.handover.kafka_sink import KafkaSink
from processor.handover.sink import AllAccepted, PartlyAccepted, SinkUnavailable
from tests.broker_servers.kafka import Mock, Tansu
from tests.fixtures.database import Saver
from tests.fixtures.usage import Command, a_pulse, states

Db = psycopg.Connection[Any]
PRODUCE, MSG_SIZE_TOO_LARGE = 0, 10
LINES = [{"tenant_id": tenant, "used_amount": 1, "key": f"key-{tenant}"} for tenant in ("acme", "globex")]
KEYS = ["key-acme", "key-globex"]


def records(servers: str, topic: str) -> list[Message]:
    """Read the one partition of a topic to its end."""
    address = source_address(f"kafka://{servers}/{topic}")
    settings = {"group.id": "a-test", "enable.auto.commit": False, "enable.partition.eof": True}
    consumer = Consumer(configuration(address) | settings)
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[Message] = []
    while (message := consumer.poll(15)) is not None and message.error() is None:
        found.append(message)
    consumer.close()
    assert message is not None, "no end came"
    return found


@pytest.fixture
def sink(kafka: Mock) -> tuple[KafkaSink, str]:
    topic = kafka.topic()
    return KafkaSink(source_address(kafka.url(topic)), timeout_s=2), topic


def send(sink: KafkaSink) -> object:
    return sink.send(json.dumps(LINES).encode(), key="batch", line_keys=KEYS)


@pytest.mark.usefixtures("pulses")
def test_dispatch_writes_each_line_to_the_topic_and_marks_it(
    saver: Saver, db: Db, processor: Command, tansu_broker: Tansu
) -> None:
    topic = tansu_broker.topic()
    saver.save(a_pulse("0.10"), a_pulse("0.20"), a_pulse(5, tenant="globex"))

    answer = processor("dispatch", "--once", USAGE_SINK_URL=tansu_broker.url(topic))
    again = processor("dispatch", "--once", USAGE_SINK_URL=tansu_broker.url(topic))

    assert (answer.code, again.code) == (0, 0), answer.error
    found = records(tansu_broker.servers, topic)
    lines = [json.loads(message.value() or b"") for message in found]
    assert {(line["tenant_id"], line["used_amount"]) for line in lines} == {("acme", 0.3), ("globex", 5)}
    assert b'"used_amount":0.30' in b"".join(message.value() or b"" for message in found)
    assert [message.key() for message in found] == [line["tenant_id"].encode() for line in lines]
    assert len({line["key"] for line in lines}) == len(lines) == 2, "one record each"
    assert set(states(db).values()) == {"handed_over"}


@pytest.mark.usefixtures("pulses")
def test_a_broker_that_is_away_ends_once_with_four_and_marks_nothing(
    saver: Saver, db: Db, processor: Command
) -> None:
    saver.save(a_pulse())

    answer = processor(
        "dispatch", "--once", USAGE_SINK_URL="kafka://127.0.0.1:1/usage", USAGE_SINK_TIMEOUT_S="0.5"
    )

    assert answer.code == 4
    assert "_MSG_TIMED_OUT" in answer.error
    assert set(states(db).values()) == {"closed"}


def test_an_outage_is_trouble_of_the_sink_and_the_lines_come_again(
    kafka: Mock, sink: tuple[KafkaSink, str]
) -> None:
    kafka.down()
    away = send(sink[0])
    kafka.up()
    back = send(sink[0])

    assert away == SinkUnavailable("_MSG_TIMED_OUT", reached=False)
    assert back == AllAccepted()
    assert {message.key() for message in records(kafka.servers, sink[1])} == {b"acme", b"globex"}


def test_what_the_broker_says_of_a_record_is_said_of_its_line(
    kafka: Mock, sink: tuple[KafkaSink, str]
) -> None:
    kafka.fail(PRODUCE, MSG_SIZE_TOO_LARGE)

    assert send(sink[0]) == PartlyAccepted(dict.fromkeys(KEYS, "MSG_SIZE_TOO_LARGE"))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("kafka://127.0.0.1/", "kafka://HOST:PORT/TOPIC"),
        ("amqp://127.0.0.1/?queue=q", "expected http://HOST"),
        ("kafka://127.0.0.1/t?queue=q", "an option behind ?"),
    ],
)
def test_a_topic_that_can_not_be_is_said_and_not_quoted(processor: Command, url: str, words: str) -> None:
    answer = processor("dispatch", "--once", USAGE_SINK_URL=url)

    assert answer.code == 2
    assert words in answer.error
