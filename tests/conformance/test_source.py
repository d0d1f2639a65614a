"""What every Source promises, written once and run against each. A new source is finished when it passes.

What is not settled comes again: at SQS when its visibility timeout ends, at RabbitMQ and Kafka when a
connection does. `Queue.let_go` brings that about for each. What is promised of the time alone is asked of
those that have one.
"""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import psycopg
import pytest
from pika import BasicProperties

from processor.brokers.rabbitmq_ids import attributes_of, delivery_base
from processor.devstack.servers.children import free_port
from processor.devstack.servers.sqs import EmbeddedSqs
from processor.errors import SourceUnavailable
from processor.model import SUSPECT_RECEIVE_COUNT, Delivery, Outcome, Settlement
from processor.settings import Settings
from processor.sources import Source
from processor.sources.kafka.source import KafkaSource
from processor.sources.memory import MemorySource
from processor.sources.quarantine import QuarantineSource, RejectionSelection
from processor.sources.rabbitmq.source import RabbitMqSource
from processor.sources.sqs.source import SqsSource
from processor.wire.formats import Attribute
from processor.wire.hand_overs import base_of
from tests.broker_servers.kafka import Mock, send_with_header
from tests.broker_servers.rabbitmq import RabbitQueue
from tests.builders import a_body
from tests.fixtures.database import Saver, books
from tests.kafka_sources import a_kafka_source, end_membership
from tests.rabbit_sources import a_rabbitmq_source, end_connection, put_too_deep

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

PATIENCE_S = 20


def _time_does_it() -> None:
    pass


@dataclass
class Queue:
    """A source, what puts messages on its queue, and what makes it hand over again what is not settled."""

    source: Source
    send: Callable[[bytes, Mapping[str, Attribute]], str]
    let_go: Callable[[], None] = _time_does_it
    threads: Mapping[str, Callable[[pytest.MonkeyPatch], None]] = field(default_factory=dict)
    """By name, how each thread of the source is made to die of a bug."""
    send_unreadable: Callable[[bytes], None] | None = None
    """Puts a body beside what its driver can't read; None: there is nothing that it can't."""

    def put(self, body: bytes = b"{}", **attributes: Attribute) -> str:
        return self.send(body, attributes)

    def take(self, count: int = 1) -> list[Delivery]:
        """Receive until `count` deliveries have come: one call may give fewer than there are."""
        found: list[Delivery] = []
        give_up_at = time.monotonic() + PATIENCE_S
        while len(found) < count:
            assert time.monotonic() < give_up_at, f"{len(found)} of {count} deliveries came"
            found += self.source.receive(count - len(found), 1)
        return found

    def is_empty(self) -> bool:
        return self.source.receive(10, 0) == []


def name_of(delivery: Delivery) -> str:
    """Give what all hand-overs of one message have in common."""
    return base_of(delivery.delivery_id)


def settled(deliveries: Sequence[Delivery]) -> list[Settlement]:
    return [Settlement(delivery, Outcome.STORED) for delivery in deliveries]


def an_sqs_source(
    queue_url: str,
    endpoint_url: str,
    visibility_timeout_s: int = 60,
    calls_by: Literal["lean", "boto3"] = "lean",
) -> SqsSource:
    environment = Settings(
        sqs_client=calls_by,
        visibility_timeout_s=visibility_timeout_s,
        sqs_queue_url=queue_url,
        aws_endpoint_url=endpoint_url,
        aws_region="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        receive_wait_s=1,
    )
    return SqsSource.open(environment)


def sender(client: "SQSClient", queue_url: str) -> Callable[[bytes, Mapping[str, Attribute]], str]:
    def send(body: bytes, attributes: Mapping[str, Attribute]) -> str:
        named: Any = {
            name: {"DataType": "String", "StringValue": value}
            if isinstance(value, str)
            else {"DataType": "Binary", "BinaryValue": value}
            for name, value in attributes.items()
        }
        sent = client.send_message(QueueUrl=queue_url, MessageBody=body.decode(), MessageAttributes=named)
        return sent["MessageId"]

    return send


TIMED = ["memory", "lean", "boto3"]
"""Sources whose holds end by themselves, after the visibility timeout."""

BOUND_TO_A_CONNECTION = [pytest.param("rabbitmq", marks=pytest.mark.xdist_group("rabbitmq")), "kafka"]
"""Sources whose holds end with a connection, and not before."""


@pytest.fixture(params=[*TIMED, *BOUND_TO_A_CONNECTION])
def queue(request: pytest.FixtureRequest) -> Iterator[Queue]:
    """An empty queue of each kind, with the visibility timeout of the marker where there is one."""
    marker = request.node.get_closest_marker("visibility")
    seconds = marker.args[0] if marker else 60
    yield from _KINDS[request.param](request, seconds)


