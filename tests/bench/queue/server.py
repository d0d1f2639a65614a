"""A fast queue server, so that it is never the bottleneck: SQS's JSON protocol, in memory, on 127.0.0.1.

    socket ─▶ Connection (HTTP/1.1) ─▶ Service (which operation, which queue) ─▶ Queue (messages) ─▶ bytes

A message that is received stays hidden for its visibility timeout and comes again after it, with a new
receipt and a higher count; a delete needs the newest receipt. Not there: signatures, FIFO, dead letters, and
anything that outlives the process. Beside SQS it answers, for load tests alone:

    POST /fill       many messages of one template at once; hidden until /reveal, or made only when received
    POST /reveal     show the hidden ones
    GET  /stats      calls, messages and parked receives of a queue
    GET  /handovers  when each message that was sent (not filled) was first handed over
"""

import argparse
import asyncio
import gc
import signal
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import orjson

from tests.bench.queue.messages import BODY_BYTES_MAX, Ask, Message, Queue, Refused, md5_of_attributes

ENTRIES_MAX = 10
WAIT_S_MAX = 20
ACCOUNT_ID = "000000000000"
ANSWER = (
    b"HTTP/1.1 %s\r\nContent-Type: application/x-amz-json-1.0\r\nx-amzn-RequestId: 0\r\n%s"
    b"Content-Length: %d\r\n\r\n%s"
)

Answer = bytes | None
"""The JSON of an answer; None: it will come later, by the connection's `answer`."""


class Connection(asyncio.Protocol):
    """One client's connection; its requests are answered one after the other."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._buffer = b""
        self._busy = False
        self._transport: asyncio.Transport | None = None
        self.parked_in: Queue | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - as asyncio calls it
        self._transport = None
        if self.parked_in is not None:
            # Else the next message would be handed to somebody who has left.
            self.parked_in.forget(self)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        while self._buffer and not self._busy and self._take():
            pass

    def answer(self, body: bytes) -> None:
        """Answer a request that was left waiting, and go on with what came meanwhile."""
        self._busy = False
        self._send(b"200 OK", b"", body)
        if self._buffer:
            self.data_received(b"")

    def _take(self) -> bool:
        """Take one whole request from the buffer; False if it has none yet."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        # Header names are the client's to spell: boto3 writes Content-Length, Node content-length.
        head = self._buffer[:end]
        lower = head.lower()
        length = int(_header(lower, lower, b"content-length") or b"0")
        start = end + 4
        if len(self._buffer) < start + length:
            if b"\r\nexpect: 100-continue" in lower and self._transport:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                self._buffer = self._buffer.replace(head, lower.replace(b"\r\nexpect: 100-continue", b""), 1)
            return False
        body = self._buffer[start : start + length]
        self._buffer = self._buffer[start + length :]
        self._serve(head, lower, body)
        return True

    def _serve(self, head: bytes, lower: bytes, body: bytes) -> None:
        target = _header(head, lower, b"x-amz-target")
        try:
            if target:
                done = self._service.call(target.rpartition(b".")[2].decode(), body, self)
            else:
                method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
                done = self._service.aside(method, path, body)
        except Refused as refused:
            fields = {"__type": f"com.amazonaws.sqs#{refused.code}", "message": refused.words}
            extra = f"x-amzn-query-error: {refused.query_code};Sender\r\n".encode()
            self._send(b"400 Bad Request", extra, orjson.dumps(fields))
            return
        if done is None:
            self._busy = True
        else:
            self._send(b"200 OK", b"", done)

    def _send(self, status: bytes, headers: bytes, body: bytes) -> None:
        if self._transport is not None:
            self._transport.write(ANSWER % (status, headers, len(body), body))


