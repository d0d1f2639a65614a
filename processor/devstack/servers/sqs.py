"""An SQS of our own on 127.0.0.1: `ministack` as a child process, for demo, play and tests.

DIRECTORY/state         the queues and their messages, written by ministack when it is told to stop
DIRECTORY/lock          held by the server, so that no two work on the state
DIRECTORY/server.log    what the server said since its last start
"""

import contextlib
import importlib.util
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

from processor.devstack.servers.binaries import INSTALL
from processor.devstack.servers.children import (
    POLL_S,
    Child,
    DevstackError,
    DirectoryLock,
    port_is_free,
    preferred_port,
    spawn,
    start_log,
    uninterrupted,
)

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.literals import QueueAttributeNameType

ACCOUNT_ID = "000000000000"
REGION = "us-east-1"
CREDENTIAL = "test"
# Where boto3 would look for a profile and for files: nowhere. (config key, variable, default, conversion)
BLIND = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
# What a Python program may need to run at all, and nothing that tells it what to be.
NEUTRAL = ("PATH", "HOME", "LANG", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SSL_CERT_FILE")
START_S = 30.0
LOCK_S = 15.0
PORT_ATTEMPTS = 3
RETENTION_S_MAX = 14 * 24 * 3600
# It finishes the calls under way for up to 3 s, then saves; a queue of 100,000 messages takes some more.
STOP = ((signal.SIGTERM, 20.0),)


class EmbeddedSqs:
    """One ministack server with SQS alone, started and stopped by us; it listens to this machine only.

    What becomes of messages, tried on ministack 1.5 with 20 messages, 10 of them in flight:

    - `stop()` (SIGTERM) and `start()` on the same directory keep every message with its body and attributes.
      Those in flight stay so until their visibility timeout ends, which goes on counting meanwhile; their
      receive count is kept and their receipt handles stay valid. Delayed ones keep their delay.
    - SIGKILL loses what was sent since the last start, and brings back what was queued when the server
      was last stopped cleanly, even if it has been deleted since.
    - Without a directory, nothing outlives `stop()`.
    - ministack knows a queue by the URL of its first creation. After a restart on another port, creating a
      queue of the same name again would hide the messages: `create_queue` looks first, other people's
      scripts may not. So keep the port where you can.
    """

    def __init__(self, directory: Path | None, *, port: int | None = None, only_there: bool = True) -> None:
        self._kept = directory is not None
        self.directory = directory.absolute() if directory else Path()
        self._wanted_port = port if only_there else None
        self._preferred_port = port
        self._child: Child | None = None
        self._lock: DirectoryLock | None = None
        self.port = port or 0

    def start(self) -> None:
        """Return once the server answers; the queues of the last clean stop are back.

        Raises DevstackError if ministack is missing, the port is taken, or another one works on the
        directory. Nothing is left running then.
        """
        if self._child is not None and self._child.exit_code() is None:
            return
        if importlib.util.find_spec("ministack") is None:
            raise DevstackError(
                f"the package ministack is not installed; expected it as the local SQS; run: {INSTALL}"
            )
        if self._wanted_port is not None and not port_is_free(self._wanted_port):
            raise DevstackError(
                f"another program listens on 127.0.0.1:{self._wanted_port}; expected a free port for SQS; "
                "stop that program or leave the port out to get a free one"
            )
        try:
            self._own_directory()
            self._launch()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Let the server save its queues and end; safe to call at any time and more than once."""
        if self._child is not None:
            self._child.stop(*STOP)
            self._child = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        if not self._kept and self.directory != Path():
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = Path()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoint_url(self) -> str:
        """Where SQS answers: what AWS_ENDPOINT_URL should be."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process id of the server, None if it was not started."""
        return None if self._child is None else self._child.pid

    def exit_code(self) -> int | None:
        """Give None while the server runs, else its exit code, negative for a signal."""
        return None if self._child is None else self._child.exit_code()

    def log_tail(self) -> str:
        """Give the last lines of the server's log, each on a line of its own, for an error message."""
        return "" if self._child is None else self._child.log_tail()

    def client(self) -> "SQSClient":
        """Give a new boto3 client of this server, blind to every AWS setting of this machine."""
        # A profile or a file that the shell names may not exist, and boto3 would stumble over it.
        session = botocore.session.Session(dict(BLIND))
        client: SQSClient = session.create_client(
            "sqs",
            endpoint_url=self.endpoint_url,
            region_name=REGION,
            aws_access_key_id=CREDENTIAL,
            aws_secret_access_key=CREDENTIAL,
            config=Config(retries={"mode": "standard", "total_max_attempts": 3}, proxies={}),
        )
        return client

    def queue_url(self, name: str) -> str:
        """Give the URL of a queue of this name, whether it exists or not."""
        return f"{self.endpoint_url}/{ACCOUNT_ID}/{name}"

    def create_queue(self, name: str, *, visibility_timeout_s: int = 60, max_receive_count: int = 10) -> str:
        """Make the queue and its dead-letter queue `<name>-dlq`, or set these attributes on existing ones.

        Returns the queue's URL. Messages that wait in either of them stay. A message that was received
        `max_receive_count` times goes to the dead-letter queue, where it is kept for 14 days.
        """
        dead_letters = f"{name}-dlq"
        redrive = {
            "deadLetterTargetArn": f"arn:aws:sqs:{REGION}:{ACCOUNT_ID}:{dead_letters}",
            "maxReceiveCount": str(max_receive_count),
        }
        with contextlib.closing(self.client()) as client:
            self._ensure(client, dead_letters, {"MessageRetentionPeriod": str(RETENTION_S_MAX)})
            self._ensure(
                client,
                name,
                {"VisibilityTimeout": str(visibility_timeout_s), "RedrivePolicy": json.dumps(redrive)},
            )
        return self.queue_url(name)

    def _ensure(
        self, client: "SQSClient", name: str, attributes: "dict[QueueAttributeNameType, str]"
    ) -> None:
        # The class says why we look before we create.
        try:
            client.get_queue_url(QueueName=name)
        except ClientError as error:
            if "NonExistentQueue" not in error.response.get("Error", {}).get("Code", ""):
                raise
            client.create_queue(QueueName=name, Attributes=attributes)
        else:
            client.set_queue_attributes(QueueUrl=self.queue_url(name), Attributes=attributes)

    def _own_directory(self) -> None:
        if not self._kept:
            self.directory = Path(tempfile.mkdtemp(prefix="event-processor-sqs-"))
        (self.directory / "state").mkdir(parents=True, exist_ok=True)
        self._lock = DirectoryLock(self.directory / "lock")
        # After a kill of its parent, a server may still be saving the messages that we are about to read.
        if not self._lock.acquire(LOCK_S):
            raise DevstackError(
                f"another SQS works on {self.directory}; expected to be alone there; stop it first"
            )

    def _launch(self) -> None:
        for _ in range(PORT_ATTEMPTS):
            self.port = self._wanted_port or preferred_port(self._preferred_port)
            token = secrets.token_hex(8)
            log = self.directory / "server.log"
            start_log(log)
            with uninterrupted():
                self._child = spawn(
                    "ministack",
                    [sys.executable, "-m", "ministack"],
                    environment=self._environment(token),
                    directory=self.directory,
                    log=log,
                    keep_open=[self._lock.descriptor] if self._lock and self._lock.descriptor else [],
                )
            if self._ready(token):
                return
            # Somebody took the free port between our look and the server's; another one is as good.
            if self._wanted_port is not None or "in use" not in self._child.log_tail():
                break
            self._child.stop(*STOP)
            self._preferred_port = None
        raise DevstackError(f"SQS did not start on {self.endpoint_url}; its log ends with:{self.log_tail()}")

    def _environment(self, token: str) -> dict[str, str]:
        """Give the whole environment of the server: nothing of ours that could change what it is.

        It would listen everywhere, open an MQTT and an SFTP port, and remove Docker containers that other
        ministacks have left, if we let it.
        """
        state = str(self.directory / "state")
        kept = {name: os.environ[name] for name in NEUTRAL if name in os.environ}
        return kept | {
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "SERVICES": "sqs",
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "DOCKER_HOST": "unix:///nonexistent",
            "PERSIST_STATE": "1" if self._kept else "0",
            "STATE_DIR": state,
            "TMPDIR": state,
            "LOG_LEVEL": "WARNING",
            "MINISTACK_REGION": REGION,
            "MINISTACK_ACCOUNT_ID": ACCOUNT_ID,
            "MINISTACK_VERSION": token,
        }

    def _ready(self, token: str) -> bool:
        """Wait until our own server answers; False if it ended or took too long.

        We name its version ourselves and look for that name, because a stranger's server may hold the port.
        """
        assert self._child is not None  # noqa: S101 - called after spawn
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._child.exit_code() is None:
            try:
                with opener.open(f"{self.endpoint_url}/_ministack/health", timeout=2) as answer:
                    if json.load(answer).get("version") == token:
                        return True
            except (OSError, ValueError, AttributeError):
                pass  # Not there yet, or a stranger; the deadline decides.
            time.sleep(POLL_S)
        return False