@pytest.fixture(params=TIMED)
def timed_queue(request: pytest.FixtureRequest) -> Iterator[Queue]:
    """An empty queue of each kind whose holds end after the visibility timeout of the marker."""
    marker = request.node.get_closest_marker("visibility")
    seconds = marker.args[0] if marker else 60
    yield from _KINDS[request.param](request, seconds)


@pytest.fixture(params=BOUND_TO_A_CONNECTION)
def untimed_queue(request: pytest.FixtureRequest) -> Iterator[Queue]:
    """An empty queue of each kind whose holds don't end while its connection lives."""
    yield from _KINDS[request.param](request, 0)


def a_memory_queue(request: pytest.FixtureRequest, visibility_timeout_s: int) -> Iterator[Queue]:
    memory = MemorySource(visibility_timeout_s=visibility_timeout_s)
    yield Queue(memory, memory.send)


def an_sqs_queue(request: pytest.FixtureRequest, visibility_timeout_s: int) -> Iterator[Queue]:
    server: EmbeddedSqs = request.getfixturevalue("sqs_server")
    url: str = request.getfixturevalue("queue_url")
    client = server.client()
    source = an_sqs_source(url, server.endpoint_url, visibility_timeout_s, request.param)
    yield Queue(source, sender(client, url))
    client.close()


def a_rabbitmq_queue(request: pytest.FixtureRequest, visibility_timeout_s: int) -> Iterator[Queue]:
    rabbit: RabbitQueue = request.getfixturevalue("rabbitmq_queue")
    source = a_rabbitmq_source(rabbit)

    def send(body: bytes, attributes: Mapping[str, Attribute]) -> str:
        properties: dict[str, Any] = {"headers": dict(attributes), "timestamp": int(time.time())}
        rabbit.put(body, **properties)
        return delivery_base(attributes_of(BasicProperties(**properties), rabbit.name)[0], body)

    yield Queue(
        source,
        send,
        lambda: end_connection(source),
        {"rabbitmq": lambda patch: kill_link(patch, source)},
        lambda body: put_too_deep(rabbit, body),
    )
    source.close()


def a_kafka_queue(request: pytest.FixtureRequest, visibility_timeout_s: int) -> Iterator[Queue]:
    """Each message goes to a partition of its own: of one, nothing comes while something is held."""
    kafka: Mock = request.getfixturevalue("kafka")
    topic = kafka.topic(64)
    source = a_kafka_source(kafka, topic)
    turn = itertools.count()

    def send(body: bytes, attributes: Mapping[str, Attribute]) -> str:
        return kafka.sender.send(topic, body, attributes, partition=next(turn))

    yield Queue(
        source,
        send,
        lambda: end_membership(source),
        {"kafka": lambda patch: kill_member(patch, source)},
        lambda body: send_with_header(kafka.servers, topic, b"\xff", body),
    )
    source.close()


_KINDS: dict[str, Callable[[pytest.FixtureRequest, int], Iterator[Queue]]] = {
    "memory": a_memory_queue,
    "lean": an_sqs_queue,
    "boto3": an_sqs_queue,
    "rabbitmq": a_rabbitmq_queue,
    "kafka": a_kafka_queue,
}


def kill_link(patch: pytest.MonkeyPatch, source: RabbitMqSource) -> None:
    patch.setattr(source, "_told_to_connect", die)
    end_connection(source)


def kill_member(patch: pytest.MonkeyPatch, source: KafkaSource) -> None:
    patch.setattr(source._member(), "_announce", die)


class Bug(Exception):
    """What nobody has thought of."""


def die(*_: object) -> None:
    raise Bug


# ── receive ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1}',
        b"Hello World",
        b" \t\r\n spaces \n",
        b"<xml attr='&amp;\"'>]]></xml>",
        "\U0001f980 é \u202e \ufeff \u0085".encode(),
        b"%20+%00&Action=DeleteQueue",
        b'"\\u0000\\ud800"',
        b"x" * 250_000,
    ],
)
def test_a_body_comes_byte_for_byte_as_it_was_sent(queue: Queue, body: bytes) -> None:
    queue.put(body)

    [delivery] = queue.take()

    assert delivery.body == body


def test_attributes_of_both_kinds_come_as_they_were_sent(queue: Queue) -> None:
    attributes: dict[str, Attribute] = {
        "tenant_id": "acme",
        "odd": "é\U0001f980 =&",
        "binary": bytes(range(256)),
    }
    queue.put(b"{}", **attributes)

    [delivery] = queue.take()

    assert {name: delivery.attributes[name] for name in attributes} == attributes


