"""A thread that dies ends its process by code 1: one without it is of no use, and looks well."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from processor.devstack.servers.sink import Receiver
from processor.devstack.servers.sqs import EmbeddedSqs
from tests.builders import a_body
from tests.rig import wait_until

ROOT = Path(__file__).resolve().parents[2]

RUN = [
    # Each beside what it does, in the order in which they begin.
    "probes",
    "beat",
    "deadline",
    "depth",
    "receiver-0",
    "judge",
    "writer-0",
    "settler-0",
    "heartbeat",
]
DISPATCH = ["probes", "deadline"]
HTTP = ["keys", "sender-0"]
GRPC = ["keys", "sender-0", "probes", "health"]

ELSEWHERE = {
    "kafka": "tests/conformance/test_source.py",
    "rabbitmq": "tests/conformance/test_source.py",
    "forgetter": "tests/sources/test_rabbitmq_unnamed.py",
    "releaser": "given up with the process, which ends",
    "hard stop": "the process ends, and what asked for that bounds it as well",
    "pulse": "of a command: where it dies, the command waits as it would without it, until Ctrl-C",
    "cut": "of one request to the sink, whose socket has time-outs of its own",
    "left": "of an end, which says what is left, if it can",
    "idleness": "a worker of the pipeline, as those above, while a run is to end by itself",
    "end": "of an end that is under way",
    "sink": "of the demonstration's sink, which is no part of what runs all day",
}
"""Threads that are not tried here, and why."""


def environment(settings: dict[str, str]) -> dict[str, str]:
    return os.environ | {"HTTP_PORT": "0", "STOP_TIMEOUT_S": "2", "RECEIVE_WAIT_S": "1"} | settings


@pytest.fixture
def queue_settings(sqs_server: EmbeddedSqs, queue_url: str, database_url: str) -> dict[str, str]:
    sqs_server.client().send_message(QueueUrl=queue_url, MessageBody=a_body().decode())
    return environment(
        {
            "DATABASE_URL": database_url,
            "SQS_QUEUE_URL": queue_url,
            "AWS_ENDPOINT_URL": sqs_server.endpoint_url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "GATEWAY_PORT": "0",
            "GATEWAY_GRPC_PORT": "0",
            "GATEWAY_PROBES_PORT": "0",
        }
    )


def end_of(name: str, environment: dict[str, str], *words: str) -> tuple[int, str]:
    """Run a program in which that thread dies; gives its exit code and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.victims.dead_thread", name, *words],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("name", RUN)
def test_a_thread_of_run_that_dies_ends_it(name: str, queue_settings: dict[str, str]) -> None:
    code, said = end_of(name, queue_settings, "processor", "run")

    assert code == 1, said
    assert re.search(f'"(thread|worker)": "{name}"', said), said
    assert '"error": "Bug"' in said


def test_a_worker_of_several_is_restarted_then(queue_settings: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-m", "tests.chaos.victims.dead_thread", "depth", "processor", "run"]
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [*command, "--processes", "2"], env=queue_settings, cwd=ROOT, stderr=file
        ) as process,
    ):
        try:
            wait_until(lambda: log.read_text().count('"process_fell"') >= 2, "workers fell")
            process.send_signal(signal.SIGTERM)

            process.wait(30)
        finally:
            process.kill()

    assert '"exit_code": 1' in log.read_text()


@pytest.mark.usefixtures("pulses")
@pytest.mark.parametrize("name", DISPATCH)
def test_a_thread_of_dispatch_that_dies_ends_it(name: str, database_url: str, receiver: Receiver) -> None:
    settings = environment({"DATABASE_URL": database_url, "USAGE_SINK_URL": receiver.url})

    code, said = end_of(name, settings, "processor", "dispatch")

    assert code == 1, said
    assert f'"thread": "{name}"' in said


@pytest.mark.parametrize(
    ("door", "name"), [*(("http", name) for name in HTTP), *(("grpc", name) for name in GRPC)]
)
def test_a_thread_or_task_of_a_gateway_that_dies_ends_it(
    door: str, name: str, queue_settings: dict[str, str]
) -> None:
    code, said = end_of(name, queue_settings, "producers", "gateway", door)

    assert code == 1, said
    assert f'"thread": "{name}"' in said


def test_every_thread_is_tried_or_said_why_not() -> None:
    named = re.compile(r'name=f?"([^"{]+)|\.name, .* = "([^"]+)"|self\._worker\(\s*f?"([^"{]+)')
    found = set()
    for folder in ("processor", "producers"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            made = len(re.findall(r"threading\.(?:Thread|Timer)\(", text))
            names = {next(filter(None, groups)) for groups in named.findall(text)}
            assert not made or names, f"{path} starts a thread that has no name"
            found |= names if made else set()

    known = {re.sub(r"\d+$", "", name) for name in (*RUN, *DISPATCH, *HTTP, *GRPC, *ELSEWHERE)}
    assert {re.sub(r"\d+$", "", name) for name in found} <= known
