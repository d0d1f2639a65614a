"""Run one connection to RabbitMQ, from opening to end, which consumes one queue.

    Link.run (the I/O thread) ─▶ connect ─▶ channel ─▶ prefetch ─▶ consume ─▶ ready ─▶ messages … ─▶ Ended
                                 any other thread: acknowledge, give_back, stop ─▶ run by the I/O thread

A delivery tag is valid on its own channel only, so no state of a link is used after its end.
"""

import importlib.util
import ssl
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pika
import pika.exceptions
import pika.frame
import pika.spec
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.channel import Channel
from pika.spec import Basic, BasicProperties

from processor.brokers.rabbitmq_ids import UnreadableHeaders
from processor.brokers.source_url import SourceAddress

CONNECT_TIMEOUT_S = 5
STACK_TIMEOUT_S = 10
"""The time limit for the handshake of TLS and AMQP."""

HEARTBEAT_S = 30
"""A peer that is silent for this long is lost. RabbitMQ proposes a minute; a shorter time costs nothing."""

_COUNT_HEARTBEAT_S = 5
"""The heartbeat while a caller waits for a count, so that a broker that freezes is given up after 15 s."""

_NOT_READABLE = (ValueError, LookupError, TypeError, ArithmeticError, OSError, RecursionError, struct.error)

OnMessage = Callable[[Basic.Deliver, BasicProperties, bytes], None]


@dataclass(frozen=True, slots=True)
class Ended:
    """Why a link ended, as text without secrets.

    `refused`: the broker refused user or password. `missing`: there is no such queue. `denied`: there is no
    such vhost, or no access to it. `answered`: a broker gave this answer.
    """

    words: str
    refused: bool = False
    missing: bool = False
    denied: bool = False
    answered: bool = False


class Link:
    """A connection with one channel that consumes one queue."""

    def __init__(
        self,
        address: SourceAddress,
        parameters: pika.ConnectionParameters,
        prefetch: int,
        *,
        on_ready: Callable[[], None],
        on_message: OnMessage,
    ) -> None:
        self._address = address
        self._prefetch = prefetch
        self._on_ready = on_ready
        self._on_message = on_message
        self._channel: Channel | None = None
        self._consuming = False
        self._why: BaseException | str | None = None
        self._connection = _Connection(
            parameters,
            on_open_callback=self._opened,
            on_open_error_callback=self._closed,
            on_close_callback=self._closed,
        )

    # ── on the I/O thread ─────────────────────────────────────────────────────────────────────────────

    def run(self) -> Ended:
        """Connect and consume; return the cause of the end."""
        self._connection.ioloop.start()
        return ended(self._why, self._address)

    def dispose(self) -> None:
        """Close the I/O loop. The link can't be used any more."""
        self._connection.ioloop.close()

    def _opened(self, connection: pika.SelectConnection) -> None:
        # A broker that has just started accepts logins, and may never answer for a queue that is not ready.
        connection.ioloop.call_later(STACK_TIMEOUT_S, self._require_consuming)
        connection.channel(on_open_callback=self._channel_opened)

    def _require_consuming(self) -> None:
        if not self._consuming:
            self._end(f"lets us in, and has not handed the queue over within {STACK_TIMEOUT_S} s")

    def _channel_opened(self, channel: Channel) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_cancel_callback(self._cancelled)
        channel.basic_qos(prefetch_count=self._prefetch, callback=lambda _: self._consume(channel))

    def _consume(self, channel: Channel) -> None:
        channel.basic_consume(self._address.queue, on_message_callback=self._came, callback=self._begun)

    def _begun(self, _frame: object) -> None:
        self._consuming = True
        self._on_ready()

    def _came(
        self, _channel: Channel, method: Basic.Deliver, properties: BasicProperties, body: bytes
    ) -> None:
        self._on_message(method, properties, body)

    def _cancelled(self, _frame: object) -> None:
        # The queue was deleted or its node is down. The broker sends no more messages.
        self._end("no longer gives us the queue: it was deleted, or its node is away")

    def _channel_closed(self, _channel: Channel, why: Exception) -> None:
        self._end(why)

    def _closed(self, _connection: object, why: BaseException) -> None:
        self._why = self._why or why
        self._connection.ioloop.stop()

    def _end(self, why: BaseException | str | None) -> None:
        self._why = self._why or why
        with suppress(pika.exceptions.ConnectionWrongStateError):
            self._connection.close()
            # A broker that does not answer for a queue may not answer the close either.
            self._connection.ioloop.call_later(CONNECT_TIMEOUT_S, self._leave)

    def _leave(self) -> None:
        connection: Any = self._connection
        connection._terminate_stream(pika.exceptions.StreamLostError())  # noqa: SLF001 - pika has no other way

    # ── from any thread, while it is running ──────────────────────────────────────────────────────────

    def acknowledge(self, tags: Sequence[tuple[int, bool]]) -> None:
        """Acknowledge tags; with True, all earlier tags too."""

        def acknowledge(channel: Channel) -> None:
            for tag, multiple in tags:
                channel.basic_ack(tag, multiple=multiple)

        self._do(acknowledge)

    def give_back(self, tags: Sequence[int]) -> None:
        """Requeue these tags."""

        def give_back(channel: Channel) -> None:
            for tag in tags:
                channel.basic_nack(tag, requeue=True)

        self._do(give_back)

    def ask(self, on_answer: Callable[[], None]) -> None:
        """Probe the broker. Everything sent before its answer has arrived by then."""
        self._do(
            lambda channel: channel.queue_declare(
                self._address.queue, passive=True, callback=lambda _: on_answer()
            )
        )

    def stop(self) -> None:
        """Close the connection cleanly, after all earlier acknowledgements."""
        self._connection.ioloop.add_callback_threadsafe(lambda: self._end("was left by us"))

    def _do(self, work: Callable[[Channel], None]) -> None:
        def on_the_loop() -> None:
            if self._channel is not None:
                # If the channel has closed, its deliveries come again and are known then.
                with suppress(pika.exceptions.ChannelWrongStateError):
                    work(self._channel)

        self._connection.ioloop.add_callback_threadsafe(on_the_loop)