def test_a_delivery_says_whence_and_when_it_came(queue: Queue) -> None:
    sent_id = queue.put()

    [delivery] = queue.take()

    now = datetime.now(UTC)
    assert name_of(delivery) == sent_id
    assert delivery.queue
    assert "/" not in delivery.queue
    assert delivery.receive_count == 1
    assert delivery.rejection_id is None
    assert now - timedelta(minutes=1) < delivery.sent_at <= now + timedelta(seconds=1)
    assert now - timedelta(minutes=1) < delivery.received_at <= now


def test_no_more_comes_than_was_asked_for(queue: Queue) -> None:
    for _ in range(5):
        queue.put()

    assert len(queue.source.receive(2, 1)) <= 2
    assert len(queue.source.receive(1, 1)) == 1


def test_everything_that_was_sent_comes(queue: Queue) -> None:
    sent = [queue.put(str(place).encode()) for place in range(25)]

    taken = queue.take(25)

    assert Counter(name_of(delivery) for delivery in taken) == Counter(sent)
    assert queue.is_empty()


def test_an_empty_queue_gives_an_empty_list_after_the_wait(queue: Queue) -> None:
    began = time.monotonic()

    assert queue.source.receive(10, 1) == []

    assert time.monotonic() - began > 0.8


def test_a_wait_ends_with_the_first_message(queue: Queue) -> None:
    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(queue.source.receive, 10, 20)
        sent_id = queue.put()

        # Before its wait is over.
        [delivery] = received.result(PATIENCE_S / 2)

    assert name_of(delivery) == sent_id


# ── ours for a while ──────────────────────────────────────────────────────────────────────────────────


def test_what_is_held_is_not_handed_over_again(queue: Queue) -> None:
    queue.put()
    queue.take()

    assert queue.is_empty()


@pytest.mark.visibility(2)
def test_what_is_not_settled_comes_again_with_the_same_id_and_a_higher_count(queue: Queue) -> None:
    queue.put(b"body", tenant_id="acme")
    [first] = queue.take()
    queue.let_go()

    [second] = queue.take()

    assert (second.queue, name_of(second)) == (first.queue, name_of(first))
    assert (second.body, second.attributes, second.sent_at) == (first.body, first.attributes, first.sent_at)
    # Who is not told how often it came says that it is suspect.
    assert (first.receive_count, second.receive_count) == (1, SUSPECT_RECEIVE_COUNT if second.repeated else 2)


@pytest.mark.visibility(2)
def test_what_is_extended_stays_ours_beyond_the_timeout(timed_queue: Queue) -> None:
    timed_queue.put(b"kept")
    timed_queue.put(b"let go")
    [kept] = [delivery for delivery in timed_queue.take(2) if delivery.body == b"kept"]
    again: list[Delivery] = []
    give_up_at = time.monotonic() + PATIENCE_S

    while not again and time.monotonic() < give_up_at:
        timed_queue.source.extend([kept])
        again = timed_queue.source.receive(10, 0)

    assert [delivery.body for delivery in again] == [b"let go"]


def test_what_is_held_for_a_shorter_time_comes_again_sooner_unless_it_is_extended(timed_queue: Queue) -> None:
    for body in (b"held", b"extended", b"short"):
        timed_queue.put(body)
    deliveries = {delivery.body: delivery for delivery in timed_queue.take(3)}

    timed_queue.source.hold_for([deliveries[b"extended"], deliveries[b"short"]], 1)
    timed_queue.source.extend([deliveries[b"extended"]])

    [again] = timed_queue.take()
    assert (again.body, again.receive_count) == (b"short", 2)
    assert timed_queue.is_empty()


def test_what_no_clock_takes_away_stays_ours_until_the_connection_ends(untimed_queue: Queue) -> None:
    untimed_queue.put(b"held")
    held = untimed_queue.take()
    untimed_queue.source.hold_for(held, 0)
    untimed_queue.source.extend(held)
    assert untimed_queue.is_empty()

    untimed_queue.let_go()

    assert [delivery.body for delivery in untimed_queue.take()] == [b"held"]


def test_what_is_released_comes_again_at_once(queue: Queue) -> None:
    queue.put(b"released")
    queue.put(b"held")
    [released] = [delivery for delivery in queue.take(2) if delivery.body == b"released"]

    queue.source.release([released])

    [again] = queue.take()
    assert name_of(again) == name_of(released)
    assert again.receive_count == (SUSPECT_RECEIVE_COUNT if again.repeated else 2)
    assert queue.is_empty()


