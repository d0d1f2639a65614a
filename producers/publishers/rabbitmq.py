"""RabbitMQ: each message published with a confirm, so that accepted means that the broker answers for it."""

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
"""What AMQP has room for in the message_id property."""

_HEARTBEAT_S = 10
"""A broker that is silent for so long is away. One who sends waits for it, and is to know soon."""

_HEADERS_BYTES_MAX = 100_000
"""Headers travel in one frame, of 128 KiB unless the broker is told otherwise."""


class AmqpPublisher:
    """One queue of RabbitMQ, or an exchange in front of it: a connection for each thread that sends.

    `url` is written as SOURCE_URL is, and names the queue. Without an `exchange` messages go straight to it,
    else they go there under `routing_key`, and must come to a queue. Raises SettingsError for a bad URL.
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
        """Where it leads, without user and password."""
        [(host, port)] = self._address.hosts
        return f"{'amqps' if self._address.tls else 'amqp'}://{host}:{port}/?queue={self._address.queue}"

    @property
    def ordered(self) -> bool:
        """False: what order there is, is that of a channel, and each thread has its own."""
        return False

    def send(self, batch: Mapping[int, Outgoing]) -> Answer:
        """Publish these messages, each confirmed before the next."""
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
            # What stands in it was confirmed; of the others nothing is known, so they are sent again.
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
            # What its delivery ids will begin with: each hand-over has an end of its own.
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
    """Give the message_id property: the event's id, where it has one that fits; else one of this message."""
    name = message.message_id
    if name and len(name.encode("utf-8", "surrogatepass")) <= _PROPERTY_BYTES_MAX and name.isprintable():
        return name
    return message.deduplication_id


def _is_usable(channel: BlockingChannel) -> bool:
    """Tell whether a channel is open; that the broker closed one while it rested is read only now."""
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
