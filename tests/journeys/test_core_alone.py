"""The core works where nothing is installed that hangs on it: no other broker's driver, and no gateway."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg

from processor.devstack.servers.sqs import EmbeddedSqs
from tests.builders import a_body
from tests.fixtures.database import Saver, books

_WITHOUT = (
    "import sys; sys.argv[0] = 'processor'; "
    "sys.modules.update(dict.fromkeys(('confluent_kafka', 'grpc', 'httpx', 'pika', 'uvicorn', 'uvloop'))); "
    "from processor.cli import main; main()"
)


def test_events_are_stored_and_rejected_and_the_books_proven_without_what_hangs_on_the_core(
    saver: Saver,
    db: psycopg.Connection[Any],
    database_url: str,
    sqs_server: EmbeddedSqs,
    queue_url: str,
    tmp_path: Path,
) -> None:
    client = sqs_server.client()
    for body in (a_body(), b"{"):
        client.send_message(QueueUrl=queue_url, MessageBody=body.decode())
    environment = os.environ | {
        "DATABASE_URL": database_url,
        "SQS_QUEUE_URL": queue_url,
        "AWS_ENDPOINT_URL": sqs_server.endpoint_url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "HTTP_PORT": "0",
        "RECEIVE_WAIT_S": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }

    def processor(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", _WITHOUT, *words],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    processor("migrate")
    processor("run", "--until-idle", "1")

    assert books(db) == {"message": 1, "duplicate": 0, "rejection": 1}
    assert "not_json" in processor("rejection", "list")
    processor("audit")
    processor("retention", "plan")
