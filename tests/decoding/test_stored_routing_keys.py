"""Tests that routing keys apply by the current setting, and that rejections keep the original delivery."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from processor.database.connection import connect
from processor.model import Delivery
from processor.operations import registry
from processor.runtime.outages import OutageRetry
from processor.settings import Settings
from processor.sources.quarantine import QuarantineSource, RejectionSelection
from processor.store.store import Store
from processor.wiring import make_schemas
from tests.broker_servers.rabbitmq import RabbitQueue
from tests.builders import a_body
from tests.fixtures.database import Saver, books
from tests.rabbit_sources import a_rabbitmq_source

pytestmark = pytest.mark.xdist_group("rabbitmq")
Db = psycopg.Connection[Any]

KEY = "created.of.u1"
BODY = b'{"id": "o-1", "total": 1}'


def a_routing_saver(database_url: str, queue: RabbitQueue, tenant_id: str | None) -> Saver:
    """A saver with the settings of a process."""
    settings = Settings.load(
        _env_file=None,
        source_url=queue.source_url,
        routing_key=None if tenant_id is None else "<event_type>.of.<user_id>",
        routing_key_tenant=tenant_id,
    )
    schemas = make_schemas(settings)
    retry = OutageRetry("database", wait_s_max=0.2, stop=threading.Event())
    store = Store(lambda: connect(database_url, timeout_s=20), schemas, retry, timeout_s=20)
    store.load_registry()
    return Saver(schemas, store)


@pytest.fixture
def exchange(rabbitmq_queue: RabbitQueue) -> str:
    name = f"exchange-{rabbitmq_queue.name}"
    rabbitmq_queue.channel.exchange_declare(name, "topic", auto_delete=True)
    rabbitmq_queue.channel.queue_bind(rabbitmq_queue.name, name, "#")
    return name


@pytest.fixture
def received(rabbitmq_queue: RabbitQueue) -> Iterator[Callable[[], list[Delivery]]]:
    """Receives all deliveries; its connection is open until the test ends."""
    source = a_rabbitmq_source(rabbitmq_queue)
    yield lambda: source.receive(10, 10)
    source.close()


def test_a_replay_uses_the_corrected_tenant_setting(
    rabbitmq_queue: RabbitQueue,
    received: Callable[[], list[Delivery]],
    exchange: str,
    database_url: str,
    db: Db,
) -> None:
    registry.publish_schema(db, "created", {"type": "object"})
    rabbitmq_queue.put(BODY, exchange=exchange, routing_key=KEY, headers={"routing_key": "forged"})
    mistaken = a_routing_saver(database_url, rabbitmq_queue, "typo")

    assert mistaken.outcomes(*received()) == ["unknown_tenant"]
    [(body, attributes, whose)] = db.execute("SELECT body, attributes, tenant_id FROM rejection").fetchall()
    kept = {"routing_key": KEY, "routing_key#2": "forged"}
    assert (bytes(body), attributes, whose) == (BODY, kept, "typo")

    mended = a_routing_saver(database_url, rabbitmq_queue, "acme")
    assert mended.outcomes(*QuarantineSource(db, RejectionSelection()).receive(10, 0)) == ["stored"]
    assert db.execute("SELECT tenant_id, message_id, payload FROM message").fetchall() == [
        ("acme", "o-1", {"total": 1, "user_id": "u1"})
    ]
    mistaken.close()
    mended.close()


@pytest.mark.parametrize("key", ["created", "created.of", "x.y.z"])
def test_a_rejection_for_its_key_is_replayed_once_keys_are_not_used(
    rabbitmq_queue: RabbitQueue,
    received: Callable[[], list[Delivery]],
    exchange: str,
    database_url: str,
    db: Db,
    key: str,
) -> None:
    rabbitmq_queue.put(a_body(), exchange=exchange, routing_key=key)
    routing = a_routing_saver(database_url, rabbitmq_queue, "acme")

    assert routing.outcomes(*received()) == ["envelope_invalid"]
    [(words, attributes)] = db.execute("SELECT detail ->> 'message', attributes FROM rejection").fetchall()
    assert words == "the routing key does not match ROUTING_KEY (<event_type>.of.<user_id>)"
    assert attributes == {"routing_key": key}

    plain = a_routing_saver(database_url, rabbitmq_queue, None)
    assert plain.outcomes(*QuarantineSource(db, RejectionSelection()).receive(10, 0)) == ["stored"]
    assert books(db)["message"] == 1
    routing.close()
    plain.close()


def test_no_body_is_decoded_before_validation(
    rabbitmq_queue: RabbitQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body that kills or hangs a worker is covered by the receive limit, but not on the broker's thread."""
    readers: set[str] = set()
    for place in ("processor.decoding.routing_keys.read", "processor.wire.formats.read"):
        monkeypatch.setattr(place, lambda *_: readers.add(threading.current_thread().name))
    rabbitmq_queue.put(BODY)
    source = a_rabbitmq_source(rabbitmq_queue, routing_key="<event_type>", routing_key_tenant="acme")

    [delivery] = source.receive(10, 10)

    assert delivery.body == BODY
    assert readers == set()
    source.close()
