"""An HTTP server on a socket that answers, byte for byte, what a test says."""

import json
import socket
import ssl
import threading
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

CLOSE = b""
"""Instead of an answer: close the connection."""

SILENCE = None
"""Instead of an answer: say nothing, and keep the connection."""


def an_answer(
    document: Any = None,
    *,
    status: int = 200,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Write an HTTP answer with a JSON document, or the bytes of `body`."""
    content = json.dumps({} if document is None else document).encode() if body is None else body
    named = {"Content-Type": "application/x-amz-json-1.0", "Content-Length": str(len(content))} | dict(
        headers or {}
    )
    head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.1 {status} Said\r\n{head}\r\n".encode() + content


def an_error(code: str, status: int = 400) -> bytes:
    """Write the answer by which SQS refuses."""
    return an_answer({"__type": f"com.amazonaws.sqs#{code}", "message": "no"}, status=status)


class ScriptedServer:
    """Gives its answers in order, and the last one for ever; with `tls` over https.

    With `close` it closes each connection behind its answer, whatever that says.
    """

    def __init__(
        self, *answers: bytes | None, tls: ssl.SSLContext | None = None, close: bool = False
    ) -> None:
        self._close = close
        self._answers = deque(answers)
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._socket.getsockname()[1]}"
        self.connections = 0
        self.requests: list[bytes] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closing alone does not wake an accept that waits.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.hang_up()

    def say(self, *answers: bytes | None) -> None:
        """Give these answers from now on, and the last one for ever."""
        self._answers = deque(answers)

    def hang_up(self) -> None:
        """Close every connection that is open."""
        for connection in self._open:
            with connection:
                self._shut(connection)
        self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            while request := self._read(connection):
                self.requests.append(request)
                answer = self._answers.popleft() if len(self._answers) > 1 else self._answers[0]
                if answer == CLOSE:
                    self._shut(connection)
                    return
                if answer is not SILENCE:
                    connection.sendall(answer)
                    if self._close or b"Connection: close" in answer:
                        self._shut(connection)
                        return
        except OSError:
            return

    def _read(self, connection: socket.socket) -> bytes:
        received = b""
        while b"\r\n\r\n" not in received:
            piece = connection.recv(65536)
            if not piece:
                return b""
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        while len(body) < length:
            body += connection.recv(65536)
        return head + b"\r\n\r\n" + body

    def _shut(self, connection: socket.socket) -> None:
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return
