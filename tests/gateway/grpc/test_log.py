"""What those without rights can make the gRPC door write into its log: few lines, and nothing of theirs."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest

from processor.devstack.servers.sqs import CREDENTIAL, REGION, EmbeddedSqs
from processor.runtime.logs import LINES_MAX
from producers.publishers.grpc import GrpcPublisher as Sender
from producers.publishers.outgoing import Outgoing
from tests.gateway.grpc import raw_http2 as raw
from tests.gateway.grpc.parts import WAIT_S

SECRET = b"\xffsecret"
"""What must not be in a log, and is no UTF-8."""

ATTACKS = {
    "a path that is no text": raw.a_call(b"/" + SECRET, 1, b""),
    "metadata that are no text": raw.a_call(raw.INGEST, 1, b"", authorization=SECRET),
    "an encoding that is none": raw.a_call(raw.INGEST, 1, b"", grpc_encoding="secret"),
    "a message beyond the bound": raw.a_call(raw.INGEST)
    + raw.frame(raw.DATA, 0, 1, raw.message(announced=2**31 - 1)),
    "a message that is not packed as it says": raw.a_call(
        raw.INGEST, 1, raw.message(b"secret", packed=True), grpc_encoding="gzip"
    ),
    "a message that is cut": raw.a_call(raw.INGEST, 1, raw.message(b"secret", announced=1000)),
    "a reset at once": raw.a_call(raw.INGEST) + raw.reset(),
    "a deadline that passes": raw.a_call(raw.INGEST, grpc_timeout="1n"),
    "garbage for health": raw.a_call(raw.CHECK, 1, raw.message(SECRET)),
    "garbage for watchers": raw.a_call(raw.WATCH, 1, raw.message(SECRET)),
    "garbage for reflection": raw.a_call(raw.REFLECTION, 1, raw.message(SECRET)),
    "too much for health": raw.a_call(raw.CHECK)
    + raw.frame(raw.DATA, 0, 1, raw.message(announced=2**31 - 1)),
    "a stream that is left": raw.a_call(raw.STREAM) + raw.frame(raw.DATA, 0, 1, raw.message(announced=9)),
    "an answer of health that is not read": raw.NO_WINDOW + raw.a_call(raw.CHECK, 1, raw.message()),
    "a watch that is not read": raw.NO_WINDOW + raw.a_call(raw.WATCH, 1, raw.message()),
    "a reflection that is not read": raw.NO_WINDOW + raw.a_call(raw.REFLECTION, 1, raw.message(b":\0")),
    "an answer of a stream that is not read": raw.NO_WINDOW
    + raw.a_call(raw.STREAM)
    + raw.frame(raw.DATA, 0, 1, raw.message(b"\n\0")),
    "an unknown method": raw.a_call("/secret/Secret", 1, b""),
    "no HTTP/2": b"GET /secret HTTP/1.1\r\n\r\n",
}


@contextmanager
def the_command(
    sqs_server: EmbeddedSqs, queue_url: str, log: IO[str], **settings: str
) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    environment = os.environ | {
        "SQS_QUEUE_URL": queue_url,
        "AWS_ENDPOINT_URL": sqs_server.endpoint_url,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": CREDENTIAL,
        "AWS_SECRET_ACCESS_KEY": CREDENTIAL,
        "GATEWAY_GRPC_PORT": "0",
        "GATEWAY_PROBES_PORT": "0",
        "LOG_FORMAT": "json",
        **settings,
    }
    command = [sys.executable, "-m", "producers", "gateway", "grpc"]
    with subprocess.Popen(command, env=environment, stderr=log, text=True) as process:
        try:
            give_up_at = time.monotonic() + 3 * WAIT_S
            while not (lines := lines_of(log.name)):
                assert time.monotonic() < give_up_at, "it never starts"
            started = next(json.loads(line) for line in lines if "gateway_started" in line)
            yield started["port"], process
        finally:
            process.terminate()
            process.wait(WAIT_S)


def lines_of(name: str) -> list[str]:
    with open(name) as file:  # noqa: PTH123 - it is open elsewhere
        lines = file.read().splitlines()
    return lines if any("gateway_started" in line for line in lines) else []


def attack(port: int, said: bytes, number: int = 0) -> None:
    """Say it, from another address each time: from one alone it would come at a pace."""
    with raw.a_connection(port, address=f"127.0.3.{1 + number}") as connection:
        connection.sendall(said)
        connection.settimeout(0.5 if number == 0 else 0.02)
        try:
            while connection.recv(65_536):
                pass
        except OSError:
            pass


@pytest.mark.parametrize("keys", ["off", "required"])
def test_no_attack_writes_more_than_some_lines_and_none_shuts_the_door(
    sqs_server: EmbeddedSqs, queue_url: str, tmp_path: "os.PathLike[str]", keys: str, database_url: str
) -> None:
    """With keys off each call goes on to where its message is read."""
    name = f"{os.fspath(tmp_path)}/log"
    with open(name, "w") as log:  # noqa: PTH123, SIM117 - a name is needed
        with the_command(sqs_server, queue_url, log, GATEWAY_KEYS=keys, DATABASE_URL=database_url) as (
            port,
            _,
        ):
            for said in ATTACKS.values():
                for number in range(LINES_MAX + 10):
                    attack(port, said, number)
            if keys == "off":
                sender = Sender(f"127.0.0.1:{port}", None)
                body = '{"id": "o-1", "tenant_id": "acme", "event_type": "t", "payload": {}}'
                assert list(sender.send({7: Outgoing(body)}).accepted) == [7]
                sender.close()
            else:
                attack(port, raw.a_call(raw.CHECK, 1, raw.message()))
    written = lines_of(name)

    text = "\n".join(written)
    assert "secret" not in text.lower()
    assert "Traceback" not in text
    # What a client does is no fault of ours.
    assert "call_failed" not in text
    assert all(line.startswith("{") for line in written), text
    assert len(written) < 100
    assert len(text) < 20_000
