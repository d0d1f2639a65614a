"""Kafka as a source: outages, rebalances, and offsets that never pass what is not committed."""

import itertools
import json
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import psycopg
import pytest
from confluent_kafka import Consumer, TopicPartition

from processor.brokers.kafka import an_onlooker
from processor.brokers.source_url import source_address
from processor.errors import Reason, SettingsError, SourceFault, SourceUnavailable, StoreUnavailable
from processor.model import Delivery, Outcome, Rejection, Settlement, Verdict
from processor.operations.audit import audit
from processor.operations.queue_rules import remove_queue, set_queue
from processor.pipeline.limits import PipelineLimits
from processor.pipeline.pipeline import Pipeline
from processor.runtime.outages import OutageRetry
from processor.sources.kafka.source import KafkaSource
from tests.broker_servers.kafka import Mock
from tests.builders import a_body
from tests.fixtures import database as fix_database
from tests.fixtures.database import MakeSaver, Saver
from tests.kafka_sources import a_kafka_source, end_membership
from tests.pipeline.harness import in_background, schemas_of_acme
from tests.rig import wait_until

Open = Callable[..., KafkaSource]
Db = psycopg.Connection[Any]


@pytest.fixture
def open_source(kafka: Mock) -> Iterator[Open]:
    """Make sources that are closed at the end."""
    opened: list[KafkaSource] = []

    def make(topic: str, **options: Any) -> KafkaSource:
        opened.append(a_kafka_source(kafka, topic, **options))
        return opened[-1]

    yield make
    kafka.up()
    for source in opened:
        source.close()


DAY_MS = 24 * 3600 * 1000


def days_ago(days: int) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


def committed(kafka: Mock, topic: str, group: str) -> int:
    """The group's offset in the first partition; negative where it has none."""
    with an_onlooker(source_address(kafka.url(topic, group))) as onlooker:
        [line] = onlooker.committed([TopicPartition(topic, 0)], timeout=5)
    return line.offset


def settled(deliveries: Sequence[Delivery]) -> list[Settlement]:
    return [Settlement(delivery, Outcome.STORED) for delivery in deliveries]


def take(source: KafkaSource, count: int, *, settle: bool = False) -> list[Delivery]:
    """Receive so many; of what is settled, the next of its partition follow."""
    taken: list[Delivery] = []
    give_up_at = time.monotonic() + 20
    if not settle:
        # All at once: of a partition nothing more comes while its first is held.
        wait_until(lambda: buffered(source) >= count, "so many are buffered")
    while len(taken) < count:
        assert time.monotonic() < give_up_at, f"{len(taken)} of {count} came"
        try:
            came = source.receive(count - len(taken), 1)
        except SourceUnavailable:
            continue
        if settle:
            source.settle(settled(came))
        taken += came
    return taken


def buffered(source: KafkaSource) -> int:
    return sum(len(partition.waiting) for partition in list(source._member().assignment._partitions.values()))


def books(kafka: Mock, topic: str, group: str | None = None, partition: int = 0) -> int:
    """The offset in the group's books."""
    with an_onlooker(source_address(kafka.url(topic, group or f"of-{topic}"))) as onlooker:
        [line] = onlooker.committed([TopicPartition(topic, partition)], timeout=5)
        return line.offset


# ── what a message becomes ────────────────────────────────────────────────────────────────────────────


def test_a_message_is_known_by_partition_offset_and_moment_under_its_topics_name(
    kafka: Mock, open_source: Open
) -> None:
    topic = kafka.topic(2)
    kafka.sender.send_all(topic, [(1, b"first")], timestamp_ms=1_700_000_000_000)
    kafka.sender.send_all(topic, [(1, b"second")], timestamp_ms=1_700_000_000_123)

    deliveries = take(open_source(topic), 2, settle=True)

    assert [delivery.key for delivery in deliveries] == [
        (topic, "1-0-1700000000000"),
        (topic, "1-1-1700000000123"),
    ]
    assert deliveries[1].sent_at.isoformat() == "2023-11-14T22:13:20.123000+00:00"
    assert {delivery.group for delivery in deliveries} == {"1"}
    assert all(delivery.named for delivery in deliveries)


def test_a_moment_that_lies_ahead_is_now(kafka: Mock, open_source: Open) -> None:
    topic = kafka.topic()
    kafka.sender.send(topic, b"{}", partition=0, timestamp_ms=99_999_999_999_999)

    [delivery] = take(open_source(topic), 1)

    assert delivery.sent_at <= delivery.received_at
    assert delivery.delivery_id == "0-0-99999999999999"


