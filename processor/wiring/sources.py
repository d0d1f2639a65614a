"""Wiring of sources. A broker's driver is an extra, so it is imported only when used.

Each kind of broker has one entry in the two tables below: its check, and its depth.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial

from processor.brokers.source_url import Kind, SourceAddress
from processor.check import Finding
from processor.errors import SettingsError
from processor.operations.retention import forgotten_before
from processor.settings import ConnectionSettings, RunSettings
from processor.sources import RunningSource
from processor.sources.sqs.source import SqsSource
from processor.wiring import database


def open_source(
    settings: RunSettings, on_arrival: Callable[[Sequence[str]], object], stop: threading.Event
) -> RunningSource:
    """Make the source of SOURCE_URL, or else of SQS_QUEUE_URL, without a call to the broker.

    `on_arrival` gets the delivery ids of recorded settlements once the broker has removed them. `stop` ends
    the backoff between attempts. Raises SettingsError, also if the broker's extra is not installed.
    """
    address = settings.source_address()
    if settings.routing_key is not None and (address is None or address.kind != "rabbitmq"):
        raise SettingsError(
            "ROUTING_KEY is set, and only RabbitMQ has routing keys; leave it unset, or set SOURCE_URL to amqp://"
        )
    if address is None:
        return SqsSource.open(settings, stop)
    try:
        if address.kind == "rabbitmq":
            from processor.sources.rabbitmq.source import RabbitMqSource  # noqa: PLC0415 - an extra's driver

            return RabbitMqSource.open(settings, address, on_arrival)
        from processor.sources.kafka.source import KafkaSource  # noqa: PLC0415 - an extra's driver

        return KafkaSource.open(settings, address, partial(_forgotten_before, settings))
    except ModuleNotFoundError as error:
        raise _not_installed(address, error) from error


def _forgotten_before(settings: RunSettings) -> datetime | None:
    with database(settings) as connection:
        return forgotten_before(connection, settings.key_retention_days)


def check_source(settings: RunSettings, address: SourceAddress) -> list[Finding]:
    """Check a broker for `processor check`. Raises SettingsError if its extra is not installed."""
    try:
        return _CHECKS[address.kind](settings, address)
    except ModuleNotFoundError as error:
        raise _not_installed(address, error) from error


def source_depth(settings: ConnectionSettings, address: SourceAddress) -> Mapping[str, int]:
    """Count a broker's messages without consuming any. Raises SourceUnavailable, SettingsError."""
    try:
        return _DEPTHS[address.kind](settings, address)
    except ModuleNotFoundError as error:
        raise _not_installed(address, error) from error


def _check_rabbitmq(settings: RunSettings, address: SourceAddress) -> list[Finding]:
    from processor.check.rabbitmq import check_rabbitmq  # noqa: PLC0415 - an extra's driver

    return check_rabbitmq(settings, address)


def _rabbitmq_depth(_settings: ConnectionSettings, address: SourceAddress) -> Mapping[str, int]:
    from processor.sources.rabbitmq.source import queue_depth  # noqa: PLC0415 - an extra's driver

    return queue_depth(address)


def _check_kafka(settings: RunSettings, address: SourceAddress) -> list[Finding]:
    from processor.check.kafka import check_kafka  # noqa: PLC0415 - an extra's driver

    return check_kafka(settings, address)


def _kafka_depth(_settings: ConnectionSettings, address: SourceAddress) -> Mapping[str, int]:
    from processor.sources.kafka.source import queue_depth  # noqa: PLC0415 - an extra's driver

    return queue_depth(address)


_CHECKS: dict[Kind, Callable[[RunSettings, SourceAddress], list[Finding]]] = {
    "rabbitmq": _check_rabbitmq,
    "kafka": _check_kafka,
}
_DEPTHS: dict[Kind, Callable[[ConnectionSettings, SourceAddress], Mapping[str, int]]] = {
    "rabbitmq": _rabbitmq_depth,
    "kafka": _kafka_depth,
}


def _not_installed(address: SourceAddress, error: ModuleNotFoundError) -> SettingsError:
    return SettingsError(
        f"SOURCE_URL is of {address.kind}, and the package {error.name} is not installed; run: "
        f"pip install 'sqs-event-processor[{address.kind}]'"
    )
