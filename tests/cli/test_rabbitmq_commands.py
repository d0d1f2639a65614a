"""What people ask about a queue of RabbitMQ: check, audit, dlq, and the producers' way in."""

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from processor.check import Finding
from processor.check.exposure import require_unguessable
from processor.devstack.servers.children import free_port
from processor.errors import SettingsError
from processor.settings import Settings
from processor.wire.hand_overs import base_of
from processor.wiring.commands import list_dead_letters, run_audit, run_check
from processor.wiring.sources import open_source
from producers.publishers import CallFailed
from producers.publishers.outgoing import Outgoing
from producers.publishers.rabbitmq import AmqpPublisher
from tests.broker_servers.rabbitmq import RabbitQueue
from tests.conformance.test_source import settled
from tests.fixtures.check import problems
from tests.rabbit_sources import a_rabbitmq_source
from tests.sources.test_rabbitmq import take

pytestmark = [pytest.mark.xdist_group("rabbitmq"), pytest.mark.usefixtures("nothing_is_set")]


def check(source_url: str, **more: Any) -> dict[str, Finding]:
    found = run_check(Settings.load(_env_file=None, source_url=source_url, **more))
    return {finding.what: finding for finding in found if finding.what != "database"}


# ── check ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_queue_that_is_there_is_fine_and_what_cannot_be_told_is_said(rabbitmq_queue: RabbitQueue) -> None:
    rabbitmq_queue.put(message_id="m")

    findings = check(rabbitmq_queue.source_url)
    forgetful = check(rabbitmq_queue.source_url, key_retention_days=27)

    assert problems(findings) == set()
    assert findings["key retention"].advice is None
    assert "KEY_RETENTION_DAYS to 28" in str(forgetful["key retention"].advice)
    assert findings["backlog"].found.startswith("1 ready, 0 consumer(s)")
    assert "list_queues" in (findings["queue type"].advice or "")
    assert rabbitmq_queue.depth() == 1, "looking takes nothing"


def test_a_queue_that_is_missing_is_a_problem_with_what_to_do(rabbitmq_queue: RabbitQueue) -> None:
    found = check(f"{rabbitmq_queue.url}?queue=nowhere")["queue"]

    assert not found.fine
    assert not found.unreachable
    assert "has no queue 'nowhere'" in found.found
    assert "x-queue-type" in (found.advice or "")


@pytest.mark.parametrize(
    ("login", "vhost", "words"),
    [("guest:hunter2", "", "refuses the user"), ("guest:guest", "nowhere", "refuses the vhost")],
)
def test_a_login_that_is_refused_is_a_problem_and_no_outage(
    rabbitmq_queue: RabbitQueue, login: str, vhost: str, words: str
) -> None:
    broker = rabbitmq_queue.url.rpartition("@")[2].partition("/")[0]

    found = check(f"amqp://{login}@{broker}/{vhost}?queue=events")["queue"]

    assert words in found.found
    assert not found.fine
    assert not found.unreachable
    assert "hunter2" not in str(found)


def test_a_broker_that_is_away_is_unreachable() -> None:
    assert check(f"amqp://127.0.0.1:{free_port()}/?queue=events")["queue"].unreachable


def test_a_receive_count_beyond_rabbitmqs_own_limit_is_a_problem(rabbitmq_queue: RabbitQueue) -> None:
    assert problems(check(rabbitmq_queue.source_url, receive_count_max=20)) == {"max receive count"}


@pytest.mark.parametrize(
    "url",
    [
        "amqp://10.0.0.1/?queue=q",
        "amqps://a:a@mq/?queue=q",
        "amqp://a:guest@mq/?queue=q",
        "kafka://a:test@k/t",
    ],
)
def test_a_password_that_everybody_knows_goes_to_no_other_machine(url: str) -> None:
    with pytest.raises(SettingsError, match="SOURCE_URL names another host with a well-known password"):
        require_unguessable(
            Settings.load(_env_file=None, source_url=url, database_url="postgresql://127.0.0.1/x")
        )


@pytest.mark.parametrize(
    "url",
    ["amqp://127.0.0.1/?queue=q", "amqp://a:k7-Rz@mq/?queue=q", "kafka://k/t", "amqp://localhost/?queue=q"],
)
def test_any_other_is_no_trouble(url: str) -> None:
    require_unguessable(
        Settings.load(_env_file=None, source_url=url, database_url="postgresql://127.0.0.1/x")
    )


# ── audit, dlq, and settings that make no sense ───────────────────────────────────────────────────────


