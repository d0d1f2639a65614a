"""A minimal client of the queue: one blocking socket, bodies of bytes, no signature.

The client fills and queries the queue in all load tests, and drains it to measure the queue's own limit.
"""

import socket
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import orjson

REQUEST = (
    b"%s %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-amz-json-1.0\r\n%s"
    b"Content-Length: %d\r\n\r\n%s"
)
RECEIVE_SIZE = 256 * 1024


class QueueGone(RuntimeError):
    """The queue server has closed the connection, or answered with an error."""


class QueueClient:
    """One connection to a queue server; not for several threads."""

    def __init__(self, endpoint_url: str, timeout_s: float = 60.0) -> None:
        parts = urlsplit(endpoint_url)
        self._host = parts.netloc.encode()
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 80), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; safe to call again."""
        self._socket.close()

    def sqs(self, operation: str, request: bytes) -> bytes:
        """Call one operation of SQS with a request in JSON; gives the answer's JSON."""
        target = b"X-Amz-Target: AmazonSQS." + operation.encode() + b"\r\n"
        return self._exchange(b"POST", b"/", target, request)

    def ask(self, operation: str, **fields: Any) -> Any:
        """Call one operation of SQS with these fields; gives the answer's."""
        return orjson.loads(self.sqs(operation, orjson.dumps(fields)))

    def get(self, path: str) -> Any:
        """Ask for what SQS has not, such as /stats."""
        return orjson.loads(self._exchange(b"GET", path.encode(), b"", b""))

    def post(self, path: str, **fields: Any) -> Any:
        """Tell the server what SQS could not be told, such as /fill; gives its answer."""
        return orjson.loads(self._exchange(b"POST", path.encode(), b"", orjson.dumps(fields)))

    def _exchange(self, method: bytes, path: bytes, headers: bytes, body: bytes) -> bytes:
        self._socket.sendall(REQUEST % (method, path, self._host, headers, len(body), body))
        data = self._more(b"")
        while (end := data.find(b"\r\n\r\n")) < 0:
            data = self._more(data)
        head = data[:end].lower()
        at = head.find(b"content-length:") + 15
        stop = head.find(b"\r\n", at)
        needed = end + 4 + int(head[at : stop if stop >= 0 else None])
        if len(data) < needed:
            parts, have = [data], len(data)
            while have < needed:
                parts.append(self._more(b""))
                have += len(parts[-1])
            data = b"".join(parts)
        if not head.startswith(b"http/1.1 200"):
            raise QueueGone(f"the queue server refuses: {data[end + 4 :][:500].decode(errors='replace')}")
        return data[end + 4 :]

    def _more(self, data: bytes) -> bytes:
        more = self._socket.recv(RECEIVE_SIZE)
        if not more:
            raise QueueGone("the queue server has closed the connection; it may have died: see its log")
        return data + more
