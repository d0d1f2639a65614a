"""Over gRPC, too: what stands beside a body is used or refused, and what is packed is unpacked."""

import gzip
from collections.abc import Iterator
from typing import Any

import grpc
import psycopg
import pytest

from processor.operations import registry
from processor.settings import Settings
from processor.sources.sqs.source import SqsSource
from producers.gateway.items import Caller, Refusal
from producers.protos import ingest_pb2 as pb
from tests.fixtures.database import Saver
from tests.gateway.grpc import test_journey as journey
from tests.gateway.grpc.parts import METHODS, Door, Loop, PlainKeys, a_raw, answer_of
from tests.gateway.grpc.test_journey import a_gateway, process_all

Db = psycopg.Connection[Any]

settings, source = journey.settings, journey.source
"""The fixtures of the journey."""

BODY = b'{"n": 1}'
PULSE = b'{"product_sku": "vm", "used_amount": 1.5, "use_unity": "GB"}'
BINARY = {"ce-specversion": "1.0", "ce-id": "binary", "ce-source": "/s", "ce-type": "free"}


class OfAcme(PlainKeys):
    """Takes everybody for a client of acme."""

    async def caller(self, authorization: str | None) -> Caller | Refusal:  # noqa: ARG002 - not asked for
        return Caller("acme")


@pytest.fixture
def door(settings: Settings, db: Db) -> Iterator[Door]:
    registry.publish_schema(db, "free", {})
    registry.publish_schema(db, "pulse", {})
    with Loop() as loop, a_gateway(loop, settings, OfAcme()) as door:
        yield door


@pytest.mark.parametrize("method", METHODS)
def test_a_call_may_be_compressed(door: Door, saver: Saver, source: SqsSource, db: Db, method: str) -> None:
    answer_of(door, method, [a_raw(PULSE)], compression=grpc.Compression.Gzip)
    process_all(source, saver)

    assert db.execute("SELECT tenant_id, event_type FROM message").fetchall() == [("acme", "pulse")]


def test_what_stands_beside_a_body_is_used_and_without_a_tenant_it_is_the_keys(
    door: Door, saver: Saver, source: SqsSource, db: Db
) -> None:
    event = pb.Event(event_type="free", payload_json_bytes=BODY, id="field", extensions={"region": "eu"})
    requests = [
        pb.IngestRequest(event=event, idempotency_key="k"),
        a_raw(BODY, event_type="free", message_id="bare"),
        a_raw(BODY, **BINARY),
        a_raw(gzip.compress(BODY), event_type="free", message_id="packed", **{"content-encoding": "gzip"}),
        a_raw(b"\xef\xbb\xbf" + PULSE.replace(b"{", b'{"id": "marked", ')),
        a_raw(
            b'{"id": "own", "event_type": "free", "payload": 1}',
            **{"amqp.timestamp": "never", "region": "eu"},
        ),
        a_raw(b'{"id": "o", "event_type": "free", "payload": 1}', message_id="another"),
    ]
    [reply] = answer_of(door, "IngestBatch", requests)
    process_all(source, saver)

    refused = reply.results[6].refusal
    assert "'another' and 'o'" in refused.detail
    rows = db.execute("SELECT message_id, tenant_id, producer, context FROM message ORDER BY 1").fetchall()
    assert rows == [
        ("bare", "acme", "", None),
        ("binary", "acme", "/s", None),
        ("field", "acme", "", {"region": "eu", "idempotency_key": "k"}),
        ("marked", "acme", "", None),
        ("own", "acme", "", {"amqp.timestamp#2": "never", "region": "eu"}),
        ("packed", "acme", "", None),
    ]


def test_a_bomb_is_refused(door: Door) -> None:
    bomb = gzip.compress(b"[" + b" " * 50_000_000 + b"]")
    [reply] = answer_of(door, "IngestBatch", [a_raw(bomb, event_type="free", **{"content-encoding": "gzip"})])

    assert pb.Code.Name(reply.results[0].refusal.code) == "CODE_TOO_LARGE"
