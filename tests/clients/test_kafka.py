"""Kafka, by kafkajs and the SDK of CloudEvents from npm, and by the SDK from PyPI with confluent-kafka."""

import json
from datetime import UTC, datetime

import confluent_kafka
import pytest
from cloudevents.core.bindings.kafka import to_binary_event, to_structured_event
from cloudevents.v1 import kafka as v1
from cloudevents.v1.http import CloudEvent as OldCloudEvent

from tests.broker_servers.kafka import Tansu
from tests.clients import cloudevent
from tests.clients.flow import FREE, PULSE, Flow, Row
from tests.clients.npm import RunNode

NINE = datetime(2026, 11, 29, 9, tzinfo=UTC)


@pytest.fixture
def topic(tansu_broker: Tansu) -> str:
    return tansu_broker.topic()


def source(broker: Tansu, topic: str) -> dict[str, str]:
    """The settings of a reader; a short session, since Tansu lets a lone member wait for half of one."""
    return {"SOURCE_URL": broker.url(topic, f"of-{topic}"), "VISIBILITY_TIMEOUT_S": "6"}


def test_kafkajs_sends_with_headers_and_with_the_sdk_from_npm(
    flow: Flow, tansu_broker: Tansu, topic: str, run_node: RunNode
) -> None:
    native = {"id": "j-2", "tenant_id": "acme", "event_type": FREE, "payload": {"n": 1}}
    messages = [
        {
            "key": "acme",
            "value": json.dumps(PULSE),
            "headers": {"message_id": "j-1", "producer": "node", "occurred_at": "2026-11-29T09:00:00Z"},
        },
        {"value": json.dumps(native), "headers": {"correlation-id": "c-1", "event_type": FREE}},
    ]
    event = cloudevent.attributes("e", time="2026-11-29T09:00:00Z") | {"data": {"n": 1}}

    run_node("kafka.mjs", brokers=[tansu_broker.servers], topic=topic, messages=messages, events=[event])
    flow.run(**source(tansu_broker, topic))

    assert flow.rows() == [
        cloudevent.row("e-binary"),
        cloudevent.row("e-structured"),
        Row("acme", "j-1", "node", "pulse", NINE, PULSE),
        Row("acme", "j-2", "", FREE, None, {"n": 1}),
    ]
    assert flow.contexts["j-2"]["correlation-id"] == "c-1"
    assert flow.duplicates() == ["e-binary", "e-structured", "j-1", "j-2"]


def test_the_older_api_of_the_sdk_from_pypi_sends_in_both_modes(
    flow: Flow, tansu_broker: Tansu, topic: str
) -> None:
    """The one that most programs were written with, and that the SDK still ships beside the newer."""
    producer = confluent_kafka.Producer({"bootstrap.servers": tansu_broker.servers})
    for mode, convert in (("binary", v1.to_binary), ("structured", v1.to_structured)):
        event = OldCloudEvent(cloudevent.attributes(mode, time="2026-11-29T09:00:00Z"), {"n": 1})
        message = convert(event)
        for _ in range(2):
            producer.produce(topic, message.value, message.key, headers=dict(message.headers))
    assert producer.flush(20) == 0
    flow.run(**source(tansu_broker, topic))

    assert flow.rows() == [cloudevent.row("binary"), cloudevent.row("structured")]
    assert flow.duplicates() == ["binary", "structured"]


def test_the_sdk_from_pypi_sends_in_both_modes(flow: Flow, tansu_broker: Tansu, topic: str) -> None:
    producer = confluent_kafka.Producer({"bootstrap.servers": tansu_broker.servers})
    for message in (
        to_binary_event(cloudevent.an_event("binary")),
        to_structured_event(cloudevent.an_event("structured")),
    ):
        for _ in range(2):
            producer.produce(topic, message.value, message.key, headers=dict(message.headers))
    assert producer.flush(20) == 0
    flow.run(**source(tansu_broker, topic))

    assert flow.rows() == [cloudevent.row("binary"), cloudevent.row("structured")]
    assert flow.duplicates() == ["binary", "structured"]
