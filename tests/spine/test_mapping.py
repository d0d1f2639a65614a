"""A mapping: what it takes from a body, what stands beside, and what it says where something is missing."""

from datetime import UTC, datetime
from typing import Any

import pytest

from processor.errors import SettingsError
from processor.mapping import decode_mapped, parse
from processor.wire import Attribute, Envelope, Malformed

APP = {"tenant_id": "/client_id", "event_type": "/event_type", "payload": "/message"}
"""As the event process app has it."""


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


def test_the_event_process_apps_envelope_is_taken_with_an_integer_client() -> None:
    found = envelope('{"event_type": "login", "client_id": 7, "message": {"n": 1.50}, "host": "a", "n": 1e2}')

    assert (found.tenant_id, found.event_type, found.message_id) == ("7", "login", None)
    assert (found.payload, found.context) == ('{"n": 1.50}', '{"host": "a", "n": 1e2}')


def test_a_mapped_body_is_tried_as_no_other_format() -> None:
    cloudevent = (
        '{"specversion": "1.0", "id": "e", "source": "s", "type": "t", "tenantid": "acme", "data": 1}'
    )

    assert words(cloudevent).startswith("tenant_id: nothing at /client_id")
    native = (
        '{"client_id": "acme", "event_type": "t", "payload": 1, "message": 2, "id": "x", "tenant_id": "no"}'
    )
    found = envelope(native)
    assert (found.tenant_id, found.payload, found.message_id) == ("acme", "2", None)
    assert found.context == '{"payload": 1, "id": "x", "tenant_id": "no"}'


def test_what_is_mapped_from_deep_inside_is_taken_out_there() -> None:
    body = '{"meta": {"who": "acme", "at": 1.0}, "data": [{"x": 1.10}, {"y": 2}], "type": "t"}'
    mapping = {"tenant_id": "/meta/who", "event_type": "/type", "payload": "/data/0"}

    found = envelope(body, mapping)

    assert (found.tenant_id, found.payload) == ("acme", '{"x": 1.10}')
    assert found.context == '{"meta": {"at": 1.0}, "data": [null, {"y": 2}]}'


def test_without_a_place_for_the_payload_it_is_the_whole_body() -> None:
    body = ' {"client_id": "acme", "event_type": "t", "n": 1.0} '

    for more in ({}, {"payload": ""}):
        found = envelope(body, {"tenant_id": "/client_id", "event_type": "/event_type"} | more)
        assert (found.payload, found.context) == (body.strip(), None)


def test_beside_a_body_stands_what_it_leaves_open_and_nothing_that_contradicts_it() -> None:
    mapping = {"event_type": "/event_type", "payload": "/message"}
    body = '{"event_type": "t", "message": 1}'

    assert envelope(body, mapping, {"tenant_id": "acme", "x": "y"}).context == '{"x": "y"}'
    assert envelope(body, mapping, implied={"tenant_id": "acme"}).tenant_id == "acme"
    assert "'u'" in words(body, mapping, {"tenant_id": "acme", "event_type": "u"})
    assert "tenant_id is binary" in words(body, mapping, {"tenant_id": b"acme"})
    # What the body has as null it leaves open.
    null = '{"event_type": "t", "client_id": null, "message": 1}'
    assert envelope(null, attributes={"tenant_id": "acme"}).tenant_id == "acme"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"event_type": "t", "message": 1}', "tenant_id: nothing at /client_id"),
        ('{"client_id": null, "event_type": "t", "message": 1}', "tenant_id: nothing at /client_id"),
        ('{"client_id": 1, "message": 1}', "event_type: nothing at /event_type"),
        ('{"client_id": 1, "event_type": "t"}', "payload: nothing at /message"),
        ("[1]", "tenant_id: nothing at /client_id"),
        ('{"client_id": 1.5, "event_type": "t", "message": 1}', "tenant_id: "),
        ('{"client_id": true, "event_type": "t", "message": 1}', "tenant_id: "),
        ('{"client_id": {}, "event_type": "t", "message": 1}', "tenant_id: "),
    ],
)
def test_what_is_missing_or_odd_is_named_with_its_place(body: str, said: str) -> None:
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


@pytest.mark.parametrize("time", ["0", "-1", "1e300", "9" * 300, "true", '"1764489600"', "[]", "1e-300"])
def test_what_is_no_time_is_refused(time: str) -> None:
    body = f'{{"client_id": 1, "event_type": "t", "message": 1, "at": {time}}}'

    assert "occurred_at: " in words(body, APP | {"occurred_at": "/at"})


def test_every_field_of_an_envelope_can_be_mapped() -> None:
    body = '{"c": 1, "t": 2, "m": "text", "i": 3, "p": "shop", "v": "4"}'
    pairs = "tenant_id=/c event_type=/t payload=/m id=/i producer=/p schema_version=/v"

    found = envelope(body, parse(pairs.split()))

    assert (found.tenant_id, found.event_type, found.message_id) == ("1", "2", "3")
    assert (found.producer, found.schema_version, found.payload, found.context) == ("shop", 4, '"text"', None)


def test_a_payload_in_a_text_is_read_where_the_mapping_says_so() -> None:
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
        (["tenant_id=client_id"], "no JSON pointer"),
        (["tenant_id=$.client_id"], "no JSON pointer"),
        (["tenant_id=/a~2"], "no JSON pointer"),
        (["tenant_id=/" + "x" * 256], "no JSON pointer"),
        (["tenant_id=/a", "tenant_id=/b"], "given twice"),
        (["payload=/a", "payload_json=/b"], "expected one of them"),
    ],
)
def test_a_mapping_that_can_not_be_meant_is_refused(pairs: list[str], said: str) -> None:
    with pytest.raises(SettingsError, match="--map") as caught:
        parse(pairs)

    assert said in str(caught.value)


def test_a_mapping_is_read_as_it_is_given() -> None:
    assert parse(["tenant_id=/a=b", "payload="]) == {"tenant_id": "/a=b", "payload": ""}
