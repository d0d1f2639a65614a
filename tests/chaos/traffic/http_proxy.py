"""A proxy for SQS that can lose, delay, cut, refuse, duplicate and rewrite calls, and records them.

The oracle reads every delivery and every delete from its records.
"""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a client: the operation (ReceiveMessage, ...) and its JSON."""

    operation: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: an HTTP status and a body, of which `cut_at` bytes are sent, all if None.

    `claimed` is the length that the header names, the body's own if None.
    """

    status: int
    body: bytes
    cut_at: int | None = None
    claimed: int | None = None

    @property
    def document(self) -> Any:
        """The JSON of the body."""
        return json.loads(self.body or b"{}")


Forward: TypeAlias = Callable[[dict[str, Any]], Answer]
"""Pass a call on, with these fields."""

Interceptor: TypeAlias = Callable[[Call, Forward], Answer | None]
"""What a fault does with a call; None closes the connection without any answer."""


def honest(call: Call, forward: Forward) -> Answer:
    """Pass a call on as it is."""
    return forward(call.fields)


def refusal(code: str, status: int = 400) -> Answer:
    """Write the answer by which SQS refuses a call."""
    document = {"__type": f"com.amazonaws.sqs#{code}", "message": "refused by the proxy"}
    return Answer(status, json.dumps(document).encode())


@dataclass(slots=True)
class Minutes:
    """What passed: hand-overs by delivery id, and when each was first asked to be deleted (Unix time)."""

    handed_over: Counter[str] = field(default_factory=Counter)
    delete_asked_at: dict[str, float] = field(default_factory=dict)
    delivery_of: dict[str, str] = field(default_factory=dict)

    @property
    def redeliveries(self) -> int:
        """Hand-overs beyond the first of each message."""
        return self.handed_over.total() - len(self.handed_over)


class HttpProxy:
    """Passes SQS's JSON protocol on to `target_url`; `fault` decides what becomes of each call."""

    def __init__(self, target_url: str) -> None:
        parts = urlsplit(target_url)
        self.target = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.fault: Interceptor = honest
        self.minutes = Minutes()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._refusing = False
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, name="http-proxy", daemon=True).start()

    def refuse(self) -> None:
        """Cut every connection, and hang up on whoever comes."""
        self._refusing = True
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def heal(self) -> None:
        """End every fault."""
        self._refusing = False
        self.fault = honest

    def close(self) -> None:
        """Stop for good."""
        self._server.shutdown()
        self._server.server_close()

    def handle(self, call: Call, upstream: "Upstream") -> Answer | None:
        """Let the fault of the moment decide; what passed is noted."""
        if self._refusing:
            return None

        def forward(fields: dict[str, Any]) -> Answer:
            if call.operation == "DeleteMessageBatch":
                self._note_deletes(fields["Entries"])
            answer = upstream.ask(call.operation, fields)
            if call.operation == "ReceiveMessage":
                # Known by what the server said, whatever becomes of it on its way.
                self._note_receipts(_messages(answer))
            return answer

        answer = self.fault(call, forward)
        if call.operation == "ReceiveMessage" and answer is not None:
            # What a client is told counts, be it cut short on its way.
            self._note_hand_overs(_messages(answer))
        return answer

    def attach(self, connection: socket.socket) -> None:
        """Know a client's connection, so that it can be cut."""
        with self._lock:
            self._open.add(connection)

    def detach(self, connection: socket.socket) -> None:
        """Forget it."""
        with self._lock:
            self._open.discard(connection)

    def _note_receipts(self, messages: list[dict[str, Any]]) -> None:
        with self._lock:
            for message in messages:
                self.minutes.delivery_of[message["ReceiptHandle"]] = message["MessageId"]

    def _note_hand_overs(self, messages: list[dict[str, Any]]) -> None:
        with self._lock:
            self.minutes.handed_over.update(message["MessageId"] for message in messages)

    def _note_deletes(self, entries: list[dict[str, Any]]) -> None:
        now = time.time()
        with self._lock:
            for entry in entries:
                delivery_id = self.minutes.delivery_of.get(entry["ReceiptHandle"])
                if delivery_id is not None:
                    self.minutes.delete_asked_at.setdefault(delivery_id, now)


def _messages(answer: Answer) -> list[dict[str, Any]]:
    """Give the messages of an answer to a receive; none where it can't be read."""
    try:
        return list(answer.document.get("Messages", [])) if answer.status == http.client.OK else []
    except (ValueError, AttributeError):
        return []


class Upstream:
    """One connection to the real server, opened again where it was closed."""

    def __init__(self, target: tuple[str, int], headers: dict[str, str]) -> None:
        self._target = target
        self._headers = headers
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, operation: str, fields: dict[str, Any]) -> Answer:
        """Make one call. Raises OSError or HTTPException where the server is away."""
        headers = self._headers | {
            "X-Amz-Target": f"AmazonSQS.{operation}",
            "Content-Type": "application/x-amz-json-1.0",
        }
        for attempt in (1, 2):
            fresh = self._connection is None
            if self._connection is None:
                self._connection = http.client.HTTPConnection(*self._target, timeout=60)
            try:
                self._connection.request("POST", "/", json.dumps(fields).encode(), headers)
                response = self._connection.getresponse()
                return Answer(response.status, response.read())
            except (OSError, http.client.HTTPException):
                self.close()
                # A kept connection may have been closed by a server that was idle or is new.
                if fresh or attempt == 2:
                    raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients are killed in the middle of a call, which is what this is for."""


class _Handler(BaseHTTPRequestHandler):
    owner: HttpProxy
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.owner.attach(self.connection)
        self._upstream: Upstream | None = None

    def finish(self) -> None:
        self.owner.detach(self.connection)
        if self._upstream is not None:
            self._upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._upstream is None:
            signed = self.headers.get("Authorization")
            self._upstream = Upstream(self.owner.target, {"Authorization": signed} if signed else {})
        call = Call(self.headers.get("X-Amz-Target", "").rpartition(".")[2], json.loads(body or b"{}"))
        try:
            answer = self.owner.handle(call, self._upstream)
        except (OSError, http.client.HTTPException):
            answer = None
        self._say(answer)

    def _say(self, answer: Answer | None) -> None:
        if answer is None:
            self.close_connection = True
            return
        try:
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/x-amz-json-1.0")
            length = len(answer.body) if answer.claimed is None else answer.claimed
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(answer.body[: answer.cut_at])
        except OSError:
            self.close_connection = True
        if answer.cut_at is not None or (answer.claimed or 0) > len(answer.body):
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the inherited signature
        """Say nothing."""
