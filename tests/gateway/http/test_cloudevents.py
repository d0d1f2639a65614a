"""From the CloudEvents SDK to a row: real keys, a real queue, and the processor behind it."""

import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from cloudevents.core.bindings import http as core
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1 import conversion as old
from cloudevents.v1.http import CloudEvent as OldCloudEvent

from processor.devstack.servers.sqs import EmbeddedSqs
from processor.operations import registry
from processor.pipeline.pipeline import once
from processor.settings import Settings
from processor.sources.sqs.source import SqsSource
from tests.fixtures.database import Saver
from tests.gateway.http.rig import JSON, Gateway, a_gateway, a_pulse
from tests.rig import wait_until

Db = psycopg.Connection[Any]
Sent = tuple[dict[str, str], bytes]

EXTENSIONS = {"payload": "p", "producer": "till", "dataref": "https://a.example/b", "tenantid": "acme"}


@pytest.fixture
def gateway(settings: Settings, db: Db, sqs_server: EmbeddedSqs) -> Iterator[Gateway]:
    """A gateway that asks for keys, and whose client shows acme's."""
    registry.publish_schema(db, "free", {})
    registry.publish_schema(db, "pulse", {"type": "object", "required": ["product_sku"]})
    _, key = registry.add_key(db, "acme")
    with a_gateway(settings, sqs_server) as gateway:
        gateway.client.headers["authorization"] = f"Bearer {key}"
        wait_until(lambda: gateway.client.get("/readyz").status_code == 200, "the keys are known")
        yield gateway


@pytest.fixture
def rows(sqs_server: EmbeddedSqs, queue_url: str, saver: Saver, db: Db) -> Callable[[], list[Any]]:
    """Let the processor take all that is on the queue, and give the rows with what was a duplicate."""
    source = SqsSource(sqs_server.client(), queue_url, queue_url.rpartition("/")[2], visibility_timeout_s=60)

    def take() -> list[Any]:
        while sum(source.depth().values()):
            once(source, saver.schemas, saver.store, limit=10, wait_s=0)
        assert db.execute("SELECT reason, detail FROM rejection").fetchall() == []
        return db.execute(
            "SELECT message_id, producer, event_type, payload, context FROM message ORDER BY message_id"
        ).fetchall()

    return take


def _binary(event: dict[str, Any], data: Any) -> Sent:
    made = core.to_binary_event(CloudEvent(attributes=event | {"specversion": "1.0"}, data=data))
    return dict(made.headers), made.body


def _structured(event: dict[str, Any], data: Any) -> Sent:
    made = core.to_structured_event(CloudEvent(attributes=event | {"specversion": "1.0"}, data=data))
    return dict(made.headers), made.body


def _old_binary(event: dict[str, Any], data: Any) -> Sent:
    headers, body = old.to_binary(OldCloudEvent(event, data))
    return dict(headers), body


def _old_structured(event: dict[str, Any], data: Any) -> Sent:
    headers, body = old.to_structured(OldCloudEvent(event, data))
    return dict(headers), body


@pytest.mark.parametrize("send_as", [_binary, _structured, _old_binary, _old_structured])
@pytest.mark.parametrize("packed", [False, True])
def test_an_event_of_the_sdk_is_one_row_however_often_it_comes(
    gateway: Gateway, rows: Callable[[], list[Any]], send_as: Callable[..., Sent], packed: bool
) -> None:
    attributes = {"id": "e-1", "source": "/shop", "type": "free", "datacontenttype": "application/json; v=2"}
    headers, body = send_as(attributes | EXTENSIONS, {"n": 1})
    if packed:
        headers, body = headers | {"content-encoding": "gzip"}, gzip.compress(body)

    answers = [gateway.client.post("/v1/events", content=body, headers=headers) for _ in range(2)]

    [(message_id, producer, event_type, payload, context)] = rows()
    assert [answer.status_code for answer in answers] == [202, 202], answers[0].text
    assert (message_id, producer, event_type, payload) == ("e-1", "/shop", "free", {"n": 1})
    expected = EXTENSIONS | {"datacontenttype": "application/json; v=2"}
    assert {name: context.get(name) for name in expected} == expected | {"tenantid": None}


def test_what_names_no_tenant_is_the_keys_whatever_its_format(
    gateway: Gateway, rows: Callable[[], list[Any]], db: Db
) -> None:
    sent: list[tuple[str, Any, dict[str, str]]] = [
        ("/ingest", a_pulse(tenant_id=None, id="pulse"), JSON),
        ("/v1/events", {"id": "native", "event_type": "free", "payload": {"n": 1}}, JSON),
        ("/v1/events", {"n": 1}, JSON | {"x-event-type": "free", "x-message-id": "bare"}),
        ("/v1/events", {"n": 1}, _binary({"id": "binary", "source": "/s", "type": "free"}, {"n": 1})[0]),
        (
            "/v1/events",
            {"specversion": "1.0", "id": "structured", "source": "/s", "type": "free", "data": {"n": 1}},
            {"content-type": "application/cloudevents+json"},
        ),
    ]
    answers = [
        gateway.client.post(path, content=json.dumps(body), headers=headers) for path, body, headers in sent
    ]
    other = gateway.post("/v1/events", {"n": 1}, x_event_type="free", x_tenant_id="globex")

    assert [answer.status_code for answer in answers] == [202] * 5
    assert other.status_code == 403
    assert [row[0] for row in rows()] == ["bare", "binary", "native", "pulse", "structured"]
    assert db.execute("SELECT DISTINCT tenant_id FROM message").fetchall() == [("acme",)]
    [(tenant_id,)] = db.execute("SELECT payload ->> 'tenant_id' FROM message WHERE message_id = 'pulse'")
    assert tenant_id == "acme"
