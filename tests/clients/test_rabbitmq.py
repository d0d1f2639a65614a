"""RabbitMQ, by amqplib from npm, by kombu, and with what the SDK of CloudEvents makes."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings import amqp, rabbitmq
from kombu.connection import Connection

from tests.broker_servers.rabbitmq import RabbitQueue
from tests.clients import cloudevent
from tests.clients.flow import FREE, PULSE, Flow, Row
from tests.clients.npm import RunNode

pytestmark = pytest.mark.xdist_group("rabbitmq")

NINE = datetime(2026, 11, 29, 9, tzinfo=UTC)


def native(event_id: str, **changes: Any) -> dict[str, Any]:
    return {"id": event_id, "tenant_id": "acme", "event_type": FREE, "payload": {"n": 1}} | changes


def test_amqplib_sends_with_properties_and_headers(
    flow: Flow, rabbitmq_queue: RabbitQueue, run_node: RunNode
) -> None:
    properties = {
        "messageId": "m-1",
        "timestamp": int(NINE.timestamp()),
        "contentType": "application/json",
        "appId": "shop",
        "headers": {"producer": "node", "attempt": 1, "tags": ["a", "b"]},
    }
    headers = {"tenant_id": "globex", "event_type": FREE, "message_id": "m-2"}
    messages = [
        {"body": PULSE, "options": properties},
        {"body": {"n": 1}, "options": {"headers": headers}},
        {
            "body": native("m-3"),
            "options": {
                "contentEncoding": "utf-8",
                "headers": headers | {"message_id": "m-3", "tenant_id": "acme"},
            },
        },
    ]

    run_node("amqp.mjs", url=rabbitmq_queue.url, queue=rabbitmq_queue.name, messages=messages)
    flow.run(SOURCE_URL=rabbitmq_queue.source_url)

    assert flow.rows() == [
        Row("acme", "m-1", "node", "pulse", NINE, PULSE),
        Row("globex", "m-2", "", FREE, None, {"n": 1}),
        Row("acme", "m-3", "", FREE, None, {"n": 1}),
    ]
    assert flow.contexts["m-1"].keys() >= {"attempt", "tags"}
    assert flow.duplicates() == ["m-1", "m-2", "m-3"]


@pytest.mark.parametrize(
    "options", [{}, {"compression": "gzip"}, {"serializer": "json", "compression": "zlib"}], ids=str
)
def test_kombu_sends_as_it_does_by_itself_and_compressed(
    flow: Flow, rabbitmq_queue: RabbitQueue, options: dict[str, str]
) -> None:
    with Connection(rabbitmq_queue.url) as connection:  # type: ignore[no-untyped-call]
        producer = connection.Producer()
        for _ in range(2):
            producer.publish(
                native("k-1"), routing_key=rabbitmq_queue.name, headers={"attempt": 1}, **options
            )
            producer.publish(PULSE, routing_key=rabbitmq_queue.name, message_id="k-2", **options)
    flow.run(SOURCE_URL=rabbitmq_queue.source_url)

    assert flow.rows() == [
        Row("acme", "k-1", "", FREE, None, {"n": 1}),
        Row("acme", "k-2", "", "pulse", None, PULSE),
    ]
    assert flow.duplicates() == ["k-1", "k-2"]


def test_kombu_sends_bytes_as_binary(flow: Flow, rabbitmq_queue: RabbitQueue) -> None:
    """Its word for bytes that it was given as they are: content_encoding binary."""
    with Connection(rabbitmq_queue.url) as connection:  # type: ignore[no-untyped-call]
        body = json.dumps(native("k-3")).encode()
        connection.Producer().publish(body, routing_key=rabbitmq_queue.name)
    flow.run(SOURCE_URL=rabbitmq_queue.source_url)

    assert flow.rows() == [Row("acme", "k-3", "", FREE, None, {"n": 1})]


def test_cloudevents_of_the_sdk_from_pypi_in_both_bindings_and_modes(
    flow: Flow, rabbitmq_queue: RabbitQueue
) -> None:
    """Its binding for RabbitMQ writes ce-, the one for AMQP 1.0 cloudEvents_."""
    made = {
        "rabbitmq-binary": rabbitmq.to_binary_event,
        "rabbitmq-structured": rabbitmq.to_structured_event,
    }
    for event_id, convert in made.items():
        message = convert(cloudevent.an_event(event_id))
        for _ in range(2):
            rabbitmq_queue.put(message.body, headers=message.headers, content_type=message.content_type)
    for event_id, to_amqp in {
        "amqp-binary": amqp.to_binary_event,
        "amqp-structured": amqp.to_structured_event,
    }.items():
        sent = to_amqp(cloudevent.an_event(event_id))
        for _ in range(2):
            rabbitmq_queue.put(
                sent.application_data,
                headers=sent.application_properties,
                content_type=sent.properties["content-type"],
            )
    # The same under the other prefix that the specification allows.
    sent = amqp.to_binary_event(cloudevent.an_event("colon"))
    headers = {
        name.replace("cloudEvents_", "cloudEvents:"): value
        for name, value in sent.application_properties.items()
    }
    for _ in range(2):
        rabbitmq_queue.put(sent.application_data, headers=headers)
    flow.run(SOURCE_URL=rabbitmq_queue.source_url)

    ids = ["amqp-binary", "amqp-structured", "colon", "rabbitmq-binary", "rabbitmq-structured"]
    assert flow.rows() == [cloudevent.row(event_id) for event_id in ids]
    assert flow.duplicates() == ids
    assert {context["partitionkey"] for context in flow.contexts.values()} == {"p-1"}
