"""Tests the limits of an envelope: ids, times and sizes, and invalid bodies."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.errors import Reason
from processor.model import EventSchema, Message, Registry, Rejection
from processor.settings import Settings
from processor.wire.formats import Attribute, Claimed, Malformed, derived_id
from processor.wiring import make_schemas
from tests.builders import a_delivery, an_event
from tests.wire.reading import BY_ATTRIBUTES, LIMIT, a_cloudevent, decoded, envelope, malformed, pointers

EMOJI = "\U0001f980"

# ── the limits of ids ─────────────────────────────────────────────────────────────────────────────────

ID_FIELDS = ("id", "tenant_id", "event_type", "producer")


@pytest.mark.parametrize("name", ID_FIELDS)
def test_an_id_has_at_most_256_characters_however_many_bytes(name: str) -> None:
    for character in ("x", EMOJI):
        envelope(an_event(**{name: character * 256}))
        assert pointers(malformed(an_event(**{name: character * 257}))) == [f"/{name}"]


@pytest.mark.parametrize("name", ID_FIELDS)
@pytest.mark.parametrize("character", ["\0", "\n", "\t", "\x1b", "\x7f", "\x80", "\x9f", "\ud800"])
def test_an_id_has_no_control_characters_and_no_half_surrogates(name: str, character: str) -> None:
    found = malformed(an_event(**{name: f"a{character}b"}))

    assert pointers(found) == [f"/{name}"]


@pytest.mark.parametrize(
    "text", ["é", "日本", "مرحبا", EMOJI, "a b", " ", "a\u00a0b", "\u202eabc", "'; DROP", "%s"]
)
def test_an_id_may_be_any_other_text(text: str) -> None:
    assert envelope(an_event(id=text, tenant_id=text, producer=text)).message_id == text


@pytest.mark.parametrize("name", [*BY_ATTRIBUTES, "message_id", "producer", "occurred_at", "schema_version"])
def test_the_attributes_of_an_envelope_are_text(name: str) -> None:
    assert pointers(malformed({}, BY_ATTRIBUTES | {name: b"1"})) == [f"/{name}"]


@pytest.mark.parametrize("text", ["0", "-1", "1.0", "x", "", " 1", "\u0663", "9999999999", "1e1"])
def test_a_schema_version_in_an_attribute_is_a_whole_number(text: str) -> None:
    assert pointers(malformed({}, BY_ATTRIBUTES | {"schema_version": text})) == ["/schema_version"]


# ── times ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2026-11-22T10:00:00Z", "2026-11-22T10:00:00+00:00"),
        ("2026-11-22t10:00:00z", "2026-11-22T10:00:00+00:00"),
        ("2026-11-22 10:00:00Z", "2026-11-22T10:00:00+00:00"),
        ("2026-11-22T10:00:00-00:00", "2026-11-22T10:00:00+00:00"),
        ("2026-11-22T10:00:00+05:30", "2026-11-22T04:30:00+00:00"),
        ("2026-11-22T10:00:00.5Z", "2026-11-22T10:00:00.500000+00:00"),
        ("2026-11-22T10:00:00.123456789Z", "2026-11-22T10:00:00.123456+00:00"),
        (f"2026-11-22T10:00:00.{'9' * 500}Z", "2026-11-22T10:00:00.999999+00:00"),
        ("2024-02-29T23:59:59Z", "2024-02-29T23:59:59+00:00"),
        ("0001-01-02T00:00:00Z", "0001-01-02T00:00:00+00:00"),
        ("9999-12-30T00:00:00Z", "9999-12-30T00:00:00+00:00"),
    ],
)
def test_a_time_is_rfc_3339_and_kept_in_utc(text: str, iso: str) -> None:
    occurred_at = envelope(an_event(occurred_at=text)).occurred_at

    assert occurred_at is not None
    assert occurred_at.isoformat() == iso
    assert occurred_at.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22T10:00:00",
        "2026-11-22",
        "2026-11-22T10:00Z",
        "2026-11-22T10:00:00+0100",
        "2026-11-22T10:00:00+01",
        "2026-11-22T10:00:00,5Z",
        "2026-11-22T10:00:00.Z",
        "2026-11-22T10:00:00 Z",
        " 2026-11-22T10:00:00Z",
        "2026-11-22T10:00:00Z\n",
        "2026-11-22T10:00:00Z[Europe/Berlin]",
        "20261122T100000Z",
        "2026-W47-7T10:00:00Z",
        "2026-02-29T10:00:00Z",
        "2026-13-01T10:00:00Z",
        "2026-11-22T25:00:00Z",
        "2026-11-22T10:60:00Z",
        "2016-12-31T23:58:60Z",
        "2016-12-31T22:59:60Z",
        "2016-12-31T23:59:60+01:00",
        "2016-12-31T23:59:61Z",
        "9999-12-30T23:59:60Z",
        "2026-11-22T10:00:00+05:60",
        "2026-11-22T10:00:00+24:00",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-23:59",
        "0001-01-01T00:00:00+23:59",
        "10000-01-01T00:00:00Z",
        "-001-01-01T00:00:00Z",
        "٢٠٢٦-11-22T10:00:00Z",
        "now",
        "infinity",
        "",
    ],
)
def test_a_time_that_is_not_rfc_3339_with_a_zone_is_rejected(text: str) -> None:
    found = malformed(an_event(occurred_at=text))

    assert pointers(found) == ["/occurred_at"]
    assert "time" in found.detail["message"]


@pytest.mark.parametrize(
    "text", ["2016-12-31T23:59:60Z", "2017-01-01T00:59:60+01:00", "2016-12-31 15:59:60.0-08:00"]
)
def test_a_leap_second_is_the_first_second_of_the_next_day(text: str) -> None:
    """So the time equals the same event's from a clock without leap seconds."""
    plain = dict.fromkeys(("occurred_at", "time"), "2017-01-01T00:00:00Z")
    for event, name in ((an_event(id="o-1"), "occurred_at"), (a_cloudevent(), "time")):
        assert envelope(event | {name: text}) == envelope(event | {name: plain[name]})
        assert envelope(event | {name: text}, {"occurred_at": plain[name]}).message_id


