"""One rule for what stands beside a body, at every door: it fills, it agrees, or it is context."""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from msgspec.structs import replace
from pika import ConnectionParameters
from pika.spec import Basic, BasicProperties

from processor.brokers.source_url import source_address
from processor.decoding.decoder import Decoder
from processor.errors import Reason
from processor.model import Delivery, QueueRules
from processor.sources.kafka.records import record_of
from processor.sources.rabbitmq.source import RabbitMqSource
from processor.sources.sqs.messages import read_messages
from processor.wire.beside import OURS
from processor.wire.formats import Attribute, Envelope, Malformed
from processor.wire.rfc3339 import moment_of

NOW = datetime.now(UTC)
DECODER = Decoder(1024 * 1024, 64)

# ── doors: what a sender wrote, as the source hands it over ───────────────────────────────────────────


def by_sqs(body: bytes, beside: Mapping[str, Attribute]) -> Delivery:
    message = {
        "MessageId": "m",
        "ReceiptHandle": "r",
        "Body": body.decode(),
        "MessageAttributes": {
            name: {"DataType": "String", "StringValue": value}
            if isinstance(value, str)
            else {"DataType": "Binary", "BinaryValue": value}
            for name, value in beside.items()
        },
    }
    [delivery], _ = read_messages([message], "events", fifo=False)
    return delivery


def by_sns(body: bytes, beside: Mapping[str, Attribute]) -> Delivery:
    given = {
        name: {"Type": "String", "Value": value}
        if isinstance(value, str)
        else {"Type": "Binary", "Value": base64.b64encode(value).decode()}
        for name, value in beside.items()
    }
    notification = {"Type": "Notification", "Message": body.decode(), "MessageAttributes": given}
    return by_sqs(json.dumps(notification).encode(), {})


def by_rabbitmq(body: bytes, beside: Mapping[str, Attribute]) -> Delivery:
    headers: Any = {**beside, "nothing": None}
    source = RabbitMqSource(source_address("amqp://h/?queue=events"), ConnectionParameters(), prefetch=1)
    return source._delivery(
        Basic.Deliver("c", 1, False, "", "events"),  # noqa: FBT003 - pika's order
        BasicProperties(headers=headers, message_id="of the library", timestamp=1_700_000_000),
        body,
    )


class OfKafka:
    """What confluent-kafka gives of a message."""

    def __init__(self, body: bytes, beside: Mapping[str, Attribute]) -> None:
        self._body = body
        self._beside = [
            (name, value.encode() if isinstance(value, str) else value) for name, value in beside.items()
        ]

    def offset(self) -> int:
        return 1

    partition = offset

    def timestamp(self) -> tuple[int, int]:
        return 1, 1

    def value(self) -> bytes:
        return self._body

    def headers(self) -> Any:
        return [*self._beside, ("nothing", None)]


def by_kafka(body: bytes, beside: Mapping[str, Attribute]) -> Delivery:
    record = record_of(OfKafka(body, beside), NOW)  # type: ignore[arg-type]  # what we ask of one
    return Delivery("events", "d", record.body, "r", 1, NOW, NOW, record.attributes, fault=record.fault)


DOORS: dict[str, Callable[[bytes, Mapping[str, Attribute]], Delivery]] = {
    "sqs": by_sqs,
    "sns": by_sns,
    "rabbitmq": by_rabbitmq,
    "kafka": by_kafka,
}

# ── formats: how each says the six names ──────────────────────────────────────────────────────────────

NATIVE = dict.fromkeys(("tenant_id", "event_type", "producer", "occurred_at", "schema_version"))
FORMATS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "native": (
        {name: name for name in NATIVE} | {"message_id": "id"},
        {"event_type": None, "payload": {"n": 1}},
    ),
    "pulse": (
        {name: name for name in NATIVE} | {"message_id": "id"},
        {"product_sku": "s", "used_amount": 1, "use_unity": "GB"},
    ),
    "structured": (
        {
            "tenant_id": "tenantid",
            "event_type": "type",
            "message_id": "id",
            "producer": "source",
            "occurred_at": "time",
            "schema_version": "schemaversion",
        },
        {"specversion": "1.0", "data": {"n": 1}},
    ),
    "bare": ({}, {"n": 1}),
    "mapped": (
        {
            "tenant_id": "who",
            "event_type": "what",
            "message_id": "eid",
            "producer": "by",
            "occurred_at": "at",
            "schema_version": "v",
        },
        {"data": {"n": 1}},
    ),
}

MAPPING = {FORMATS["native"][0][name]: f"/{at}" for name, at in FORMATS["mapped"][0].items()}
MAPPING["payload"] = "/data"

VALUES: dict[str, tuple[str, str]] = {
    "tenant_id": ("acme", "globex"),
    "event_type": ("free", "other"),
    "message_id": ("m-1", "m-2"),
    "producer": ("/shop", "/till"),
    "occurred_at": ("2026-11-22T10:00:00Z", "2026-11-22T10:00:01+00:00"),
    "schema_version": ("2", "3"),
}

