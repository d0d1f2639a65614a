"""A tenant's key can neither void nor take the id of what the platform sends for the tenant, by no door."""

import gzip
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc
import httpx
import psycopg
import pytest

from processor.devstack.servers.sqs import EmbeddedSqs
from processor.operations import registry
from processor.pipeline.pipeline import once
from processor.settings import Settings
from processor.sources.sqs.source import SqsSource
from processor.wire.sender_rights import Rights
from producers.gateway.grpc.usage import SERVICE
from producers.protos import ingest_pb2 as pb
from tests.fixtures.database import Saver, books
from tests.fixtures.meters import add_meter, totals
from tests.gateway.grpc.parts import WAIT_S, Door, Loop, a_raw, answer_of
from tests.gateway.grpc.test_journey import a_gateway as a_grpc_gateway
from tests.gateway.grpc.test_usage import consume, usage
from tests.gateway.http.rig import Gateway, a_gateway
from tests.rig import wait_until

Db = psycopg.Connection[Any]
Event = dict[str, Any]

TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
FORBIDDEN = "forbidden"


def a_pulse_of(amount: int, **named: str) -> Event:
    payload = {"tenant_id": "acme", "product_sku": "disk", "used_amount": amount, "use_unity": "GB"}
    return {"tenant_id": "acme", "event_type": "pulse", "payload": payload} | named


def a_void_of(message_id: str, **producer: str) -> Event:
    return {"tenant_id": "acme", "event_type": "void", "payload": {"message_id": message_id} | producer}


class Doors:
    """Both gateways, and every way in which an event can be put to them; each gives what became of it."""

    def __init__(self, http: Gateway, door: Door, key: str) -> None:
        self.http, self.door, self.key = http, door, key
        http.client.headers["authorization"] = f"Bearer {key}"
        self.metadata = [("authorization", f"Bearer {key}")]

    def ways(self, event: Event) -> Iterator[tuple[str, Callable[[], str]]]:
        raw = json.dumps(event).encode()
        http, headers = self.http, _headers_of(event)
        producer = event.get("producer", "")
        yield "native", lambda: _said(http.post("/v1/events", event))
        yield "native, traced", lambda: _said(http.post("/v1/events", event, traceparent=TRACE))
        yield "array", lambda: _said(http.post("/v1/events", [event, event]))
        yield "packed", lambda: _said(http.post("/v1/events", gzip.compress(raw), content_encoding="gzip"))
        yield "headers", lambda: _said(http.post("/v1/events", event["payload"], **headers))
        typed = {name: event[name] for name in event if name not in ("id", "producer")}
        beside = {name: headers[name] for name in ("x_message_id", "x_producer") if name in headers}
        yield "header of the producer", lambda: _said(http.post("/v1/events", typed, **beside))
        yield "Ingest", lambda: self._ingest(_of_fields(event))
        yield "Ingest, raw", lambda: self._ingest(a_raw(raw))
        yield (
            "Ingest, attributes",
            lambda: self._ingest(a_raw(json.dumps(event["payload"]).encode(), **_attributes_of(event))),
        )
        for method in ("IngestBatch", "IngestStream", "IngestUpload"):
            yield method, partial(self._batch, method, _of_fields(event))
        if event["event_type"] == "pulse":
            bare = event["payload"] | {name: event[name] for name in ("id", "producer") if name in event}
            yield "pulse", lambda: _said(http.post("/ingest", bare))
            yield "pulses", lambda: _said(http.post("/ingest", [bare]))
            yield "pulse, header", lambda: _said(http.post("/ingest", event["payload"], **beside))
            if not producer:
                yield "UsageService", lambda: self._consume(event)
        if producer:
            structured = _cloudevent(event)
            named = {"content_type": "application/cloudevents+json"}
            yield "CloudEvent", lambda: _said(http.post("/v1/events", structured, **named))
            batch = {"content_type": "application/cloudevents-batch+json"}
            yield "CloudEvents", lambda: _said(http.post("/v1/events", [structured], **batch))
            binary = {f"ce_{name}": value for name, value in structured.items() if name != "data"}
            yield "CloudEvent, binary", lambda: _said(http.post("/v1/events", event["payload"], **binary))
            yield "Ingest, CloudEvent", lambda: self._ingest(a_raw(json.dumps(structured).encode()))

    def _ingest(self, request: pb.IngestRequest) -> str:
        try:
            answer_of(self.door, "Ingest", [request], metadata=self.metadata)
        except grpc.RpcError as error:
            return _status(error)
        return "taken"

    def _batch(self, method: str, request: pb.IngestRequest) -> str:
        [reply] = answer_of(self.door, method, [request], metadata=self.metadata)
        [one] = reply.results
        result = one.result if method == "IngestStream" else one
        return FORBIDDEN if result.refusal.code == pb.CODE_FORBIDDEN else str(result.WhichOneof("outcome"))

    def _consume(self, event: Event) -> str:
        keyed = [*self.metadata, ("idempotency-key", event["id"])]
        amount = event["payload"]["used_amount"]
        try:
            consume(self.door, usage(product_sku="disk", used_amount=amount), metadata=keyed)
        except grpc.RpcError as error:
            return _status(error)
        return "taken"


