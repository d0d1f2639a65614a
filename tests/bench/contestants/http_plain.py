"""The usual first gateway: a FastAPI handler that calls `send_message` for each request.

    python -m tests.bench.contestants.http_plain PORT

An ordinary function, so that FastAPI runs it in its threads: boto3 would hold up an event loop.
"""

import os
import sys
from typing import Annotated

import boto3
import uvicorn
from botocore.config import Config
from fastapi import FastAPI, Header
from pydantic import BaseModel

QUEUE_URL = os.environ["SQS_QUEUE_URL"]
# A connection for each of FastAPI's 40 threads.
sqs = boto3.client("sqs", config=Config(max_pool_connections=40))
app = FastAPI()


class Pulse(BaseModel):
    tenant_id: str
    product_sku: str
    used_amount: float
    use_unity: str


@app.get("/readyz")
def ready() -> str:
    return "ready"


@app.post("/ingest", status_code=202)
def ingest(pulse: Pulse, idempotency_key: Annotated[str, Header()]) -> dict[str, str]:
    said = sqs.send_message(
        QueueUrl=QUEUE_URL,
        MessageBody=pulse.model_dump_json(),
        MessageAttributes={
            "tenant_id": {"DataType": "String", "StringValue": pulse.tenant_id},
            "event_type": {"DataType": "String", "StringValue": "pulse"},
            "message_id": {"DataType": "String", "StringValue": idempotency_key},
        },
    )
    return {"message_id": idempotency_key, "delivery_id": said["MessageId"]}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False)