values: st.SearchStrategy[Attribute] = st.sampled_from(
    ["eu", "", "é\U0001f980", b"\xff\0", "2020-01-01T00:00:00Z"]
)
others = st.dictionaries(
    st.sampled_from(
        [
            "region",
            "traceparent",
            "x-request-id",
            "amqp.message_id",
            "amqp.timestamp",
            "routing_key",
            "x-death",
            "id",
        ]
    ),
    values,
    max_size=4,
)


@dataclass(frozen=True)
class Case:
    door: str
    format_name: str
    said: dict[str, str | None]
    """What the body says; None: null."""
    beside: dict[str, str]
    others: dict[str, Attribute]
    implied: dict[str, str]
    prefix: str | None
    """How the attributes of a CloudEvent in binary mode begin, which then says what the body would.

    Beside a body that is mapped they say what would stand there by its own name."""


@st.composite
def cases(draw: st.DrawFn, format_names: tuple[str, ...] = tuple(sorted(FORMATS))) -> Case:
    format_name = draw(st.sampled_from(format_names))
    binary = draw(st.booleans()) if format_name in ("structured", "mapped") else False
    door = draw(st.sampled_from(sorted(DOORS)))
    names, _ = FORMATS[format_name]
    some = {name: st.sampled_from([values[0], values[0], values[1]]) for name, values in VALUES.items()}
    said: dict[str, Any] = {
        name: some[name] if binary and format_name == "structured" else st.one_of(st.none(), some[name])
        for name in names
        if name in some
    }
    return Case(
        door,
        format_name,
        draw(st.fixed_dictionaries({}, optional=said)),
        draw(st.fixed_dictionaries({}, optional=some)),
        draw(others),
        draw(st.fixed_dictionaries({}, optional={name: some[name] for name in ("tenant_id", "event_type")})),
        draw(st.sampled_from(["ce_", "ce-", "cloudEvents:", "cloudEvents_"])) if binary else None,
    )


def sent(case: Case) -> tuple[bytes, dict[str, Attribute]]:
    names, fixed = FORMATS[case.format_name]
    said = {
        names[name]: int(value) if name == "schema_version" and value and case.prefix is None else value
        for name, value in case.said.items()
    }
    if case.prefix is not None and case.format_name == "mapped":
        event_names = FORMATS["structured"][0]
        beside: dict[str, Attribute] = {case.prefix + "specversion": "1.0"}
        beside |= {case.prefix + event_names[name]: value for name, value in case.beside.items()}
        return json.dumps(fixed | said).encode(), {**beside, **case.others}
    if case.prefix is None:
        return json.dumps(fixed | said).encode(), {**case.beside, **case.others}
    event_of = {case.prefix + name: str(value) for name, value in (said | {"specversion": "1.0"}).items()}
    return json.dumps(fixed["data"]).encode(), {**event_of, **case.beside, **case.others}


def read(case: Case) -> Envelope | Malformed:
    rules = QueueRules(
        unwrap="sns" if case.door == "sns" else None,
        mapping=MAPPING if case.format_name == "mapped" else None,
        event_type=case.implied.get("event_type"),
    )
    return DECODER.read(DOORS[case.door](*sent(case)), rules, case.implied.get("tenant_id"))


def expected(case: Case) -> dict[str, str | None] | None:
    """What the event is, by the rule; None: it is refused."""
    said = {name: value for name, value in case.said.items() if value is not None}
    known, contradicts = {**case.implied, **case.beside}, False
    if case.format_name == "pulse":
        if known.keys() >= {"tenant_id", "event_type"} and known["event_type"] != "pulse":
            said = {}  # its payload
        else:
            contradicts |= said.setdefault("event_type", "pulse") != "pulse"
    # The library's own property and clock are the last that is asked, and only on RabbitMQ.
    last = (
        {"message_id": "of the library", "occurred_at": "2023-11-14T22:13:20Z"}
        if case.door == "rabbitmq"
        else {}
    )
    found = {name: said.get(name, known.get(name, last.get(name))) for name in VALUES}
    if found["tenant_id"] is None or found["event_type"] is None:
        return None
    if case.format_name == "structured" and (found["message_id"] is None or found["producer"] is None):
        return None
    if case.format_name == "mapped" and found["message_id"] is None:
        return None
    contradicts |= any(said.get(name, value) != value for name, value in case.beside.items())
    if contradicts:
        return None
    if case.implied.get("event_type", found["event_type"]) != found["event_type"]:
        return None
    return found


