"""From a gRPC call to a row: real keys, a real queue, the processor's own pipeline, and the books."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from processor.devstack.servers.children import free_port
from processor.devstack.servers.sqs import CREDENTIAL, REGION, EmbeddedSqs
from processor.errors import SettingsError, SourceUnavailable
from processor.operations import registry
from processor.operations.audit import audit
from processor.pipeline.pipeline import once
from processor.settings import Settings
from processor.sources.sqs.source import SqsSource
from processor.wire.manifest import ManifestWriter
from producers.fake.messages import FakePlan, fake_messages
from producers.gateway.intake import QueueIntake
from producers.gateway.items import Keys
from producers.gateway.opening import open_intake, open_keys
from producers.protos import ingest_pb2 as pb
from producers.publishers import UNAVAILABLE, Answer, CallFailed
from producers.publishers.grpc import GrpcPublisher as Sender
from producers.publishers.outgoing import Outgoing
from producers.publishers.publish import AcceptedMessage, PublishRun, RefusedMessage
from tests.fixtures.database import Saver, books, count
from tests.gateway.grpc.parts import (
    WAIT_S,
    Door,
    Loop,
    PlainKeys,
    a_door,
    a_raw,
    an_event,
    answer_of,
    refusal_of,
    streamed,
)
from tests.rig import wait_until

Db = psycopg.Connection[Any]
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


@pytest.fixture
def settings(sqs_server: EmbeddedSqs, queue_url: str, database_url: str) -> Settings:
    return Settings.load(**settings_of(sqs_server, queue_url), database_url=database_url)


def settings_of(server: EmbeddedSqs, queue_url: str) -> dict[str, Any]:
    return {
        "sqs_queue_url": queue_url,
        "aws_endpoint_url": server.endpoint_url,
        "aws_region": REGION,
        "aws_access_key_id": CREDENTIAL,
        "aws_secret_access_key": CREDENTIAL,
        "gateway_keys_every_s": 0.1,
        "gateway_timeout_s": 2,
    }


@contextmanager
def a_gateway(loop: Loop, settings: Settings, keys: Keys | None = None, **bounds: Any) -> Iterator[Door]:
    """The door before the real intake; with keys of the database unless others are given."""
    intake, known = open_intake(settings), None if keys is not None else open_keys(settings)
    loop.run(intake.start())
    if known is not None:
        loop.run(known.start())
    try:
        with a_door(loop, intake, keys or known, **bounds) as door:
            yield door
    finally:
        loop.run(close(intake))
        if known is not None:
            loop.run(known.close())


async def close(intake: QueueIntake) -> None:
    await intake.close()


@pytest.fixture
def source(sqs_server: EmbeddedSqs, queue_url: str) -> SqsSource:
    name = queue_url.rpartition("/")[2]
    return SqsSource(sqs_server.client(), queue_url, name, visibility_timeout_s=60)


def process_all(source: SqsSource, saver: Saver) -> None:
    """Run the pipeline until the queue is empty."""
    while sum(source.depth().values()):
        once(source, saver.schemas, saver.store, limit=10, wait_s=0)


def test_an_event_becomes_a_row_with_every_digit_by_each_method(
    loop: Loop, settings: Settings, db: Db, saver: Saver, source: SqsSource
) -> None:
    _, key = registry.add_key(db, "acme")
    metadata = [("authorization", f"Bearer {key}"), ("traceparent", TRACE)]
    total = "12.50000000000000000000000000010"
    event = pb.Event(
        producer="shop",
        occurred_at=Timestamp(seconds=1_795_000_000, nanos=123_456_000),
        extensions={f"extension{n}": str(n) for n in range(12)},
    )

    with a_gateway(loop, settings) as door:
        wait_until(lambda: door.health() == "SERVING", "the keys are known", wait_s=WAIT_S)
        for number, method in enumerate(("Ingest", "IngestBatch", "IngestStream", "IngestUpload")):
            sent = an_event(number, payload=f'{{"total": {total}}}')
            sent.event.MergeFrom(event)
            answer_of(door, method, [sent], metadata=metadata)
        answer_of(door, "Ingest", [a_native("o-4", total)], metadata=metadata)
        answer_of(door, "Ingest", [a_cloudevent("o-5", total)], metadata=metadata)
    process_all(source, saver)

    query = "SELECT message_id, payload::text, producer, occurred_at, context FROM message ORDER BY 1"
    rows = db.execute(query).fetchall()
    moment = datetime.fromtimestamp(1_795_000_000, UTC).replace(microsecond=123_456)
    assert [row[0] for row in rows] == [f"o-{n}" for n in range(6)]
    assert {row[1] for row in rows} == {f'{{"total": {total}}}'}
    assert {row[2:4] for row in rows[:4]} == {("shop", moment)}
    extensions = {f"extension{n}": str(n) for n in range(12)}
    assert all(row[4] == extensions | {"traceparent": TRACE} for row in rows[:4])
    assert rows[4][4] == {"traceparent": TRACE}


def a_native(message_id: str, total: str) -> pb.IngestRequest:
    head = f'{{"id": "{message_id}", "tenant_id": "acme", "event_type": "order.created"'
    return a_raw(f'{head}, "payload": {{"total": {total}}}}}'.encode())


def a_cloudevent(message_id: str, total: str) -> pb.IngestRequest:
    head = f'{{"specversion": "1.0", "id": "{message_id}", "source": "shop", "type": "order.created"'
    return a_raw(f'{head}, "tenantid": "acme", "data": {{"total": {total}}}}}'.encode())


def test_an_event_that_is_sent_again_by_its_key_is_a_duplicate(
    loop: Loop, settings: Settings, db: Db, saver: Saver, source: SqsSource
) -> None:
    event = an_event()
    event.event.id = ""

    with a_gateway(loop, settings, PlainKeys()) as door:
        answers = [
            answer_of(door, "Ingest", [event], metadata=[("idempotency-key", "k-1")])[0] for _ in range(2)
        ]
        made = answer_of(door, "Ingest", [event])[0]
    process_all(source, saver)

    assert [answer.taken.message_id for answer in answers] == ["k-1", "k-1"]
    assert answers[0].taken.delivery_id != answers[1].taken.delivery_id
    assert made.taken.made_id
    assert books(db) == {"message": 2, "duplicate": 1, "rejection": 0}


@pytest.mark.parametrize("method", ["IngestBatch", "IngestStream", "IngestUpload"])
def test_a_bad_event_fails_alone(
    loop: Loop, settings: Settings, db: Db, saver: Saver, source: SqsSource, method: str
) -> None:
    bad = {
        1: (a_raw(b"no json"), pb.CODE_MALFORMED),
        2: (an_event(payload="{"), pb.CODE_MALFORMED),
        3: (pb.IngestRequest(event=pb.Event(payload_json_bytes=b"\xff")), pb.CODE_MALFORMED),
        4: (an_event(id="x" * 257), pb.CODE_INVALID),
        5: (an_event(tenant="globex"), pb.CODE_FORBIDDEN),
        6: (an_event(payload=json.dumps("x" * 200_000)), pb.CODE_TOO_LARGE),
        7: (an_event(occurred_at_text="yesterday"), pb.CODE_INVALID),
        8: (an_event(schema_version=2**32 - 1), pb.CODE_INVALID),
        9: (an_event(extensions={"payload": "1"}), pb.CODE_INVALID),
        10: (an_event(payload='{"total": 1}, "tenant_id": "globex"'), pb.CODE_MALFORMED),
    }
    sent = [bad[n][0] if n in bad else an_event(n) for n in range(12)]
    settings = settings.model_copy(update={"body_bytes_max": 100_000})

    with a_gateway(loop, settings, OfAcme()) as door:
        answers = answer_of(door, method, sent)
    process_all(source, saver)

    results = {
        place: result
        for reply in answers
        for place, result in (
            [(one.sequence, one.result) for one in reply.results]
            if method == "IngestStream"
            else enumerate(reply.results)
        )
    }
    assert {place: results[place].refusal.code for place in bad} == {n: bad[n][1] for n in bad}
    assert [results[place].taken.message_id for place in (0, 11)] == ["o-0", "o-11"]
    assert results[4].refusal.errors[0].pointer == "/id"
    assert books(db) == {"message": 2, "duplicate": 0, "rejection": 0}


class OfAcme(PlainKeys):
    """Everybody is acme."""

    def __init__(self) -> None:
        super().__init__("secret")

    async def caller(self, _authorization: str | None) -> Any:
        return await super().caller("secret")


def test_a_long_stream_is_stored_to_the_last_event(
    loop: Loop, settings: Settings, sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    number = 1500

    with a_gateway(loop, settings, PlainKeys()) as door:
        replies = door.stub.IngestStream(streamed(an_event(n) for n in range(number)), timeout=WAIT_S)
        results = {one.sequence: one.result.taken for reply in replies for one in reply.results}

    asked = sqs_server.client().get_queue_attributes(QueueUrl=queue_url, AttributeNames=["All"])
    assert [results[place].message_id for place in range(number)] == [f"o-{n}" for n in range(number)]
    assert len({taken.delivery_id for taken in results.values()}) == number
    assert asked["Attributes"]["ApproximateNumberOfMessages"] == str(number)


def test_a_stream_that_dies_has_put_on_the_queue_all_that_it_was_answered(
    loop: Loop, settings: Settings, db: Db, saver: Saver, source: SqsSource
) -> None:
    with a_gateway(loop, settings, PlainKeys()) as door:
        replies = door.stub.IngestStream(streamed(an_event(n) for n in range(2000)), timeout=WAIT_S)
        answered = {one.result.taken.message_id for _ in range(5) for one in next(replies).results}
        door.channel.close()
        wait_until(lambda: door.server.service.places.taken == 0, "it is gone", wait_s=WAIT_S)
    process_all(source, saver)

    rows = {row[0] for row in db.execute("SELECT message_id FROM message")}
    assert answered
    assert answered <= rows
    assert count(db, "message") < 2000


def test_without_the_queue_nothing_is_taken_and_what_was_taken_is_kept(tmp_path: Path, loop: Loop) -> None:
    server = EmbeddedSqs(tmp_path, port=free_port())
    server.start()
    try:
        queue_url = server.create_queue("events")
        settings = Settings.load(**settings_of(server, queue_url), gateway_keys="off")
        with a_gateway(loop, settings.model_copy(update={"gateway_timeout_s": 4})) as door:
            [before] = answer_of(door, "IngestBatch", [an_event(n) for n in range(20)])
            server.stop()
            with pytest.raises(grpc.RpcError) as refused:
                answer_of(door, "Ingest", [an_event(20)])
            [while_away] = answer_of(door, "IngestUpload", [an_event(n) for n in range(21, 30)])
            failed = a_sender(door).send({0: an_outgoing(29), 1: an_outgoing(30)})
            wait_until(lambda: door.health() == "NOT_SERVING", "the queue is missed", wait_s=WAIT_S)
            server.start()
            answer_of(door, "Ingest", [an_event(31)])
        asked = server.client().get_queue_attributes(QueueUrl=queue_url, AttributeNames=["All"])
    finally:
        server.stop()

    assert [result.taken.message_id for result in before.results] == [f"o-{n}" for n in range(20)]
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    assert refusal_of(refused.value).code == pb.CODE_UNAVAILABLE
    assert {result.refusal.code for result in while_away.results} == {pb.CODE_UNAVAILABLE}
    assert {code for code, _ in failed.again.values()} == {UNAVAILABLE}
    assert asked["Attributes"]["ApproximateNumberOfMessages"] == "21"


# ── the publisher ─────────────────────────────────────────────────────────────────────────────────────


def a_sender(door: Door, key: str | None = None) -> Sender:
    return Sender(door.target, key)


def an_outgoing(number: int) -> Outgoing:
    return Outgoing(
        f'{{"id": "o-{number}", "tenant_id": "acme", "event_type": "order.created", "payload": {{}}}}'
    )


def test_what_fake_producers_send_by_grpc_is_audited_whole(
    loop: Loop, settings: Settings, db: Db, saver: Saver, source: SqsSource, tmp_path: Path
) -> None:
    manifest = tmp_path / "manifest.jsonl"
    tenants = ("acme", "globex")
    plan = FakePlan(300, 7, tenants, 0.2, 0.1, datetime.now(UTC), counter=False)

    with a_gateway(loop, settings, PlainKeys()) as door, ManifestWriter(manifest) as writer:
        sender = a_sender(door)
        receipts = list(PublishRun(sender, writer, wait_s_max=0.1).publish(fake_messages(plan)))
        sender.close()
    process_all(source, saver)

    report = audit(db, [manifest], source.depth_with_dead_letters)
    refused = {receipt.code for receipt in receipts if isinstance(receipt, RefusedMessage)}
    accepted = [receipt for receipt in receipts if isinstance(receipt, AcceptedMessage)]
    assert report.holds, report.text()
    assert len(receipts) >= plan.events
    assert refused <= {"malformed", "invalid", "too_large"}
    assert len(accepted) == sum(books(db).values())


def test_attributes_travel_beside_the_body_and_make_it_a_payload(
    loop: Loop, settings: Settings, db: Db, saver: Saver, source: SqsSource
) -> None:
    attributes = {"tenant_id": "acme", "event_type": "order.created", "message_id": "o-1", "region": "eu"}

    with a_gateway(loop, settings, PlainKeys()) as door:
        answer = a_sender(door).send({3: Outgoing('{"total": 1.10}', attributes)})
    process_all(source, saver)

    query = "SELECT message_id, payload::text, context, delivery_id FROM message"
    assert db.execute(query).fetchall() == [("o-1", '{"total": 1.10}', {"region": "eu"}, answer.accepted[3])]


def test_the_publisher_tells_refusals_from_outages(loop: Loop, settings: Settings) -> None:
    with a_gateway(loop, settings, OfAcme(), message_bytes_max=20_000) as door:
        batch = {0: an_outgoing(0), 4: Outgoing("no json"), 9: Outgoing("\ud800")}
        answer = a_sender(door).send(batch)
        with pytest.raises(CallFailed) as too_large:
            a_sender(door).send({0: an_outgoing(0), 1: Outgoing("x" * 30_000)})

    assert list(answer.accepted) == [0]
    assert {index: code for index, (code, _) in answer.refused.items()} == {4: "malformed", 9: "malformed"}
    assert not too_large.value.outage


def test_a_full_gateway_and_one_that_is_away_are_outages(loop: Loop, settings: Settings) -> None:
    with a_gateway(loop, settings, PlainKeys(), calls_max=0) as door:
        with pytest.raises(CallFailed) as full:
            a_sender(door).send({0: an_outgoing(0)})
        target = door.target
    with pytest.raises(SourceUnavailable) as away:
        list(PublishRun(Sender(target, None), outage_s_max=0).publish([an_outgoing(0)]))

    assert (full.value.outage, full.value.code, full.value.wait_s) == (True, "over_quota", 1.0)
    assert target in str(away.value)


def test_a_key_that_is_not_known_is_a_setting_to_mend(loop: Loop, settings: Settings, db: Db) -> None:
    _, key = registry.add_key(db, "acme")

    with a_gateway(loop, settings) as door:
        wait_until(lambda: door.health() == "SERVING", "the keys are known", wait_s=WAIT_S)
        answer = a_sender(door, key).send({0: an_outgoing(0)})
        with pytest.raises(SettingsError, match="GATEWAY_KEY") as refused:
            a_sender(door, f"{key[:-1]}.").send({0: an_outgoing(0)})

    assert isinstance(answer, Answer)
    assert list(answer.accepted) == [0]
    assert key[:-1] not in str(refused.value)


@pytest.mark.parametrize("target", ["", "gateway", "grpc://gateway:1", "gateway:x", "user:pw@gateway:1"])
def test_what_is_no_address_is_refused_at_once(target: str) -> None:
    with pytest.raises(SettingsError, match="HOST:PORT"):
        Sender(target, None)
