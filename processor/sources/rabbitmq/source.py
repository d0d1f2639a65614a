"""RabbitMQ: acknowledgements after the commit, over a connection that is made again whenever it ends.

    broker ─▶ Link (I/O thread) ─▶ [buffer, at most the prefetch] ─▶ receive ─▶ … ─▶ settle ─▶ Link ─▶ ack

A link is made when somebody asks, and not before: with the database away nothing is received, so a channel
that the broker ends meanwhile (it waits half an hour for an acknowledgement) isn't opened again to count one
more receive of every message. Queues are the operator's: we never declare one.
"""

import functools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Self, TypeAlias

import structlog
from pika import ConnectionParameters
from pika.spec import Basic, BasicProperties

from processor.brokers.rabbitmq import FAILED, Ended, Link, connection_parameters, count_waiting, ended
from processor.brokers.rabbitmq_ids import attributes_of, delivery_base
from processor.brokers.source_refusal import SourceRefusal
from processor.brokers.source_url import SourceAddress
from processor.errors import ProcessorError, SourceUnavailable
from processor.model import SUSPECT_RECEIVE_COUNT, Delivery, Settlement
from processor.runtime import metrics
from processor.settings import PipelineSettings
from processor.wire.bounds import moment_of
from processor.wire.hand_overs import hand_over

log = structlog.get_logger(__name__)

PREFETCH_MAX = 65_535
"""What AMQP has room for; 0 would mean no bound at all."""

_ATTEMPT_S_MAX = 20.0
"""For how long a call waits for a connection; connecting itself gives up sooner."""

_ANSWER_S_MAX = 10.0
"""For how long a receive that has brought nothing waits for a sign of life."""

_CLOSE_S = 5.0

_ARRIVED_S_MAX = 2.0
"""For how long the end waits for the broker to say that acknowledgements have arrived."""


OnArrival: TypeAlias = Callable[[Sequence[str]], object]


def _tell_nobody(_delivery_ids: Sequence[str]) -> None:
    pass


