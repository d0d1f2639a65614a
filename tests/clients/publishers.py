"""Small publishers that send what the clients of five other systems send.

    pulses-to-rabbitmq   a RabbitMQ pulse ingestor: {"tenant", "product_sku", "use_unity", "used_amount"}
    load-client          an HTTP ingestor: a POST for each pulse, which wants 204
    hourly-sender        the same ingestor's sender: an array of pulses, which wants 200
    message-generator    a counter: routing key <user>.event.<type>, body {"id"}
    fake-producers       an event process app: {"event_type", "client_id", "message"} to SQS
    usage-client         a gRPC ingestor: UsageService/Consume, which wants an empty answer
    usage-topic          what that ingestor itself writes to its topic of Kafka
    bodies               whatever bodies are given, to a queue of SQS

Each ends with an error if it is not answered as its original wants to be.
"""

import asyncio
import json
import sys
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import confluent_kafka
import grpc
import httpx
import pika
from google.protobuf import descriptor_pb2, descriptor_pool, empty_pb2, message_factory

from tests.broker_servers.rabbitmq import parameters

UNITS = ("KB", "MB", "GB", "KB/sec", "MB/sec", "GB/sec")
USERS = ("user_a", "user_b", "user_c", "user_d", "user_e")
EVENTS = ("created", "deleted", "updated")


def compact(value: Any) -> bytes:
    """JSON as Go writes it."""
    return json.dumps(value, separators=(",", ":")).encode()


def pulses_to_rabbitmq(url: str, queue: str, count: str) -> None:
    """Publish pulses of one tenant; the queue is declared before each, durable and without arguments."""
    connection = pika.BlockingConnection(parameters(url))
    for number in range(int(count)):
        channel = connection.channel()
        channel.queue_declare(queue, durable=True)
        pulse = {
            "tenant": "magalu",
            "product_sku": f"SKU-{number % 4}",
            "use_unity": f"loja-{number % 3}",
            "used_amount": number % 10 + 1,
        }
        properties = pika.BasicProperties(content_type="application/json")
        channel.basic_publish("", queue, compact(pulse), properties)
        channel.close()
    connection.close()


def load_client(url: str, connections: str) -> None:
    """Post a pulse of a tenant of its own on each of so many connections, which are all open before."""
    asyncio.run(_post_all(url, int(connections)))


async def _post_all(url: str, connections: int) -> None:
    parts = urlsplit(url)
    opened = [await asyncio.open_connection(parts.hostname, parts.port) for _ in range(connections)]
    answers: Counter[bytes] = Counter()
    for number, (_, writer) in enumerate(opened):
        pulse = {
            "tenant_id": str(uuid.UUID(int=number, version=4)),
            "product_sku": f"SKU-{number % 10}",
            "used_amount": number % 1000 + 0.25,
            "use_unit": UNITS[number % len(UNITS)],
        }
        body = compact(pulse)
        head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
            f"User-Agent: Go-http-client/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
    for reader, writer in opened:
        answers[(await reader.readline()).split(b" ")[1]] += 1
        writer.close()
    assert answers == {b"204": connections}, answers


def hourly_sender(url: str, count: str) -> None:
    """Post the sums of an hour as one array, as the sender of the same ingestor does."""
    sums = [
        {"tenant_id": f"tenant-{number}", "product_sku": "SKU-1", "used_amount": 1234.5, "use_unit": "GB"}
        for number in range(int(count))
    ]
    answer = httpx.post(url, content=compact(sums), headers={"content-type": "application/json"})
    assert answer.status_code == 200, (answer.status_code, answer.text)


def message_generator(url: str, exchange: str, size: str, counts_path: str) -> None:
    """Declare exchange and queue, publish user events, some of them twice, and write down the true counts."""
    connection = pika.BlockingConnection(parameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.exchange_declare(exchange, "topic", durable=True)
    channel.queue_declare("eventcountertest", durable=True)
    channel.queue_bind("eventcountertest", exchange, "*.event.*")
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in EVENTS}
    for number in range(int(size)):
        user, kind = USERS[number % len(USERS)], EVENTS[number % len(EVENTS)]
        counts[kind][user] += 1
        body = f'{{"id":"{uuid.uuid4()}"}}'.encode()
        for _ in range(2 if number % 7 == 0 else 1):
            properties = pika.BasicProperties(content_encoding="application/json")
            channel.basic_publish(exchange, f"{user}.event.{kind}", body, properties)
    connection.close()
    Path(counts_path).write_text(json.dumps(counts))


def bodies(endpoint: str, queue: str, *texts: str) -> None:
    """Send these to a queue of SQS."""
    sqs = boto3.client(
        "sqs",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    queue_url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    for text in texts:
        sqs.send_message(QueueUrl=queue_url, MessageBody=text)


def fake_producers(endpoint: str, queue: str, rounds: str) -> None:
    """Send an event of each of three clients a round, and a body that is no event every tenth time."""
    texts = []
    for number in range(int(rounds)):
        for event_type, client_id, words in (
            ("monitor-app", "client-1", "SALVE"),
            ("transaction-app", "client-2", "LET'S GO"),
            ("user-app", "client-3", "YNWA"),
        ):
            event = {
                "event_type": event_type,
                "client_id": client_id,
                "message": f"{words} {number}",
                "MessageId": "",
            }
            texts.append(compact(event).decode())
        if number % 10 == 0:
            texts.append("Hello, I'm a bad message")
    bodies(endpoint, queue, *texts)


def _usage_request() -> Any:
    """The class of the request, made of the fields that the ingestor's .proto has."""
    file = descriptor_pb2.FileDescriptorProto(name="usage.proto", package="yourpackage", syntax="proto3")
    message = file.message_type.add(name="UsageInfoRequest")
    text, int32 = (
        descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
        descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    )
    for number, (name, kind) in enumerate(
        (("tenant", text), ("product_sku", text), ("used_amount", int32), ("use_unity", text)), start=1
    ):
        message.field.add(name=name, number=number, type=kind, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("yourpackage.UsageInfoRequest"))


def usage_client(address: str, count: str) -> None:
    """Call Consume for each pulse; the answer is google.protobuf.Empty."""
    request = _usage_request()
    with grpc.insecure_channel(address) as channel:
        consume = channel.unary_unary(
            "/yourpackage.UsageService/Consume", request.SerializeToString, empty_pb2.Empty.FromString
        )
        for number in range(int(count)):
            pulse = request(tenant="user123", product_sku="vm", used_amount=number, use_unity="kb")
            consume(pulse, timeout=20, wait_for_ready=True)


def usage_topic(servers: str, topic: str, count: str) -> None:
    """Write what the ingestor writes for each call: the tenant as the key, and JSON."""
    producer = confluent_kafka.Producer({"bootstrap.servers": servers})
    for number in range(int(count)):
        pulse = {"product_sku": "vm", "tenant": "user123", "use_unity": "kb", "used_amount": number}
        producer.produce(topic, compact(pulse), b"user123")
    assert producer.flush(20) == 0


PUBLISHERS: dict[str, Callable[..., None]] = {
    publisher.__name__.replace("_", "-"): publisher
    for publisher in (
        pulses_to_rabbitmq,
        load_client,
        hourly_sender,
        message_generator,
        fake_producers,
        usage_client,
        usage_topic,
        bodies,
    )
}

if __name__ == "__main__":
    PUBLISHERS[sys.argv[1]](*sys.argv[2:])
