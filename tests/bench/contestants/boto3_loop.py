"""The usual first consumer, written well: receive ten, one transaction, delete ten."""

from tests.bench.contestants.writing import NotValid, Writing, delete, receive, sqs


def main() -> None:
    writing, client = Writing(), sqs()
    while True:
        rows, receipts = [], []
        for message in receive(client, writing.queue_url):
            system = message["Attributes"]
            try:
                row = writing.row(
                    message["Body"],
                    message["MessageId"],
                    system["SentTimestamp"],
                    system["ApproximateReceiveCount"],
                )
            except NotValid:
                continue
            rows.append(row)
            receipts.append(message["ReceiptHandle"])
        writing.insert(rows)
        writing.connection.commit()
        delete(client, writing.queue_url, receipts)


if __name__ == "__main__":
    main()
