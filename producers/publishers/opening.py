"""Opens the publisher that `--to` names. A driver is imported only when it is used."""

from collections.abc import Callable
from importlib import import_module

from processor.brokers.source_url import SourceAddress, source_address
from processor.errors import SettingsError
from processor.settings import PublisherSettings
from producers.publishers import Publisher
from producers.publishers.http import HttpPublisher
from producers.publishers.session import open_client
from producers.publishers.sqs import SqsPublisher


def open_publisher(to: str, url: str | None, settings: PublisherSettings, senders: int) -> Publisher:
    """Open one of PUBLISHERS at `url`, by default the one of the settings. No message is sent yet.

    Raises SettingsError: a bad URL, a password on the command line, or an extra that is not installed.
    """
    try:
        return PUBLISHERS[to](url, settings, senders)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"--to {to} needs the package {error.name}, which is not installed; run: "
            f"pip install 'sqs-event-processor[{_EXTRAS[to]}]'"
        ) from error


def _sqs(url: str | None, settings: PublisherSettings, senders: int) -> Publisher:
    if url is not None:
        settings = PublisherSettings.load(sqs_queue_url=url)
    return SqsPublisher(open_client(settings, senders), settings.need_queue_url())


def _http(url: str | None, settings: PublisherSettings, _senders: int) -> Publisher:
    if url is None:
        raise SettingsError("--to http needs --url; expected the gateway's, such as http://127.0.0.1:8090")
    return HttpPublisher(url, settings.gateway_key)


def _grpc(url: str | None, settings: PublisherSettings, _senders: int) -> Publisher:
    if url is None:
        raise SettingsError("--to grpc needs --url; expected the gateway's HOST:PORT")
    key = settings.gateway_key
    return _made(
        "producers.publishers.grpc", "GrpcPublisher", url, None if key is None else key.get_secret_value()
    )


def _amqp(url: str | None, settings: PublisherSettings, _senders: int) -> Publisher:
    return _made("producers.publishers.rabbitmq", "AmqpPublisher", _broker("rabbitmq", url, settings))


def _kafka(url: str | None, settings: PublisherSettings, _senders: int) -> Publisher:
    return _made("producers.publishers.kafka", "KafkaPublisher", _broker("kafka", url, settings))


def _broker(kind: str, url: str | None, settings: PublisherSettings) -> str:
    """Return the URL of a broker: from the command line, or SOURCE_URL, which may have a password."""
    if url is not None:
        if _address(url).password is not None:
            raise SettingsError(
                "--url has a password in it, which other users of this machine can read; "
                "set SOURCE_URL in the environment or in .env instead"
            )
    elif settings.source_url is None:
        raise SettingsError("there is no --url and no SOURCE_URL; see it in `processor settings --template`")
    else:
        url = settings.source_url.get_secret_value()
    if _address(url).kind != kind:
        raise SettingsError(f"--to and the URL name different brokers; the URL is for {_address(url).kind}")
    return url


def _address(url: str) -> SourceAddress:
    try:
        return source_address(url)
    except ValueError as error:
        raise SettingsError(f"the broker's URL: {error}") from None


def _made(module: str, name: str, *arguments: object) -> Publisher:
    publisher: Publisher = getattr(import_module(module), name)(*arguments)
    return publisher


PUBLISHERS: dict[str, Callable[[str | None, PublisherSettings, int], Publisher]] = {
    "sqs": _sqs,
    "http": _http,
    "grpc": _grpc,
    "amqp": _amqp,
    "kafka": _kafka,
}
_EXTRAS = {"sqs": "devstack", "http": "gateway", "grpc": "gateway", "amqp": "rabbitmq", "kafka": "kafka"}
