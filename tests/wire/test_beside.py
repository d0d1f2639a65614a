"""Tests that attributes fill an envelope or must agree with it, and are kept: one rule for all formats."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pika import BasicProperties

from processor.brokers.rabbitmq_ids import attributes_of
from processor.errors import Reason
from processor.wire.formats import Attribute
from tests.builders import an_event
from tests.wire.reading import BY_ATTRIBUTES, a_cloudevent, a_pulse, envelope, malformed, pointers

ENVELOPES = [a_cloudevent(), an_event(id="e-1", producer="/shop"), a_pulse(id="e-1", producer="/shop")]
IN_BODY = {
    "tenant_id": ("acme", "globex"),
    "message_id": ("e-1", "e-2"),
    "producer": ("/shop", "/till"),
    "occurred_at": ("2026-11-22T11:00:00+01:00", "2026-11-22T10:00:01Z"),
    "schema_version": ("2", "3"),
}


def _saying_all(body: dict[str, Any]) -> dict[str, Any]:
    time = {"time" if "specversion" in body else "occurred_at": "2026-11-22T10:00:00Z"}
    version = {"specversion": {"schemaversion": 2}, "event_type": {"schema_version": 2}}
    return body | time | next((more for name, more in version.items() if name in body), {})


@pytest.mark.parametrize("body", ENVELOPES)
@pytest.mark.parametrize("name", [*IN_BODY, "event_type"])
def test_attributes_must_agree_with_the_envelope(body: dict[str, Any], name: str) -> None:
    if name == "schema_version" and "product_sku" in body:
        pytest.skip("a pulse names no version")
    own_type = "pulse" if "product_sku" in body else "order.created"
    same, other = IN_BODY.get(name, (own_type, "other"))
    saying_all = _saying_all(body)

    assert envelope(saying_all, {name: same}) == envelope(saying_all)
    for differing in (other, ""):
        found = malformed(saying_all, {name: differing})
        assert found.reason is Reason.ENVELOPE_INVALID
        assert f"attribute {name} differs from" in found.detail["message"]
        assert repr(differing) in found.detail["message"]
        assert found.claimed.tenant_id == "acme"


@pytest.mark.parametrize("body", ENVELOPES)
@pytest.mark.parametrize("null", [True, False])
def test_attributes_fill_missing_fields_of_an_envelope(body: dict[str, Any], null: bool) -> None:
    """A null counts as missing."""
    beside: dict[str, Attribute] = {name: same for name, (same, _) in IN_BODY.items()}
    names = {"tenantid", "id", "source"} if "specversion" in body else {"tenant_id", "id", "producer"}
    bare = {
        name: None if name in names else value for name, value in body.items() if null or name not in names
    }

    found = envelope(bare, beside)

    assert (found.tenant_id, found.message_id, found.producer) == ("acme", "e-1", "/shop")
    assert (found.occurred_at, found.schema_version) == (datetime(2026, 11, 22, 10, tzinfo=UTC), 2)
    assert found.payload_value == envelope(body).payload_value
    assert json.loads(found.payload) == json.loads(envelope(body).payload)
    assert found.context is None


@pytest.mark.parametrize("body", [*ENVELOPES, {"total": 1}, [1]])
@pytest.mark.parametrize("name", [*BY_ATTRIBUTES, "message_id", "producer", "occurred_at", "schema_version"])
def test_only_text_attributes_fill_fields(body: Any, name: str) -> None:
    found = malformed(body, BY_ATTRIBUTES | {name: b"1"})

    assert pointers(found) == [f"/{name}"]
    assert found.detail["message"] == f"the message attribute {name} is binary; expected text"


@pytest.mark.parametrize("body", ENVELOPES)
def test_filter_attributes_do_not_change_the_format(body: dict[str, Any]) -> None:
    """SNS and SQS filter by attributes, which then repeat fields of the body."""
    own_type = "pulse" if "product_sku" in body else "order.created"

    assert envelope(body, {"tenant_id": "acme", "event_type": own_type}) == envelope(body)


def test_a_pulse_with_another_event_type_attribute_is_that_events_payload() -> None:
    """A pulse has no type, so it contradicts none."""
    found = envelope(a_pulse(id="e-1"), {"tenant_id": "acme", "event_type": "pulse.v2"})

    assert (found.event_type, found.message_id) == ("pulse.v2", None)
    assert json.loads(found.payload) == a_pulse(id="e-1")


@pytest.mark.parametrize("body", ENVELOPES)
def test_other_attributes_are_context_and_replace_no_body_member(
    body: dict[str, Any],
) -> None:
    beside: dict[str, Attribute] = {
        "traceparent": "00-beside",
        "odd": 'q="é',
        "bytes": b"\xff",
        "own": "no",
        "own#2": "taken",
        "same": "word",
        "x-request-id": "r",
        "x-death": "no broker's here",
    }

    found = envelope(body | {"own": 1.50, "same": "word"}, beside)

    assert json.loads(found.context or "") == {
        "traceparent": "00-beside",
        "odd": 'q="é',
        "bytes": {"base64": "/w=="},
        "own": 1.5,
        "own#2": "taken",
        "own#3": "no",
        "same": "word",
        "x-request-id": "r",
        "x-death": "no broker's here",
    }


def test_headers_added_by_a_broker_are_not_context() -> None:
    added: Any = {"x-death": [], "x-delivery-count": 1, "x-first-death-queue": "q", "x-request-id": "r"}
    beside, _ = attributes_of(BasicProperties(headers=added), "key")

    assert json.loads(envelope(an_event(), beside).context or "") == {
        "x-request-id": "r",
        "routing_key": "key",
    }


def test_an_empty_property_counts_as_missing() -> None:
    beside, fault = attributes_of(BasicProperties(message_id=""), "key")

    found = envelope(a_pulse(), beside)

    assert (found.message_id, fault) == (None, None)
    assert "amqp.message_id" in json.loads(found.context or "")


@pytest.mark.parametrize("message_id", ["two\nlines", "\ud800"])
def test_a_property_that_is_an_invalid_id_is_rejected(message_id: str) -> None:
    """Without its sender's id, an event would count once for each publish."""
    beside, _ = attributes_of(BasicProperties(message_id=message_id), "key")

    found = malformed(a_pulse(), beside)

    assert "id (from the message attribute amqp.message_id)" in found.detail["message"]


