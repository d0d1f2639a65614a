"""Routing keys are judged with everything else, by the setting of today, and what is kept is what came."""

import json
import threading
from typing import Any

import psycopg
import pytest

from processor.connection import connect
from processor.patience import Patience
from processor.settings import Settings
from processor.sources.quarantine import QuarantineSource, Selection
from processor.store import Store
from processor.wiring import make_schemas
from tests.brokers.rabbitmq import RabbitQueue
from tests.fix_database import Saver, books
from tests.rabbit_sources import a_rabbitmq_source

pytestmark = pytest.mark.xdist_group("rabbitmq")
Db = psycopg.Connection[Any]

BODY = b'{"id": "o-1", "total": 1}'


def a_routing_saver(database_url: str, queue: RabbitQueue, tenant_id: str | None) -> Saver:
    """A saver as a process has it whose settings say so."""
    settings = Settings.load(
        _env_file=None,
        source_url=queue.source_url,
        routing_key=None if tenant_id is None else "<event_type>.of.<user_id>",
        routing_key_tenant=tenant_id,
    )
    schemas = make_schemas(settings)
    patience = Patience("database", wait_s_max=0.2, stop=threading.Event())
    store = Store(lambda: connect(database_url, timeout_s=20), schemas, patience, timeout_s=20)
    store.load_registry()
    return Saver(schemas, store)


@pytest.fixture
def exchange(rabbitmq_queue: RabbitQueue, db: Db) -> str:
    name = f"exchange-{rabbitmq_queue.name}"
    rabbitmq_queue.channel.exchange_declare(name, "topic", auto_delete=True)
    rabbitmq_queue.channel.queue_bind(rabbitmq_queue.name, name, "#")
    db.execute("SELECT 1")
    return name


def test_a_mistaken_tenant_is_no_part_of_what_is_kept_and_a_replay_takes_the_mended_one(
    rabbitmq_queue: RabbitQueue, exchange: str, database_url: str, db: Db
) -> None:
    rabbitmq_queue.put(
        BODY, exchange=exchange, routing_key="created.of.u1", headers={"routing_key": "forged"}
    )
    source = a_rabbitmq_source(
        rabbitmq_queue, routing_key="<event_type>.of.<user_id>", routing_key_tenant="typo"
    )
    mistaken = a_routing_saver(database_url, rabbitmq_queue, "typo")
    deliveries = source.receive(10, 10)
    source.close()

    assert mistaken.outcomes(*deliveries) == ["unknown_tenant"]
    [(body, attributes, tenant_id)] = db.execute(
        "SELECT body, attributes, tenant_id FROM rejection"
    ).fetchall()
    assert (bytes(body), attributes, tenant_id) == (BODY, {"routing_key": "created.of.u1"}, "typo")

    mended = a_routing_saver(database_url, rabbitmq_queue, "acme")
    db.execute("INSERT INTO event_type (event_type) VALUES ('created') ON CONFLICT DO NOTHING")
    from processor import registry

    registry.publish_schema(db, "created", {"type": "object"})
    [replayed] = QuarantineSource(db, Selection()).receive(10, 0)
    assert mended.outcomes(replayed) == ["stored"]
    assert db.execute("SELECT tenant_id, message_id, payload FROM message").fetchall() == [
        ("acme", "o-1", {"total": 1, "user_id": "u1"})
    ]
    mistaken.close()
    mended.close()


@pytest.mark.parametrize("key", ["created", "created.of", "x.y.z"])
def test_a_key_that_does_not_fit_is_rejected_as_it_came_and_taken_when_it_is_not_asked_any_more(
    rabbitmq_queue: RabbitQueue, exchange: str, database_url: str, db: Db, key: str
) -> None:
    body = json.dumps(
        {"id": "o-1", "tenant_id": "acme", "event_type": "order.created", "payload": {"total": 1}}
    )
    rabbitmq_queue.put(body.encode(), exchange=exchange, routing_key=key)
    source = a_rabbitmq_source(rabbitmq_queue)
    routing = a_routing_saver(database_url, rabbitmq_queue, "acme")
    deliveries = source.receive(10, 10)
    source.close()

    assert routing.outcomes(*deliveries) == ["envelope_invalid"]
    [(detail, attributes)] = db.execute("SELECT detail ->> 'message', attributes FROM rejection").fetchall()
    assert detail == "the routing key does not fit ROUTING_KEY (<event_type>.of.<user_id>)"
    assert attributes == {"routing_key": key}

    plain = a_routing_saver(database_url, rabbitmq_queue, None)
    assert plain.outcomes(*QuarantineSource(db, Selection()).receive(10, 0)) == ["stored"]
    assert books(db)["message"] == 1
    routing.close()
    plain.close()


def test_no_body_is_read_on_the_thread_that_talks_to_the_broker(
    rabbitmq_queue: RabbitQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What kills or hangs its reader there is in front of the receive limit, and takes its neighbours along."""
    readers: set[str] = set()

    def noted(*arguments: Any, **more: Any) -> Any:
        readers.add(threading.current_thread().name)
        raise AssertionError

    for place in ("processor.routing_keys.read", "processor.wire.read"):
        monkeypatch.setattr(place, noted)
    rabbitmq_queue.put(BODY)
    source = a_rabbitmq_source(rabbitmq_queue, routing_key="<event_type>", routing_key_tenant="acme")

    [delivery] = source.receive(10, 10)

    assert delivery.body == BODY
    assert readers == set()
    source.close()
