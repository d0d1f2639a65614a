"""Measures the queue alone: receive and delete in batches of ten, with a minimal client and no database."""

import os

import orjson

from tests.bench.queue.client import QueueClient


def main() -> None:
    url = os.environ["SQS_QUEUE_URL"]
    ask = orjson.dumps(
        {
            "QueueUrl": url,
            "MaxNumberOfMessages": 10,
            "WaitTimeSeconds": 20,
            "MessageSystemAttributeNames": ["ApproximateReceiveCount", "SentTimestamp"],
        }
    )
    with QueueClient(os.environ["AWS_ENDPOINT_URL"]) as client:
        while True:
            messages = orjson.loads(client.sqs("ReceiveMessage", ask)).get("Messages", [])
            if messages:
                entries = [
                    {"Id": str(place), "ReceiptHandle": message["ReceiptHandle"]}
                    for place, message in enumerate(messages)
                ]
                client.sqs("DeleteMessageBatch", orjson.dumps({"QueueUrl": url, "Entries": entries}))


if __name__ == "__main__":
    main()
