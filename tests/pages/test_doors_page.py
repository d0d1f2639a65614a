"""The page on sending events, typed word for word: one event by each way, and all of them in one table."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from processor.devstack.servers.binaries import find_binaries
from processor.devstack.servers.children import free_port
from tests.broker_servers.kafka import Mock
from tests.broker_servers.rabbitmq import RabbitQueue
from tests.journeys import dev

# `processor dev` wants the port that awslocal looks at, and there is one.
pytestmark = pytest.mark.xdist_group("port 4566")

PAGE = dev.ROOT / "docs/howto/send-events.md"


def test_one_event_by_each_door_comes_out_in_the_same_table(
    tmp_path: Path, rabbitmq_queue: RabbitQueue, kafka: Mock
) -> None:
    section = PAGE.read_text().partition("## One event by each way")[2].partition("\n## ")[0]
    script = "\n".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL))
    http, grpc = str(free_port()), str(free_port())
    for written, ours in (("8090", http), ("50051", grpc)):
        assert script.count(written)
        script = script.replace(written, ours)
    rabbitmq_queue.make()
    environment = dev.environment() | {
        "PATH": f"{Path(sys.prefix) / 'bin'}:{find_binaries(None)}:{dev.environment()['PATH']}",
        "RABBITMQ": rabbitmq_queue.source_url,
        "KAFKA": kafka.url(kafka.topic()),
        "GATEWAY_PORT": http,
        "GATEWAY_GRPC_PORT": grpc,
        "GATEWAY_PROBES_PORT": "0",
    }

    with dev.running(tmp_path):
        done = subprocess.run(
            ["bash", "-e", "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    assert done.returncode == 0, done.stdout + done.stderr
    stored = re.findall(r"^ (by-\w+) +\| \S+ +\| (\S+)$", done.stdout, re.MULTILINE)
    assert stored == [(f"by-{door}", "1.50") for door in ("grpc", "http", "kafka", "rabbitmq", "sqs")]
    assert re.search(r"^acme +pulse .* storage +GB +7\.50 +5 ", done.stdout, re.MULTILINE), done.stdout
