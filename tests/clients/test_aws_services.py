"""What SNS, EventBridge and S3 put on a queue of SQS, in the shapes that AWS documents."""

import json
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest

from processor.devstack.servers.sqs import EmbeddedSqs
from tests.clients.flow import FREE, PULSE, Flow, Row, of_queue

NINE = datetime(2026, 11, 29, 9, tzinfo=UTC)
ACCOUNT = "111122223333"

SNS = {
    "Type": "Notification",
    "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
    "TopicArn": f"arn:aws:sns:us-west-2:{ACCOUNT}:usage",
    "Subject": "a subject",
    "Message": json.dumps(PULSE | {"id": "by-sns"}),
    "Timestamp": "2026-11-29T09:00:00.000Z",
    "SignatureVersion": "1",
    "Signature": "c2lnbmF0dXJl",
    "SigningCertURL": "https://sns.us-west-2.amazonaws.com/SimpleNotificationService.pem",
    "UnsubscribeURL": "https://sns.us-west-2.amazonaws.com/?Action=Unsubscribe",
    "MessageAttributes": {"producer": {"Type": "String", "Value": "meter"}},
}
EVENTBRIDGE = {
    "version": "0",
    "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
    "detail-type": FREE,
    "source": "acme.orders",
    "account": ACCOUNT,
    "time": "2026-11-29T09:00:00Z",
    "region": "us-west-1",
    "resources": [f"arn:aws:ec2:us-west-1:{ACCOUNT}:instance/i-1234567890abcdef0"],
    "detail": {"tenant_id": "acme", "n": 1},
}
S3_RECORD = {
    "eventVersion": "2.1",
    "eventSource": "aws:s3",
    "awsRegion": "us-west-2",
    "eventTime": "2026-11-29T09:00:00.000Z",
    "eventName": "ObjectCreated:Put",
    "userIdentity": {"principalId": "AIDAJDPLRKLG7UEXAMPLE"},
    "requestParameters": {"sourceIPAddress": "127.0.0.1"},
    "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810", "x-amz-id-2": "FMyUVURIY8"},
    "s3": {
        "s3SchemaVersion": "1.0",
        "configurationId": "all-objects",
        "bucket": {
            "name": "drop",
            "ownerIdentity": {"principalId": "A3NL1KOZZKExample"},
            "arn": "arn:aws:s3:::drop",
        },
        "object": {
            "key": "a/b+c.txt",
            "size": 1024,
            "eTag": "d41d8cd98f00b204e9800998ecf8427e",
            "sequencer": "0055AED6DCD90281E5",
        },
    },
}


@pytest.mark.parametrize(
    ("unwrap", "body", "expected"),
    [
        ("sns", SNS, Row("acme", "by-sns", "meter", "pulse", None, PULSE)),
        (
            "eventbridge",
            EVENTBRIDGE,
            Row("acme", str(EVENTBRIDGE["id"]), "acme.orders", FREE, NINE, EVENTBRIDGE["detail"]),
        ),
        ("s3", {"Records": [S3_RECORD]}, Row("acme", "", "", FREE, NINE, S3_RECORD)),
    ],
)
def test_what_a_service_delivers_twice_is_stored_once(
    flow: Flow,
    sqs_server: EmbeddedSqs,
    queue_url: str,
    unwrap: str,
    body: dict[str, Any],
    expected: Row,
) -> None:
    queue = queue_url.rpartition("/")[2]
    flow.command("queue", "set", queue, "--unwrap", unwrap, "--tenant", "acme")
    if unwrap == "s3":
        flow.command("queue", "set", queue, "--event-type", FREE)
    with closing(sqs_server.client()) as sqs:
        for _ in range(2):
            sqs.send_message(QueueUrl=queue_url, MessageBody=json.dumps(body))
    flow.run(**of_queue(sqs_server, queue_url))

    [row] = flow.rows()
    if unwrap == "s3":
        # S3 gives no id and no producer: both are made of what it says of the object.
        assert row.message_id
        row = row._replace(message_id="", producer="")
    assert row == expected
    assert len(flow.duplicates()) == 1
    sent_at = flow.db.execute("SELECT sent_at FROM message").fetchone()
    assert sent_at == (NINE,)
