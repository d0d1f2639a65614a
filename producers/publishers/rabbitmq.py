"""The publisher for RabbitMQ, with publisher confirms: an accepted message is the broker's responsibility."""

import threading
from collections.abc import Mapping

import pika
import pika.exceptions
from pika.adapters.blocking_connection import BlockingChannel

from processor.brokers.rabbitmq import FAILED, connection_parameters, ended
from processor.brokers.rabbitmq_ids import attributes_of, delivery_base
from processor.brokers.source_url import source_address
from processor.errors import SettingsError
from producers.publishers import Answer, CallFailed
from producers.publishers.outgoing import Outgoing

_PROPERTY_BYTES_MAX = 255
"""The size limit of AMQP's message_id property in bytes."""

_HEARTBEAT_S = 10
"""A broker that is silent for so long counts as unavailable. Short, as a user waits for the result."""

_HEADERS_BYTES_MAX = 100_000
"""The limit of headers: they are sent in one frame, of 128 KiB by default."""


class AmqpPublisher:
    """One queue of RabbitMQ, or an exchange in front of it. Each sending thread has its own connection.

    `url` has the form of SOURCE_URL and names the queue. Without an `exchange` messages are sent directly to
    the queue; with one they are sent there with `routing_key`, and must be routed to a queue. Raises
    SettingsError for a bad URL.
    """

    def __init__(self, url: str, *, exchange: str = "", routing_key: str | None = None) -> None:
        try:
            self._address = source_address(url)
        except ValueError as error:
            raise SettingsError(f"the URL of RabbitMQ: {error}") from None
        if self._address.kind != "rabbitmq":
            raise SettingsError("the URL of RabbitMQ: expected amqp:// or amqps://")
        self._exchange = exchange
        self._routing_key = self._address.queue if routing_key is None else routing_key
        self._parameters = connection_parameters(self._address, heartbeat_s=_HEARTBEAT_S)
        self._own = threading.local()
        self._open: list[pika.BlockingConnection] = []
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The URL without user and password."""
        [(host, port)] = self._address.hosts
        return f"{'amqps' if self._address.tls else 'amqp'}://{host}:{port}/?queue={self._address.queue}"

    @property
    def ordered(self) -> bool:
        """False: order exists only within a channel, and each thread has its own."""
        return False

    def send(self, batch: Mapping[int, Outgoing]) -> Answer:
        """Publish these messages one by one, each after the confirm of the one before."""
        answer = Answer()
        try:
            channel = self._channel()
            for place, message in batch.items():
                self._publish(channel, place, message, answer)
        except pika.exceptions.UnroutableError:
            raise SettingsError(
                f"RabbitMQ has no queue for {self.name} to put messages into; make it first (or bind it)"
            ) from None
        except FAILED as error:
            self._drop()
            why = ended(error, self._address)
            if why.refused:
                raise SettingsError(why.words) from error
            if not answer.accepted:
                raise CallFailed(type(error).__name__, why.words, outage=True) from error
            # The state of messages without a confirm is unknown, so they are sent again.
        return answer

    def close(self) -> None:
        """Close the connections of all threads."""
        with self._lock:
            while self._open:
                _close(self._open.pop())

    def _publish(self, channel: BlockingChannel, place: int, message: Outgoing, answer: Answer) -> None:
        name = _property(message)
        body = message.body.encode("utf-8", "surrogatepass")
        if message.size_bytes() - len(body) > _HEADERS_BYTES_MAX:
            answer.refused[place] = ("too_large", f"attributes of more than {_HEADERS_BYTES_MAX} bytes")
            return
        properties = pika.BasicProperties(
            message_id=name,
            headers=dict(message.attributes) or None,
            content_type="application/json",
            delivery_mode=pika.DeliveryMode.Persistent.value,
        )
        try:
            channel.basic_publish(self._exchange, self._routing_key, body, properties, mandatory=True)
        except pika.exceptions.NackError:
            answer.again[place] = ("nack", "the broker did not take it; is the queue full?")
        except (pika.exceptions.ShortStringTooLong, UnicodeEncodeError) as error:
            answer.refused[place] = (type(error).__name__, "a header's name or value that AMQP does not take")
        else:
            # The prefix of the channel's delivery ids.
            answer.accepted[place] = delivery_base(attributes_of(properties, self._routing_key)[0], body)

    def _channel(self) -> BlockingChannel:
        channel: BlockingChannel | None = getattr(self._own, "channel", None)
        if channel is None or not _is_usable(channel):
            self._drop()
            connection = pika.BlockingConnection(self._parameters)
            with self._lock:
                self._open.append(connection)
            channel = connection.channel()
            channel.confirm_delivery()
            self._own.channel = channel
        return channel

    def _drop(self) -> None:
        channel: BlockingChannel | None = getattr(self._own, "channel", None)
        self._own.channel = None
        if channel is not None:
            _close(channel.connection)
            with self._lock:
                self._open = [each for each in self._open if each is not channel.connection]


def _property(message: Outgoing) -> str:
    """Return the message_id property: the event's id if it fits, else its deduplication id."""
    name = message.message_id
    if name and len(name.encode("utf-8", "surrogatepass")) <= _PROPERTY_BYTES_MAX and name.isprintable():
        return name
    return message.deduplication_id


def _is_usable(channel: BlockingChannel) -> bool:
    """Tell whether a channel is open; the broker's close of an idle channel is only read here."""
    try:
        channel.connection.process_data_events(0)
    except FAILED:
        return False
    return channel.is_open


def _close(connection: pika.BlockingConnection) -> None:
    try:
        connection.close()
    except FAILED:
        return