def test_a_leap_second_keeps_its_digits() -> None:
    found = envelope(an_event(occurred_at="2016-12-31T23:59:60.1234567Z"))

    assert found.occurred_at == datetime(2017, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)
    assert found.occurred_at_rest == "7"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2026-11-22T10:00:00+24:00", "the hours of a zone go from 00 to 23"),
        ("2026-11-22T10:00:00-05:60", "its minutes from 00 to 59"),
        ("12026-11-22T10:00:00Z", "from 0001-01-02 to 9999-12-30"),
        ("+12026-11-22T10:00:00Z", "from 0001-01-02 to 9999-12-30"),
        ("9999-12-31T23:59:59-23:59", "from 0001-01-02 to 9999-12-30"),
        ("2016-12-31T23:58:60Z", "a leap second (:60) is possible at 23:59:60 UTC"),
    ],
)
def test_an_invalid_time_is_rejected_with_its_place(text: str, words: str) -> None:
    for found, where in (
        (malformed(an_event(occurred_at=text)), "occurred_at: "),
        (malformed(a_cloudevent(time=text)), "time: "),
        (malformed(an_event(), {"occurred_at": text}), "(from the message attribute occurred_at): "),
        (malformed({}, BY_ATTRIBUTES | {"occurred_at": text}), "(from the message attribute occurred_at): "),
    ):
        assert words in found.detail["message"]
        assert where in found.detail["message"]


# ── bytes ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", Reason.NOT_JSON),
        (b"Hello World", Reason.NOT_JSON),
        (b"\xef\xbb\xbf{}", Reason.NOT_JSON),
        (b"\xff\xfe{\0}\0", Reason.NOT_UTF8),
        (b'{"a": "\xed\xa0\x80"}', Reason.NOT_UTF8),
        (b'{"a": "\xc0\x80"}', Reason.NOT_UTF8),
        (b'{"a": "caf\xe9"}', Reason.NOT_UTF8),
        (b"\0", Reason.NOT_JSON),
        (b'{"a": NaN}', Reason.NOT_JSON),
        (b'{"a": 1, "a": 1}', Reason.NOT_JSON),
        (b"[" * 65 + b"]" * 65, Reason.NOT_JSON),
        (b"1e999", Reason.NOT_JSON),
        (b"<xml/>", Reason.NOT_JSON),
        (b"\x1f\x8b\x08", Reason.NOT_UTF8),
    ],
)
def test_invalid_json_has_its_own_reason(body: bytes, reason: Reason) -> None:
    found = malformed(body)

    assert found.reason is reason
    assert found.detail["message"]
    assert found.claimed == Claimed()