def test_a_tombstone_is_an_empty_body_which_is_not_json(kafka: Mock, open_source: Open) -> None:
    topic = kafka.topic()
    kafka.sender.send(topic, None, partition=0)

    [delivery] = take(open_source(topic), 1)

    assert delivery.body == b""
    verdict = schemas_of_acme().validate(delivery)
    assert isinstance(verdict, Rejection)
    assert verdict.reason is Reason.NOT_JSON


def test_headers_are_attributes_up_to_a_bound(kafka: Mock, open_source: Open) -> None:
    topic = kafka.topic()
    many = {f"name-{number}": "x" for number in range(100)}
    kafka.sender.send(topic, b"{}", {"text": "é", "bytes": b"\xff", "null": None} | many, partition=0)  # type: ignore[arg-type]
    kafka.sender.send(topic, b"{}", {"tenant_id": "acme", "large": "x" * 70_000}, partition=0)

    first, second = take(open_source(topic), 2, settle=True)

    assert (first.attributes["text"], first.attributes["bytes"]) == ("é", b"\xff")
    assert "null" not in first.attributes
    assert len(first.attributes) == 63
    assert second.attributes == {"tenant_id": "acme"}
    # What is left out may have named the event.
    assert first.fault == second.fault
    assert "more than 64 headers" in str(first.fault)


def test_headers_of_one_name_are_all_kept_and_one_that_names_something_stands_alone(
    kafka: Mock, open_source: Open
) -> None:
    topic = kafka.topic()
    kafka.sender.send(topic, b"{}", [("a", "1"), ("a", "2"), ("a#2", "3"), ("a", "4")], partition=0)
    kafka.sender.send(topic, b"{}", [("message_id", "1"), ("message_id", "2"), ("b", "3")], partition=0)
    kafka.sender.send(topic, b"{}", [("ce_id", "1"), ("ce_id", "1")], partition=0)

    first, second, third = take(open_source(topic), 3, settle=True)

    assert (first.attributes, first.fault) == ({"a": "1", "a#2": "2", "a#2#2": "3", "a#3": "4"}, None)
    assert second.fault == "the header message_id is there twice, and differs; send it once"
    assert second.attributes == {"message_id": "1", "message_id#2": "2", "b": "3"}
    assert (third.attributes, third.fault) == ({"ce_id": "1"}, None)


# ── what another group has read ───────────────────────────────────────────────────────────────────────


APP = {"tenant_id": "/client_id", "event_type": "/kind", "payload": "/message"}


def app_body(event_id: str) -> bytes:
    event = {"client_id": "acme", "kind": "order.created", "message": {"total": 1}, "eid": event_id}
    return json.dumps(event).encode()


def test_what_another_group_has_read_is_known_whatever_its_queue_is_said_to_carry_by_then(
    kafka: Mock, open_source: Open, saver: Saver, db: Db
) -> None:
    topic = kafka.topic()
    set_queue(db, topic, {"mapping": APP})
    for event_id in ("a", "a", "b", "b"):
        kafka.sender.send(topic, app_body(event_id), partition=0)
    kafka.sender.send(topic, b"no JSON", partition=0)
    first = saver.outcomes(*take(open_source(topic, group="g1"), 5, settle=True))

    set_queue(db, topic, {"mapping": APP | {"id": "/eid"}})
    second = saver.outcomes(*take(open_source(topic, group="g2"), 5, settle=True))
    remove_queue(db, topic)
    third = saver.outcomes(*take(open_source(topic, group="g3"), 5, settle=True))

    assert first == ["stored"] * 4 + ["not_json"]
    assert second == third == ["redelivered"] * 5
    assert fix_database.books(db) == {"message": 4, "duplicate": 0, "rejection": 1}
    assert audit(db, [], None).holds


def test_what_another_group_has_read_is_known_whatever_the_limits_are_by_then(
    kafka: Mock, open_source: Open, saver: Saver, make_saver: MakeSaver, db: Db
) -> None:
    topic = kafka.topic()
    for event_id in ("a", "b", "b"):
        kafka.sender.send(topic, a_body(id=event_id, payload={"total": 1, "x": "y" * 3000}), partition=0)
    narrow = make_saver()
    narrow.schemas._decoder = replace(narrow.schemas._decoder, body_bytes_max=2000)

    first = saver.outcomes(*take(open_source(topic, group="g1"), 3, settle=True))
    second = narrow.outcomes(*take(open_source(topic, group="g2"), 3, settle=True))

    assert first == ["stored", "stored", "duplicate"]
    assert second == ["redelivered"] * 3
    assert fix_database.books(db) == {"message": 2, "duplicate": 1, "rejection": 0}
    assert audit(db, [], None).holds


