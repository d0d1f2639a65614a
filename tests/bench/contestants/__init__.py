"""The contestants: programs that do the same work: validate, store, delete after the commit."""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.bench.queue.node import SQS_CONSUMER, NodeMissing, find_node

HERE = Path(__file__).parent
OURS = "ours"


@dataclass(frozen=True)
class Contestant:
    """A program that drains a queue into the table until it is stopped.

    `share` is the part of the round's messages that it gets: every figure is per message, and the slow would
    take most of the time. `missing` says why it can't take part.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    share: float = 1.0
    missing: str | None = None


def ours(processes: int = 1) -> Contestant:
    """Give the processor as `processor run` starts it, with its default settings."""
    command = (sys.executable, "-m", "processor", "run")
    if processes == 1:
        return Contestant(OURS, command)
    return Contestant(f"{OURS}, {processes} processes", (*command, "--processes", str(processes)))


def boto3_loop() -> Contestant:
    """Give the loop that most people write first, with compiled schemas."""
    return Contestant("boto3 loop", (sys.executable, "-m", "tests.bench.contestants.boto3_loop"), share=0.4)


def powertools_loop() -> Contestant:
    """Give AWS Lambda Powertools' batch processor, fed the same way."""
    missing = None
    if importlib.util.find_spec("aws_lambda_powertools") is None:
        missing = "aws-lambda-powertools is not installed; try: pip install '.[load]'"
    command = (sys.executable, "-m", "tests.bench.contestants.powertools_loop")
    return Contestant("Powertools batch", command, share=0.3, missing=missing)


def sqs_consumer(consumers: int, tools: Path) -> Contestant:
    """Give Node's sqs-consumer with so many consumers in one process."""
    name, number = f"sqs-consumer {consumers}x", {"CONSUMERS": str(consumers)}
    try:
        node = find_node()
        folder = node.installed(tools / "sqs-consumer", SQS_CONSUMER)
    except NodeMissing as error:
        return Contestant(name, (), missing=str(error))
    # Node looks for modules beside the program, so the program goes where they are.
    program = folder / "sqs_consumer.mjs"
    program.write_bytes((HERE / "sqs_consumer.mjs").read_bytes())
    return Contestant(name, (str(node.node), str(program)), number, share=0.5)


def roster(tools: Path) -> dict[str, Callable[[], Contestant]]:
    """Give who may take part in the bench, ours first; a peer is installed only when it is called."""
    return {
        OURS: ours,
        f"{OURS}, 2 processes": partial(ours, 2),
        "sqs-consumer 4x": partial(sqs_consumer, 4, tools),
        "sqs-consumer 8x": partial(sqs_consumer, 8, tools),
        "boto3 loop": boto3_loop,
        "Powertools batch": powertools_loop,
    }
