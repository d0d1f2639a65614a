"""What a real SQS takes, however odd, comes out of it as one row with the same bytes."""

import itertools
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import psycopg
from botocore.exceptions import BotoCoreError, ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.devstack.servers.sqs import EmbeddedSqs
from processor.model import Settlement
from processor.operations import registry
from processor.sources.sqs.source import SqsSource
from processor.wire.formats import Attribute
from tests.fixtures.database import Saver
from tests.properties.anything import Sending, sendings
from tests.properties.test_deliveries import exact, has_odd_text, payload_of

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

Db = psycopg.Connection[Any]


def test_what_the_queue_accepts_becomes_one_row_of_the_same_bytes(
    saver: Saver, db: Db, sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    registry.publish_schema(db, "anything", {})
    registry.publish_schema(db, "pulse", {})
    client = sqs_server.client()
    source = SqsSource(client, queue_url, "events", visibility_timeout_s=60)
    numbers = itertools.count(1)
    accepted: set[str] = set()

    @settings(max_examples=settings().max_examples // 10)
    @given(st.lists(sendings, min_size=8, max_size=10))
    def holds(batch: list[Sending]) -> None:
        sent = {}
        for number, sending in zip(numbers, batch, strict=False):
            delivery_id = _send(client, queue_url, sending, number)
            if delivery_id is not None:
                sent[delivery_id] = sending.body_of(number), sending.attributes_of(number)
        accepted.update(sent)

        settlements: list[Settlement] = []
        while len(settlements) < len(sent):
            settlements += saver.save(*source.receive(10, 1))
        source.settle(settlements)

        assert {settlement.delivery.delivery_id for settlement in settlements} == sent.keys()
        for settlement in settlements:
            assert settlement.outcome != "redelivered"
            _came_whole(db, settlement, *sent[settlement.delivery.delivery_id])

    holds()

    assert sum(source.depth().values()) == 0
    assert len(accepted) > 50, "too little is accepted to say anything"


def _send(client: "SQSClient", queue_url: str, sending: Sending, number: int) -> str | None:
    """Send it, and give the id that the queue gave it; None: it did not take it."""
    values: Any = {
        name: {"DataType": "Binary", "BinaryValue": value}
        if isinstance(value, bytes)
        else {"DataType": "String", "StringValue": value}
        for name, value in sending.attributes_of(number).items()
    }
    try:
        body = sending.body_of(number).decode()
        answer = client.send_message(QueueUrl=queue_url, MessageBody=body, MessageAttributes=values)
    except (UnicodeError, BotoCoreError, ClientError):
        # Refused on the way, as its producer was told.
        return None
    return answer["MessageId"]


def _came_whole(db: Db, settlement: Settlement, body: bytes, attributes: Mapping[str, Attribute]) -> None:
    delivery = settlement.delivery
    assert delivery.body == body
    assert delivery.attributes == attributes
    key = [delivery.queue, delivery.delivery_id]
    match settlement.outcome:
        case "stored":
            query = "SELECT payload::text FROM message WHERE queue = %s AND delivery_id = %s"
            [(payload,)] = db.execute(query, key).fetchall()
            assert exact(payload) == payload_of(delivery)
        case "rejected":
            query = "SELECT body, attributes::text FROM rejection WHERE queue = %s AND delivery_id = %s"
            [(kept, kept_attributes)] = db.execute(query, key).fetchall()
            assert kept == body
            assert has_odd_text(attributes) or json.loads(kept_attributes).keys() == attributes.keys()