def test_a_group_that_is_interrupted_knows_what_another_has_read_when_it_goes_on(
    kafka: Mock, open_source: Open, saver: Saver, db: Db
) -> None:
    topic, (events, more_than_a_window) = kafka.topic(), (1200, 600)
    set_queue(db, topic, {"mapping": APP})
    kafka.sender.send_all(topic, [(0, app_body(str(number))) for number in range(events)])
    saver.save(*take(open_source(topic, group="g1"), events, settle=True))
    set_queue(db, topic, {"mapping": APP | {"id": "/eid"}})
    source = open_source(topic, group="g2")
    took = take(source, more_than_a_window, settle=True)
    saver.save(*took)
    source.close()

    rest = take(open_source(topic, group="g2"), events - len(took), settle=True)

    assert {delivery.receive_count for delivery in rest} == {1}
    assert set(saver.outcomes(*rest)) == {"redelivered"}


# ── offsets and order ─────────────────────────────────────────────────────────────────────────────────


def test_offsets_never_pass_what_is_not_settled(kafka: Mock, open_source: Open) -> None:
    topic = kafka.topic()
    kafka.sender.send_all(topic, [(0, b"{}")] * 5)
    source = open_source(topic)
    deliveries = take(source, 5)
    assert source.receive(10, 0.3) == []
    assert books(kafka, topic) == 0

    source.settle(settled(deliveries[:2] + deliveries[3:]))
    wait_until(lambda: books(kafka, topic) == 2, "the offset passes what is done")
    end_membership(source)

    assert books(kafka, topic) == 2
    again = take(source, 3)
    assert [delivery.delivery_id for delivery in again] == [each.delivery_id for each in deliveries[2:]]
    assert {delivery.receive_count for delivery in again} == {2}


def test_of_a_partition_nothing_more_comes_while_something_is_held_and_of_others_it_does(
    kafka: Mock, open_source: Open
) -> None:
    topic = kafka.topic(2)
    kafka.sender.send_all(topic, [(0, b"held"), (0, b"behind it"), (1, b"free"), (1, b"free, too")])
    source = open_source(topic)
    wait_until(lambda: source.depth()["visible"] == 4, "all is there")
    came = [source.receive(1, 5), source.receive(1, 5)]
    held = next(delivery for [delivery] in came if delivery.group == "0")
    source.settle(settled([delivery for [delivery] in came if delivery.group == "1"]))

    more = take(source, 1)

    assert [delivery.body for delivery in more] == [b"free, too"]
    assert source.receive(10, 0) == []
    source.settle(settled([held]))
    assert [delivery.body for delivery in take(source, 1)] == [b"behind it"]


