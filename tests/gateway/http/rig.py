"""An HTTP door on a socket with a real queue behind it, and clients that misbehave."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Self

import httpx
import uvicorn
import uvloop

from processor.devstack.servers.sqs import EmbeddedSqs
from processor.settings import Settings
from producers.gateway.http.protocol import GuardedProtocol
from producers.gateway.http.server import config_of, listen
from producers.gateway.opening import open_intake, open_keys
from tests.rig import wait_until

JSON = {"content-type": "application/json"}
PROBLEM = "application/problem+json"


def a_pulse(**changes: Any) -> dict[str, Any]:
    """A pulse of acme; a change to None takes the field away."""
    pulse = {"tenant_id": "acme", "product_sku": "disk", "used_amount": 1.5, "use_unity": "GB"} | changes
    return {name: value for name, value in pulse.items() if value is not None}


@dataclass
class Gateway:
    """A running door, and what is on its queue."""

    port: int
    server: uvicorn.Server
    sqs: Any
    queue_url: str
    client: httpx.Client

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """Send JSON (or bytes as they are); underscores in header names stand for hyphens."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(path, content=content, headers=JSON | named)

    def queued(self) -> list[dict[str, Any]]:
        """Take everything off the queue: the events, each with what came beside it under `attributes`."""
        found = []
        while messages := self.sqs.receive_message(
            QueueUrl=self.queue_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        ).get("Messages"):
            for message in messages:
                self.sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"])
                beside = {
                    name: value["StringValue"] for name, value in message.get("MessageAttributes", {}).items()
                }
                found.append(json.loads(message["Body"]) | {"attributes": beside})
        return found

    def raw(self) -> "Raw":
        return Raw(socket.create_connection(("127.0.0.1", self.port), timeout=20))

    @property
    def app(self) -> Any:
        """The application that the server runs."""
        return self.server.config.app

    @property
    def connections(self) -> int:
        return sum(isinstance(one, GuardedProtocol) for one in self.server.server_state.connections)

    def wait_until_quiet(self) -> None:
        """Return once nobody is connected and nothing runs, which shows that nothing leaked."""
        state = self.server.server_state
        wait_until(lambda: not state.tasks and not self.connections, "connections and requests are gone")


class Raw:
    """A connection that says what it is told to, byte for byte."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._rest = b""

    def send(self, *parts: bytes) -> "Raw":
        self.socket.sendall(b"".join(parts))
        return self

    def finish(self) -> "Raw":
        """Say no more, and go on listening."""
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def answer(self) -> tuple[int, dict[str, str], Any]:
        """Read one answer: status, headers, and the JSON of its body."""
        while b"\r\n\r\n" not in self._rest:
            self._more()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        while len(self._rest) < length:
            self._more()
        body, self._rest = self._rest[:length], self._rest[length:]
        return int(first.split()[1]), headers, json.loads(body) if body else None

    def closed(self) -> bool:
        """Whether the other side ends the connection, with nothing more to say; waits for it."""
        try:
            return self._rest == b"" and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def ends(self) -> bool:
        """Whether there is no further answer; waits for it, or for the end."""
        if not self._rest:
            try:
                self._rest = self.socket.recv(65_536)
            except ConnectionResetError:
                return True
        return not self._rest

    def _more(self) -> None:
        found = self.socket.recv(65_536)
        assert found, f"the connection ended; before that: {self._rest[:200]!r}"
        self._rest += found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def a_request(body: bytes, *headers: str, path: str = "/ingest", length: int | None = None) -> bytes:
    """A request as bytes, with the length that it has, or claims to have."""
    lines = [f"POST {path} HTTP/1.1", "host: gateway", "content-type: application/json", *headers]
    if not any(line.startswith("transfer-encoding") for line in headers):
        lines.append(f"content-length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode() + body


@contextmanager
def a_gateway(settings: Settings, sqs: EmbeddedSqs) -> Iterator[Gateway]:
    """Run the door of these settings on a free port, in a thread of this process."""
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    made: list[uvicorn.Server] = []

    async def run() -> None:
        intake, keys = open_intake(settings), open_keys(settings)
        await keys.start()
        await intake.start()
        server = uvicorn.Server(config_of(intake, keys, settings))
        made.append(server)
        await server.serve(sockets=[listener])
        await intake.close()
        await keys.close()

    def in_thread() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())

    thread = threading.Thread(target=in_thread, name="gateway", daemon=True)
    thread.start()
    wait_until(lambda: bool(made) and made[0].started, "the gateway listens")
    try:
        with (
            closing(sqs.client()) as queue,
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
        ):
            yield Gateway(port, made[0], queue, settings.need_queue_url(), client)
    finally:
        made[0].should_exit = True
        thread.join(30)
        listener.close()
    assert not thread.is_alive(), "the gateway did not end"


def settings_of(sqs: EmbeddedSqs, queue_url: str, **changes: Any) -> Settings:
    """Settings of a gateway without keys over this queue."""
    given: dict[str, Any] = {
        "sqs_queue_url": queue_url,
        "aws_endpoint_url": sqs.endpoint_url,
        "aws_region": "us-east-1",
        "aws_access_key_id": "test",
        "aws_secret_access_key": "test",
        "gateway_keys": "off",
    }
    return Settings.load(_env_file=None, **given | changes)