def test_the_audit_counts_what_waits_and_takes_nothing(
    rabbitmq_queue: RabbitQueue, database_url: str, db: psycopg.Connection[Any]
) -> None:
    for place in range(3):
        rabbitmq_queue.put(message_id=str(place))

    report = run_audit(
        Settings.load(_env_file=None, source_url=rabbitmq_queue.source_url, database_url=database_url), []
    )

    assert report.queued == {"visible": 3, "in_flight": 0}
    assert rabbitmq_queue.depth() == 3


def test_dead_letter_queues_of_sqs_are_said_to_be_sqss() -> None:
    settings = Settings.load(_env_file=None, source_url="amqp://127.0.0.1/?queue=q")

    with pytest.raises(SettingsError, match="name that queue in SOURCE_URL"):
        list_dead_letters(settings, limit=1, unread=False)


def test_a_routing_key_is_nothing_to_another_broker() -> None:
    settings = Settings.load(
        _env_file=None,
        sqs_queue_url="http://127.0.0.1:1/1/q",
        routing_key="<event_type>",
        routing_key_tenant="acme",
    )

    with pytest.raises(SettingsError, match="only RabbitMQ has routing keys"):
        open_source(settings, list, threading.Event())


# ── the producers' door ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def publisher(rabbitmq_queue: RabbitQueue) -> Iterator[AmqpPublisher]:
    publisher = AmqpPublisher(rabbitmq_queue.source_url)
    yield publisher
    publisher.close()


def test_the_door_names_deliveries_as_the_source_does(
    rabbitmq_queue: RabbitQueue, publisher: AmqpPublisher
) -> None:
    batch = {
        0: Outgoing('{"a": "é"}', {"tenant_id": "acme"}, message_id="m1"),
        3: Outgoing("\ud800 no text", message_id="x" * 300),
        4: Outgoing("{}", message_id=None),
    }

    answer = publisher.send(batch)

    source = a_rabbitmq_source(rabbitmq_queue)
    taken = take(source, 3)
    assert answer.accepted.keys() == batch.keys()
    assert sorted(base_of(delivery.delivery_id) for delivery in taken) == sorted(answer.accepted.values())
    source.settle(settled(taken))
    source.close()


def test_what_amqp_has_no_room_for_is_refused_and_its_neighbours_are_not(publisher: AmqpPublisher) -> None:
    batch = {
        0: Outgoing("{}", {"n" * 300: "v"}),
        1: Outgoing("{}", {"n": "v" * 200_000}),
        2: Outgoing("{}", {"n": "v"}),
    }

    answer = publisher.send(batch)

    assert answer.refused.keys() == {0, 1}
    assert answer.accepted.keys() == {2}


def test_several_threads_send_at_once(rabbitmq_queue: RabbitQueue, publisher: AmqpPublisher) -> None:
    accepted: list[str] = []

    def send() -> None:
        for _ in range(5):
            accepted.extend(publisher.send({0: Outgoing("{}"), 1: Outgoing("{}")}).accepted.values())

    threads = [threading.Thread(target=send, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert len(set(accepted)) == 40
    assert rabbitmq_queue.depth() == 40


def test_a_queue_that_is_missing_is_no_outage(rabbitmq_queue: RabbitQueue) -> None:
    publisher = AmqpPublisher(f"{rabbitmq_queue.url}?queue=nowhere")

    with pytest.raises(SettingsError, match="has no queue"):
        publisher.send({0: Outgoing("{}")})
    publisher.close()


def test_a_broker_that_is_away_is_an_outage_and_a_wrong_password_is_none(rabbitmq_queue: RabbitQueue) -> None:
    broker = rabbitmq_queue.url.rpartition("@")[2].partition("/")[0]

    with pytest.raises(CallFailed) as raised:
        AmqpPublisher(f"amqp://127.0.0.1:{free_port()}/?queue=q").send({0: Outgoing("{}")})
    with pytest.raises(SettingsError, match="refuses the user"):
        AmqpPublisher(f"amqp://guest:hunter2@{broker}/?queue=q").send({0: Outgoing("{}")})

    assert raised.value.outage


def test_a_full_queue_takes_more_later(rabbitmq_queue: RabbitQueue) -> None:
    full = RabbitQueue(rabbitmq_queue.url, f"{rabbitmq_queue.name}-full", "classic")
    full.make(**{"x-max-length": 1, "x-overflow": "reject-publish"})
    publisher = AmqpPublisher(full.source_url)

    answer = publisher.send({place: Outgoing("{}") for place in range(4)})

    assert answer.accepted
    assert answer.again
    assert not answer.refused
    publisher.close()
    full.close()