def test_extending_and_releasing_what_is_gone_is_harmless(queue: Queue) -> None:
    gone, there = queue.put(b"a: gone"), queue.put(b"b: there")
    deliveries = sorted(queue.take(2), key=lambda delivery: delivery.body)
    queue.source.settle(settled(deliveries[:1]))

    queue.source.extend(deliveries)
    queue.source.release(deliveries)

    assert [name_of(delivery) for delivery in queue.take()] == [there]
    assert gone != there
    assert queue.is_empty()


# ── settle ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.visibility(2)
def test_what_is_settled_never_comes_again(queue: Queue) -> None:
    queue.put(b"settled")
    queue.put(b"not settled")
    deliveries = queue.take(2)

    queue.source.settle(settled([delivery for delivery in deliveries if delivery.body == b"settled"]))
    queue.let_go()

    assert [delivery.body for delivery in queue.take()] == [b"not settled"]
    assert queue.is_empty()


def test_many_are_settled_at_once(queue: Queue) -> None:
    for _ in range(23):
        queue.put()
    deliveries = queue.take(23)

    queue.source.settle(settled(deliveries))

    queue.source.release(deliveries)
    assert queue.is_empty()


def test_settling_nothing_settles_nothing(queue: Queue) -> None:
    queue.put()

    queue.source.settle([])
    queue.source.extend([])
    queue.source.release([])

    assert len(queue.take()) == 1


def test_settling_twice_is_harmless(queue: Queue) -> None:
    queue.put(b"twice")
    queue.put(b"once")
    deliveries = queue.take(2)
    twice = settled([delivery for delivery in deliveries if delivery.body == b"twice"])
    queue.source.settle(twice)

    queue.source.settle(twice + twice + settled(deliveries))

    queue.source.release(deliveries)
    assert queue.is_empty()


@pytest.mark.visibility(2)
def test_settling_by_an_older_receipt_is_harmless(queue: Queue) -> None:
    queue.put()
    [first] = queue.take()
    queue.let_go()
    [second] = queue.take()

    queue.source.settle(settled([first]))
    queue.source.settle(settled([second, first]))

    queue.source.release([first, second])
    assert queue.is_empty()


def test_several_threads_share_one_source(queue: Queue) -> None:
    sent = {queue.put(str(place).encode()) for place in range(40)}
    taken: list[str] = []
    lock = threading.Lock()

    def work() -> None:
        give_up_at = time.monotonic() + PATIENCE_S
        while len(taken) < len(sent) and time.monotonic() < give_up_at:
            deliveries = queue.source.receive(4, 0)
            queue.source.extend(deliveries)
            queue.source.settle(settled(deliveries))
            with lock:
                taken.extend(name_of(delivery) for delivery in deliveries)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work) for _ in range(4)]:
            done.result(PATIENCE_S * 2)

    assert sorted(taken) == sorted(sent)
    assert queue.is_empty()


# ── what a delivery is, and how often it came ─────────────────────────────────────────────────────────


def test_equal_messages_are_two_deliveries(queue: Queue, saver: Saver, db: psycopg.Connection[Any]) -> None:
    for _ in range(2):
        queue.put(a_body(id="e1"), region="eu")

    taken = queue.take(2)

    assert len({delivery.key for delivery in taken}) == 2
    assert not any(delivery.repeated for delivery in taken)
    assert saver.outcomes(*taken) == ["stored", "duplicate"]
    assert books(db) == {"message": 1, "duplicate": 1, "rejection": 0}


@pytest.mark.visibility(2)
@pytest.mark.parametrize("body", [a_body(id="e1"), a_body(id=None), b"no JSON"])
def test_what_was_saved_and_not_settled_is_known_when_it_comes_again(
    queue: Queue, saver: Saver, db: psycopg.Connection[Any], body: bytes
) -> None:
    queue.put(body)
    saver.save(*queue.take())
    before = books(db)
    queue.let_go()

    outcomes = saver.outcomes(*queue.take())

    assert outcomes == ["redelivered"]
    assert books(db) == before
    assert sum(before.values()) == 1


def test_no_number_that_a_sender_writes_is_a_count_of_the_brokers(
    queue: Queue, saver: Saver, db: psycopg.Connection[Any]
) -> None:
    for number in ("2147483648", "10"):
        queue.put(
            a_body(),
            **{"x-delivery-count": number, "ApproximateReceiveCount": number, "attempts": number},
        )

    taken = queue.take(2)

    assert [delivery.receive_count for delivery in taken] == [1, 1]
    assert saver.outcomes(*taken) == ["stored"] * 2


