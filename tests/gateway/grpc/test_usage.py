"""Clients of UsageService, of whichever package and with whichever kind of number, reach the table."""

import json
from collections.abc import Iterator
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from processor.operations import registry
from processor.settings import Settings
from processor.sources.sqs.source import SqsSource
from producers.gateway.grpc.streams import WINDOW_ITEMS
from producers.gateway.grpc.usage import SERVICE
from producers.gateway.items import Item, Refusal, Why
from producers.protos.usage_pb2 import ConsumeReply, ConsumeRequest
from producers.protos.usage_pb2_grpc import UsageServiceStub
from tests.fixtures.database import Saver
from tests.gateway.grpc.parts import WAIT_S, Door, Loop, PlainIntake, PlainKeys, a_door, refusal_of
from tests.gateway.grpc.test_journey import a_gateway, process_all
from tests.rig import wait_until

Db = psycopg.Connection[Any]
OF = FieldDescriptorProto


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


@pytest.fixture
def intake() -> PlainIntake:
    return PlainIntake()


@pytest.fixture
def door(loop: Loop, intake: PlainIntake) -> Iterator[Door]:
    with a_door(loop, intake, PlainKeys("good"), serves_usage=True) as door:
        yield door


KEY = [("authorization", "Bearer good")]


def usage(**changes: Any) -> ConsumeRequest:
    fields: dict[str, Any] = {"tenant_id": "acme", "product_sku": "vm", "used_amount": 1.5, "use_unity": "GB"}
    fields |= changes
    return ConsumeRequest(**fields)


def consume(door: Door, *requests: Any, package: str = "usage.v1.", metadata: Any = KEY) -> ConsumeReply:
    """Call it as a client of some package does, with bytes or messages; several are streamed."""
    call: Any = door.channel.stream_unary(f"/{package}UsageService/Consume")
    sent = [one if isinstance(one, bytes) else one.SerializeToString() for one in requests]
    return ConsumeReply.FromString(call(iter(sent), metadata=metadata, timeout=WAIT_S))


def a_client_message(amount_type: Any, amount: Any, **others: str) -> bytes:
    """What a client with a .proto of its own sends: its amount is of another type, or it has more fields."""
    file = FileDescriptorProto(name="theirs.proto", package="theirs", syntax="proto3")
    message = file.message_type.add(name="Usage")
    types = {"tenant_id": OF.TYPE_STRING, "product_sku": OF.TYPE_STRING, "used_amount": amount_type}
    for number, name in enumerate((*types, "use_unity", *others), 1):
        message.field.add(
            name=name, number=number, type=types.get(name, OF.TYPE_STRING), label=OF.LABEL_OPTIONAL
        )
    pool = DescriptorPool()
    pool.Add(file)
    made = GetMessageClass(pool.FindMessageTypeByName("theirs.Usage"))
    fields = {"tenant_id": "acme", "product_sku": "vm", "used_amount": amount, "use_unity": "GB"} | others
    return bytes(made(**fields).SerializeToString())


def test_usage_of_every_client_is_one_row_with_its_digits(
    loop: Loop, settings: Settings, db: Db, saver: Saver, source: SqsSource
) -> None:
    registry.publish_schema(db, "pulse", {"type": "object", "required": ["use_unity"]})
    _, key = registry.add_key(db, "acme")
    metadata = [("authorization", f"Bearer {key}")]
    with a_gateway(loop, settings, serves_usage=True) as door:
        wait_until(lambda: door.health(SERVICE) == "SERVING", "the keys are known", wait_s=WAIT_S)
        for number, sent in enumerate(
            (
                usage(),
                usage(tenant_id=""),
                a_client_message(OF.TYPE_FLOAT, 0.1),
                a_client_message(OF.TYPE_INT64, -3),
                a_client_message(OF.TYPE_STRING, "0.10000000000000000000000000001", region="eu"),
            )
        ):
            again = [*metadata, ("idempotency-key", f"u-{number}")]
            for _ in range(2):
                assert consume(door, sent, metadata=again, package="pulse.").success
    process_all(source, saver)

    rows = db.execute(
        "SELECT message_id, payload ->> 'used_amount', tenant_id, context FROM message ORDER BY 1"
    ).fetchall()
    amounts = ["1.5", "1.5", "0.1", "-3", "0.10000000000000000000000000001"]
    assert [row[:3] for row in rows] == [(f"u-{n}", amount, "acme") for n, amount in enumerate(amounts)]
    assert rows[-1][3] == {"field_5": "eu"}


