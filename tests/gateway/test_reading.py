"""What the gateway passes on says to the processor exactly what came, whatever it was."""

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from processor.wire.formats import Envelope, decode
from producers.gateway.items import Caller, Item, Refusal, Why
from producers.gateway.reading import EventReader, trace_of
from tests.wire.test_strict_json import few, separators, text_of, values

LIMITS: Any = {"depth_max": 20, "values_max": 1000}
BODY_BYTES_MAX = 5000
READING = EventReader(body_bytes_max=BODY_BYTES_MAX, fifo=False, **LIMITS)

# Those that mean something in one format or another come up often.
names = st.text(min_size=1, max_size=12) | st.sampled_from(
    ["id", "payload", "producer", "event_type", "specversion", "schema_version", "occurred_at", "tenant"]
)
identifiers = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)
moments = st.sampled_from(
    ["2026-11-22T10:00:00Z", "2026-11-22 10:00:00.1234567+05:30", "0999-01-01T00:00:00-01:00"]
)
contexts = st.dictionaries(names, values, max_size=3)


@st.composite
def native(draw: st.DrawFn) -> dict[str, Any]:
    event = {"tenant_id": draw(identifiers), "event_type": draw(identifiers), "payload": draw(values)}
    optional = {
        "id": identifiers,
        "producer": identifiers,
        "occurred_at": moments,
        "schema_version": st.integers(1, 9),
    }
    return draw(contexts) | event | draw(st.fixed_dictionaries({}, optional=optional))


@st.composite
def cloudevent(draw: st.DrawFn) -> dict[str, Any]:
    event = {
        "specversion": "1.0",
        "id": draw(identifiers),
        "source": draw(identifiers),
        "type": draw(identifiers),
        "tenantid": draw(identifiers),
        "data": draw(values),
    }
    return draw(contexts) | event | draw(st.fixed_dictionaries({}, optional={"time": moments}))


@st.composite
def pulse(draw: st.DrawFn) -> dict[str, Any]:
    event = {
        "tenant_id": draw(identifiers),
        "product_sku": draw(values),
        "used_amount": draw(values),
        "use_unity": draw(values),
    }
    return draw(contexts) | event | draw(st.fixed_dictionaries({}, optional={"id": identifiers}))


def envelope_of(body: bytes, attributes: dict[str, str]) -> Envelope | None:
    found = decode(body, attributes, size_bytes_max=BODY_BYTES_MAX, **LIMITS)
    return found if isinstance(found, Envelope) else None


def holds(item: Item) -> bool:
    """Whether the item was taken, and is then read behind the queue as it would have been read before it."""
    before = envelope_of(item.body, dict(item.attributes))
    event = READING.read(item, Caller(), {})
    if isinstance(event, Refusal):
        # A CloudEvent may call its extensions whatever it likes.
        assert before is None or b"specversion" not in item.body or "name_taken" not in str(event.errors)
        return False
    assert before is not None
    after = envelope_of(event.outgoing.body.encode(), dict(event.outgoing.attributes))
    assert after is not None
    assert after.message_id == event.message_id == (before.message_id or item.message_id or event.message_id)
    for field in ("tenant_id", "event_type", "producer", "occurred_at", "occurred_at_rest", "schema_version"):
        assert getattr(after, field) == getattr(before, field), field
    assert _digits_of(after.payload) == _digits_of(before.payload)
    context = _digits_of(before.context or "{}")
    if before.message_id is not None and item.message_id not in (None, before.message_id):
        context.setdefault("idempotency_key", item.message_id)
    assert _digits_of(after.context or "{}") == context
    return True


def _digits_of(text: str) -> Any:
    """The value of a text with every number as its digits, so that 1.0, 1.00 and 1 differ."""
    return json.loads(text, parse_int=_Digits, parse_float=_Digits)


class _Digits(str):
    __slots__ = ()


@few
@given(st.one_of(native(), cloudevent(), pulse()), separators, st.none() | identifiers)
def test_an_event_is_read_behind_the_queue_as_it_would_have_been_before_it(
    event: dict[str, Any], between: tuple[str, str], key: str | None
) -> None:
    assume(holds(Item(text_of(event, separators=between).encode(), message_id=key)))


@few
@given(identifiers, identifiers, values, st.dictionaries(names, names, max_size=3))
def test_so_is_a_payload_with_attributes(
    tenant_id: str, event_type: str, payload: Any, others: dict[str, str]
) -> None:
    attributes = others | {"tenant_id": tenant_id, "event_type": event_type}

    assume(holds(Item(text_of(payload).encode(), attributes)))


speaking = st.sampled_from(
    [
        "ce-specversion",
        "ce-id",
        "ce-type",
        "content-type",
        "content-encoding",
        "amqp.timestamp",
        "routing_key",
    ]
)
beside = st.dictionaries(names | speaking, names | st.sampled_from(["1.0", "gzip"]), max_size=4)


@few
@given(st.binary(max_size=200) | values.map(text_of).map(str.encode), beside, st.none() | names)
def test_whatever_comes_gets_a_word(body: bytes, attributes: dict[str, str], key: str | None) -> None:
    READING.read(Item(body, attributes, key), Caller("acme"), {})


def test_a_flood_beside_a_body_is_refused_before_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producers.gateway.reading.from_outside", lambda _: pytest.fail("looked at"))

    found = READING.read(Item(b"1", {f"k{number}": "v" for number in range(BODY_BYTES_MAX)}), Caller(), {})

    assert isinstance(found, Refusal)
    assert found.why is Why.TOO_LARGE


TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
traces = st.text() | st.sampled_from([TRACEPARENT, "a=b"]).flatmap(lambda good: st.text().map(good.__add__))


@few
@given(st.dictionaries(st.sampled_from(["traceparent", "tracestate", "x"]), traces, max_size=3))
def test_a_trace_is_what_sqs_takes_or_is_left_out(trace: dict[str, str]) -> None:
    found = trace_of(Caller(None, trace))

    assert found.keys() <= {"traceparent", "tracestate"}
    assert all(value and value.isprintable() and value.isascii() for value in found.values())
