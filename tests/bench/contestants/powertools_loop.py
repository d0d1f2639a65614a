"""AWS Lambda Powertools' batch processor, as its documentation shows it, fed with ten at a time.

Lambda's poller receives and deletes for it; here a loop around it does. What its handler raises for stays on
the queue (partial failures); what it stored is committed once for the ten.
"""

from typing import Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from tests.bench.contestants.writing import Writing, delete, receive, sqs


def main() -> None:
    writing, client = Writing(), sqs()
    processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)

    def handle(record: SQSRecord) -> None:
        system = record.attributes
        row = writing.row(
            record.body, record.message_id, system.sent_timestamp, system.approximate_receive_count
        )
        writing.insert([row])

    while True:
        records = [_record(message) for message in receive(client, writing.queue_url)]
        answer = process_partial_response(
            event={"Records": records}, record_handler=handle, processor=processor, context=None
        )
        writing.connection.commit()
        failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
        delete(
            client,
            writing.queue_url,
            [record["receiptHandle"] for record in records if record["messageId"] not in failed],
        )


def _record(message: dict[str, Any]) -> dict[str, Any]:
    """Give a received message as Lambda would hand it over."""
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {},
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:load",
        "awsRegion": "us-east-1",
    }


if __name__ == "__main__":
    main()
