"""Tests mappings: mapped fields, attributes, and messages about missing fields."""

from datetime import UTC, datetime
from typing import Any

import pytest

from processor.decoding.mapping import decode_mapped, parse
from processor.errors import SettingsError
from processor.wire.formats import Attribute, Envelope, Malformed
from processor.wire.strict_json import read

APP = {"tenant_id": "/client_id", "event_type": "/event_type", "payload": "/message"}
"""The message format of the event process app."""


def mapped(
    body: str,
    mapping: dict[str, str] = APP,
    attributes: dict[str, Attribute] | None = None,
    implied: dict[str, str] | None = None,
) -> Envelope | Malformed:
    return decode_mapped(
        body.encode(),
        attributes or {},
        mapping,
        implied=implied or {},
        size_bytes_max=2**20,
        depth_max=64,
        values_max=1000,
    )


def envelope(*arguments: Any, **more: Any) -> Envelope:
    found = mapped(*arguments, **more)
    assert isinstance(found, Envelope), found
    return found


def words(*arguments: Any, **more: Any) -> str:
    found = mapped(*arguments, **more)
    assert isinstance(found, Malformed), found
    assert found.reason == "envelope_invalid"
    return str(found.detail["message"])


def test_a_mapping_accepts_an_integer_tenant() -> None:
    found = envelope('{"event_type": "login", "client_id": 7, "message": {"n": 1.50}, "host": "a", "n": 1e2}')

    assert (found.tenant_id, found.event_type, found.message_id) == ("7", "login", None)
    assert (found.payload, found.context) == ('{"n": 1.50}', '{"host": "a", "n": 1e2}')


def test_a_mapped_body_is_decoded_as_no_other_format() -> None:
    cloudevent = (
        '{"specversion": "1.0", "id": "e", "source": "s", "type": "t", "tenantid": "acme", "data": 1}'
    )

    assert words(cloudevent).startswith("tenant_id: no value at /client_id")
    native = (
        '{"client_id": "acme", "event_type": "t", "payload": 1, "message": 2, "id": "x", "tenant_id": "no"}'
    )
    found = envelope(native)
    assert (found.tenant_id, found.payload, found.message_id) == ("acme", "2", None)
    assert found.context == '{"payload": 1, "id": "x", "tenant_id": "no"}'


def test_a_nested_mapped_value_is_removed_from_its_place() -> None:
    body = '{"meta": {"who": "acme", "at": 1.0}, "data": [{"x": 1.10}, {"y": 2}], "type": "t"}'
    mapping = {"tenant_id": "/meta/who", "event_type": "/type", "payload": "/data/0"}

    found = envelope(body, mapping)

    assert (found.tenant_id, found.payload) == ("acme", '{"x": 1.10}')
    assert found.context == '{"meta": {"at": 1.0}, "data": [null, {"y": 2}]}'


def test_the_default_payload_of_a_mapping_is_the_whole_body() -> None:
    body = ' {"client_id": "acme", "event_type": "t", "n": 1.0} '

    for more in ({}, {"payload": ""}):
        found = envelope(body, {"tenant_id": "/client_id", "event_type": "/event_type"} | more)
        assert (found.payload, found.context) == (body.strip(), None)


def test_attributes_fill_missing_fields_and_must_agree_with_the_others() -> None:
    mapping = {"event_type": "/event_type", "payload": "/message"}
    body = '{"event_type": "t", "message": 1}'

    assert envelope(body, mapping, {"tenant_id": "acme", "x": "y"}).context == '{"x": "y"}'
    assert envelope(body, mapping, implied={"tenant_id": "acme"}).tenant_id == "acme"
    assert "'u'" in words(body, mapping, {"tenant_id": "acme", "event_type": "u"})
    assert "tenant_id is binary" in words(body, mapping, {"tenant_id": b"acme"})
    # A null field of the body counts as missing.
    null = '{"event_type": "t", "client_id": null, "message": 1}'
    assert envelope(null, attributes={"tenant_id": "acme"}).tenant_id == "acme"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"event_type": "t", "message": 1}', "tenant_id: no value at /client_id"),
        ('{"client_id": null, "event_type": "t", "message": 1}', "tenant_id: no value at /client_id"),
        ('{"client_id": 1, "message": 1}', "event_type: no value at /event_type"),
        ('{"client_id": 1, "event_type": "t"}', "payload: no value at /message"),
        ("[1]", "tenant_id: no value at /client_id"),
        ('{"client_id": 1.5, "event_type": "t", "message": 1}', "tenant_id: "),
        ('{"client_id": true, "event_type": "t", "message": 1}', "tenant_id: "),
        ('{"client_id": {}, "event_type": "t", "message": 1}', "tenant_id: "),
    ],
)
def test_a_missing_or_invalid_field_is_named_with_its_place(body: str, said: str) -> None:
    assert said in words(body)


