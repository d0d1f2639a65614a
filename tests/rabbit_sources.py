"""Sources of RabbitMQ as the processor opens them, and what may become of their connection."""

import sys
from typing import Any

from processor.settings import Settings
from processor.sources.rabbitmq.source import OnArrival, RabbitMqSource
from tests.broker_servers.rabbitmq import RabbitQueue
from tests.rig import wait_until


def a_rabbitmq_source(queue: RabbitQueue, **settings: Any) -> RabbitMqSource:
    return a_source_of(queue.source_url, **settings)


def a_source_of(source_url: str, *, on_arrival: OnArrival = list, **settings: Any) -> RabbitMqSource:
    loaded = Settings.load(_env_file=None, source_url=source_url, **settings)
    address = loaded.source_address()
    assert address is not None
    return RabbitMqSource.open(loaded, address, on_arrival)


def put_too_deep(queue: RabbitQueue, body: bytes, **properties: Any) -> None:
    """Put a message whose headers pika's reader gives up at, some hundred levels down."""
    deep: Any = []
    for _ in range(3000):
        deep = [deep]
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        queue.put(body, headers={"deep": deep}, **properties)
    finally:
        sys.setrecursionlimit(limit)


def end_connection(source: RabbitMqSource) -> None:
    """Let the connection end, by which the broker takes back what was not acknowledged."""
    with source._changed:
        running = source._running
        if running is not None:
            running.stop()
    wait_until(lambda: source._running is None, "the connection has ended")