def test_a_body_with_id_and_payload_is_native_if_attributes_give_tenant_and_type() -> None:
    said: Any = {"tenant_id": "acme", "event_type": "order.created"}

    found = envelope({"id": "e-1", "payload": {"n": 1}}, said)

    assert (found.message_id, found.payload) == ("e-1", '{"n":1}')


@pytest.mark.parametrize("way", ["beside", "implied"])
def test_a_body_with_tenant_and_payload_is_native_if_the_type_comes_from_elsewhere(way: str) -> None:
    event = an_event(id="e-1", event_type=None)
    said: Any = {"event_type": "order.created"}

    found = envelope(event, said if way == "beside" else {}, said if way == "implied" else {})

    assert found == envelope(event | said)
    assert malformed(event).reason is Reason.ENVELOPE_INVALID


def test_amqp_properties_are_the_last_source_and_need_not_agree() -> None:
    beside: dict[str, Attribute] = {"amqp.message_id": "m", "amqp.timestamp": "2026-11-22T10:00:00+00:00"}

    alone = envelope(a_pulse(), beside)
    named = envelope(a_pulse(id="p"), beside | {"occurred_at": "2026-11-22T09:00:00Z"})

    assert (alone.message_id, alone.occurred_at) == ("m", datetime(2026, 11, 22, 10, tzinfo=UTC))
    assert alone.context is None
    assert (named.message_id, named.occurred_at) == ("p", datetime(2026, 11, 22, 9, tzinfo=UTC))
    assert json.loads(named.context or "") == beside