@pytest.mark.parametrize(
    ("time", "moment", "rest"),
    [
        ('"2026-11-30T08:00:00Z"', datetime(2026, 11, 30, 8, tzinfo=UTC), None),
        ("1764489600", datetime(2025, 11, 30, 8, tzinfo=UTC), None),
        ("1764489600000", datetime(2025, 11, 30, 8, tzinfo=UTC), None),
        ("1764489600123", datetime(2025, 11, 30, 8, 0, 0, 123000, tzinfo=UTC), None),
        ("1764489600.5", datetime(2025, 11, 30, 8, 0, 0, 500000, tzinfo=UTC), None),
        ("1764489600.123456789", datetime(2025, 11, 30, 8, 0, 0, 123456, tzinfo=UTC), "789"),
        ("1764489600123.456789", datetime(2025, 11, 30, 8, 0, 0, 123456, tzinfo=UTC), "789"),
        (
            "1764489600.1" + "0" * 30 + "1",
            datetime(2025, 11, 30, 8, 0, 0, 100000, tzinfo=UTC),
            "0" * 25 + "1",
        ),
        ("1.7644896e9", datetime(2025, 11, 30, 8, tzinfo=UTC), None),
    ],
)
def test_a_time_may_be_seconds_or_milliseconds_since_1970(
    time: str, moment: datetime, rest: str | None
) -> None:
    body = f'{{"client_id": 1, "event_type": "t", "message": 1, "at": {time}}}'

    found = envelope(body, APP | {"occurred_at": "/at"})

    assert (found.occurred_at, found.occurred_at_rest) == (moment, rest)


@pytest.mark.parametrize(
    "time",
    ["0", "-1", "1e300", "9" * 300, "true", '"1764489600"', "[]", "1e-300", "1764489600123456", '"today"'],
)
def test_an_invalid_time_is_rejected_with_the_expected_forms(time: str) -> None:
    body = f'{{"client_id": 1, "event_type": "t", "message": 1, "at": {time}}}'

    said = words(body, APP | {"occurred_at": "/at"})

    assert said.startswith(f"occurred_at: {time[:40]}")
    assert " at /at; expected an RFC 3339 time with a zone" in said
    assert "or a number (not text) of seconds or milliseconds since 1970" in said


@pytest.mark.parametrize("field", ["tenant_id", "event_type", "id", "producer"])
@pytest.mark.parametrize("value", ["1.5", "true", "{}", "[1]", "7.0"])
def test_an_invalid_id_is_rejected_with_the_expected_forms(field: str, value: str) -> None:
    body = f'{{"client_id": 1, "event_type": "t", "message": 1, "x": {value}}}'

    said = words(body, APP | {field: "/x"})

    assert said == f"{field}: {value} at /x; expected text or a whole number"


def test_an_invalid_schema_version_is_named() -> None:
    body = '{"client_id": 1, "event_type": "t", "message": 1, "v": "two"}'

    assert (
        words(body, APP | {"schema_version": "/v"}) == 'schema_version: "two" at /v; expected a whole number'
    )


# ── ids ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("id_of_it", ["", '"eid": null, '])
def test_an_event_without_its_mapped_id_is_rejected(id_of_it: str) -> None:
    """With a derived id the event would count once for each publish."""
    body = f'{{{id_of_it}"client_id": 1, "event_type": "t", "message": 1}}'
    mapping = APP | {"id": "/eid"}

    said = words(body, mapping)

    assert (
        said
        == "id: no value at /eid, where the mapping of the queue expects one, and no message attribute has it"
    )
    for attributes in (
        {"message_id": "m"},
        {"amqp.message_id": "m"},
        {"ce_specversion": "1.0", "ce_id": "m"},
    ):
        assert envelope(body, mapping, attributes).message_id == "m"
    assert envelope(body, mapping, implied={"message_id": "m"}).message_id == "m"
    assert "id: no value at /eid" in words(body, mapping, {"amqp.message_id": ""})


CE: dict[str, Attribute] = {"ce_specversion": "1.0", "ce_id": "m25", "ce_source": "shop", "ce_type": "t"}
PLAIN = '{"client_id": "acme", "event_type": "t", "message": 1}'


