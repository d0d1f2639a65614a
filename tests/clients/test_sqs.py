"""SQS, by the clients that people have there: boto3 in other tests, here the AWS SDK for JavaScript."""

import json
from datetime import UTC, datetime

from processor.devstack.servers.sqs import EmbeddedSqs
from tests.clients.flow import FREE, PULSE, Flow, Row, of_queue
from tests.clients.npm import RunNode

NINE = datetime(2026, 11, 29, 9, tzinfo=UTC)


def text(value: str) -> dict[str, str]:
    return {"DataType": "String", "StringValue": value}


def test_the_sdk_for_javascript_sends_with_attributes_and_in_batches(
    flow: Flow, sqs_server: EmbeddedSqs, queue_url: str, run_node: RunNode
) -> None:
    named = {
        "MessageBody": json.dumps(PULSE),
        "MessageAttributes": {
            "message_id": text("one"),
            "producer": text("node"),
            "occurred_at": text("2026-11-29T09:00:00Z"),
            "retries": {"DataType": "Number", "StringValue": "2"},
        },
    }
    native = {"id": "two", "tenant_id": "globex", "event_type": FREE, "payload": {"n": 1}}
    entries = [
        {
            "Id": "a",
            "MessageBody": json.dumps(native),
            "MessageAttributes": {"tenant_id": text("globex"), "event_type": text(FREE)},
        },
        {
            "Id": "b",
            "MessageBody": json.dumps({"n": 2}),
            "MessageAttributes": {
                "tenant_id": text("acme"),
                "event_type": text(FREE),
                "message_id": text("three"),
            },
        },
    ]

    run_node("sqs.mjs", endpoint=sqs_server.endpoint_url, queueUrl=queue_url, message=named, entries=entries)
    flow.run(**of_queue(sqs_server, queue_url))

    assert flow.rows() == [
        Row("acme", "one", "node", "pulse", NINE, PULSE),
        Row("acme", "three", "", FREE, None, {"n": 2}),
        Row("globex", "two", "", FREE, None, {"n": 1}),
    ]
    assert flow.contexts["one"] == {"retries": "2"}
    assert flow.duplicates() == ["one", "three", "two"]
