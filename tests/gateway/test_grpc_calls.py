"""What each method of the gRPC door answers, and how a refusal looks."""

from collections.abc import Iterator

import grpc
import pytest

from producers.gateway.items import Item, Refusal, Why
from producers.gateway.protos import ingest_pb2 as pb
from tests.gateway.grpc_parts import WAIT_S, Loop, PlainIntake, PlainKeys, a_door, a_raw, an_event


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


def test_an_event_goes_in_and_its_ids_come_back(loop: Loop) -> None:
    intake = PlainIntake()

    with a_door(loop, intake) as door:
        reply = door.stub.Ingest(an_event(7), timeout=WAIT_S)

    assert reply == pb.IngestReply(taken=pb.Taken(message_id="o-7", delivery_id="d-0"))
    assert intake.items == [
        Item(b'{"total": 12.50}', {"tenant_id": "acme", "event_type": "order.created", "message_id": "o-7"})
    ]


def test_a_stream_answers_each_event_by_its_place(loop: Loop) -> None:
    intake = PlainIntake(lambda item: Refusal(Why.MALFORMED, "no") if item.body == b"x" else None)

    with a_door(loop, intake) as door:
        replies = list(door.stub.IngestStream(iter([an_event(0), a_raw(b"x"), an_event(2)]), timeout=WAIT_S))

    found = {one.sequence: one.result for reply in replies for one in reply.results}
    assert found[0].taken.message_id == "o-0"
    assert found[1].refusal.code == pb.CODE_MALFORMED
    assert found[2].taken.message_id == "o-2"
    assert len(found) == 3


def test_an_upload_answers_all_events_at_once_in_order(loop: Loop) -> None:
    with a_door(loop, PlainIntake()) as door:
        reply = door.stub.IngestUpload((an_event(n) for n in range(1000)), timeout=WAIT_S)

    assert [result.taken.message_id for result in reply.results] == [f"o-{n}" for n in range(1000)]
    assert not reply.ended_early


def test_a_batch_answers_each_event_in_order(loop: Loop) -> None:
    with a_door(loop, PlainIntake()) as door:
        reply = door.stub.IngestBatch(
            pb.IngestBatchRequest(items=[an_event(0), pb.IngestRequest(), an_event(2)]), timeout=WAIT_S
        )

    assert [result.WhichOneof("outcome") for result in reply.results] == ["taken", "refusal", "taken"]


def test_without_a_key_that_is_known_nothing_is_read(loop: Loop) -> None:
    intake = PlainIntake()

    with (
        a_door(loop, intake, PlainKeys("secret")) as door,
        pytest.raises(grpc.RpcError) as refused,
    ):
        door.stub.Ingest(an_event(), timeout=WAIT_S, metadata=[("authorization", "Bearer other")])

    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert not intake.items