def test_cloudevents_attributes_fill_missing_fields_of_a_mapped_body() -> None:
    body = '{"message": 1}'
    attributes = CE | {"ce_tenantid": "acme", "ce_time": "2026-11-30T08:00:00Z", "ce_schemaversion": "2"}

    found = envelope(body, {"payload": "/message"}, attributes | {"ce_subject": "s"})

    assert (found.tenant_id, found.event_type, found.message_id) == ("acme", "t", "m25")
    assert (found.producer, found.schema_version) == ("shop", 2)
    assert found.occurred_at == datetime(2026, 11, 30, 8, tzinfo=UTC)
    assert found.context == '{"ce_specversion": "1.0", "ce_subject": "s"}'


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"ce_tenantid": "globex"}, "ce_tenantid differs from the tenantid in the body"),
        ({"ce_type": "u"}, "ce_type differs"),
        ({"message_id": "m26"}, "the message attribute message_id differs"),
        ({"producer": "other"}, "the message attribute producer differs"),
        ({"ce_specversion": "0.3"}, 'specversion: expected "1.0"'),
        ({"ce_id": b"m25"}, "ce_id is binary"),
        ({"ce-id": "m26"}, "ce_id and ce-id differ"),
        ({"ce_time": "today"}, "occurred_at (from the message attribute ce_time)"),
    ],
)
def test_cloudevents_attributes_must_agree_with_a_mapped_body(
    attributes: dict[str, Attribute], said: str
) -> None:
    assert said in words(PLAIN, APP, CE | attributes)


def test_an_incomplete_cloudevent_with_a_mapped_body_is_rejected() -> None:
    assert "but specversion is missing" in words(PLAIN, APP, {"ce_id": "m25"})
    assert envelope(PLAIN, APP, {"ce_note": "x"}).context == '{"ce_note": "x"}'


def test_an_attribute_equal_to_a_context_member_is_kept_once() -> None:
    body = '{"client_id": "acme", "event_type": "t", "message": 1, "host": "a"}'

    assert envelope(body, APP, {"host": "a"}).context == '{"host": "a"}'
    assert envelope(body, APP, {"host": "b"}).context == '{"host#2": "b", "host": "a"}'


def test_a_value_on_many_paths_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read_lengths: list[int] = []

    def counting(text: str, *limits: int) -> Any:
        read_lengths.append(len(text))
        return read(text, *limits)

    monkeypatch.setattr("processor.decoding.mapping.read", counting)
    inner = '{"who": "acme", "type": "t", "id": "1", "by": "shop", "data": {"n": 1.50}}'
    names = {"tenant_id": "who", "event_type": "type", "id": "id", "producer": "by", "payload": "data"}

    found = envelope(f'{{"a": {{"b": {inner}}}}}', {name: f"/a/b/{at}" for name, at in names.items()})

    assert found.payload == '{"n": 1.50}'
    assert read_lengths == [len(inner) + len('{"b": }'), len(inner)]


def test_every_field_of_an_envelope_can_be_mapped() -> None:
    body = '{"c": 1, "t": 2, "m": "text", "i": 3, "p": "shop", "v": "4"}'
    pairs = "tenant_id=/c event_type=/t payload=/m id=/i producer=/p schema_version=/v"

    found = envelope(body, parse(pairs.split()))

    assert (found.tenant_id, found.event_type, found.message_id) == ("1", "2", "3")
    assert (found.producer, found.schema_version, found.payload, found.context) == ("shop", 4, '"text"', None)


def test_a_payload_in_a_string_is_parsed_if_the_mapping_says_so() -> None:
    body = '{"client_id": 1, "event_type": "t", "message": "{\\"n\\": 1.50}"}'
    mapping = {"tenant_id": "/client_id", "event_type": "/event_type"}

    assert envelope(body).payload_value == '{"n": 1.50}'
    assert envelope(body, mapping | {"payload_json": "/message"}).payload == '{"n": 1.50}'
    as_it_is = '{"client_id": 1, "event_type": "t", "message": {"n": 1}}'
    assert envelope(as_it_is, mapping | {"payload_json": "/message"}).payload_value == {"n": 1}


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (["tenant_id"], "expected FIELD=/POINTER"),
        (["tenant=/x"], "with a field of tenant_id, event_type"),
        (["tenant_id=client_id"], "not a JSON pointer"),
        (["tenant_id=$.client_id"], "not a JSON pointer"),
        (["tenant_id=/a~2"], "not a JSON pointer"),
        (["tenant_id=/" + "x" * 256], "not a JSON pointer"),
        (["tenant_id=/a", "tenant_id=/b"], "given twice"),
        (["payload=/a", "payload_json=/b"], "expected one of them"),
    ],
)
def test_an_invalid_mapping_is_rejected(pairs: list[str], said: str) -> None:
    with pytest.raises(SettingsError, match="--map") as caught:
        parse(pairs)

    assert said in str(caught.value)


def test_a_mapping_is_parsed_unchanged() -> None:
    assert parse(["tenant_id=/a=b", "payload="]) == {"tenant_id": "/a=b", "payload": ""}
