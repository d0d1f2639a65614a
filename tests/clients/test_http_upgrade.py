"""Clients that ask for HTTP/2 with the request itself are answered over HTTP/1.1, which they understand."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from processor.devstack.servers.sqs import EmbeddedSqs
from tests.gateway.http.rig import Gateway, a_gateway, a_pulse, settings_of

PULSE = json.dumps(a_pulse())


@pytest.fixture
def gateway(sqs_server: EmbeddedSqs, queue_url: str) -> Iterator[Gateway]:
    with a_gateway(settings_of(sqs_server, queue_url), sqs_server) as running:
        yield running


def said(*command: str) -> list[str]:
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]} here")
    return subprocess.run(command, capture_output=True, check=True, timeout=120, text=True).stdout.split()


def test_curl_asks_for_http_2_and_is_answered(gateway: Gateway) -> None:
    url = f"http://127.0.0.1:{gateway.port}/ingest"
    options = [
        "--silent",
        "--http2",
        "--json",
        PULSE,
        "--write-out",
        "%{http_code}\n",
        "--output",
        "/dev/null",
    ]

    assert said("curl", *options, url, "--next", *options, url) == ["202", "202"]
    assert len(gateway.queued()) == 2


def test_the_client_of_java_is_answered(gateway: Gateway) -> None:
    if shutil.which("javac") is None:
        pytest.skip("there is no compiler of Java here")
    source = Path(__file__).parent / "Post.java"

    assert said("java", str(source), f"http://127.0.0.1:{gateway.port}/ingest", PULSE) == ["202"] * 3
    assert len(gateway.queued()) == 3