@pytest.fixture
def source(sqs_server: Any, queue_url: str) -> SqsSource:
    return SqsSource(sqs_server.client(), queue_url, queue_url.rpartition("/")[2], visibility_timeout_s=60)


@pytest.mark.parametrize("package", ["", "usage.v1.", "br.com.pulse_v1."])
def test_the_package_of_a_client_does_not_matter(door: Door, intake: PlainIntake, package: str) -> None:
    assert consume(door, usage(), package=package).message == "1 taken"

    [item] = intake.items
    assert json.loads(item.body) == {
        "tenant_id": "acme",
        "product_sku": "vm",
        "used_amount": 1.5,
        "use_unity": "GB",
    }


def test_the_generated_client_calls_it_with_one_message(door: Door) -> None:
    stub: Any = UsageServiceStub(door.channel)

    assert stub.Consume(usage(), metadata=KEY, timeout=WAIT_S).success


def test_a_stream_is_answered_once_and_each_of_it_has_a_key_of_its_own(
    door: Door, intake: PlainIntake
) -> None:
    number = 2 * WINDOW_ITEMS + 3
    reply = consume(door, *[usage()] * number, metadata=[*KEY, ("idempotency-key", "k")])

    assert reply.message == f"{number} taken"
    assert [item.message_id for item in intake.items] == ["k", *(f"k:{place}" for place in range(1, number))]


def test_what_is_refused_of_a_stream_is_its_status_and_the_others_are_taken(
    door: Door, intake: PlainIntake
) -> None:
    def refuses(item: Item) -> Refusal | None:
        return Refusal(Why.OVER_QUOTA, "too much", retry_after_s=7) if b"globex" in item.body else None

    intake.refuses = refuses
    requests = [usage(), usage(tenant_id="globex"), usage(product_sku=""), usage()]
    with pytest.raises(grpc.RpcError) as refused:
        consume(door, *requests)

    error: Any = refused.value
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "2 of 4 messages were refused, the first because: too much" in error.details()
    assert len(intake.items) == 3


@pytest.mark.parametrize(
    ("sent", "where"),
    [
        (b"\xff", ""),
        (usage(product_sku=""), "/product_sku"),
        (usage(use_unity=""), "/use_unity"),
        (usage(used_amount=float("inf")), "/used_amount"),
        (a_client_message(OF.TYPE_FLOAT, float("nan")), "/used_amount"),
        (a_client_message(OF.TYPE_STRING, "many"), "/used_amount"),
        (usage().SerializeToString() + b"\x20\x01", "/use_unity"),
        # An amount under a number of another .proto.
        (usage(used_amount=0).SerializeToString() + b"\x2a\x011", "/used_amount"),
    ],
)
def test_what_is_no_usage_is_refused_in_words(door: Door, intake: PlainIntake, sent: Any, where: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        consume(door, sent)

    found = refusal_of(refused.value)
    assert [error.pointer for error in found.errors] == ([where] if where else [])
    assert found.detail
    assert intake.items == []


def test_it_asks_for_the_key_as_the_other_service_does(door: Door) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        consume(door, usage(), metadata=[])

    error: Any = refused.value
    assert error.code() == grpc.StatusCode.UNAUTHENTICATED


def test_reflection_and_health_know_it_where_it_is_served_and_nobody_does_where_not(
    loop: Loop, door: Door
) -> None:
    database: Any = ProtoReflectionDescriptorDatabase(door.channel)
    assert SERVICE in database.get_services()
    assert "usage.proto" in database.FindFileContainingSymbol(SERVICE).name
    wait_until(lambda: door.health(SERVICE) == "SERVING", "it is ready", wait_s=WAIT_S)

    with a_door(loop, PlainIntake()) as without:
        with pytest.raises(grpc.RpcError) as unknown:
            consume(without, usage())
        names: Any = ProtoReflectionDescriptorDatabase(without.channel)
        assert SERVICE not in names.get_services()
    error: Any = unknown.value
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
