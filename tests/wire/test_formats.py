"""Tests which format a body is recognized as, in order."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from processor.errors import Reason
from processor.wire.formats import Claimed, Envelope
from tests.builders import an_event
from tests.wire.reading import BY_ATTRIBUTES, a_cloudevent, a_pulse, envelope, malformed, pointers

# ── which format it is ────────────────────────────────────────────────────────────────────────────────


def test_attributes_make_any_other_body_the_payload() -> None:
    found = envelope(
        {"total": 1},
        BY_ATTRIBUTES
        | {
            "message_id": "m-1",
            "producer": "shop",
            "occurred_at": "2026-11-22T10:00:00Z",
            "schema_version": "2",
        },
    )

    assert (found.tenant_id, found.event_type, found.message_id) == ("acme", "order.created", "m-1")
    assert (found.producer, found.schema_version) == ("shop", 2)
    assert found.occurred_at == datetime(2026, 11, 22, 10, tzinfo=UTC)
    assert json.loads(found.payload) == {"total": 1}


def test_attributes_alone_need_nothing_else() -> None:
    found = envelope([1], BY_ATTRIBUTES)

    assert (found.message_id, found.producer, found.occurred_at) == (None, "", None)
    assert (found.schema_version, found.context, found.payload) == (None, None, "[1]")


@pytest.mark.parametrize("body", [b"1", b'"text"', b"null", b"[]", b" \n {} \t"])
def test_with_attributes_any_json_is_a_payload(body: bytes) -> None:
    assert envelope(body, BY_ATTRIBUTES).payload == body.decode().strip()


def test_with_attributes_the_body_must_be_json() -> None:
    found = malformed(b"Hello World", BY_ATTRIBUTES | {"message_id": "m-1"})

    assert found.reason is Reason.NOT_JSON
    assert found.claimed == Claimed("acme", "order.created", "m-1", None)


def test_other_attributes_become_the_context_text_as_text_and_bytes_in_base64() -> None:
    found = envelope({}, BY_ATTRIBUTES | {"traceparent": '00-"x', "binary": b"\0"})

    assert json.loads(found.context or "") == {"traceparent": '00-"x', "binary": {"base64": "AA=="}}


def test_cloudevents_precedes_native_and_pulse() -> None:
    everything = a_cloudevent() | an_event(id="e-1", event_type="other") | a_pulse()

    found = envelope(everything)

    assert (found.event_type, found.producer) == ("order.created", "/shop")
    assert json.loads(found.payload) == {"total": 1}


def test_native_precedes_pulse() -> None:
    assert envelope(a_pulse() | an_event(tenant_id="acme")).event_type == "order.created"


def test_a_recognized_format_is_final() -> None:
    assert malformed(a_pulse(specversion="1.0")).reason is Reason.ENVELOPE_INVALID
    assert malformed(a_pulse(event_type="x", payload=1, tenant_id=3)).reason is Reason.ENVELOPE_INVALID


@pytest.mark.parametrize(
    "body",
    [{}, [], 1, "x", None, True, [an_event()], {"event_type": "x"}, {"payload": {}}, {"used_amount": 1}],
)
def test_any_other_body_has_no_known_format(body: Any) -> None:
    found = malformed(body)

    assert found.reason is Reason.ENVELOPE_INVALID
    assert "no known format" in found.detail["message"]
    assert "specversion" in found.detail["message"]


def test_one_of_the_two_attributes_is_not_enough() -> None:
    for name, value in BY_ATTRIBUTES.items():
        assert malformed({"total": 1}, {name: value}).reason is Reason.ENVELOPE_INVALID


# ── the native format ─────────────────────────────────────────────────────────────────────────────────


def test_a_native_event_is_decoded() -> None:
    found = envelope(
        an_event(
            id="o-1",
            producer="shop",
            occurred_at="2026-11-22T11:00:00+01:00",
            schema_version=3,
            traceparent="00-abc",
        )
    )

    assert found == Envelope(
        tenant_id="acme",
        event_type="order.created",
        message_id="o-1",
        producer="shop",
        occurred_at=datetime(2026, 11, 22, 10, tzinfo=UTC),
        schema_version=3,
        payload='{"total":12.5}',
        payload_value=found.payload_value,
        context='{"traceparent": "00-abc"}',
    )


def test_optional_fields_may_be_missing_or_null() -> None:
    for event in (an_event(id=None), an_event(id=None) | {"id": None, "occurred_at": None, "producer": None}):
        found = envelope(event)
        assert (found.message_id, found.occurred_at, found.producer) == (None, None, "")


def test_a_payload_keeps_its_text_and_every_digit() -> None:
    payload = '{ "b" : 1.10, "a":[1E5,-0, 123456789012345678901234567890.5],"é":"\\u00e9" }'
    body = f'{{"tenant_id":"acme", "payload" : {payload} ,"event_type":"x"}}'.encode()

    assert envelope(body).payload == payload


def test_the_context_keeps_its_text_and_every_digit() -> None:
    body = (
        b'{"tenant_id":"acme","payload":1,"event_type":"x",'
        b'"n":1.10,"big":123456789012345678901,"h\\ud800":"\\udc00"}'
    )

    assert envelope(body).context == '{"n": 1.10, "big": 123456789012345678901, "h\\ud800": "\\udc00"}'


@pytest.mark.parametrize(
    "changes",
    [
        {"tenant_id": None},
        {"tenant_id": ""},
        {"tenant_id": 7},
        {"tenant_id": ["acme"]},
        {"tenant_id": {"a": 1}},
        {"tenant_id": True},
        {"event_type": ""},
        {"event_type": 1.5},
        {"id": ""},
        {"id": 42},
        {"id": []},
        {"producer": 1},
        {"producer": {}},
        {"occurred_at": 1_700_000_000},
        {"occurred_at": {}},
        {"schema_version": 0},
        {"schema_version": -1},
        {"schema_version": "1"},
        {"schema_version": 1.0},
        {"schema_version": True},
        {"schema_version": 2**31},
        {"schema_version": 10**30},
    ],
)
def test_a_field_of_the_wrong_type_is_named(changes: dict[str, Any]) -> None:
    (name,) = changes

    found = malformed({"tenant_id": None} | an_event() | changes)

    assert found.reason is Reason.ENVELOPE_INVALID
    assert pointers(found) == [f"/{name}"]
    assert found.detail["error_count"] == 1
    assert found.detail["message"].startswith(f"{name}: ")


def test_all_invalid_fields_are_named() -> None:
    found = malformed(an_event(id=1, tenant_id=2, producer=3))

    assert sorted(pointers(found)) == ["/id", "/producer", "/tenant_id"]
    assert found.detail["error_count"] == 3


def test_claims_are_kept_if_they_are_text() -> None:
    found = malformed(an_event(id=7, producer="shop", occurred_at="yesterday"))

    assert found.claimed == Claimed("acme", "order.created", None, "shop")


# ── CloudEvents ───────────────────────────────────────────────────────────────────────────────────────


def test_a_cloudevent_is_decoded() -> None:
    found = envelope(
        a_cloudevent(
            time="2026-11-22T10:00:00Z",
            schemaversion="2",
            datacontenttype="application/json; charset=utf-8",
            subject="order 1",
            sampledrate=10,
        )
    )

    assert (found.tenant_id, found.event_type) == ("acme", "order.created")
    assert (found.message_id, found.producer) == ("e-1", "/shop")
    assert found.occurred_at == datetime(2026, 11, 22, 10, tzinfo=UTC)
    assert found.schema_version == 2
    assert found.payload == '{"total":1}'
    assert json.loads(found.context or "") == {
        "datacontenttype": "application/json; charset=utf-8",
        "subject": "order 1",
        "sampledrate": 10,
    }


@pytest.mark.parametrize("name", ["id", "source", "type", "tenantid"])
def test_a_cloudevent_needs_its_required_attributes(name: str) -> None:
    assert pointers(malformed(a_cloudevent(**{name: ...}))) == [f"/{name}"]
    assert pointers(malformed(a_cloudevent(**{name: None}))) == [f"/{name}"]
    assert pointers(malformed(a_cloudevent(**{name: ""}))) == [f"/{name}"]


@pytest.mark.parametrize("version", ["0.3", "1", "1.1", 1.0, None, {}])
def test_only_cloudevents_1_0_is_supported(version: Any) -> None:
    assert "specversion" in malformed(a_cloudevent(specversion=version)).detail["message"]


def test_a_cloudevent_with_binary_data_is_refused() -> None:
    found = malformed(a_cloudevent(data=..., data_base64="aGVsbG8="))

    assert "data_base64" in found.detail["message"]
    assert found.claimed == Claimed("acme", "order.created", "e-1", "/shop")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "text/json",
        "application/vnd.x+json",
        "Application/JSON",
        None,
    ],
)
def test_data_is_json_of_any_kind(content_type: str | None) -> None:
    assert envelope(a_cloudevent(datacontenttype=content_type)).payload == '{"total":1}'


@pytest.mark.parametrize(
    "content_type", ["text/xml", "json", "", "application/jsonx", "text/plain; a=/json", 1, []]
)
def test_data_that_is_not_json_is_refused(content_type: Any) -> None:
    assert "datacontenttype" in malformed(a_cloudevent(datacontenttype=content_type)).detail["message"]


def test_a_cloudevent_without_data_has_the_payload_null() -> None:
    assert envelope(a_cloudevent(data=...)).payload == "null"
    assert envelope(a_cloudevent(data=None, data_base64=None)).payload == "null"


def test_unset_attributes_of_a_cloudevent_may_be_null() -> None:
    found = envelope(a_cloudevent(time=None, schemaversion=None, datacontenttype=None))

    assert (found.occurred_at, found.schema_version) == (None, None)


# ── the pulse ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tenant", ["tenant_id", "tenant"])
@pytest.mark.parametrize("unit", ["use_unity", "use_unit"])
def test_a_pulse_is_stored_with_the_four_names(tenant: str, unit: str) -> None:
    body = f'{{"{unit}":"MB/sec", "used_amount": 1.50,"{tenant}":"acme", "product_sku":"cpu", "region":"eu"}}'

    found = envelope(body.encode())

    assert (found.tenant_id, found.event_type, found.message_id) == ("acme", "pulse", None)
    assert (
        found.payload
        == '{"tenant_id": "acme", "product_sku": "cpu", "used_amount": 1.50, "use_unity": "MB/sec"}'
    )
    assert json.loads(found.payload) == json.loads(json.dumps(found.payload_value, default=float))
    assert json.loads(found.context or "") == {"region": "eu"}


@pytest.mark.parametrize("twice", [{"tenant": "acme"}, {"use_unit": "KB"}])
def test_a_pulse_with_a_field_under_two_names_is_rejected(twice: dict[str, str]) -> None:
    assert "send one" in malformed(a_pulse(**twice)).detail["message"]


@pytest.mark.parametrize(
    "named",
    [
        {"tenant": None},
        {"use_unit": None},
        {"tenant_id": None, "tenant": "acme"},
        {"use_unity": None, "use_unit": "KB"},
        {"tenant": None, "use_unit": None, "id": None, "producer": None, "occurred_at": None},
    ],
)
def test_a_null_field_of_a_pulse_counts_as_missing(named: dict[str, Any]) -> None:
    found = envelope(a_pulse(**named))

    assert json.loads(found.payload) == a_pulse()
    assert (found.tenant_id, found.message_id, found.context) == ("acme", None, None)


def test_a_pulse_may_have_an_id_a_producer_and_a_time() -> None:
    found = envelope(a_pulse(id="p-1", producer="meter", occurred_at="2026-11-22T10:00:00Z"))

    assert (found.message_id, found.producer) == ("p-1", "meter")
    assert found.occurred_at == datetime(2026, 11, 22, 10, tzinfo=UTC)
    assert found.context is None


@pytest.mark.parametrize("other", ["VOID", "order.created", "Pulse", "", 7, {}])
def test_a_pulse_that_names_another_event_type_is_refused(other: object) -> None:
    said = malformed(a_pulse(event_type=other)).detail["message"]

    assert "product_sku" in said
    assert repr(str(other)) in said
    assert "'pulse'" in said


def test_a_pulse_may_name_its_type_and_the_version_of_its_schema() -> None:
    found = envelope(a_pulse(event_type="pulse", schema_version=3))

    assert (found.event_type, found.schema_version, found.context) == ("pulse", 3, None)
    assert json.loads(found.payload) == a_pulse()


def test_a_pulse_without_a_tenant_is_refused_and_one_without_a_unit_is_left_to_the_schema() -> None:
    assert pointers(malformed(a_pulse(tenant_id=...))) == ["/tenant_id"]
    assert json.loads(envelope(a_pulse(use_unity=...)).payload).keys() == {
        "tenant_id",
        "product_sku",
        "used_amount",
    }
