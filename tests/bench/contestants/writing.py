"""The common part of the Python contestants: the compiled schema, the envelope's fields, the columns."""

import os
from datetime import UTC, datetime
from typing import Any

import boto3
import jsonschema_rs
import orjson
import psycopg

COLUMNS = (
    "tenant_id, message_id, producer, event_type, schema_id, occurred_at, sent_at, payload, "
    "queue, delivery_id, receive_count"
)
ROW = "(%s, %s, %s, %s, %s, %s, %s, %s::jsonb, %s, %s, %s)"
ENVELOPE = ("id", "tenant_id", "event_type", "payload")


class NotValid(ValueError):
    """The event does not fit; it stays on the queue, and goes to the dead letters one day."""


class Writing:
    """One connection, the latest schema of each event type, compiled once."""

    def __init__(self) -> None:
        self.queue_url = os.environ["SQS_QUEUE_URL"]
        self.queue = self.queue_url.rsplit("/", 1)[-1]
        self.connection = psycopg.connect(os.environ["DATABASE_URL"])
        found = self.connection.execute(
            "SELECT DISTINCT ON (event_type) event_type, schema_id, definition::text FROM event_schema "
            "ORDER BY event_type, version DESC"
        ).fetchall()
        self.connection.commit()
        self._schemas = {
            event_type: (schema_id, jsonschema_rs.validator_for(orjson.loads(definition)))
            for event_type, schema_id, definition in found
        }

    def row(self, body: str, delivery_id: str, sent_ms: str, receive_count: str) -> tuple[Any, ...]:
        """Validate one event and give its row; raises NotValid."""
        event = orjson.loads(body)
        if not isinstance(event, dict) or any(name not in event for name in ENVELOPE):
            raise NotValid("the envelope lacks a field")
        known = self._schemas.get(event["event_type"])
        if known is None or not known[1].is_valid(event["payload"]):
            raise NotValid("unknown event type, or the payload does not fit its schema")
        return (
            event["tenant_id"],
            event["id"],
            event.get("producer", ""),
            event["event_type"],
            known[0],
            event.get("occurred_at"),
            datetime.fromtimestamp(int(sent_ms) / 1000, UTC),
            orjson.dumps(event["payload"]).decode(),
            self.queue,
            delivery_id,
            int(receive_count),
        )

    def insert(self, rows: list[tuple[Any, ...]]) -> None:
        """Insert the rows by one statement; keys that exist are left alone. The caller commits."""
        if rows:
            rows.sort(key=lambda row: row[:3])
            self.connection.execute(
                f"INSERT INTO message ({COLUMNS}) VALUES {', '.join([ROW] * len(rows))} "
                "ON CONFLICT ON CONSTRAINT message_pkey DO NOTHING",
                [value for row in rows for value in row],
            )


def sqs() -> Any:
    """Make a boto3 client by the environment."""
    return boto3.client("sqs")


def receive(client: Any, queue_url: str) -> list[dict[str, Any]]:
    """Long-poll for ten."""
    answer = client.receive_message(
        QueueUrl=queue_url,
        MaxNumberOfMessages=10,
        WaitTimeSeconds=20,
        MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
    )
    messages: list[dict[str, Any]] = answer.get("Messages", [])
    return messages


def delete(client: Any, queue_url: str, receipts: list[str]) -> None:
    """Delete what was stored."""
    if receipts:
        entries = [{"Id": str(place), "ReceiptHandle": receipt} for place, receipt in enumerate(receipts)]
        client.delete_message_batch(QueueUrl=queue_url, Entries=entries)