class Service:
    """All queues, and what SQS calls them by."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._queues: dict[str, Queue] = {}
        self._operations: dict[str, Callable[[Queue, Any, Connection], Answer]] = {
            "ReceiveMessage": self._receive,
            "DeleteMessageBatch": self._delete_batch,
            "DeleteMessage": self._delete,
            "SendMessageBatch": self._send_batch,
            "SendMessage": self._send,
            "ChangeMessageVisibilityBatch": self._change_batch,
            "ChangeMessageVisibility": self._change,
            "GetQueueAttributes": self._attributes,
            "SetQueueAttributes": self._set_attributes,
            "PurgeQueue": self._purge,
            "DeleteQueue": self._delete_queue,
        }

    def call(self, operation: str, body: bytes, connection: Connection) -> Answer:
        """Serve one operation of SQS; raises Refused for what SQS would refuse."""
        try:
            request = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise Refused("SerializationException", "the body is no JSON") from error
        if operation == "CreateQueue":
            return self._create(request)
        if operation == "GetQueueUrl":
            self._queue(request.get("QueueName", ""))
            return orjson.dumps({"QueueUrl": self._url(request["QueueName"])})
        if operation == "ListQueues":
            return orjson.dumps({"QueueUrls": [self._url(name) for name in self._queues]})
        if operation not in self._operations:
            raise Refused("UnsupportedOperation", f"{operation} is not served here")
        queue = self._queue(request.get("QueueUrl", "").rpartition("/")[2])
        queue.calls[operation] += 1
        return self._operations[operation](queue, request, connection)

    def aside(self, method: str, path: str, body: bytes) -> bytes:
        """Serve what SQS has not: /health, /stats, /handovers, /fill, /reveal."""
        parts = urlsplit(path)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/health":
            return b"{}"
        if method == "POST":
            asked = orjson.loads(body)
        queue = self._queue(asked.get("queue", ""))
        match method, parts.path:
            case "GET", "/stats":
                return orjson.dumps(queue.stats())
            case "GET", "/handovers":
                return orjson.dumps(queue.handovers)
            case "POST", "/fill":
                queue.fill(**{name: value for name, value in asked.items() if name != "queue"})  # type: ignore[arg-type]
            case "POST", "/reveal":
                return orjson.dumps(queue.reveal())
            case _:
                raise Refused("UnknownOperationException", f"{method} {parts.path} is not served here")
        return b"{}"

    # ── queues ──

    def _url(self, name: str) -> str:
        return f"{self._origin}/{ACCOUNT_ID}/{name}"

    def _queue(self, name: str) -> Queue:
        try:
            return self._queues[name]
        except KeyError:
            raise Refused(
                "QueueDoesNotExist",
                "The specified queue does not exist.",
                "AWS.SimpleQueueService.NonExistentQueue",
            ) from None

    def _create(self, request: Any) -> bytes:
        name = request.get("QueueName") or ""
        if not name or not name.replace("-", "").replace("_", "").isalnum():
            raise Refused("InvalidParameterValue", "a queue's name has letters, digits, - and _")
        if name not in self._queues:
            self._queues[name] = Queue(name, asyncio.get_running_loop())
        self._queues[name].attributes.update(request.get("Attributes") or {})
        return orjson.dumps({"QueueUrl": self._url(name)})

    def _attributes(self, queue: Queue, request: Any, _: Connection) -> bytes:
        asked = request.get("AttributeNames") or []
        every = queue.all_attributes()
        return orjson.dumps({"Attributes": {k: v for k, v in every.items() if "All" in asked or k in asked}})

    def _set_attributes(self, queue: Queue, request: Any, _: Connection) -> bytes:
        queue.attributes.update(request.get("Attributes") or {})
        return b"{}"

    def _purge(self, queue: Queue, _request: Any, _: Connection) -> bytes:
        queue.purge()
        return b"{}"

    def _delete_queue(self, queue: Queue, _request: Any, _: Connection) -> bytes:
        queue.purge()
        queue.answer_all_parked()
        self._queues.pop(queue.name, None)
        return b"{}"

    # ── messages ──

    def _receive(self, queue: Queue, request: Any, connection: Connection) -> Answer:
        limit = request.get("MaxNumberOfMessages", 1)
        if not 1 <= limit <= ENTRIES_MAX:
            raise Refused("InvalidParameterValue", f"MaxNumberOfMessages is {limit}; expected 1 to 10")
        wait_s = request.get("WaitTimeSeconds", int(queue.attributes.get("ReceiveMessageWaitTimeSeconds", 0)))
        if not 0 <= wait_s <= WAIT_S_MAX:
            raise Refused("InvalidParameterValue", f"WaitTimeSeconds is {wait_s}; expected 0 to 20")
        hidden_s = request.get("VisibilityTimeout", queue.visibility_timeout_s)
        system = request.get("MessageSystemAttributeNames") or request.get("AttributeNames") or ()
        ask = Ask(limit, hidden_s, system, request.get("MessageAttributeNames") or ())
        return queue.receive(ask, wait_s, connection)

    def _send(self, queue: Queue, request: Any, _: Connection) -> bytes:
        said = _sent(queue, request)
        queue.wake()
        return orjson.dumps(said)

    def _send_batch(self, queue: Queue, request: Any, _: Connection) -> bytes:
        return _each(request, lambda entry: _sent(queue, entry), queue.wake)

    def _delete(self, queue: Queue, request: Any, _: Connection) -> bytes:
        queue.delete(request.get("ReceiptHandle", ""))
        return b"{}"

    def _delete_batch(self, queue: Queue, request: Any, _: Connection) -> bytes:
        return _each(request, lambda entry: queue.delete(entry.get("ReceiptHandle", "")))

    def _change(self, queue: Queue, request: Any, _: Connection) -> bytes:
        queue.change(request.get("ReceiptHandle", ""), int(request["VisibilityTimeout"]))
        return b"{}"

    def _change_batch(self, queue: Queue, request: Any, _: Connection) -> bytes:
        return _each(
            request,
            lambda entry: queue.change(entry.get("ReceiptHandle", ""), int(entry["VisibilityTimeout"])),
        )


def _sent(queue: Queue, entry: Any) -> dict[str, str]:
    body = entry.get("MessageBody")
    if not isinstance(body, str) or not body or len(raw := body.encode()) > BODY_BYTES_MAX:
        raise Refused("InvalidParameterValue", f"a body has 1 to {BODY_BYTES_MAX} bytes")
    attributes = entry.get("MessageAttributes") or {}
    message = Message(raw, attributes)
    queue.put(message, delay_s=int(entry.get("DelaySeconds", queue.attributes.get("DelaySeconds", 0))))
    said = {"MessageId": message.message_id, "MD5OfMessageBody": message.md5}
    return said | ({"MD5OfMessageAttributes": md5_of_attributes(attributes)} if attributes else {})


def _each(request: Any, work: Callable[[Any], Any], after: Callable[[], None] | None = None) -> bytes:
    """Do the entries of a batch one by one; one that is refused fails alone."""
    entries = request.get("Entries") or []
    if not entries:
        raise Refused("EmptyBatchRequest", "a batch has at least one entry")
    if len(entries) > ENTRIES_MAX:
        raise Refused("TooManyEntriesInBatchRequest", f"a batch has at most 10 entries, not {len(entries)}")
    if len({entry["Id"] for entry in entries}) < len(entries):
        raise Refused("BatchEntryIdsNotDistinct", "two entries of the batch have the same Id")
    successful, failed = [], []
    for entry in entries:
        try:
            successful.append({"Id": entry["Id"], **(work(entry) or {})})
        except Refused as refused:
            failed.append(
                {"Id": entry["Id"], "Code": refused.code, "Message": refused.words, "SenderFault": True}
            )
    if after is not None:
        after()
    return orjson.dumps({"Successful": successful, **({"Failed": failed} if failed else {})})


def _header(head: bytes, lower: bytes, name: bytes) -> bytes:
    """Give a header's value as it was written, b"" where there is none."""
    at = lower.find(b"\r\n" + name + b":")
    if at < 0:
        return b""
    at += len(name) + 3
    end = head.find(b"\r\n", at)
    return head[at : end if end >= 0 else None].strip()


async def serve(port: int) -> None:
    """Listen on 127.0.0.1 until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    service = Service(f"http://127.0.0.1:{port}")
    server = await loop.create_server(lambda: Connection(service), "127.0.0.1", port, backlog=256)
    await stopped.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="A queue server for load tests, on 127.0.0.1.")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    # A million messages are a million objects that Python would look through again and again; none of them
    # is ever in a circle.
    gc.disable()
    try:
        # A third less work per call, where the extra `load` is installed; the tests do without.
        import uvloop  # noqa: PLC0415
    except ImportError:
        asyncio.run(serve(port))
    else:
        uvloop.run(serve(port))


if __name__ == "__main__":
    main()