def connection_parameters(
    address: SourceAddress, *, heartbeat_s: int = HEARTBEAT_S
) -> pika.ConnectionParameters:
    """Return the parameters of a connection: one attempt, limited waits, and a name for operators."""
    [(host, port)] = address.hosts
    # The default user of all AMQP clients, which RabbitMQ accepts from its own machine only.
    user, password = address.user or "guest", "guest" if address.user is None else ""
    if address.password is not None:
        password = address.password.get_secret_value()
    return pika.ConnectionParameters(
        host=host,
        port=port,
        virtual_host=address.vhost,
        credentials=pika.PlainCredentials(user, password),
        connection_attempts=1,
        socket_timeout=CONNECT_TIMEOUT_S,
        stack_timeout=STACK_TIMEOUT_S,
        blocked_connection_timeout=STACK_TIMEOUT_S,
        heartbeat=heartbeat_s,
        client_properties={"connection_name": "event-processor"},
        ssl_options=pika.SSLOptions(ssl.create_default_context(), host) if address.tls else None,
    )


def count_waiting(address: SourceAddress) -> pika.frame.Method[pika.spec.Queue.DeclareOk]:
    """Return the state of the queue, over a new connection. Raises pika's errors (FAILED)."""
    connection = pika.BlockingConnection(connection_parameters(address, heartbeat_s=_COUNT_HEARTBEAT_S))
    try:
        return connection.channel().queue_declare(address.queue, passive=True)
    finally:
        with suppress(*FAILED):
            connection.close()


FAILED = (pika.exceptions.AMQPError, AMQPConnectorException, OSError, *_NOT_READABLE)
"""The errors of pika for a broker that is unreachable, refuses, is frozen, or sends unreadable data."""

_NOT_FOUND, _NOT_ALLOWED, _ACCESS_REFUSED = 404, 530, 403
_NO_RIGHT = -403
"""AMQP uses 403 for a wrong password and, on a channel, for a missing right."""


def ended(why: BaseException | str | None, address: SourceAddress) -> Ended:
    """Return a failure as text, with advice if there is one."""
    [(host, port)] = address.hosts
    cause = _root(why)
    at, vhost, queue = f"RabbitMQ at {host}:{port}", repr(address.vhost), repr(address.queue)
    match cause:
        case str():
            return Ended(f"{at} {cause}")
        case pika.exceptions.ProbableAuthenticationError() | pika.exceptions.AuthenticationError():
            code, text = _ACCESS_REFUSED, ""
        case pika.exceptions.ProbableAccessDeniedError():
            code, text = _NOT_ALLOWED, ""
        case pika.exceptions.ChannelClosed() if cause.reply_code == _ACCESS_REFUSED:
            code, text = _NO_RIGHT, ""
        case pika.exceptions.ConnectionClosed() | pika.exceptions.ChannelClosed():
            code, text = cause.reply_code, cause.reply_text
        case _:
            return Ended(f"{at} can't be reached: {type(cause).__name__}")
    words = {
        _ACCESS_REFUSED: "refuses the user or the password of SOURCE_URL",
        _NO_RIGHT: f"does not let this user read the queue {queue}",
        _NOT_FOUND: f"has no queue {queue} in the vhost {vhost}; see `processor check`",
        _NOT_ALLOWED: f"refuses the vhost {vhost} to this user, or has none of that name",
    }.get(code, f"has closed on us: {code} {text[:120]}")
    # A queue whose node is down has the same code, and returns with its node.
    missing = code == _NOT_FOUND and "no queue" in text
    if code == _NOT_FOUND and not missing:
        words = f"can't reach the queue {queue} in the vhost {vhost} now: {text[:120]}"
    return Ended(
        f"{at} {words}",
        refused=code == _ACCESS_REFUSED,
        missing=missing,
        denied=code == _NOT_ALLOWED,
        answered=True,
    )


