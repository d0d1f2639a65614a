"""Programs of Node for the tests, and their clients from npm: installed once, in pytest's cache."""

import fcntl
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.bench.queue.node import Node, NodeMissing, find_node

HERE = Path(__file__).parent
CLIENTS = (
    "@aws-sdk/client-sqs@3.1175.0",
    "amqplib@2.3.1",
    "cloudevents@10.0.0",
    "kafkajs@2.2.4",
)
NODE_MAJOR_MIN = 20
"""What the clients ask for."""

RunNode: TypeAlias = Callable[..., Any]


@pytest.fixture(scope="session")
def node_folder(request: pytest.FixtureRequest) -> tuple[Node, Path]:
    """Node, and the folder with the clients; where there is neither the test is skipped with a word."""
    folder = request.config.cache.mkdir("npm-clients")
    try:
        node = find_node()
        if int(node.version().removeprefix("v").partition(".")[0]) < NODE_MAJOR_MIN:
            pytest.skip(f"needs Node {NODE_MAJOR_MIN} or newer; this is {node.version()}")
        # Several processes of pytest may begin at once.
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            node.installed(folder, CLIENTS)
    except NodeMissing as error:
        pytest.skip(f"needs clients from npm: {error}")
    return node, folder


@pytest.fixture
def run_node(node_folder: tuple[Node, Path]) -> RunNode:
    """Run a program of this folder; it reads its arguments as JSON, and prints JSON."""
    node, folder = node_folder

    def run(name: str, **arguments: Any) -> Any:
        # Node looks for modules beside the program, so the program goes where they are.
        program = folder / name
        program.write_bytes((HERE / name).read_bytes())
        done = subprocess.run(
            [node.node, program, json.dumps(arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout or "null")

    return run