def _headers_of(event: Event) -> dict[str, str]:
    return {f"x_{name}": value for name, value in _attributes_of(event).items()}


def _attributes_of(event: Event) -> dict[str, str]:
    ours = {"message_id" if name == "id" else name: value for name, value in event.items()}
    return {name: value for name, value in ours.items() if name != "payload"}


def _of_fields(event: Event) -> pb.IngestRequest:
    fields = {name: value for name, value in event.items() if name != "payload"}
    return pb.IngestRequest(event=pb.Event(payload_json=json.dumps(event["payload"]), **fields))


def _cloudevent(event: Event) -> Event:
    return {
        "specversion": "1.0",
        "id": event.get("id", "c-1"),
        "source": event["producer"],
        "type": event["event_type"],
        "tenantid": "acme",
        "data": event["payload"],
    }


def _said(answer: httpx.Response) -> str:
    if answer.status_code == 202:
        return "taken"
    assert answer.json()["code"] != FORBIDDEN or answer.status_code == 403
    return str(answer.json()["code"])


def _status(error: grpc.RpcError) -> str:
    code = error.code()
    return FORBIDDEN if code is grpc.StatusCode.PERMISSION_DENIED else str(code)


@pytest.fixture
def metered(db: Db) -> None:
    for event_type in ("pulse", "void"):
        registry.publish_schema(db, event_type, {})
    add_meter(db)


@pytest.fixture
def open_doors(settings: Settings, sqs_server: EmbeddedSqs) -> Iterator[Callable[[str], Doors]]:
    """Both gateways, which are opened with a key of acme; they read keys ten times a second."""
    opened: list[Any] = []

    def enter(manager: Any) -> Any:
        opened.append(manager)
        return manager.__enter__()

    def open_both(key: str, **changes: Any) -> Doors:
        chosen = settings.model_copy(update={"gateway_keys_every_s": 0.1} | changes)
        http = enter(a_gateway(chosen, sqs_server))
        door = enter(a_grpc_gateway(enter(Loop()), chosen, serves_usage=True))
        wait_until(lambda: http.client.get("/readyz").status_code == 200, "keys are known over HTTP")
        wait_until(lambda: door.health(SERVICE) == "SERVING", "keys are known over gRPC", wait_s=WAIT_S)
        return Doors(http, door, key)

    yield open_both
    for manager in reversed(opened):
        manager.__exit__(None, None, None)


@pytest.fixture
def process(sqs_server: EmbeddedSqs, queue_url: str, saver: Saver) -> Callable[[], None]:
    """Have the processor save all that is on the queue."""
    source = SqsSource(sqs_server.client(), queue_url, queue_url.rpartition("/")[2], visibility_timeout_s=60)

    def run() -> None:
        while sum(source.depth().values()):
            once(source, saver.schemas, saver.store, limit=10, wait_s=0)

    return run


@pytest.fixture
def platform(sqs_server: EmbeddedSqs, queue_url: str) -> Iterator[Callable[[Event], object]]:
    """Send to SQS, as the platform's own producers do."""
    client = sqs_server.client()
    yield lambda event: client.send_message(QueueUrl=queue_url, MessageBody=json.dumps(event))
    client.close()


KEYS = {
    "of its own producer": (Rights(producers=("acme-app",), may_correct=False), {}),
    "of any that is not reserved": (Rights(may_correct=False), {"reserved_producers": 'platform*, ""'}),
    "without a right": (Rights(may_void=False, may_correct=False), {"reserved_producers": 'platform*, ""'}),
}


@pytest.mark.usefixtures("metered")
@pytest.mark.parametrize("named", [{"producer": "platform"}, {}], ids=["named", "unnamed"])
@pytest.mark.parametrize("kind", KEYS)
def test_a_key_neither_voids_nor_takes_the_id_of_what_the_platform_sends(
    kind: str,
    named: dict[str, str],
    open_doors: Callable[..., Doors],
    platform: Callable[[Event], object],
    process: Callable[[], None],
    db: Db,
) -> None:
    rights, changes = KEYS[kind]
    _, key = registry.add_key(db, "acme", "", rights)
    doors = open_doors(key, **changes)
    platform(a_pulse_of(1000, id="p-1", **named))
    process()
    # An event without a producer is one of the key's only producer, and so is what it voids.
    own = not named and rights.producers is not None

    for what in (a_void_of("p-1", **named) | {"id": "v-1"} | named, a_pulse_of(0, id="p-2", **named)):
        for way, send in doors.ways(what):
            assert send() == ("taken" if own else FORBIDDEN), way
    if own:
        assert doors.http.post("/v1/events", a_void_of("p-1", producer="")).status_code == 403
    process()
    platform(a_pulse_of(1000, id="p-2", **named))
    process()

    assert totals(db) == [("acme", "disk", 2000, 3 if own else 2)]
    assert books(db)["rejection"] == 0