def _root(why: BaseException | str | None) -> BaseException | str | None:
    """Return the innermost cause of an error wrapped by pika."""
    inner = why
    while inner is not None:
        why = inner
        wrapped = getattr(why, "exceptions", ()) or (getattr(why, "exception", None),)
        if wrapped[-1] is None and type(why) is pika.exceptions.AMQPConnectionError:
            wrapped = [cause for cause in why.args if isinstance(cause, BaseException)] or (None,)
        inner = wrapped[-1]
    return why


# ── unreadable headers must not end the connection ────────────────────────────────────────────────────

_FRAME = struct.Struct(">BHLHHQH")
"""A header frame up to its flags: type, channel, size, class, weight, size of the body, flags."""

_BEFORE_HEADERS = (BasicProperties.FLAG_CONTENT_TYPE, BasicProperties.FLAG_CONTENT_ENCODING)


class _Connection(pika.SelectConnection):
    """A connection that parses headers with `read_headers`, and all else with pika.

    With pika alone, one message with unreadable headers (for example a date beyond year 9999) ends every
    connection and blocks the queue.
    """

    def _read_frame(self) -> Any:  # noqa: ANN401 - as pika has it
        buffer: bytes = self._frame_buffer  # type: ignore[attr-defined]
        return _frame_with_headers(buffer) or super()._read_frame()  # type: ignore[misc]


def _frame_with_headers(buffer: bytes) -> tuple[int, pika.frame.Header] | None:
    """Return the length and content of a complete header frame with headers, or None if there is none."""
    if len(buffer) < _FRAME.size or buffer[0] != pika.spec.FRAME_HEADER:
        return None
    _, channel, size, _, _, body_size, flags = _FRAME.unpack_from(buffer)
    end = pika.spec.FRAME_HEADER_SIZE + size
    if not flags & BasicProperties.FLAG_HEADERS or buffer[end : end + 1] != bytes([pika.spec.FRAME_END]):
        return None
    start = _FRAME.size
    for flag in _BEFORE_HEADERS:
        if flags & flag:
            start += 1 + buffer[start]
    (table_size,) = struct.unpack_from(">L", buffer, start)
    after = start + 4 + table_size
    properties = BasicProperties()
    others = struct.pack(">H", flags & ~BasicProperties.FLAG_HEADERS)
    properties.decode(others + buffer[_FRAME.size : start] + buffer[after:end])
    properties.headers = read_headers(buffer[start:after])
    return end + pika.spec.FRAME_END_SIZE, pika.frame.Header(channel, body_size, properties)


def read_headers(table: bytes) -> dict[Any, Any]:
    """Parse a table of headers, or return UnreadableHeaders. A float keeps its fraction."""
    try:
        headers: dict[Any, Any] = _tables.decode_table(table, 0)[0]
    except (pika.exceptions.AMQPError, *_NOT_READABLE) as error:
        return UnreadableHeaders(type(error).__name__)
    return headers


def _own_tables() -> Any:  # noqa: ANN401 - a module
    """Return a private copy of pika's module that keeps the fraction of floats, which pika cuts off."""
    found = importlib.util.find_spec("pika.data")
    assert found is not None  # noqa: S101 - pika is imported above
    assert found.loader is not None  # noqa: S101 - a module found in a file has one
    tables: Any = importlib.util.module_from_spec(found)
    found.loader.exec_module(tables)
    decode_value = tables.decode_value

    def decode_with_fraction(encoded: bytes, offset: int) -> tuple[Any, int]:
        form = _FLOATS.get(encoded[offset : offset + 1])
        if form is None:
            return decode_value(encoded, offset)  # type: ignore[no-any-return]
        (value,) = form.unpack_from(encoded, offset + 1)
        # A whole number is an int, as in pika.
        return int(value) if value.is_integer() else value, offset + 1 + form.size

    tables.decode_value = decode_with_fraction
    return tables


_FLOATS = {b"f": struct.Struct(">f"), b"d": struct.Struct(">d")}
_tables = _own_tables()