def test_a_body_is_accepted_up_to_the_size_limit() -> None:
    padding = LIMIT - len(json.dumps(an_event(payload="")))
    event = an_event(payload="x" * padding)
    event["id"] = event["id"][:1] + "9" * (LIMIT - len(json.dumps(event)) + len(event["id"]) - 1)
    body = json.dumps(event).encode()
    assert len(body) == LIMIT

    assert len(envelope(body).payload) == padding + 2
    found = malformed(body + b" ", {"tenant_id": "acme"})
    assert found.reason is Reason.TOO_LARGE
    assert str(LIMIT + 1) in found.detail["message"]
    assert found.claimed.tenant_id == "acme"


# ── anything ──────────────────────────────────────────────────────────────────────────────────────────

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = """
    id tenant_id tenant tenantid event_type type payload data data_base64 specversion source producer time
    occurred_at schema_version schemaversion datacontenttype product_sku used_amount use_unity use_unit
"""
names = st.sampled_from(NAMES.split())
likely = st.sampled_from(["1.0", "acme", "order.created", "2026-11-22T10:00:00Z", "1", 1, {}])
almost_events = st.dictionaries(names | st.text(max_size=5), likely | json_values, max_size=8)
bodies = st.binary(max_size=60) | (almost_events | json_values).map(lambda value: json.dumps(value).encode())
attribute_values: st.SearchStrategy[Attribute] = st.text(max_size=8) | st.binary(max_size=8)
attributes = st.dictionaries(names | st.text(max_size=5), attribute_values, max_size=5)


@settings(max_examples=60, deadline=None)
@given(body=bodies, attributes=attributes)
def test_decoding_never_raises_and_gives_an_envelope_or_a_reason(
    body: bytes, attributes: dict[str, Attribute]
) -> None:
    result = decoded(body, attributes)

    if isinstance(result, Malformed):
        assert result.detail["message"]
        json.dumps(result.detail)
    else:
        assert 1 <= len(result.tenant_id) <= 256
        assert json.loads(result.payload) is not ...
        assert result.context is None or isinstance(json.loads(result.context), dict)


def test_the_number_of_values_in_a_body_is_bounded_by_its_setting() -> None:
    judge = make_schemas(Settings.load(_env_file=None, json_values_max=1000))

    verdict = judge.validate(a_delivery(payload=[0] * 1000))

    assert isinstance(verdict, Rejection)
    assert verdict.reason is Reason.NOT_JSON
    assert "at most 1000 are accepted (JSON_VALUES_MAX)" in verdict.detail["message"]


@given(
    queue=st.text(min_size=1, max_size=300),
    name=st.text(min_size=1, max_size=300),
    other=st.text(max_size=300),
)
def test_a_derived_id_fits_and_is_unique_by_queue_and_name(queue: str, name: str, other: str) -> None:
    made = derived_id(queue, name)

    assert len(made) <= 256
    assert made.endswith(name) or len(name) > 239
    assert (made == f"{queue}/{name}") == (len(queue) + 1 + len(name) <= 256)
    assert derived_id(queue, other) != made or other == name
    assert derived_id(f"{queue}x", name) != made


def test_an_event_without_an_id_is_accepted_from_a_queue_of_any_name() -> None:
    judge = make_schemas(Settings.load(_env_file=None))
    judge.install(Registry(1, {"acme": False}, (EventSchema(1, "order.created", None, 1, "{}"),)))

    verdict = judge.validate(a_delivery(id=None, queue="q" * 255, delivery_id="0/17"))

    assert isinstance(verdict, Message)
    assert verdict.message_id.endswith("/0/17")
