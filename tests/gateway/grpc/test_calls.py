"""What each method of the gRPC gateway makes of a call, and how a refusal looks."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from producers.gateway.items import Item, Refusal, Why
from producers.protos import ingest_pb2 as pb
from tests.gateway.grpc.parts import (
    METHODS,
    WAIT_S,
    Loop,
    PlainIntake,
    PlainKeys,
    a_door,
    a_raw,
    an_event,
    answer_of,
    refusal_of,
    streamed,
    trailing_of,
)


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


def test_an_event_goes_in_and_its_ids_come_back(loop: Loop) -> None:
    intake = PlainIntake()

    with a_door(loop, intake) as door:
        reply = door.stub.Ingest(an_event(7), timeout=WAIT_S)

    named = {"tenant_id": "acme", "event_type": "order.created", "message_id": "o-7"}
    assert reply == pb.IngestReply(taken=pb.Taken(message_id="o-7", delivery_id="d-0"))
    assert intake.items == [Item(b'{"total": 12.50}', named)]


def test_the_bytes_of_each_message_are_charged(loop: Loop) -> None:
    intake, event = PlainIntake(), an_event(7)
    batch = pb.IngestBatchRequest(items=[event])

    with a_door(loop, intake) as door:
        door.stub.Ingest(event, timeout=WAIT_S)
        door.stub.IngestBatch(batch, timeout=WAIT_S)
        list(door.stub.IngestStream(streamed(iter([event] * 3)), timeout=WAIT_S))
        door.stub.IngestUpload(streamed(iter([event] * 3)), timeout=WAIT_S)

    # A message of a stream is written as one of a batch.
    assert intake.charged_bytes == event.ByteSize() + 7 * batch.ByteSize()


def test_a_stream_answers_each_event_by_its_place(loop: Loop) -> None:
    intake = PlainIntake(lambda item: Refusal(Why.MALFORMED, "no") if item.body == b"x" else None)
    sent = [an_event(0), a_raw(b"x"), an_event(2)]

    with a_door(loop, intake) as door:
        replies = list(door.stub.IngestStream(streamed(iter(sent)), timeout=WAIT_S))

    found = {one.sequence: one.result for reply in replies for one in reply.results}
    assert len(found) == len(sent)
    assert found[0].taken.message_id == "o-0"
    assert found[1].refusal.code == pb.CODE_MALFORMED
    assert found[2].taken.message_id == "o-2"


def test_a_message_of_a_stream_may_have_several_events(loop: Loop) -> None:
    with a_door(loop, PlainIntake()) as door:
        replies = door.stub.IngestStream(streamed((an_event(n) for n in range(1000)), 90), timeout=WAIT_S)
        found = {one.sequence: one.result.taken.message_id for reply in replies for one in reply.results}

    assert found == {n: f"o-{n}" for n in range(1000)}


def test_an_upload_answers_all_events_at_once_in_order(loop: Loop) -> None:
    with a_door(loop, PlainIntake()) as door:
        reply = door.stub.IngestUpload(streamed(an_event(n) for n in range(1000)), timeout=WAIT_S)

    assert [result.taken.message_id for result in reply.results] == [f"o-{n}" for n in range(1000)]
    assert not reply.ended_early


def test_a_batch_answers_each_event_in_order(loop: Loop) -> None:
    sent = [an_event(0), pb.IngestRequest(), an_event(2)]

    with a_door(loop, PlainIntake()) as door:
        reply = door.stub.IngestBatch(pb.IngestBatchRequest(items=sent), timeout=WAIT_S)

    assert [result.WhichOneof("outcome") for result in reply.results] == ["taken", "refusal", "taken"]


def test_every_field_of_an_event_goes_along_with_all_its_digits(loop: Loop) -> None:
    intake = PlainIntake()
    payload = '{"amount": 0.10000000000000000000000000001, "n": 1.0}'
    event = pb.Event(
        tenant_id="acme",
        event_type="order.created",
        id="o-1",
        producer="shop",
        occurred_at=Timestamp(seconds=1_795_000_000, nanos=123_456_789),
        schema_version=3,
        payload_json=payload,
        extensions={"region": "eu", "subject": "x"},
    )

    with a_door(loop, intake) as door:
        door.stub.Ingest(pb.IngestRequest(event=event), timeout=WAIT_S)

    moment = datetime.fromtimestamp(1_795_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S.123456789Z")
    named = {"tenant_id": "acme", "event_type": "order.created", "message_id": "o-1", "producer": "shop"}
    others = {"occurred_at": moment, "schema_version": "3", "region": "eu", "subject": "x"}
    assert intake.items == [Item(payload.encode(), named | others)]


def test_a_moment_as_text_and_a_payload_as_bytes_go_along_as_they_are(loop: Loop) -> None:
    intake = PlainIntake()
    event = pb.Event(payload_json_bytes=b"\xff", occurred_at_text="2026-11-22T10:00:00.5+01:00")

    with a_door(loop, intake) as door:
        door.stub.Ingest(pb.IngestRequest(event=event), timeout=WAIT_S)

    named = {"tenant_id": "", "event_type": "", "occurred_at": "2026-11-22T10:00:00.5+01:00"}
    assert intake.items == [Item(b"\xff", named)]


@pytest.mark.parametrize("raw", [pb.Raw(body=b"{}"), pb.Raw(text="{}")])
def test_a_whole_body_goes_along_as_it_is(loop: Loop, raw: pb.Raw) -> None:
    intake = PlainIntake()
    raw.attributes["tenant_id"] = "acme"

    with a_door(loop, intake) as door:
        door.stub.Ingest(pb.IngestRequest(raw=raw), timeout=WAIT_S)

    assert intake.items == [Item(b"{}", {"tenant_id": "acme"})]


@pytest.mark.parametrize(
    ("request_", "pointer"),
    [
        (pb.IngestRequest(), "/item"),
        (pb.IngestRequest(event=pb.Event(tenant_id="acme", event_type="x")), "/payload"),
        (an_event(occurred_at=Timestamp(seconds=10**12)), "/occurred_at"),
        (an_event(occurred_at=Timestamp(nanos=-1)), "/occurred_at"),
        (an_event(extensions={"tenant_id": "globex"}), "/extensions/tenant_id"),
        (an_event(extensions={"specversion": "1.0"}), "/extensions/specversion"),
    ],
)
def test_a_field_that_is_missing_or_wrong_is_pointed_at(
    loop: Loop, request_: pb.IngestRequest, pointer: str
) -> None:
    intake = PlainIntake()

    with a_door(loop, intake) as door, pytest.raises(grpc.RpcError) as refused:
        door.stub.Ingest(request_, timeout=WAIT_S)

    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert [error.pointer for error in refusal_of(refused.value).errors] == [pointer]
    assert not intake.items


def test_the_intakes_pointers_name_the_fields_of_the_event(loop: Loop) -> None:
    fault = {"pointer": "/message_id", "rule": "string_too_long", "message": "too long"}
    intake = PlainIntake(lambda _item: Refusal(Why.INVALID, "message_id: too long", (fault,)))

    with a_door(loop, intake) as door:
        sent = pb.IngestBatchRequest(items=[an_event(), a_raw(b"1", message_id="x")])
        reply = door.stub.IngestBatch(sent, timeout=WAIT_S)

    pointers = [result.refusal.errors[0].pointer for result in reply.results]
    assert pointers == ["/id", "/message_id"]


@pytest.mark.parametrize(
    ("metadata", "own", "expected"),
    [
        ((), "", [None, None]),
        ((("idempotency-key", "k"),), "", ["k:0", "k:1"]),
        ((("idempotency-key", "k"),), "own", ["own", "own"]),
    ],
)
@pytest.mark.parametrize("method", METHODS[1:])
def test_an_idempotency_key_is_told_apart_by_place(
    loop: Loop, method: str, metadata: Any, own: str, expected: list[str | None]
) -> None:
    intake = PlainIntake()
    sent = [pb.IngestRequest(raw=pb.Raw(body=b"{}"), idempotency_key=own) for _ in range(2)]

    with a_door(loop, intake) as door:
        answer_of(door, method, sent, metadata=metadata)

    assert [item.message_id for item in intake.items] == expected


def test_one_events_idempotency_key_is_its_id_as_it_is(loop: Loop) -> None:
    intake = PlainIntake()

    with a_door(loop, intake) as door:
        reply = door.stub.Ingest(a_raw(b"{}"), timeout=WAIT_S, metadata=[("idempotency-key", "k")])

    assert intake.items[0].message_id == "k"
    assert reply.taken == pb.Taken(message_id="k", delivery_id="d-0")


@pytest.mark.parametrize(
    "metadata", [[("idempotency-key", "")], [("idempotency-key", "a"), ("idempotency-key", "b")]]
)
def test_an_idempotency_key_that_is_none_is_refused(loop: Loop, metadata: Any) -> None:
    intake = PlainIntake()

    with a_door(loop, intake) as door, pytest.raises(grpc.RpcError) as refused:
        door.stub.Ingest(a_raw(b"{}"), timeout=WAIT_S, metadata=metadata)

    assert refusal_of(refused.value).code == pb.CODE_MALFORMED
    assert not intake.items


def test_the_trace_context_travels_as_metadata(loop: Loop) -> None:
    intake = PlainIntake()
    trace = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "a=1,b=2"}

    with a_door(loop, intake, PlainKeys("secret")) as door:
        metadata = [*trace.items(), ("x-api-key", "secret")]
        door.stub.Ingest(an_event(), timeout=WAIT_S, metadata=metadata)

    assert [(caller.tenant_id, caller.trace) for caller in intake.callers] == [("acme", trace)]


@pytest.mark.parametrize("method", METHODS)
def test_without_a_key_that_is_known_nothing_is_read(loop: Loop, method: str) -> None:
    intake = PlainIntake()

    with a_door(loop, intake, PlainKeys("secret")) as door, pytest.raises(grpc.RpcError) as refused:
        answer_of(door, method, [an_event()], metadata=[("authorization", "Bearer other")])

    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert not intake.items


@pytest.mark.parametrize(
    ("why", "status"),
    [
        (Why.MALFORMED, "INVALID_ARGUMENT"),
        (Why.UNAUTHENTICATED, "UNAUTHENTICATED"),
        (Why.FORBIDDEN, "PERMISSION_DENIED"),
        (Why.TOO_LARGE, "RESOURCE_EXHAUSTED"),
        (Why.INVALID, "INVALID_ARGUMENT"),
        (Why.OVER_QUOTA, "RESOURCE_EXHAUSTED"),
        (Why.UNAVAILABLE, "UNAVAILABLE"),
    ],
)
def test_each_refusal_has_its_status_and_all_of_itself_beside_it(loop: Loop, why: Why, status: str) -> None:
    intake = PlainIntake(lambda _item: Refusal(why, "so it is", retry_after_s=3))

    with a_door(loop, intake) as door, pytest.raises(grpc.RpcError) as refused:
        door.stub.Ingest(an_event(), timeout=WAIT_S)

    trailing = trailing_of(refused.value)
    assert refused.value.code().name == status
    assert refused.value.details() == "so it is"
    assert trailing["refusal-code"] == why.word
    assert trailing["retry-after"] == "3"
    assert trailing["grpc-retry-pushback-ms"] == "3000"
    said = pb.Refusal(code=f"CODE_{why.name}", detail="so it is", retry_after_s=3)
    assert refusal_of(refused.value) == said


def test_a_refusal_with_many_faults_fits_into_metadata(loop: Loop) -> None:
    faults = tuple({"pointer": f"/{n}", "rule": "r", "message": "€" * 500} for n in range(50))
    intake = PlainIntake(lambda _item: Refusal(Why.INVALID, "€\ud800\n" * 1000, faults))

    with a_door(loop, intake) as door, pytest.raises(grpc.RpcError) as refused:
        door.stub.Ingest(an_event(), timeout=WAIT_S)

    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert refusal_of(refused.value).errors[0].pointer == "/0"


def test_a_batch_of_faults_has_a_result_for_each_that_a_client_takes(loop: Loop) -> None:
    faults = tuple({"pointer": f"/{n}", "rule": "r", "message": "€" * 500} for n in range(50))
    intake = PlainIntake(lambda _item: Refusal(Why.INVALID, "€" * 5000, faults))
    sent = pb.IngestBatchRequest(items=[a_raw(b"{}")] * 5000)

    with a_door(loop, intake, items_max=5000) as door:
        reply = door.stub.IngestBatch(sent, timeout=WAIT_S)

    assert len(reply.results) == 5000