def test_what_can_not_be_read_is_a_rejection_and_the_next_message_comes(
    queue: Queue, saver: Saver, db: psycopg.Connection[Any]
) -> None:
    if queue.send_unreadable is None:
        pytest.skip("its driver reads whatever there is")
    queue.send_unreadable(a_body(id="unreadable"))
    queue.put(a_body(id="next"))

    outcomes: dict[bool, str] = {}
    while len(outcomes) < 2:
        for delivery in queue.take():
            [settlement] = saver.save(delivery)
            outcomes[delivery.fault is None] = settlement.reason or settlement.outcome
            queue.source.settle([settlement])

    assert outcomes == {False: "envelope_invalid", True: "stored"}
    [(detail, body)] = db.execute("SELECT detail, body FROM rejection").fetchall()
    assert detail["message"] == detail["fault"]
    assert bytes(body) == a_body(id="unreadable")
    [replayed] = QuarantineSource(db, RejectionSelection()).receive(10, 0)
    assert saver.outcomes(replayed) == ["envelope_invalid"]
    assert queue.is_empty()


# ── outages, which only a queue over a network has ────────────────────────────────────────────────────


def _everything_raises(source: SqsSource) -> None:
    delivery = Delivery("events", "1", b"", "receipt", 1, datetime.now(UTC), datetime.now(UTC))
    calls: list[Callable[[], object]] = [
        lambda: source.receive(10, 0),
        lambda: source.settle(settled([delivery])),
        lambda: source.extend([delivery]),
        lambda: source.release([delivery]),
        source.depth,
        source.depth_with_dead_letters,
    ]
    for call in calls:
        with pytest.raises(SourceUnavailable, match="SQS"):
            call()


def test_a_queue_that_cannot_be_reached_is_an_outage_and_no_empty_list() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"

    _everything_raises(an_sqs_source(f"{nowhere}/000000000000/events", nowhere))


def test_a_queue_that_does_not_exist_is_an_outage_and_no_empty_list(sqs_server: EmbeddedSqs) -> None:
    _everything_raises(an_sqs_source(sqs_server.queue_url("nowhere"), sqs_server.endpoint_url))


def test_a_server_that_stops_is_an_outage_and_its_return_the_end_of_it() -> None:
    with EmbeddedSqs(None) as server:
        url, port = server.create_queue("events"), server.port
        source = an_sqs_source(url, server.endpoint_url)
        assert source.receive(10, 0) == []
        server.stop()

        _everything_raises(source)

    with EmbeddedSqs(None, port=port) as server:
        server.create_queue("events")
        assert source.receive(10, 0) == []


def test_depth_counts_what_is_visible_and_what_is_held(sqs_server: EmbeddedSqs, queue_url: str) -> None:
    client = sqs_server.client()
    source = an_sqs_source(queue_url, sqs_server.endpoint_url)
    queue = Queue(source, sender(client, queue_url))
    for _ in range(3):
        queue.put()
    queue.take()
    client.send_message(QueueUrl=queue_url, MessageBody="{}", DelaySeconds=60)
    client.send_message(QueueUrl=f"{queue_url}-dlq", MessageBody="{}")

    assert source.depth() == {"visible": 2, "in_flight": 1, "delayed": 1}
    assert source.depth_with_dead_letters()["dead_lettered"] == 1
    client.close()


# ── threads ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_thread_that_has_died_is_no_outage_and_is_told(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage is waited for; nobody would ever end this one."""
    queue.put()
    held = queue.take()
    for name, kill in queue.threads.items():
        died: list[threading.ExceptHookArgs] = []
        monkeypatch.setattr(threading, "excepthook", died.append)

        kill(monkeypatch)

        give_up_at = time.monotonic() + PATIENCE_S
        while not died:
            assert time.monotonic() < give_up_at, f"{name} did not die"
            time.sleep(0.01)
        assert [(args.thread and args.thread.name, args.exc_type) for args in died] == [(name, Bug)]
        with pytest.raises(RuntimeError, match="has died of a bug"):
            queue.source.receive(1, 5)
        with pytest.raises(RuntimeError, match="has died of a bug"):
            queue.source.settle(settled(held))


def test_a_source_has_no_thread_whose_death_is_not_tried(queue: Queue) -> None:
    queue.put()
    queue.take()

    started = {thread.name for thread in threading.enumerate() if is_of_a_source(thread)}

    assert started <= set(queue.threads)


def is_of_a_source(thread: Any) -> bool:
    module = getattr(getattr(thread, "_target", None), "__module__", None) or ""
    return module.startswith(("processor.sources", "processor.kafka", "processor.amqp"))
