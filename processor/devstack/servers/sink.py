"""A sink for tests and the demo: takes lines over HTTP as a good one would, and misbehaves when told to.

    POST ──▶ behaviour of the moment ──▶ lines kept by key ──▶ answer
                                         └─ same key, other content: changed; the same: doubled

It keeps every request as it came, so that a test can see that a retry was the same bytes under the same key.
"""

import json
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self, TypeAlias

Line: TypeAlias = dict[str, Any]
Group: TypeAlias = tuple[str, ...]

DIGITS_MAX = 1000
"""Enough for any sum: the default context would round to 28 digits."""


@dataclass(slots=True)
class SinkRequest:
    """A request as it came, and when by the monotonic clock it began and was answered."""

    key: str
    authorization: str | None
    body: bytes
    began_s: float
    ended_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How to answer: by default, accept all with status 200 and no body.

    `accepts` says whether the lines are kept, whatever is answered; `statuses` gives some lines a status of
    their own; `wait_s` comes between keeping and answering; `drops` closes the connection without
    an answer.
    """

    status: int = 200
    accepts: bool = True
    statuses: Callable[[Line], int] | None = None
    refuses_batch_with: Callable[[Line], bool] | None = None
    wait_s: float = 0.0
    drops: bool = False
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


GOOD = Behaviour()


@dataclass(slots=True)
class SinkJournal:
    """What has been taken: lines by key; keys that came with another content; how many came again."""

    lines: dict[str, Line] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    doubled: int = 0

    def take(self, lines: Iterable[Line]) -> None:
        """Keep each line once."""
        for line in lines:
            known = self.lines.setdefault(line["key"], line)
            if known is not line:
                self.doubled += 1
                if known != line:
                    self.changed.append(line["key"])

    def sums(self) -> dict[Group, Decimal]:
        """Add up, to the last digit, by tenant, what is counted, and the window's beginning."""
        with localcontext(prec=DIGITS_MAX):
            found: dict[Group, Decimal] = {}
            for line in self.lines.values():
                group = group_of(line)
                found[group] = found.get(group, Decimal(0)) + amount_of(line)
            return found

    def missing_revisions(self) -> list[Group]:
        """Name the windows of which a revision is missing between the first and the last that came."""
        revisions: dict[Group, set[int]] = {}
        for line in self.lines.values():
            revisions.setdefault(group_of(line), set()).add(line["revision"])
        return [group for group, seen in revisions.items() if seen != set(range(1, max(seen) + 1))]


def group_of(line: Line) -> Group:
    """Say what a line is about: (tenant, sku, unit, window), or (tenant, meter, values..., window)."""
    if "product_sku" in line:
        what: Group = (line["product_sku"], line["use_unity"])
    else:
        what = (line["meter"], *(line["group"][name] for name in sorted(line["group"])))
    return (line["tenant_id"], *what, line["window_start"])


def amount_of(line: Line) -> Decimal:
    """Give a line's amount, whether it came as a number or as a string."""
    return Decimal(line["used_amount"] if "used_amount" in line else line["value"])


class Receiver:
    """An HTTP server on 127.0.0.1; `behaviour` may be changed at any time."""

    def __init__(self, port: int = 0) -> None:
        self.behaviour: Behaviour | Callable[[int], Behaviour] = GOOD
        """Or what chooses one by the number of the request, from 0 on."""
        self.books = SinkJournal()
        self.requests: list[SinkRequest] = []
        self._lock = threading.Lock()
        self._server = _SinkServer(("127.0.0.1", port), _handler_of(self))

    @property
    def url(self) -> str:
        """Where lines are posted to."""
        return f"http://127.0.0.1:{self._server.server_port}/usage"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=[0.02], name="sink", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening; what is taken stays."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, headers: Mapping[str, str], body: bytes) -> tuple[Behaviour, bytes]:
        """Keep a request and its lines, and give how to answer and with which body."""
        request = SinkRequest(
            headers["Idempotency-Key"], headers.get("Authorization"), body, began_s=time.monotonic()
        )
        lines = json.loads(body, parse_float=Decimal, parse_int=_whole)
        with self._lock:
            number = len(self.requests)
            self.requests.append(request)
            behaviour = self.behaviour if isinstance(self.behaviour, Behaviour) else self.behaviour(number)
            said, taken = _decide(behaviour, lines)
            self.books.take(taken)
        if behaviour.wait_s:
            time.sleep(behaviour.wait_s)
        request.ended_s = time.monotonic()
        refused = behaviour.refuses_batch_with is not None and any(map(behaviour.refuses_batch_with, lines))
        return (Behaviour(status=422) if refused else behaviour), said


def _whole(digits: str) -> int | Decimal:
    # Amounts stay as they were written; counts and revisions are small.
    return int(digits) if len(digits) < 10 else Decimal(digits)  # noqa: PLR2004 - far from any bound


def _decide(behaviour: Behaviour, lines: list[Line]) -> tuple[bytes, list[Line]]:
    """Give the body of the answer, and the lines that are kept."""
    if behaviour.refuses_batch_with is not None and any(map(behaviour.refuses_batch_with, lines)):
        return b"", []
    if behaviour.statuses is None:
        return behaviour.body, lines if behaviour.accepts else []
    statuses = {line["key"]: behaviour.statuses(line) for line in lines}
    results = [{"key": key, "status": status} for key, status in statuses.items()]
    taken = [line for line in lines if 200 <= statuses[line["key"]] < 300]  # noqa: PLR2004 - 2xx
    return json.dumps({"results": results}).encode(), taken


class _SinkServer(ThreadingHTTPServer):
    daemon_threads = True
    # Else closing waits for those that stall.
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as the library has it
        """Say nothing: clients that hang up are part of the game."""


def _handler_of(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            behaviour, said = receiver.answer(dict(self.headers.items()), body)
            if behaviour.drops:
                self.close_connection = True
                return
            with suppress(OSError):
                self.send_response(behaviour.status)
                for name, value in behaviour.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the library has it
            """Say nothing."""

    return Handler
