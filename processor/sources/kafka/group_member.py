"""Run one member of a consumer group: a thread that polls, fills the assignment and commits offsets.

    broker ─▶ poll ─▶ Assignment ─▶ receivers … settlers ─▶ offsets ─▶ broker

Only this thread calls the group, so that no other thread can delay its polls. With a full buffer the thread
pauses the partitions and continues to poll.
"""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from processor.brokers.kafka import NO_TOPIC, REFUSED, configuration, forgotten, name_of, place
from processor.brokers.source_url import SourceAddress
from processor.errors import ProcessorError, SettingsError, StoreUnavailable
from processor.sources.kafka.assignment import TICK_S, Assignment, Marks
from processor.sources.kafka.partitions import Mark, Record
from processor.sources.kafka.records import record_of

log = structlog.get_logger(__name__)

_FETCH_MAX = 500
_COMMIT_EVERY_S = 0.1
_PROBE_EVERY_S = 0.2
_PROBE_S_MAX = 2.0

_FULL_S_MAX = 2.0
"""The wait for a full buffer before partitions are paused, since a pause drops prefetched records."""


class Member:
    """Reads one topic as a member of its address's group into `assignment`, from `start` to `close`.

    `buffer_bytes_max` limits the driver's prefetch, in bytes.
    """

    def __init__(
        self,
        address: SourceAddress,
        assignment: Assignment,
        *,
        buffer_bytes_max: int,
        session_s: float,
        forgotten_before: Callable[[], datetime | None],
    ) -> None:
        self._address = address
        self._topic = address.queue
        self.assignment = assignment
        self._buffer_bytes_max = buffer_bytes_max
        self._session_s = session_s
        self._forgotten_before = forgotten_before
        self._paused = False
        self._full_since: float | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Join the group and begin to read."""
        consumer = Consumer(self._configuration())
        self._thread = threading.Thread(target=self._run, args=(consumer,), name="kafka", daemon=True)
        self._thread.start()

    def close(self, within_s: float) -> None:
        """Commit offsets and leave the group, so that other members get our partitions at once."""
        self._stop.set()
        self.assignment.end()
        if self._thread is not None:
            self._thread.join(within_s)

    def _configuration(self) -> dict[str, Any]:
        session_ms = int(self._session_s * 1000)
        return configuration(self._address) | {
            "group.id": self._address.group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # Without a committed offset, no record may be skipped.
            "auto.offset.reset": "earliest",
            "partition.assignment.strategy": "cooperative-sticky",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "session.timeout.ms": session_ms,
            "heartbeat.interval.ms": min(3000, session_ms // 10),
            "max.poll.interval.ms": max(300_000, session_ms),
            "topic.metadata.refresh.interval.ms": 30_000,
            "queued.max.messages.kbytes": max(1024, self._buffer_bytes_max // 1024),
            "fetch.error.backoff.ms": 100,
            # The end of a partition is known only after an empty fetch, so it must be short.
            "fetch.wait.max.ms": 100,
            "error_cb": self._on_error,
            "on_commit": self._on_commit,
        }

    # ── the thread ────────────────────────────────────────────────────────────────────────────────────

    def _run(self, consumer: Consumer) -> None:
        try:
            self._read(consumer)
        except BaseException:
            self.assignment.end(dead=True)
            # The thread hook logs dead threads.
            raise
        finally:
            # Offsets are committed when partitions are revoked: see _on_revoke.
            consumer.close()
            self.assignment.end()

    def _read(self, consumer: Consumer) -> None:
        consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        commit_at = probe_at = 0.0
        while not self._stop.is_set():
            now = time.monotonic()
            if now >= commit_at:
                commit_at = now + _COMMIT_EVERY_S
                self._write_progress(consumer)
            self._announce(consumer)
            if not self._has_room(consumer):
                continue
            message = consumer.poll(TICK_S)
            if message is not None:
                self._add([message, *consumer.consume(_FETCH_MAX, 0)])
            elif now >= probe_at and self.assignment.wants_word:
                probe_at = now + _PROBE_EVERY_S
                self._probe(consumer)

    def _has_room(self, consumer: Consumer) -> bool:
        """Return whether to poll: not while the buffer is briefly full, later with paused partitions."""
        if self._paused:
            if not self.assignment.is_full(0.5):
                self._paused = False
                consumer.resume(self._places())
            return True
        if not self.assignment.is_full(1.0):
            self._full_since = None
            return True
        now = time.monotonic()
        self._full_since = self._full_since or now
        if now - self._full_since < _FULL_S_MAX:
            self.assignment.await_room(TICK_S)
            return False
        self._paused = True
        consumer.pause(self._places())
        return True

    def _places(self) -> list[TopicPartition]:
        return [TopicPartition(self._topic, number) for number in self.assignment.numbers]

    def _add(self, messages: Sequence[Message]) -> None:
        now = datetime.now(UTC)
        came: list[tuple[int, Record | int]] = []
        for message in messages:
            error = message.error()
            if error is None:
                came.append((message.partition() or 0, record_of(message, now)))
            elif error.name() == "_PARTITION_EOF":
                came.append((message.partition() or 0, message.offset() or 0))
            else:
                self._note(error)
        self.assignment.add(came)

    def _note(self, error: KafkaError) -> None:
        name = error.name()
        if name in NO_TOPIC:
            self._note_no_topic()
        elif error.code() > 0 and not error.retriable():
            self.assignment.worry(f"Kafka refuses to hand {self._topic} over: {name}")
        else:
            # The error may be transient, so Kafka is probed first.
            self.assignment.ask()

    def _probe(self, consumer: Consumer) -> None:
        """Probe Kafka, and record an answer or an outage."""
        began = time.monotonic()
        try:
            topic = consumer.list_topics(self._topic, timeout=_PROBE_S_MAX).topics[self._topic]
        except KafkaException as error:
            self.assignment.worry(f"Kafka can't be reached at {place(self._address)}: {name_of(error)}")
            return
        errors = [partition.error for partition in topic.partitions.values() if partition.error]
        if topic.error is not None and topic.error.name() in NO_TOPIC:
            self._note_no_topic()
        elif topic.error is not None or errors:
            what = topic.error or errors[0]
            self.assignment.worry(f"Kafka can't hand {self._topic} over: {what.name()}")
        else:
            self.assignment.answered(began)

    # ── offsets ───────────────────────────────────────────────────────────────────────────────────────

    def _announce(self, consumer: Consumer) -> None:
        """Read committed offsets, and commit the marks that must precede a delivery."""
        try:
            if unread := self.assignment.unread:
                self._load(consumer, unread)
            self._refuse_what_is_forgotten()
            if wanted := self.assignment.announcements:
                self._write(consumer, wanted)
        except (KafkaException, StoreUnavailable) as error:
            why = name_of(error) if isinstance(error, KafkaException) else error
            self.assignment.worry(f"where the group {self._address.group} begins can't be had: {why}")
            self._stop.wait(TICK_S)
        except ProcessorError as error:
            self.assignment.forbid(str(error))
            self._stop.wait()

    def _load(self, consumer: Consumer, unread: Sequence[int]) -> None:
        lines = consumer.committed(
            [TopicPartition(self._topic, number) for number in unread], timeout=_PROBE_S_MAX
        )
        self.assignment.load(
            {
                line.partition: Mark.read(line.offset, line.metadata) if line.offset >= 0 else None
                for line in lines
                if line.error is None
            }
        )
        _raise_first(lines)

    def _refuse_what_is_forgotten(self) -> None:
        """Raise SettingsError if the group would begin with records that may have been stored and deleted."""
        beginnings = self.assignment.beginnings
        before = self._forgotten_before() if beginnings else None
        for number, sent_at in beginnings:
            if before is not None and sent_at < before:
                raise SettingsError(forgotten(self._address, number, sent_at, before))
            self.assignment.let_begin(number)

    def _write(self, consumer: Consumer, marks: Marks) -> None:
        """Commit marks synchronously. Raises KafkaException."""
        _raise_first(consumer.commit(offsets=self._lines(marks), asynchronous=False) or ())
        self.assignment.wrote(marks)

    def _write_progress(self, consumer: Consumer) -> None:
        if marks := self.assignment.take_progress():
            consumer.commit(offsets=self._lines(marks), asynchronous=True)

    def _lines(self, marks: Marks) -> list[TopicPartition]:
        return [
            TopicPartition(self._topic, number, mark.offset, metadata=mark.metadata) for number, mark in marks
        ]

    # ── callbacks of librdkafka, called during a poll ─────────────────────────────────────────────────

    def _on_assign(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        self.assignment.assign(line.partition for line in places)
        if self._paused and places:
            # Assigned here, since only assigned partitions can be paused.
            consumer.incremental_assign(places)
            consumer.pause(places)
        log.info("partitions_assigned", partitions=[line.partition for line in places])

    def _on_revoke(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        marks = self._drop(consumer, places)
        log.info("partitions_revoked", partitions=[line.partition for line in places])
        try:
            if marks and not self.assignment.in_trouble:
                self._write(consumer, marks)
        except KafkaException as error:
            log.warning(
                "offsets_not_written",
                error=name_of(error),
                consequence="what was done since will come again, and be known",
            )

    def _on_lost(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        self._drop(consumer, places, lost=True)
        log.warning("partitions_lost", partitions=[line.partition for line in places])

    def _drop(self, consumer: Consumer, places: list[TopicPartition], *, lost: bool = False) -> Marks:
        if self._paused:
            # Librdkafka keeps a pause beyond the assignment, and would fetch nothing when assigned again.
            consumer.resume(places)
        return self.assignment.drop([line.partition for line in places], lost=lost)

    def _on_commit(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        self.assignment.doubt(
            line.partition for line in places if error is not None or line.error is not None
        )

    def _on_error(self, error: KafkaError) -> None:
        name = error.name()
        if name in REFUSED:
            self.assignment.worry(
                f"Kafka refuses the user of SOURCE_URL: {name}", credentials="give a valid user and password"
            )
        elif name == "_ALL_BROKERS_DOWN":
            self.assignment.worry(f"Kafka can't be reached at {place(self._address)}: {name}")
        else:
            self.assignment.ask()

    def _note_no_topic(self) -> None:
        self.assignment.worry(
            f"Kafka has no topic {self._topic}", missing="make the topic, or mend SOURCE_URL"
        )


def _raise_first(lines: Sequence[TopicPartition]) -> None:
    for line in lines:
        if line.error is not None:
            raise KafkaException(line.error)
