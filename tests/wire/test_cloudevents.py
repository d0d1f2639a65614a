"""Tests CloudEvents by the specification: structured, and in binary mode on every transport."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from processor.errors import Reason
from processor.wire.formats import Attribute, Claimed
from tests.builders import an_event
from tests.wire.reading import BY_ATTRIBUTES, a_cloudevent, a_pulse, envelope, malformed

PREFIXES = ["ce_", "ce-", "Ce-", "CE_", "cloudEvents:", "cloudEvents_", "cloudevents:"]
ATTRIBUTES: dict[str, str] = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "/shop",
    "type": "order.created",
    "tenantid": "acme",
    "time": "2026-11-29T09:00:00Z",
    "schemaversion": "2",
}


def binary(prefix: str = "ce_", **changes: Any) -> dict[str, Attribute]:
    event = ATTRIBUTES | changes
    return {prefix + name: value for name, value in event.items() if value is not ...}


def structured(data: Any, **changes: Any) -> dict[str, Any]:
    return a_cloudevent(**(ATTRIBUTES | {"data": data} | changes))


def words(body: Any, attributes: dict[str, Attribute] | None = None) -> str:
    found = malformed(body, attributes)
    assert found.reason is Reason.ENVELOPE_INVALID
    return str(found.detail["message"])


# ── binary mode ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("data", [{"total": 1}, a_pulse(), an_event(), [1], "text", None])
def test_in_binary_mode_any_body_is_the_data(prefix: str, data: Any) -> None:
    found = envelope(data, binary(prefix))

    assert (found.payload_value, json.loads(found.payload)) == (data, data)
    whole = envelope(structured(data))
    assert {name: getattr(found, name) for name in whole.__struct_fields__ if name != "payload"} == {
        name: getattr(whole, name) for name in whole.__struct_fields__ if name != "payload"
    }


@pytest.mark.parametrize("body", [b"", b" \n"])
def test_in_binary_mode_an_absent_body_is_null_data(body: bytes) -> None:
    assert envelope(body, binary()).payload == "null"
    assert malformed(body).reason is Reason.NOT_JSON


def test_extensions_are_context_under_their_own_names() -> None:
    beside = binary(
        subject="order 1", partitionkey="k", payload="p", event_type=..., traceparent="00-event", raw=b"\xff"
    )

    found = envelope(
        {"total": 1}, beside | {"traceparent": "00-transport", "region": "eu", "ce_no-name": "n"}
    )

    assert json.loads(found.context or "") == {
        "subject": "order 1",
        "partitionkey": "k",
        "payload": "p",
        "traceparent": "00-event",
        "traceparent#2": "00-transport",
        "raw": "/w==",
        "region": "eu",
        "ce_no-name": "n",
    }


@pytest.mark.parametrize(
    "name", ["content-type", "Content-Type", "content_type", "contentType", "ce_datacontenttype"]
)
@pytest.mark.parametrize(
    ("content_type", "kept"),
    [
        ("application/json", None),
        ("APPLICATION/JSON", None),
        ("application/json; charset=UTF-8", "application/json; charset=UTF-8"),
        ("text/json", "text/json"),
        ("application/vnd.acme+json;v=1", "application/vnd.acme+json;v=1"),
    ],
)
def test_the_content_type_describes_the_data(name: str, content_type: str, kept: str | None) -> None:
    found = envelope({"total": 1}, binary() | {name: content_type})

    assert json.loads(found.context or "{}").get("datacontenttype") == kept
    assert name not in json.loads(found.context or "{}")


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream", "application/avro"])
def test_data_of_another_content_type_is_rejected(content_type: str) -> None:
    assert "application/json" in words({"total": 1}, binary() | {"content-type": content_type})


@pytest.mark.parametrize("where", ["ce_tenantid", "tenant_id"])
def test_the_tenant_may_be_in_the_event_in_an_attribute_or_implied(where: str) -> None:
    beside = binary(tenantid=...)

    assert envelope({}, beside | {where: "acme"}).tenant_id == "acme"
    assert envelope({}, beside, {"tenant_id": "acme"}).tenant_id == "acme"
    assert "tenantid: missing" in words({}, beside)


def test_native_attributes_must_agree_with_a_cloudevent() -> None:
    assert envelope({}, binary() | {"tenant_id": "acme", "message_id": "e-1"}).message_id == "e-1"
    said = words({}, binary() | {"message_id": "e-2"})
    assert "'e-1'" in said
    assert "'e-2'" in said


@pytest.mark.parametrize("version", ["0.3", "1.1", "", "1"])
def test_another_version_is_refused(version: str) -> None:
    assert "specversion" in words({"total": 1}, binary(specversion=version))
    assert "specversion" in words(a_pulse(), binary(specversion=version))


@pytest.mark.parametrize("name", ["id", "source", "type", "time", "tenantid", "schemaversion"])
@pytest.mark.parametrize("body", [a_pulse(), an_event(), {"total": 1}])
def test_an_incomplete_cloudevent_is_rejected_with_its_attribute(name: str, body: Any) -> None:
    for beside in ({}, BY_ATTRIBUTES):
        said = words(body, dict(beside) | {f"ce_{name}": ATTRIBUTES[name]})
        assert f"ce_{name}" in said
        assert "specversion" in said


@pytest.mark.parametrize("name", ["id", "source", "type"])
def test_required_attributes_are_required_in_binary_mode_too(name: str) -> None:
    nameless: Any = {name: ...}
    assert f"{name}: missing" in words({}, binary(**nameless))
    assert f"(from the message attribute ce_{name})" in words({}, binary(**{name: ""}))


def test_an_invalid_value_is_rejected_with_its_attribute() -> None:
    assert "(from the message attribute ce_time)" in words({}, binary(time="2026-11-22T10:00:00+24:00"))
    assert "(from the message attribute occurred_at)" in words(
        an_event(), {"occurred_at": "12026-11-22T10:00:00Z"}
    )
    assert "ce_id is binary" in words({}, binary(id=b"e-1"))


@pytest.mark.parametrize("name", ["ce_data", "ce_data_base64", "cloudEvents:data"])
def test_data_as_an_attribute_is_rejected(name: str) -> None:
    assert name in words({}, binary() | {name: "{}"})


def test_two_spellings_of_an_attribute_must_agree() -> None:
    assert envelope({}, binary() | {"ce-id": "e-1"}).message_id == "e-1"
    said = words({}, binary() | {"ce-id": "e-2"})
    assert "ce_id" in said
    assert "ce-id" in said
    assert "differ" in words({}, binary() | {"content-type": "text/json", "content_type": "application/json"})


@pytest.mark.parametrize("prefix", ["cloudEvents:", "cloudEvents_"])
def test_an_amqp_time_is_in_milliseconds(prefix: str) -> None:
    """The Python SDK writes it in this form."""
    found = envelope({}, binary(prefix, time="1764406800123"))

    assert found.occurred_at == datetime(2025, 11, 29, 9, 0, 0, 123_000, tzinfo=UTC)
    assert envelope(structured({}, time="2025-11-29T09:00:00.123Z"), {f"{prefix}time": "1764406800123"})
    assert "ce_time" in words({}, binary(time="1764406800123"))


@pytest.mark.parametrize("body", [b"no json", b"\xff"])
def test_claims_are_kept_for_an_invalid_body(body: bytes) -> None:
    assert malformed(body, binary()).claimed == Claimed("acme", "order.created", "e-1", "/shop")


def test_claims_of_a_cloudevent_are_kept() -> None:
    body = {"tenant_id": "data", "id": "data"}

    assert malformed(body, binary(specversion="0.3")).claimed == Claimed(
        "acme", "order.created", "e-1", "/shop"
    )


# ── a structured event, and attributes of the same kind beside it ─────────────────────────────────────


@pytest.mark.parametrize("beside", [{}, {"content-type": "application/cloudevents+json; charset=utf-8"}])
@pytest.mark.parametrize("version", ["1.0", ...])
def test_attributes_fill_a_structured_event_or_must_agree(beside: Any, version: Any) -> None:
    body = structured(
        {"total": 1}, tenantid=None, time="2026-11-29T10:00:00+01:00", schemaversion=2, flag=True
    )

    found = envelope(body, beside | binary(specversion=version, flag="true", subject="s"))

    assert found.tenant_id == "acme"
    assert found.payload_value == {"total": 1}
    assert json.loads(found.context or "")["subject"] == "s"
    for name, other in (
        ("id", "e-2"),
        ("time", "2026-11-29T09:00:01Z"),
        ("schemaversion", "3"),
        ("flag", "false"),
        ("specversion", "0.3"),
    ):
        said = words(body, beside | {f"ce_{name}": other})
        assert f"ce_{name}" in said
        assert repr(other) in said


def test_an_incomplete_event_inside_an_event_is_data() -> None:
    assert envelope({"specversion": "1.0", "n": 1}, binary()).payload_value == {"specversion": "1.0", "n": 1}


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/cloudevents-batch+json", [a_cloudevent()]),
        ("application/cloudevents+json", an_event()),
        ("application/cloudevents+avro", a_cloudevent()),
        ("application/cloudevents", {"total": 1}),
    ],
)
def test_an_invalid_body_with_a_cloudevents_content_type_is_rejected(content_type: str, body: Any) -> None:
    for beside in ({}, BY_ATTRIBUTES):
        assert "application/cloudevents+json" in words(body, dict(beside) | {"Content-Type": content_type})


# ── what the specification leaves open ────────────────────────────────────────────────────────────────

FOREIGN = {
    "payload": {"n": 2},
    "producer": "other",
    "tenant_id": "globex",
    "event_type": "other",
    "message_id": "m",
    "occurred_at": "never",
    "schema_version": 9,
    "product_sku": "vm",
    "used_amount": 1,
    "dataref": "https://example.com/1",
}


def test_an_extension_with_a_native_name_is_context() -> None:
    found = envelope(a_cloudevent(**FOREIGN))

    assert (found.tenant_id, found.event_type, found.message_id, found.producer) == (
        "acme",
        "order.created",
        "e-1",
        "/shop",
    )
    assert (found.occurred_at, found.schema_version, found.payload_value) == (None, None, {"total": 1})
    assert json.loads(found.context or "") == FOREIGN
    assert malformed(a_cloudevent(**FOREIGN, specversion="0.3")).claimed == Claimed(
        "acme", "order.created", "e-1", "/shop"
    )


@pytest.mark.parametrize("text", ['{"n": 1.10}', "[1]", ' "text" ', "null", "\ufeff{}"])
def test_data_in_base64_is_decoded_as_json(text: str) -> None:
    packed = base64.b64encode(text.encode()).decode()
    for more in ({}, {"data": None}, {"datacontenttype": "application/json"}):
        body = a_cloudevent(**({"data": ...} | more), data_base64=packed)
        found = envelope(body)
        assert found.payload == text.strip(" \ufeff")
        assert found.context is None


def test_empty_data_in_base64_is_null() -> None:
    assert envelope(a_cloudevent(data=..., data_base64="")).payload == "null"


@pytest.mark.parametrize(
    "packed", ["aGVsbG8=", "_w==", "/w==", "eyJuIjox", "e", "é", "eyJu IjoxfQ==", 1, {}, ["eyJuIjoxfQ=="]]
)
def test_data_in_base64_that_is_not_json_is_rejected(packed: Any) -> None:
    assert "data_base64: expected" in words(a_cloudevent(data=..., data_base64=packed))


def test_data_in_base64_has_the_limits_of_json() -> None:
    deep = base64.b64encode(b"[" * 65 + b"]" * 65).decode()

    assert "JSON_DEPTH_MAX" in words(a_cloudevent(data=..., data_base64=deep))


def test_duplicate_data_is_rejected() -> None:
    assert "send one" in words(a_cloudevent(data_base64="eyJuIjoxfQ=="))


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf8"', "us-ascii"])
def test_the_charset_utf_8_is_accepted(charset: str) -> None:
    content_type = f"application/json; x=y; charset={charset}"

    assert json.loads(envelope(a_cloudevent(datacontenttype=content_type)).context or "") == {
        "datacontenttype": content_type
    }


@pytest.mark.parametrize("charset", ["iso-8859-1", "utf-16", "x", "utf-8; charset=utf-16"])
def test_any_other_charset_is_refused_and_named(charset: str) -> None:
    content_type = f"text/json;charset={charset}"

    named = repr(charset.rpartition("=")[2])
    assert named in words(a_cloudevent(datacontenttype=content_type))
    assert named in words({}, binary() | {"content-type": content_type})


def test_a_null_specversion_counts_as_missing() -> None:
    assert envelope(an_event(id="o-1") | {"specversion": None}).message_id == "o-1"
    assert "no known format" in words(a_cloudevent(specversion=None))


@pytest.mark.parametrize("version", ["1.2.0", "v2", ""])
def test_a_schemaversion_that_is_not_a_whole_number_is_context(version: str) -> None:
    structured = envelope(a_cloudevent(schemaversion=version))
    binary = envelope(
        {"n": 1},
        {
            "ce_specversion": "1.0",
            "ce_id": "1",
            "ce_source": "/shop",
            "ce_type": "order.created",
            "ce_tenantid": "acme",
            "ce_schemaversion": version,
        },
    )

    for found in (structured, binary):
        assert found.schema_version is None
        assert json.loads(found.context or "")["schemaversion"] == version
    assert envelope(a_cloudevent(schemaversion="7")).schema_version == 7