class Ledger:
    """Notes in which order deliveries are committed, by several writers that take their time."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self._pause_s = pause_s
        self._chance = random.Random(7)
        self._lock = threading.Lock()
        self.committed: list[str] = []

    def unread(self, suspect: Delivery) -> Verdict | None:
        """Let everything be read."""

    def save(self, verdicts: Sequence[Verdict]) -> list[Settlement]:
        time.sleep(self._pause_s + self._chance.uniform(0, 0.01))
        with self._lock:
            self.committed += [verdict.delivery.delivery_id for verdict in verdicts]
        return [Settlement(verdict.delivery, Outcome.STORED) for verdict in verdicts]

    def probe(self) -> None:
        """Nothing to ask."""

    def close(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize("call_size", [3, 50])
def test_a_partitions_messages_are_committed_in_their_order_by_several_writers(
    kafka: Mock, open_source: Open, call_size: int
) -> None:
    topic = kafka.topic(3)
    sent = kafka.sender.send_all(topic, [(place % 3, a_body()) for place in range(150)])
    ledger, give_up = Ledger(), threading.Event()
    pipeline = Pipeline(
        open_source(topic, call_size=call_size),
        schemas_of_acme(),
        [ledger] * 4,
        limits=PipelineLimits(receive_wait_s=0.2, batch_size_max=10),
        database=OutageRetry("database", wait_s_max=0.1, stop=give_up),
        broker=OutageRetry("queue", wait_s_max=0.1, stop=give_up),
        give_up=give_up,
    )

    pipeline.run(threading.Event(), until_idle_s=0.3)

    assert sorted(ledger.committed) == sorted(sent)
    offsets: dict[str, list[int]] = defaultdict(list)
    for delivery_id in ledger.committed:
        partition, offset, _ = delivery_id.split("-")
        offsets[partition].append(int(offset))
    assert all(found == sorted(found) for found in offsets.values())
    assert [books(kafka, topic, partition=number) for number in range(3)] == [50] * 3


def test_a_buffer_that_is_full_stays_bounded_and_the_membership_is_kept(
    kafka: Mock, open_source: Open
) -> None:
    """While nobody receives, as in an outage of the database."""
    topic = kafka.topic(4)
    sent = kafka.sender.send_all(topic, [(place % 4, b"x" * 1000) for place in range(400)])
    source = open_source(topic, buffer_size_max=20)
    first = take(source, 1)
    member = source._made
    assert member is not None

    wait_until(lambda: member._paused, "its partitions are paused")
    assert 20 <= buffered(source) <= 20 + 4 * 501
    kafka_sees = buffered(source)
    time_out_at = time.monotonic() + 2.5
    wait_until(lambda: time.monotonic() > time_out_at, "a session has passed")
    assert buffered(source) == kafka_sees

    source.settle(settled(first))
    rest = take(source, 399, settle=True)

    assert sorted(delivery.delivery_id for delivery in first + rest) == sorted(sent)
    assert {delivery.receive_count for delivery in rest} == {1}


def test_a_queue_whose_messages_wait_for_held_ones_is_not_idle(kafka: Mock, open_source: Open) -> None:
    """A save takes longer than the silence that ends the run."""
    topic = kafka.topic()
    sent = kafka.sender.send_all(topic, [(0, a_body()) for _ in range(3)])
    ledger, give_up = Ledger(pause_s=0.5), threading.Event()
    pipeline = Pipeline(
        open_source(topic, call_size=1),
        schemas_of_acme(),
        [ledger],
        limits=PipelineLimits(receive_wait_s=0),
        database=OutageRetry("database", wait_s_max=0.1, stop=give_up),
        broker=OutageRetry("queue", wait_s_max=0.1, stop=give_up),
        give_up=give_up,
    )

    pipeline.run(threading.Event(), until_idle_s=0.3)

    assert ledger.committed == sent


# ── outages ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_broker_that_vanishes_is_an_outage_and_its_return_the_end_of_it(
    kafka: Mock, open_source: Open
) -> None:
    topic = kafka.topic()
    source = open_source(topic, session_s=20)
    kafka.sender.send(topic, b"held", partition=0)
    held = take(source, 1)
    kafka.down()

    with pytest.raises(SourceUnavailable, match="can't be reached") as trouble:
        _until_trouble(source)
    with pytest.raises(SourceUnavailable):
        source.depth()

    assert "SOURCE_URL" not in str(trouble.value)
    source.settle(settled(held))
    kafka.up()
    kafka.sender.send(topic, b"after it", partition=0)
    assert [delivery.body for delivery in take(source, 1)] == [b"after it"]
    wait_until(lambda: books(kafka, topic) == 1, "what was settled meanwhile is in the books")


def test_nothing_is_called_empty_before_kafka_has_said_so(kafka: Mock, open_source: Open) -> None:
    topic = kafka.topic()
    kafka.sender.send(topic, b"there", partition=0)

    assert [delivery.body for delivery in open_source(topic).receive(1, 0)] == [b"there"]


def test_a_member_that_has_lost_its_partitions_has_nothing_to_say_of_them(
    kafka: Mock, open_source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processor.sources.kafka.assignment._ANSWER_S_MAX", 1)
    topic = kafka.topic()
    source = open_source(topic)
    wait_until(lambda: source._member().assignment._assigned, "it is a member")
    member = source._member()
    assert source.receive(1, 1) == []

    # As librdkafka does where the group has gone on without us.
    member._on_lost(cast("Consumer", None), [TopicPartition(topic, 0)])

    with pytest.raises(SourceUnavailable, match="has not given us partitions"):
        source.receive(1, 0)


def test_a_topic_that_is_missing_is_an_outage_until_it_is_made(kafka: Mock, open_source: Open) -> None:
    source = open_source("made-later")
    with pytest.raises(SourceUnavailable, match="no topic made-later"):
        source.receive(1, 0.1)

    kafka.topic(1, "made-later")
    kafka.sender.send("made-later", b"{}", partition=0)

    assert len(take(source, 1)) == 1


def test_a_group_without_offsets_does_not_begin_with_what_may_have_been_stored_and_removed(
    kafka: Mock, open_source: Open
) -> None:
    topic, now_ms = kafka.topic(), int(time.time() * 1000)
    kafka.sender.send(topic, b"old", partition=0, timestamp_ms=now_ms - 60 * DAY_MS)
    kafka.sender.send(topic, b"young", partition=0, timestamp_ms=now_ms)
    source = open_source(topic, group="new", forgotten_before=lambda: days_ago(35))

    with pytest.raises(SettingsError) as refused:
        take(source, 1)

    assert f"the group new has no offset in partition 0 of {topic}" in str(refused.value)
    assert f"--reset-offsets --execute --to-datetime {days_ago(35):%Y-%m-%d}" in str(refused.value)
    assert committed(kafka, topic, "new") < 0


@pytest.mark.parametrize("before", [None, days_ago(61)])
def test_a_group_without_offsets_begins_where_all_is_remembered(
    kafka: Mock, open_source: Open, before: datetime | None
) -> None:
    topic, now_ms = kafka.topic(), int(time.time() * 1000)
    kafka.sender.send(topic, b"old", partition=0, timestamp_ms=now_ms - 60 * DAY_MS)

    [delivery] = take(open_source(topic, forgotten_before=lambda: before), 1)

    assert delivery.body == b"old"


def test_a_group_that_has_been_told_where_to_begin_begins_there(kafka: Mock, open_source: Open) -> None:
    topic, now_ms = kafka.topic(), int(time.time() * 1000)
    for body in (b"0", b"1"):
        kafka.sender.send(topic, body, partition=0, timestamp_ms=now_ms - 60 * DAY_MS)
    with an_onlooker(source_address(kafka.url(topic, "told"))) as admin:
        admin.commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)

    [delivery] = take(open_source(topic, group="told", forgotten_before=lambda: days_ago(35)), 1)

    assert delivery.body == b"1"


def test_a_group_waits_to_begin_until_the_database_says_what_was_removed(
    kafka: Mock, open_source: Open
) -> None:
    topic, away = kafka.topic(), threading.Event()

    def forgotten_before() -> datetime | None:
        if away.is_set():
            raise StoreUnavailable("the database is away")
        return None

    away.set()
    kafka.sender.send(topic, b"x", partition=0)
    source = open_source(topic, forgotten_before=forgotten_before)
    with pytest.raises(SourceUnavailable, match="the database is away"):
        source.receive(1, 10)

    away.clear()

    assert [delivery.body for delivery in take(source, 1)] == [b"x"]


def test_credentials_that_stay_refused_end_the_run_and_are_never_shown(kafka: Mock) -> None:
    """The mock takes no credentials at all."""
    clock = iter(itertools.chain([0.0] * 3, itertools.repeat(400.0)))
    address = source_address(f"kafka://kate:geheim@{kafka.servers}/{kafka.topic()}")
    source = KafkaSource(address, session_s=2, clock=lambda: next(clock))

    with pytest.raises(SourceUnavailable, match="refuses the user") as outage:
        source.receive(1, 1)
    with pytest.raises(SourceFault, match="valid user and password") as fault:
        _until_fault(source)

    source.close()
    assert not any(word in f"{outage.value}{fault.value}" for word in ("kate", "geheim"))


def _until_trouble(source: KafkaSource) -> None:
    give_up_at = time.monotonic() + 20
    while time.monotonic() < give_up_at:
        assert source.receive(1, 0.1) == []


def _until_fault(source: KafkaSource) -> None:
    give_up_at = time.monotonic() + 20
    while time.monotonic() < give_up_at:
        try:
            source.receive(1, 0.1)
        except SourceUnavailable:
            time.sleep(0.02)


def test_offsets_that_could_not_be_written_are_written_again(kafka: Mock, open_source: Open) -> None:
    topic = kafka.topic()
    kafka.sender.send_all(topic, [(0, b"{}")] * 2)
    source = open_source(topic)
    deliveries = take(source, 2)
    # OffsetCommit, refused for a cause that librdkafka does not retry by itself.
    kafka.fail(8, 12, 12)

    source.settle(settled(deliveries))

    wait_until(lambda: books(kafka, topic) == 2, "the offset is written")


def test_a_source_that_is_closed_says_so(kafka: Mock, open_source: Open) -> None:
    source = open_source(kafka.topic())
    assert source.receive(1, 0) == []
    source.close()
    source.close()

    with pytest.raises(SourceUnavailable, match="closed"):
        source.receive(1, 0)


# ── rebalances ────────────────────────────────────────────────────────────────────────────────────────


def test_partitions_that_move_take_what_was_held_with_them_and_settling_it_late_is_harmless(
    kafka: Mock, open_source: Open
) -> None:
    topic = kafka.topic(4)
    sent = kafka.sender.send_all(topic, [(place % 4, str(place).encode()) for place in range(8)])
    first, second = open_source(topic), open_source(topic)
    held = take(first, 8)
    joining = in_background(lambda: take(second, 4))

    def kept() -> set[int]:
        member = first._made
        return set(member.assignment.numbers) if member is not None else set()

    wait_until(lambda: len(kept()) == 2, "half of the partitions have moved")
    joining.join(20)
    moved = [delivery for delivery in held if int(delivery.group or 0) not in kept()]
    first.settle(settled(held))

    assert len(moved) == 4
    for number in range(4):
        expected = 2 if number in kept() else 0
        wait_until(lambda n=number, e=expected: books(kafka, topic, partition=n) == e, "as it is known")  # type: ignore[misc]
    member = second._made
    assert member is not None
    again = [record for part in member.assignment._partitions.values() for record in part.handed.values()]
    assert sorted(record.delivery_id for record in again) == sorted(each.delivery_id for each in moved)
    assert sorted(sent) == sorted(delivery.delivery_id for delivery in held)


def test_partitions_that_are_lost_while_they_are_paused_are_read_when_they_are_had_again(
    kafka: Mock, open_source: Open
) -> None:
    """As after a silence that is longer than a session, with a buffer that is full."""
    heartbeat, unknown_member_id = 12, 25
    topic = kafka.topic(2)
    sent = kafka.sender.send_all(topic, [(place % 2, a_body()) for place in range(100)])
    source = open_source(topic, buffer_size_max=20)
    member = source._member()
    wait_until(lambda: member._paused, "its partitions are paused")

    kafka.fail(heartbeat, unknown_member_id)
    wait_until(lambda: not member.assignment._assigned, "they are lost")

    taken = take(source, 100, settle=True)
    assert sorted(delivery.delivery_id for delivery in taken) == sorted(sent)


def test_partitions_that_move_while_they_are_paused_are_read_when_they_come_back(
    kafka: Mock, open_source: Open
) -> None:
    topic = kafka.topic(2)
    sent = kafka.sender.send_all(topic, [(place % 2, a_body()) for place in range(100)])
    first, second = open_source(topic, buffer_size_max=20), open_source(topic)
    member = first._member()
    wait_until(lambda: member._paused, "its partitions are paused")
    wait_until(lambda: bool(second._member().assignment.numbers), "one of them has moved")
    wait_until(lambda: len(member.assignment.numbers) == 1, "the other is left")

    taken = take(first, 50, settle=True)
    second.close()

    taken += take(first, 50, settle=True)
    assert sorted(delivery.delivery_id for delivery in taken) == sorted(sent)


def test_what_was_held_before_a_partition_was_lost_gives_nothing_back_after_it(
    kafka: Mock, open_source: Open
) -> None:
    topic = kafka.topic()
    kafka.sender.send(topic, b"{}", partition=0)
    source = open_source(topic)
    before = take(source, 1)
    end_membership(source)
    after = take(source, 1)

    source.release(before)

    assert source.receive(1, 0) == []
    source.release(after)
    assert len(source.receive(1, 5)) == 1


def test_a_member_that_leaves_writes_what_is_done_and_the_next_begins_there(
    kafka: Mock, open_source: Open
) -> None:
    topic = kafka.topic()
    kafka.sender.send_all(topic, [(0, str(place).encode()) for place in range(3)])
    first = open_source(topic)
    held = take(first, 3)
    first.settle(settled(held[:2]))
    first.release(held[2:])
    first.close()

    [next_one] = take(open_source(topic), 1)

    assert (next_one.body, next_one.receive_count) == (b"2", 1)
