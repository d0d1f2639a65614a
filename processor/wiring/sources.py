"""The source that the settings name. A broker's driver is imported only where it is used: it is an extra."""

from processor.errors import SettingsError
from processor.settings import Settings
from processor.sources import RunningSource
from processor.sources.sqs import SqsSource


def open_source(settings: Settings) -> RunningSource:
    """Give the source of SOURCE_URL, or of SQS_QUEUE_URL where there is none. Nothing is called yet.

    Raises SettingsError, also where the extra of its broker is not installed.
    """
    address = settings.source_address()
    if settings.routing_key is not None and (address is None or address.kind != "rabbitmq"):
        raise SettingsError(
            "ROUTING_KEY is set, and only RabbitMQ has routing keys; leave it unset, or set SOURCE_URL to amqp://"
        )
    if address is None:
        return SqsSource.open(settings)
    try:
        if address.kind == "rabbitmq":
            from processor.sources.rabbitmq import RabbitMqSource  # noqa: PLC0415 - an extra's driver

            return RabbitMqSource.open(settings, address)
        from processor.sources.kafka import KafkaSource  # noqa: PLC0415 - an extra's driver

        return KafkaSource.open(settings, address)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"SOURCE_URL is of {address.kind}, and the package {error.name} is not installed; run: "
            f"pip install 'event-processor[{address.kind}]'"
        ) from error
