"""One member of a consumer group: the thread that polls, fills a buffer, and writes the group's books.

    broker ─▶ poll ─▶ buffer, by partition ─▶ …whoever receives and settles… ─▶ offsets ─▶ broker

All calls that belong to the group are this thread's, so that it answers the group in time whoever else
waits for what: with a full buffer it pauses the partitions and goes on polling.
"""

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from processor.brokers.kafka import NO_TOPIC, REFUSED, configuration, forgotten, name_of, place
from processor.brokers.source_refusal import SourceRefusal
from processor.brokers.source_url import SourceAddress
from processor.errors import ProcessorError, SettingsError, StoreUnavailable
from processor.runtime import metrics
from processor.sources.kafka.partitions import Mark, Partition
from processor.sources.kafka.records import record_of

log = structlog.get_logger(__name__)

TICK_S = 0.05
_FETCH_MAX = 500
_COMMIT_EVERY_S = 0.1
_PROBE_EVERY_S = 0.2
_PROBE_S_MAX = 2.0

_FULL_S_MAX = 2.0
"""How long a full buffer is waited on before partitions are paused: what a pause drops is fetched anew."""

_generations = itertools.count(1)
"""Of partitions that were ever ours: a receipt of an earlier one is of no use."""


class Member:
    """Reads one topic as a member of its address's group; everything public is to be used under `lock`.

    `readable` is notified when there may be something to hand over, or a trouble; `room` is to be notified
    when the buffer has become smaller. `heard_at` is when Kafka last said that it has nothing more; setting
    `asked_at` asks for that. `dead` says that a bug has ended its thread, `fault` in words why nothing must
    be read as this group.
    """

    def __init__(
        self,
        address: SourceAddress,
        *,
        buffer_size_max: int,
        buffer_bytes_max: int,
        session_s: float,
        forgotten_before: Callable[[], datetime | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = address
        self._topic = address.queue
        self._buffer_size_max = buffer_size_max
        self._buffer_bytes_max = buffer_bytes_max
        self._session_s = session_s
        self._forgotten_before = forgotten_before
        self.lock = threading.Lock()
        self.readable = threading.Condition(self.lock)
        self.room = threading.Condition(self.lock)
        self.partitions: dict[int, Partition] = {}
        self.assigned = False
        self.trouble = ""
        self.fault = ""
        self.refusal = SourceRefusal(clock)
        self.asked_at = 0.0
        self.heard_at = 0.0
        self._paused = False
        self._full_since: float | None = None
        self.dead = False
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(Consumer(self._configuration()),), name="kafka", daemon=True
        )
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether it was closed, or has died, and will bring nothing more."""
        return self._stop.is_set() or not self._thread.is_alive()

    def close(self, within_s: float) -> None:
        """Write what is done and leave the group, so that others get our partitions at once."""
        self._stop.set()
        with self.lock:
            self.readable.notify_all()
            self.room.notify_all()
        self._thread.join(within_s)

    def _configuration(self) -> dict[str, Any]:
        session_ms = int(self._session_s * 1000)
        return configuration(self._address) | {
            "group.id": self._address.group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # Where the group has no offset yet: nothing that is there may be left out.
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
            # A poll that finds nothing ends by then; only after it is it known that there is nothing.
            "fetch.wait.max.ms": 100,
            "error_cb": self._on_error,
            "on_commit": self._on_commit,
        }

    # ── the thread ────────────────────────────────────────────────────────────────────────────────────

    def _run(self, consumer: Consumer) -> None:
        try:
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
                elif now >= probe_at and (self.trouble or self.asked_at > self.heard_at):
                    probe_at = now + _PROBE_EVERY_S
                    self._probe(consumer)
        except BaseException:
            with self.lock:
                self.dead = True
            # Threads that die are told of in one place.
            raise
        finally:
            # What is done is written as the partitions are given up: see _on_revoke.
            consumer.close()
            with self.lock:
                self._stop.set()
                self.readable.notify_all()

    def _has_room(self, consumer: Consumer) -> bool:
        """Tell whether to poll: not while the buffer is full for a blink, but then with all paused."""
        with self.lock:
            if self._paused:
                if self._is_full(0.5):
                    return True
                self._paused = False
                resumed = self._places()
            elif not self._is_full(1.0):
                self._full_since = None
                return True
            else:
                now = time.monotonic()
                self._full_since = self._full_since or now
                if now - self._full_since < _FULL_S_MAX:
                    self.room.wait(TICK_S)
                    return False
                self._paused, resumed = True, []
                paused = self._places()
        if resumed:
            consumer.resume(resumed)
        elif self._paused:
            consumer.pause(paused)
        return True

    def _is_full(self, share: float) -> bool:
        partitions = self.partitions.values()
        return (
            sum(len(partition.waiting) for partition in partitions) >= self._buffer_size_max * share
            or sum(partition.waiting_bytes for partition in partitions) >= self._buffer_bytes_max * share
        )

    def _places(self) -> list[TopicPartition]:
        return [TopicPartition(self._topic, number) for number in self.partitions]

    def _add(self, messages: Sequence[Message]) -> None:
        now = datetime.now(UTC)
        with self.lock:
            for message in messages:
                error = message.error()
                partition = self.partitions.get(message.partition() or 0)
                if error is not None:
                    self._note(error, message)
                elif partition is not None:
                    partition.add(record_of(message, now))
            self.readable.notify_all()

    def _note(self, error: KafkaError, message: Message) -> None:
        name = error.name()
        if name == "_PARTITION_EOF":
            partition = self.partitions.get(message.partition() or 0)
            if partition is not None:
                partition.reached_end(message.offset() or 0)
        elif name in NO_TOPIC:
            self._note_no_topic()
        elif error.code() > 0 and not error.retriable():
            self._worry(f"Kafka refuses to hand {self._topic} over: {name}")
        else:
            # What may be over by the next poll is asked about instead of believed.
            self.asked_at = time.monotonic()

    def _probe(self, consumer: Consumer) -> None:
        """Ask Kafka for a sign of life: it ends a trouble, or says which there is."""
        began = time.monotonic()
        try:
            topic = consumer.list_topics(self._topic, timeout=_PROBE_S_MAX).topics[self._topic]
        except KafkaException as error:
            with self.lock:
                self._worry(f"Kafka can't be reached at {place(self._address)}: {name_of(error)}")
            return
        with self.lock:
            errors = [partition.error for partition in topic.partitions.values() if partition.error]
            if topic.error is not None and topic.error.name() in NO_TOPIC:
                self._note_no_topic()
            elif topic.error is not None or errors:
                what = topic.error or errors[0]
                self._worry(f"Kafka can't hand {self._topic} over: {what.name()}")
            else:
                self.trouble = ""
                self.refusal.over()
                if self.assigned and all(partition.quiet for partition in self.partitions.values()):
                    self.heard_at = began
                self.readable.notify_all()

    # ── the group's books ─────────────────────────────────────────────────────────────────────────────

    def _announce(self, consumer: Consumer) -> None:
        """Read and write what has to be known, and stand in the books, before anything is handed over."""
        with self.lock:
            unread = [partition for partition in self.partitions.values() if not partition.loaded]
        try:
            if unread:
                self._load(consumer, unread)
            self._refuse_what_is_forgotten()
            with self.lock:
                wanted = [
                    (partition, mark)
                    for partition in self.partitions.values()
                    if (mark := partition.announcement()) is not None
                ]
            if wanted:
                self._write(consumer, wanted)
        except (KafkaException, StoreUnavailable) as error:
            why = name_of(error) if isinstance(error, KafkaException) else error
            with self.lock:
                self._worry(f"where the group {self._address.group} begins can't be had: {why}")
            self._stop.wait(TICK_S)
        except ProcessorError as error:
            with self.lock:
                self.fault = str(error)
                self.readable.notify_all()
            self._stop.wait()

    def _load(self, consumer: Consumer, unread: Sequence[Partition]) -> None:
        places = [TopicPartition(self._topic, partition.number) for partition in unread]
        found = consumer.committed(places, timeout=_PROBE_S_MAX)
        with self.lock:
            for partition, line in zip(unread, found, strict=True):
                if line.error is not None:
                    raise KafkaException(line.error)
                partition.load(Mark.read(line.offset, line.metadata) if line.offset >= 0 else None)

    def _refuse_what_is_forgotten(self) -> None:
        """Raise SettingsError where the group would begin with what may have been stored, and removed."""
        with self.lock:
            beginning = [
                (partition, sent_at)
                for partition in self.partitions.values()
                if (sent_at := partition.begins_at) is not None
            ]
        before = self._forgotten_before() if beginning else None
        for partition, sent_at in beginning:
            if before is not None and sent_at < before:
                raise SettingsError(forgotten(self._address, partition.number, sent_at, before))
            partition.may_begin = True

    def _write(self, consumer: Consumer, marks: Sequence[tuple[Partition, Mark]]) -> None:
        """Write marks, and come back when they stand there. Raises KafkaException."""
        for line in consumer.commit(offsets=self._lines(marks), asynchronous=False) or ():
            if line.error is not None:
                raise KafkaException(line.error)
        with self.lock:
            for partition, mark in marks:
                partition.wrote(mark)
            self.readable.notify_all()

    def _write_progress(self, consumer: Consumer) -> None:
        with self.lock:
            marks = [
                (partition, mark)
                for partition in self.partitions.values()
                if (mark := partition.progress()) is not None
            ]
            for partition, mark in marks:
                partition.wrote(mark)
        if marks:
            consumer.commit(offsets=self._lines(marks), asynchronous=True)

    def _lines(self, marks: Sequence[tuple[Partition, Mark]]) -> list[TopicPartition]:
        return [
            TopicPartition(self._topic, partition.number, mark.offset, metadata=mark.metadata)
            for partition, mark in marks
        ]

    # ── what librdkafka calls, from within a poll ─────────────────────────────────────────────────────

    def _on_assign(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        with self.lock:
            self.assigned = True
            for line in places:
                self.partitions[line.partition] = Partition(line.partition, next(_generations))
            self.readable.notify_all()
        if self._paused and places:
            # Assigned here, since what is not assigned yet can't be paused.
            consumer.incremental_assign(places)
            consumer.pause(places)
        log.info("partitions_assigned", partitions=[line.partition for line in places])

    def _on_revoke(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        marks = [
            (partition, mark)
            for partition in self._drop(consumer, places)
            if (mark := partition.farewell()) is not None
        ]
        log.info("partitions_revoked", partitions=[line.partition for line in places])
        try:
            if marks and not self.trouble:
                self._write(consumer, marks)
        except KafkaException as error:
            log.warning(
                "offsets_not_written",
                error=name_of(error),
                consequence="what was done since will come again, and be known",
            )

    def _on_lost(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        with self.lock:
            # Who has lost all is no member of the group: it knows of nothing, until it is one again.
            self.assigned = False
        self._drop(consumer, places)
        log.warning("partitions_lost", partitions=[line.partition for line in places])

    def _drop(self, consumer: Consumer, places: list[TopicPartition]) -> list[Partition]:
        """Forget partitions; what of them is under way may still be saved: whoever has them next knows."""
        if self._paused:
            # Librdkafka remembers a pause beyond the assignment: had again, they would bring nothing.
            consumer.resume(places)
        with self.lock:
            dropped = [
                partition for line in places if (partition := self.partitions.pop(line.partition, None))
            ]
            self.readable.notify_all()
            return dropped

    def _on_commit(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        failed = [line.partition for line in places if error is not None or line.error is not None]
        with self.lock:
            for number in failed:
                if (partition := self.partitions.get(number)) is not None:
                    partition.doubt()

    def _on_error(self, error: KafkaError) -> None:
        name = error.name()
        with self.lock:
            if name in REFUSED:
                self._note_refusal(name)
            elif name == "_ALL_BROKERS_DOWN":
                self._worry(f"Kafka can't be reached at {place(self._address)}: {name}")
            else:
                self.asked_at = time.monotonic()

    def _note_refusal(self, name: str) -> None:
        self.refusal.credentials("give a valid user and password")
        self._worry(f"Kafka refuses the user of SOURCE_URL: {name}", refused=True)

    def _note_no_topic(self) -> None:
        self.refusal.missing("make the topic, or mend SOURCE_URL")
        self._worry(f"Kafka has no topic {self._topic}", refused=True)

    def _worry(self, words: str, *, refused: bool = False) -> None:
        """Note an outage; being refused says more than not being able to connect, which follows from it."""
        metrics.source_errors.labels(operation="receive").inc()
        if refused or not self.refusal.standing:
            self.trouble = words
        self.readable.notify_all()