class RabbitMqSource:
    """One queue of RabbitMQ, classic or quorum, consumed by manual acknowledgement.

    What is handed over stays ours for as long as its channel lives, and comes again when it ends; settling
    what came over a channel that has ended is silently nothing. Order is the broker's up to `receive`, and
    nobody's after it: no delivery has a group.
    """

    call_size = 10
    """Of what has come; few, so that all writers have some of it."""

    def __init__(
        self,
        address: SourceAddress,
        parameters: ConnectionParameters,
        *,
        prefetch: int,
        clock: Callable[[], float] = time.monotonic,
        on_arrival: OnArrival = _tell_nobody,
    ) -> None:
        self._address = address
        self._parameters = parameters
        self._prefetch = prefetch
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._running: Link | None = None
        # Set while it consumes; its number is part of every receipt.
        self._link: Link | None = None
        self._link_number = 0
        self._link_ended = threading.Event()
        self._buffer: deque[Delivery] = deque()
        # Tags that are not acknowledged and not given back, in the order in which they came.
        self._open: dict[int, None] = {}
        self._attempts = 0
        self._wanted = False
        self._closing = self._dead = False
        self._ended = Ended("not connected yet")
        self._refusal = SourceRefusal(clock)
        # When the last question was asked that the broker has answered, and whether one waits for its answer.
        self._heard_at = -math.inf
        self._asking = False
        self._on_arrival = on_arrival
        # Acknowledged and to be told of, and those of them whose arrival the broker is being asked for.
        self._noted: list[str] = []
        self._asked: list[str] = []

    @classmethod
    def open(
        cls, settings: PipelineSettings, address: SourceAddress, on_arrival: OnArrival = _tell_nobody
    ) -> Self:
        """Take the settings; nothing is called yet.

        `on_arrival` is told of settlements, by delivery id, once their acknowledgement has arrived. It
        must not wait.
        """
        return cls(
            address,
            connection_parameters(address),
            # Two batches: one that is being saved, and the next. More would come again after a crash.
            prefetch=min(settings.buffer_size_max, 2 * settings.batch_size_max, PREFETCH_MAX),
            on_arrival=on_arrival,
        )

    def receive(self, limit: int, wait_s: float) -> list[Delivery]:
        """Take what has come. An outage that begins while it waits is raised.

        An empty list means that the broker has answered since the wait was over.
        """
        give_up_at = time.monotonic() + wait_s
        with self._changed:
            self._need_link()
            self._changed.wait_for(
                lambda: self._buffer or self._link is None, max(0.0, give_up_at - time.monotonic())
            )
            if not self._buffer:
                # A broker that is frozen sends nothing either.
                self._await_answer()
            return [self._buffer.popleft() for _ in range(min(limit, len(self._buffer)))]

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Acknowledge. This is the one place in the house that does so at RabbitMQ."""
        with self._changed:
            ours = [settlement for settlement in settlements if self._tag(settlement.delivery) is not None]
            tags = self._take_out(settlement.delivery for settlement in ours)
            if tags:
                self._need_link().acknowledge(_acknowledgements(tags, next(iter(self._open), None)))
                metrics.settled.inc(len(tags))
                self._noted += [settlement.delivery.delivery_id for settlement in ours]
                if self._noted:
                    self._ask()
            elif settlements:
                # Of a channel that has ended: they come again. While there is none, that is an outage.
                self._need_link()

    def extend(self, deliveries: Sequence[Delivery]) -> None:
        """Do nothing: what is not acknowledged is ours for as long as the channel lives.

        That is half an hour for one delivery, unless the broker's consumer_timeout says otherwise; then it
        ends the channel, which is an outage of a moment, and all that was held comes again.
        """

    def hold_for(self, deliveries: Sequence[Delivery], hold_s: int) -> None:
        """Do nothing: AMQP knows no moment at which a message comes back."""

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give deliveries back, oldest first: the queue puts them where they were, as far as it can."""
        with self._changed:
            tags = self._take_out(deliveries)
            if tags:
                self._need_link().give_back(sorted(tags))

    def depth(self) -> dict[str, int]:
        """Count what waits at the broker, and what we hold of it; what others hold AMQP does not tell."""
        counts = queue_depth(self._address)
        with self._changed:
            return counts | {"in_flight": len(self._open)}

    def close(self) -> None:
        """Close the connection; what was not settled is handed over again."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._link is None or not (self._noted or self._asked), _ARRIVED_S_MAX
            )
            self._closing = True
            self._changed.notify_all()
            if self._running is not None:
                self._running.stop()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)

    def _await_answer(self) -> None:
        """Wait until the broker answers a question asked from now on, or a message comes. Raises outages."""
        asked_at = time.monotonic()
        while not self._buffer and self._heard_at < asked_at:
            if self._link is None:
                raise self._outage()
            self._ask()
            left_s = asked_at + _ANSWER_S_MAX - time.monotonic()
            if left_s <= 0:
                metrics.source_errors.labels(operation="receive").inc()
                [(host, port)] = self._address.hosts
                raise SourceUnavailable(f"RabbitMQ at {host}:{port} is connected and answers no more")
            self._changed.wait(left_s)

    def _ask(self) -> None:
        """Ask the broker, unless it is being asked: with its answer, what was acknowledged has arrived."""
        if not self._asking and self._link is not None:
            self._asking = True
            self._asked, self._noted = self._noted, []
            self._link.ask(functools.partial(self._heard, time.monotonic()))

    # ── the link: asked for by any thread (holding the lock), made and lived by one of its own ───────────

    def _need_link(self) -> Link:
        """Give the link; where there is none, wait for one attempt to make it. Raises the outage."""
        if self._link is None:
            if self._closing:
                raise SourceUnavailable("the connection to RabbitMQ is closed: the processor is stopping")
            if self._thread is None:
                self._thread = threading.Thread(target=self._live, name="rabbitmq", daemon=True)
                self._thread.start()
            attempts = self._attempts
            self._wanted = True
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._link or self._dead or self._attempts != attempts, _ATTEMPT_S_MAX
            )
        if self._link is None:
            raise self._outage()
        return self._link

    def _outage(self) -> ProcessorError | RuntimeError:
        if self._dead and not self._closing:
            return RuntimeError("the thread that talks to RabbitMQ has died of a bug")
        return self._refusal.error(self._ended.words)

    def _live(self) -> None:
        try:
            self._connect_when_told()
        finally:
            with self._changed:
                # Unless it was told to end, a bug of ours has ended it: nobody may wait for it then.
                self._dead = True
                self._running = self._link = None
                self._changed.notify_all()

    def _connect_when_told(self) -> None:
        while self._told_to_connect():
            link = Link(
                self._address,
                self._parameters,
                self._prefetch,
                on_ready=self._ready,
                on_message=self._came,
            )
            with self._changed:
                self._running = link
                if self._closing:
                    link.stop()
            why = link.run()
            with self._changed:
                self._running = self._link = None
                self._link_ended.set()
                # What waits here, and every tag, was of that channel: the queue hands it all over again.
                self._buffer.clear()
                self._open.clear()
                self._asking = False
                # Nobody knows whether these have arrived: they stay noted.
                self._noted, self._asked = [], []
                self._note(why)
                self._changed.notify_all()
            link.dispose()

    def _told_to_connect(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._wanted or self._closing)
            self._wanted = False
            return not self._closing

    def _note(self, why: Ended) -> None:
        self._attempts += 1
        self._ended = why
        if self._closing:
            return
        metrics.source_errors.labels(operation="receive").inc()
        if why.refused:
            self._refusal.credentials("put a valid user and password into SOURCE_URL")
        elif why.missing:
            self._refusal.missing("make the queue, or mend SOURCE_URL")
        elif why.denied:
            self._refusal.missing("make the vhost and let this user in, or mend SOURCE_URL")
        else:
            self._refusal.over()

    def _ready(self) -> None:
        with self._changed:
            self._link = self._running
            self._link_number += 1
            self._link_ended = threading.Event()
            self._refusal.over()
            self._changed.notify_all()

    def _heard(self, asked_at: float) -> None:
        with self._changed:
            self._heard_at, self._asking = asked_at, False
            if self._asked:
                self._on_arrival(self._asked)
                self._asked = []
            if self._noted:
                self._ask()
            self._changed.notify_all()

    def _came(self, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        tag = method.delivery_tag or 0
        delivery = self._delivery(method, properties, body)
        with self._changed:
            self._open[tag] = None
            self._buffer.append(delivery)
            self._changed.notify()

    def _take_out(self, deliveries: Iterable[Delivery]) -> list[int]:
        """Give the tags of those that are still open on this link's channel, and note them as done with."""
        tags = []
        for delivery in deliveries:
            tag = self._tag(delivery)
            if tag is not None:
                del self._open[tag]
                tags.append(tag)
        return tags

    def _tag(self, delivery: Delivery) -> int | None:
        number, _, tag = delivery.receipt.partition(":")
        return int(tag) if int(number) == self._link_number and int(tag) in self._open else None

    # ── one message ───────────────────────────────────────────────────────────────────────────────────

    def _delivery(self, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> Delivery:
        now = datetime.now(UTC)
        attributes, fault = attributes_of(properties, method.routing_key or "")
        moment = moment_of(properties.timestamp)
        redelivered = bool(method.redelivered)
        return Delivery(
            queue=self._address.queue,
            delivery_id=hand_over(delivery_base(attributes, body)),
            body=body,
            receipt=f"{self._link_number}:{method.delivery_tag}",
            # Any client can write the header in which a quorum queue counts. The flag is the broker's alone,
            # and does not say how often: what came before may have killed us, so it is as suspect as a third.
            receive_count=SUSPECT_RECEIVE_COUNT if redelivered else 1,
            # The sender's clock; what it names is not always the past.
            sent_at=now if moment is None else min(moment, now),
            received_at=now,
            attributes=attributes,
            # RabbitMQ takes this property from the user of that name only.
            sender_id=properties.user_id if isinstance(properties.user_id, str) else None,
            named=False,
            repeated=redelivered,
            fault=fault,
            ended=self._link_ended,
        )


def queue_depth(address: SourceAddress) -> dict[str, int]:
    """Count what waits in the queue, without taking anything. Raises SourceUnavailable."""
    try:
        waiting = count_waiting(address).method.message_count
    except FAILED as error:
        metrics.source_errors.labels(operation="count").inc()
        raise SourceUnavailable(ended(error, address).words) from error
    return {"visible": int(waiting), "in_flight": 0}


def _acknowledgements(tags: Sequence[int], oldest_open: int | None) -> list[tuple[int, bool]]:
    """Say what to acknowledge: all before the oldest that is still open in one, the others one by one.

    The last of those stands for all before it, and every one of them was acknowledged or given back.
    """
    before = [tag for tag in tags if oldest_open is None or tag < oldest_open]
    after = [(tag, False) for tag in tags if oldest_open is not None and tag > oldest_open]
    return [(max(before), True), *after] if before else after
