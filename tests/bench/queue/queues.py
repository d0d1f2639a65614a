"""The queue server of a load test as a child process: ours, or fauxqs from npm."""

import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from processor.devstack.servers.children import POLL_S, Child, free_port, spawn, uninterrupted
from tests.bench.events import TENANTS, body
from tests.bench.faults import LoadError
from tests.bench.queue.client import QueueClient, QueueGone
from tests.bench.queue.node import FAUXQS, find_node

Kind = Literal["own", "fauxqs"]

ROOT = Path(__file__).resolve().parents[3]
VISIBILITY_TIMEOUT_S = 60
START_S = 20.0
STOP = ((signal.SIGTERM, 5.0),)


class QueueServer:
    """One server, started and stopped by us, and what a load test asks of it."""

    def __init__(self, kind: Kind, folder: Path, tools: Path, port: int | None = None) -> None:
        self.kind = kind
        self.port = port or free_port()
        self.endpoint_url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._tools = tools
        self._child: Child | None = None
        self._client: QueueClient | None = None

    @property
    def can_hide(self) -> bool:
        """Whether messages can be filled in unseen, and shown at one moment; ours can."""
        return self.kind == "own"

    @property
    def pid(self) -> int:
        assert self._child is not None, "the queue server was not started"
        return self._child.pid

    def __enter__(self) -> Self:
        command, extra = self._command()
        with uninterrupted():
            self._child = spawn(
                f"the queue server ({self.kind})",
                command,
                environment=os.environ | {"PYTHONPATH": str(ROOT)} | extra,
                directory=self._folder,
                log=self._folder / "queue.log",
            )
        give_up_at = time.monotonic() + START_S
        while not self._answers():
            if self._child.exit_code() is not None or time.monotonic() > give_up_at:
                said = self._child.log_tail()
                self._stop()
                raise LoadError(f"the queue server ({self.kind}) did not start; its log ends with:{said}")
            time.sleep(POLL_S)
        self._client = QueueClient(self.endpoint_url)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def create(self, name: str) -> str:
        """Make an empty queue; gives its URL."""
        attributes = {"VisibilityTimeout": str(VISIBILITY_TIMEOUT_S)}
        url: str = self._call("CreateQueue", QueueName=name, Attributes=attributes)["QueueUrl"]
        return url

    def delete(self, queue_url: str) -> None:
        """Forget a queue and all that it kept."""
        self._call("DeleteQueue", QueueUrl=queue_url)

    def depth(self, queue_url: str) -> int:
        """Count what is visible, in flight or delayed; what was filled hidden does not count."""
        counts = self._call("GetQueueAttributes", QueueUrl=queue_url, AttributeNames=["All"])["Attributes"]
        return sum(int(value) for name, value in counts.items() if name.startswith("ApproximateNumberOf"))

    def fill(
        self,
        queue_url: str,
        template: str,
        first: int,
        count: int,
        *,
        hidden: bool = False,
        lazy: bool = False,
    ) -> None:
        """Put `count` events on the queue: `hidden` until `reveal`, or `lazy`, made when received."""
        if self.can_hide:
            self._own.post(
                "/fill",
                queue=_name(queue_url),
                template=template,
                first=first,
                count=count,
                tenants=TENANTS,
                hidden=hidden,
                lazy=lazy,
            )
            return
        for start in range(first, first + count, 10):
            numbers = range(start, min(start + 10, first + count))
            entries = [{"Id": str(n), "MessageBody": body(n, template)} for n in numbers]
            if self._call("SendMessageBatch", QueueUrl=queue_url, Entries=entries).get("Failed"):
                raise LoadError(f"{self.kind} refused an event of the load test")

    def reveal(self, queue_url: str) -> float:
        """Show what was filled hidden; gives the moment in Unix time."""
        return float(self._own.post("/reveal", queue=_name(queue_url)))

    def calls(self, queue_url: str) -> Counter[str]:
        """Give the calls of a queue by operation, as ours counts them; another counts none."""
        return Counter(self._stats(queue_url)["calls"]) if self.can_hide else Counter()

    def parked(self, queue_url: str) -> int:
        """Give how many receives wait for a message."""
        return int(self._stats(queue_url)["parked"])

    def handovers(self, queue_url: str) -> dict[str, float]:
        """Give, by delivery id, when each message that was sent was first handed over, in Unix time."""
        return dict(self._own.get(f"/handovers?queue={_name(queue_url)}"))

    def _stats(self, queue_url: str) -> Any:
        return self._own.get(f"/stats?queue={_name(queue_url)}")

    @property
    def _own(self) -> QueueClient:
        if not self.can_hide or self._client is None:
            raise LoadError("this load test needs the project's own queue server; leave --queue out")
        return self._client

    def _call(self, operation: str, **fields: Any) -> Any:
        assert self._client is not None, "the queue server was not started"
        try:
            return self._client.ask(operation, **fields)
        except (QueueGone, OSError) as error:
            said = "" if self._child is None else self._child.log_tail()
            raise LoadError(f"the queue server failed at {operation}: {error}{said}") from error

    def _command(self) -> tuple[list[str | Path], dict[str, str]]:
        if self.kind == "own":
            return [sys.executable, "-m", "tests.bench.queue.server", "--port", str(self.port)], {}
        node = find_node()
        folder = node.installed(self._tools / "fauxqs", FAUXQS)
        named = {"FAUXQS_PORT": str(self.port), "FAUXQS_HOST": "127.0.0.1", "FAUXQS_LOGGER": "false"}
        return [node.node, folder / "node_modules" / "fauxqs" / "dist" / "cli.js"], named

    def _answers(self) -> bool:
        try:
            with QueueClient(self.endpoint_url, timeout_s=1) as client:
                client.ask("ListQueues")
        except (OSError, QueueGone):
            return False
        return True

    def _stop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._child is not None:
            self._child.stop(*STOP)
            self._child = None


def _name(queue_url: str) -> str:
    return queue_url.rsplit("/", 1)[-1]