@pytest.mark.usefixtures("metered")
def test_a_key_voids_and_corrects_its_own_if_it_may(
    open_doors: Callable[..., Doors], process: Callable[[], None], db: Db
) -> None:
    add_meter(db, "corrected", allows_corrections=True, group_names=[], group_pointers=[])
    db.execute("UPDATE meter SET status = 'retired' WHERE meter = 'pulse'")
    _, neither = registry.add_key(
        db, "acme", "", Rights(None, ("acme-app",), may_void=False, may_correct=False)
    )
    _, both = registry.add_key(db, "acme", "", Rights(None, ("acme-app",)))
    doors = open_doors(neither)
    events = [a_pulse_of(-3, id="p-2"), a_void_of("p-1")]
    assert (
        doors.http.post("/ingest", a_pulse_of(7, id="p-1")["payload"], x_message_id="p-1").status_code == 202
    )

    for event in events:
        for way, send in doors.ways(event | {"id": "e-1"}):
            assert send() == FORBIDDEN, way
    doors = Doors(doors.http, doors.door, both)
    answers = [doors.http.post("/v1/events", event).status_code for event in events]
    process()

    assert answers == [202, 202]
    assert db.execute("SELECT sum(value), sum(messages) FROM usage WHERE meter = 'corrected'").fetchone() == (
        -3,
        1,
    )
    assert db.execute("SELECT message_id, producer FROM voided").fetchall() == [("p-1", "acme-app")]


@pytest.mark.usefixtures("metered")
def test_the_items_of_an_array_are_judged_one_by_one(open_doors: Callable[..., Doors], db: Db) -> None:
    rights = Rights(frozenset({"pulse"}), ("acme-app", "/acme/*"), may_void=False, may_correct=False)
    _, key = registry.add_key(db, "acme", "", rights)
    http = open_doors(key).http
    sent = [
        a_pulse_of(1, id="a", producer="acme-app"),
        a_pulse_of(1, id="b", producer="platform"),
        a_pulse_of(1, id="c"),
        a_void_of("a", producer="acme-app") | {"producer": "acme-app"},
        a_pulse_of(1, id="e", producer="/acme/tills") | {"event_type": "order.created"},
        a_pulse_of(1, id="f", producer="/acme/tills"),
    ]

    answer = http.post("/v1/events", sent)

    assert answer.status_code == 207
    items = answer.json()["items"]
    assert [item["status"] for item in items] == [202, 403, 403, 403, 403, 202]
    assert [item["problem"]["errors"][0]["rule"] for item in items if item["status"] == 403] == [
        "producers",
        "producers",
        "may_void",
        "event_types",
    ]
    assert sorted(event["id"] for event in http.queued()) == ["a", "f"]


@pytest.mark.usefixtures("metered")
def test_what_an_older_key_names_is_not_for_a_later_key_without_a_producer(
    open_doors: Callable[..., Doors], db: Db
) -> None:
    """A key that was there before goes on to do what it could, so that it can be replaced."""
    _, before = registry.add_key(db, "acme")
    registry.add_key(db, "acme", "", Rights(None, ("billing", "/acme/*")))
    registry.add_key(db, "globex", "", Rights(None, ("shop",)))
    ended, _ = registry.add_key(db, "acme", "", Rights(None, ("till",)))
    registry.add_key(db, "acme", "", Rights(None, ("*",)))
    registry.revoke_key(db, ended)
    _, after = registry.add_key(db, "acme")
    doors = open_doors(before)
    names = ("billing", "/acme/1", "shop", "till", "")

    found = {
        key: [
            doors.http.post(
                "/v1/events", a_pulse_of(1, producer=name), authorization=f"Bearer {key}"
            ).status_code
            for name in names
        ]
        for key in (before, after)
    }

    assert found == {before: [202] * 5, after: [403, 403, 202, 202, 202]}


def test_an_event_with_an_id_scope_is_voided_under_its_own_producer_alone(
    open_doors: Callable[..., Doors], db: Db
) -> None:
    registry.publish_schema(db, "created", {}, id_scope=["/user_id"])
    _, key = registry.add_key(db, "acme", "", Rights(None, ("app",)))
    http = open_doors(key).http

    def status(event: Event) -> int:
        return http.post("/v1/events", event).status_code

    scoped = {"tenant_id": "acme", "event_type": "created", "id": "1", "payload": {"user_id": "ada"}}
    assert status(scoped) == 202
    for producer, expected in (
        ("created/ada/app", 202),
        ("created/ada", 403),
        ("created/ada/platform", 403),
        ("created/ada/app/app", 403),
        ("created/app", 403),
    ):
        assert status(a_void_of("1", producer=producer)) == expected, producer
    _, other = registry.add_key(db, "acme", "", Rights(None, ("created/*", "app")))
    http.client.headers["authorization"] = f"Bearer {other}"
    wait_until(lambda: status(scoped | {"producer": "app"}) == 202, "the key is known")
    assert status(a_pulse_of(1, producer="created/ada")) == 403