@pytest.mark.parametrize("format_name", FORMATS)
@given(st.data())
def test_it_fills_what_is_open_agrees_with_what_is_said_and_all_else_is_context(
    format_name: str, data: st.DataObject
) -> None:
    case = data.draw(cases((format_name,)))
    found, right = read(case), expected(case)

    event(f"{case.format_name}: {'refused' if right is None else 'taken'}")
    if right is None:
        assert isinstance(found, Malformed), found
        assert found.reason is Reason.ENVELOPE_INVALID
        return
    assert isinstance(found, Envelope), found
    assert found.tenant_id == right["tenant_id"]
    assert found.event_type == right["event_type"]
    assert found.message_id == right["message_id"]
    assert found.producer == (right["producer"] or "")
    assert found.occurred_at == (right["occurred_at"] and moment_of(right["occurred_at"]))
    assert found.schema_version == (right["schema_version"] and int(right["schema_version"]))
    context = json.loads(found.context or "{}")
    for name, value in case.others.items():
        if name == "x-death" and case.door == "rabbitmq":
            continue  # the broker's
        kept = value if isinstance(value, str) else {"base64": base64.b64encode(value).decode()}
        assert kept in [context.get(name), context.get(f"{name}#2")], (name, context)
    assert "nothing" not in context


@given(cases())
def test_every_door_says_the_same_of_the_same(case: Case) -> None:
    """But for what a library of AMQP says unasked, what a broker may, and when SNS was handed it."""
    readings = {
        door: read(Case(**{**vars(case), "door": door, "others": {}})) for door in DOORS if door != "rabbitmq"
    }
    readings = {
        door: replace(found, sent_at=None) if isinstance(found, Envelope) else found
        for door, found in readings.items()
    }

    # The words of one may add what to do about it, and SNS says when it was sent.
    said = [
        repr((found.reason, found.claimed) if isinstance(found, Malformed) else replace(found, sent_at=None))
        for found in readings.values()
    ]
    assert len(set(said)) == 1, readings


DEAD_LETTER = ["x-first-death-queue", "x-first-death-reason", "x-first-death-exchange"]
NAMES_OF_OURS = sorted({*OURS, "amqp.message_id", "amqp.timestamp.raw", "amqp.content_type", *DEAD_LETTER})


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", NAMES_OF_OURS)
def test_no_sender_can_name_what_a_source_names(door: str, name: str) -> None:
    """Not even beside the name that such a one gets instead."""
    # RabbitMQ itself says there where a dead letter came from.
    if door == "rabbitmq" and name in DEAD_LETTER:
        return
    beside: dict[str, Attribute] = {name: "2001-01-01T00:00:00Z", f"{name}#2": "taken"}
    rules = QueueRules(unwrap="sns" if door == "sns" else None)
    body = json.dumps(FORMATS["pulse"][1] | {"tenant_id": "acme"}).encode()

    found = DECODER.read(DOORS[door](body, beside), rules)

    assert isinstance(found, Envelope), found
    context = json.loads(found.context or "")
    assert {"taken", "2001-01-01T00:00:00Z"} <= {str(value) for value in context.values()}
    assert context.get(name) in (None, "events" if name == "routing_key" else None)
    assert found.message_id == ("of the library" if door == "rabbitmq" else None)
    assert found.occurred_at is None or found.occurred_at.year == 2023


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", NAMES_OF_OURS)
@pytest.mark.parametrize("wrapped", ["native", "cloudevent", "pulse", "eventbridge"])
def test_no_body_can_name_what_a_source_names(door: str, name: str, wrapped: str) -> None:
    """Nor what a source says, when both are there: a context tells the sender's word from ours."""
    ours: dict[str, Any] = {"q": "said", name: "of the sender", f"{name}#2": "taken"}
    pulse = {"tenant_id": "acme", "product_sku": "s", "used_amount": 1, "use_unity": "GB"}
    bodies: dict[str, dict[str, Any]] = {
        "native": {"tenant_id": "acme", "event_type": "pulse", "payload": {}},
        "cloudevent": {"specversion": "1.0", "id": "1", "source": "/s", "type": "pulse", "tenantid": "acme"},
        "pulse": pulse,
        "eventbridge": {"id": "1", "detail-type": "t", "source": "s", "time": "2026-11-22T10:00:00Z"},
    }
    body = bodies[wrapped] | ours
    if wrapped == "cloudevent":
        body["data"] = {}
    if wrapped == "eventbridge":
        body["detail"] = {"tenant_id": "acme", "event_type": "pulse", "payload": {}}
    unwrap = [each for each in ("sns" if door == "sns" else None, wrapped) if each in ("sns", "eventbridge")]

    found = DECODER.read(
        DOORS[door](json.dumps(body).encode(), {}), QueueRules(unwrap=",".join(unwrap) or None)
    )

    assert isinstance(found, Envelope), found
    context = json.loads(found.context or "")
    assert {"said", "taken", "of the sender"} <= {str(value) for value in context.values()}
    assert context.get(name) != "of the sender"
    assert door != "rabbitmq" or context["routing_key"] == "events"
