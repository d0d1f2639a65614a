"""Consume one RabbitMQ queue with acknowledgements after the commit, and reconnect after an outage.

    broker ─▶ Link (I/O thread) ─▶ [buffer, at most the prefetch] ─▶ receive ─▶ … ─▶ settle ─▶ Link ─▶ ack

A link is opened only on demand. During an outage of the database nothing is received, so a channel that the
broker closes (after half an hour without an acknowledgement) is not reopened, which would raise the receive
count of every message. Queues belong to the operator; no code here declares one.
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
"""The largest prefetch of AMQP; 0 would mean unlimited."""

_ATTEMPT_S_MAX = 20.0
"""How long a call waits for a connection; an attempt to connect ends sooner."""

_ANSWER_S_MAX = 10.0
"""How long an empty receive waits for an answer of the broker."""

_CLOSE_S = 5.0

_ARRIVED_S_MAX = 2.0
"""How long a close waits for the broker to confirm acknowledgements."""


OnArrival: TypeAlias = Callable[[Sequence[str]], object]


def _tell_nobody(_delivery_ids: Sequence[str]) -> None:
    pass


class RabbitMqSource:
    """One queue of RabbitMQ, classic or quorum, consumed with manual acknowledgement.

    Deliveries belong to their channel and are redelivered when it ends; settling a delivery of an ended
    channel does nothing. The broker's order ends at `receive`: no delivery has a group.
    """

    call_size = 10
    """Deliveries per receive: few, so that every writer gets some."""

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
        # Set while the link consumes. The link number is part of every receipt.
        self._link: Link | None = None
        self._link_number = 0
        self._link_ended = threading.Event()
        self._buffer: deque[Delivery] = deque()
        # Delivery tags that are neither acknowledged nor released, in order of arrival.
        self._open: dict[int, None] = {}
        self._attempts = 0
        self._wanted = False
        self._closing = self._dead = False
        self._ended = Ended("not connected yet")
        self._refusal = SourceRefusal(clock)
        # The time of the last answered probe, and whether a probe is open.
        self._heard_at = -math.inf
        self._asking = False
        self._on_arrival = on_arrival
        # Acknowledged deliveries to report, and those whose acknowledgements the open probe confirms.
        self._noted: list[str] = []
        self._asked: list[str] = []

    @classmethod
    def open(
        cls, settings: PipelineSettings, address: SourceAddress, on_arrival: OnArrival = _tell_nobody
    ) -> Self:
        """Make a source from the settings. No call is made yet.

        `on_arrival` gets the ids of settled deliveries whose acknowledgement has arrived. It must not block.
        """
        return cls(
            address,
            connection_parameters(address),
            # Two batches: one that is being saved, and the next. More would be redelivered after a crash.
            prefetch=min(settings.buffer_size_max, 2 * settings.batch_size_max, PREFETCH_MAX),
            on_arrival=on_arrival,
        )

    def receive(self, limit: int, wait_s: float) -> list[Delivery]:
        """Return buffered deliveries. An outage that begins during the wait is raised.

        An empty list means that the broker has answered a probe after the wait.
        """
        give_up_at = time.monotonic() + wait_s
        with self._changed:
            self._need_link()
            self._changed.wait_for(
                lambda: self._buffer or self._link is None, max(0.0, give_up_at - time.monotonic())
            )
            if not self._buffer:
                # A frozen broker sends nothing either.
                self._await_answer()
            return [self._buffer.popleft() for _ in range(min(limit, len(self._buffer)))]

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Acknowledge deliveries. No other code of the processor acknowledges at RabbitMQ."""
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
                # All are of an ended channel and will be redelivered. Without a link, this is an outage.
                self._need_link()

    def extend(self, deliveries: Sequence[Delivery]) -> None:
        """Do nothing: unacknowledged deliveries belong to the channel while it is open.

        The broker closes the channel if a delivery is unacknowledged for longer than its consumer_timeout,
        half an hour by default. This is a brief outage, and all deliveries of the channel are redelivered.
        """

    def hold_for(self, deliveries: Sequence[Delivery], hold_s: int) -> None:
        """Do nothing: AMQP has no visibility timeout."""

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Requeue deliveries, oldest first; the queue restores their position if it can."""
        with self._changed:
            tags = self._take_out(deliveries)
            if tags:
                self._need_link().give_back(sorted(tags))

    def depth(self) -> dict[str, int]:
        """Count ready messages and our unacknowledged ones; AMQP does not tell those of other consumers."""
        counts = queue_depth(self._address)
        with self._changed:
            return counts | {"in_flight": len(self._open)}

    def close(self) -> None:
        """Close the connection. Unsettled deliveries are redelivered."""
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
        """Wait until the broker answers a new probe, or a message arrives. Raises outages."""
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
        """Probe the broker unless a probe is open. The answer confirms all earlier acknowledgements."""
        if not self._asking and self._link is not None:
            self._asking = True
            self._asked, self._noted = self._noted, []
            self._link.ask(functools.partial(self._heard, time.monotonic()))

    # ── the link: requested by any thread (holding the lock), opened and run by its own thread ───────────

    def _need_link(self) -> Link:
        """Return the link; without one, wait for one attempt to open it. Raises the outage."""
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
                # Unless the source is closing, a bug has ended the thread, and no call may wait for it.
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
                # The buffer and all tags belong to the ended channel, and the queue redelivers them.
                self._buffer.clear()
                self._open.clear()
                self._asking = False
                # Their arrival is unknown, so their notes stay in the database.
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
        """Remove deliveries that are still open on this channel, and return their tags."""
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
            # Any client can write the header with a quorum queue's count. Only the broker sets the flag, but
            # the flag has no count: a redelivery may have killed a process, so it is treated as a suspect.
            receive_count=SUSPECT_RECEIVE_COUNT if redelivered else 1,
            # The sender's clock, which may be ahead.
            sent_at=now if moment is None else min(moment, now),
            received_at=now,
            attributes=attributes,
            # RabbitMQ accepts this property only from the user of that name.
            sender_id=properties.user_id if isinstance(properties.user_id, str) else None,
            named=False,
            repeated=redelivered,
            fault=fault,
            ended=self._link_ended,
        )


def queue_depth(address: SourceAddress) -> dict[str, int]:
    """Count the ready messages of the queue without consuming. Raises SourceUnavailable."""
    try:
        waiting = count_waiting(address).method.message_count
    except FAILED as error:
        metrics.source_errors.labels(operation="count").inc()
        raise SourceUnavailable(ended(error, address).words) from error
    return {"visible": int(waiting), "in_flight": 0}


def _acknowledgements(tags: Sequence[int], oldest_open: int | None) -> list[tuple[int, bool]]:
    """Return acknowledgements (tag, multiple): one for all tags before the oldest open one, others singly.

    A multiple acknowledgement is safe there, since every earlier tag was acknowledged or released.
    """
    before = [tag for tag in tags if oldest_open is None or tag < oldest_open]
    after = [(tag, False) for tag in tags if oldest_open is not None and tag > oldest_open]
    return [(max(before), True), *after] if before else after
