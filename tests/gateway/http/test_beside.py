"""What stands in the headers beside a body over HTTP: it fills what the body leaves open, or must agree."""

import gzip
import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.devstack.servers.sqs import EmbeddedSqs
from processor.wire.beside import NAMES
from processor.wire.formats import Envelope, decode
from tests.gateway.http.rig import JSON, Gateway, a_gateway, a_pulse, settings_of
from tests.wire.test_strict_json import few

NATIVE = {"id": "n-1", "tenant_id": "acme", "event_type": "free", "payload": {"n": 1}}
CLOUDEVENT = {
    "specversion": "1.0",
    "id": "c-1",
    "source": "/shop",
    "type": "free",
    "tenantid": "acme",
    "data": {"n": 1},
}
BINARY = {f"ce-{name}": str(value) for name, value in CLOUDEVENT.items() if name != "data"}
STRUCTURED = {"content-type": "application/cloudevents+json"}
BATCH = {"content-type": "application/cloudevents-batch+json"}


@pytest.fixture(scope="module")
def gateway(sqs_server: EmbeddedSqs) -> Iterator[Gateway]:
    queue_url = sqs_server.create_queue("http-beside")
    settings = settings_of(
        sqs_server, queue_url, gateway_body_bytes_max=20_000, gateway_tenant_rate=10.5 * 60
    )
    with a_gateway(settings, sqs_server) as gateway:
        yield gateway


def envelopes(gateway: Gateway) -> list[Envelope]:
    """Take everything off the queue, as the processor reads it."""
    found = []
    for event in gateway.queued():
        attributes = event.pop("attributes")
        read = decode(json.dumps(event).encode(), attributes, size_bytes_max=10**6, depth_max=64)
        assert isinstance(read, Envelope), read
        found.append(read)
    return found


# ── headers named after the fields ────────────────────────────────────────────────────────────────────


def test_a_body_in_no_known_format_is_the_payload_of_the_type_beside_it(gateway: Gateway) -> None:
    headers = {
        "x-tenant-id": "acme",
        "x-event-type": "café",
        "x-message-id": "m-1",
        "x-producer": "till",
        "x-occurred-at": "2026-11-29T03:00:00.1234567Z",
        "x-schema-version": "3",
    }

    sent = [(name.encode(), value.encode()) for name, value in (JSON | headers).items()]
    several = gateway.client.post("/v1/events", content=b"[1.50]", headers=sent)
    answer = gateway.client.post("/v1/events", content=b'{"n": 1.5}', headers=sent)

    assert several.status_code == 400, "an array brings several, and this id is one event's"
    [event] = envelopes(gateway)
    assert answer.status_code == 202, answer.text
    assert (event.tenant_id, event.event_type, event.message_id, event.producer) == (
        "acme",
        "café",
        "m-1",
        "till",
    )
    assert (event.schema_version, event.payload, event.context) == (3, '{"n": 1.5}', None)
    assert str(event.occurred_at) == "2026-11-29 03:00:00.123456+00:00"
    assert event.occurred_at_rest == "7"


@pytest.mark.parametrize("header", [f"x-{name.replace('_', '-')}" for name in NAMES])
def test_a_header_that_differs_from_the_body_is_refused_in_words_that_name_both(
    gateway: Gateway, header: str
) -> None:
    body = NATIVE | {"producer": "till", "occurred_at": "2026-11-29T03:00:00Z", "schema_version": 1}
    other = {"x-occurred-at": "2026-11-29T04:00:00Z", "x-schema-version": "2"}.get(header, "other-one")

    answer = gateway.post("/v1/events", body, **{header: other})

    assert answer.status_code == 422
    assert repr(other) in answer.json()["detail"]
    assert gateway.queued() == []


def test_headers_beside_an_array_are_of_each_of_its_events(gateway: Gateway) -> None:
    answer = gateway.post(
        "/ingest", [a_pulse(), a_pulse(producer="till"), a_pulse(producer="web")], x_producer="web"
    )

    assert [item["status"] for item in answer.json()["items"]] == [202, 422, 202]
    assert [event.producer for event in envelopes(gateway)] == ["web", "web"]


def test_a_header_that_stands_twice_or_is_no_text_is_refused(gateway: Gateway) -> None:
    for headers in ([("x-producer", "a"), ("x-producer", "b")], [(b"x-producer", b"\xff")]):
        answer = gateway.client.post(
            "/ingest", content=json.dumps(a_pulse()), headers=[("content-type", "application/json"), *headers]
        )
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    assert gateway.queued() == []


def test_an_idempotency_key_beside_an_own_id_is_kept_in_the_context(gateway: Gateway) -> None:
    gateway.post("/v1/events", NATIVE | {"colour": "red"}, idempotency_key="request-7")
    gateway.post("/v1/events", NATIVE, idempotency_key="n-1")

    [kept, same] = sorted(envelopes(gateway), key=lambda event: event.context or "", reverse=True)
    assert kept.message_id == same.message_id == "n-1"
    assert json.loads(kept.context or "") == {"colour": "red", "idempotency_key": "request-7"}
    assert same.context is None


# ── CloudEvents ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/ingest", "/v1/events"])
def test_binary_mode_is_understood_on_every_route(gateway: Gateway, path: str) -> None:
    answer = gateway.post(path, a_pulse(), **BINARY | {"ce-type": "pulse"})

    [event] = envelopes(gateway)
    assert answer.json()["message_id"] == event.message_id == "c-1"
    assert (event.producer, event.event_type) == ("/shop", "pulse")


@pytest.mark.parametrize("path", ["/ingest", "/v1/events"])
@pytest.mark.parametrize("media_type", ["application/cloudevents+json; charset=utf-8", "application/json"])
def test_so_is_structured_mode(gateway: Gateway, path: str, media_type: str) -> None:
    answer = gateway.post(path, CLOUDEVENT | {"type": "pulse", "data": a_pulse()}, content_type=media_type)

    [event] = envelopes(gateway)
    assert (answer.status_code, event.message_id, event.event_type) == (202, "c-1", "pulse")


@pytest.mark.parametrize(
    ("body", "headers"), [(NATIVE, {}), (CLOUDEVENT, STRUCTURED), ({"n": 1}, BINARY), (CLOUDEVENT, {})]
)
def test_the_route_of_pulses_takes_pulses_alone(
    gateway: Gateway, body: dict[str, Any], headers: dict[str, str]
) -> None:
    answer = gateway.post("/ingest", body, **headers)

    assert answer.status_code == 422
    assert "/v1/events" in answer.json()["detail"]
    assert gateway.queued() == []


@pytest.mark.parametrize("path", ["/ingest", "/v1/events"])
@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ([CLOUDEVENT], BATCH | {"ce-id": "c-1"}),
        ([CLOUDEVENT], BATCH | BINARY),
        ([a_pulse()], {"ce-id": "c-1"}),
        (a_pulse(), {"ce-id": "c-1"}),
        (CLOUDEVENT, STRUCTURED | {"ce-id": "c-2"}),
        (CLOUDEVENT | {"colour": "red"}, STRUCTURED | {"ce-colour": "blue"}),
        (CLOUDEVENT | {"time": "2026-11-29T03:00:00Z"}, STRUCTURED | {"ce-time": "2026-11-29T04:00:00Z"}),
    ],
)
def test_ce_headers_are_never_ignored(
    gateway: Gateway, path: str, body: Any, headers: dict[str, str]
) -> None:
    answer = gateway.post(path, body, **headers)

    assert answer.status_code in (400, 422)
    assert "ce-" in answer.json()["detail"]
    assert gateway.queued() == []


def test_ce_headers_beside_a_structured_event_agree_or_add(gateway: Gateway) -> None:
    body = CLOUDEVENT | {"time": "2026-11-29T03:00:00Z", "count": 7, "flag": True, "tenantid": None}
    headers = BINARY | {"ce-time": "2026-11-29T04:00:00%2B01:00", "ce-count": "7", "ce-flag": "true"}

    answer = gateway.post("/v1/events", body, **STRUCTURED | headers | {"ce-colour": "red"})

    [event] = envelopes(gateway)
    assert answer.status_code == 202, answer.text
    assert event.tenant_id == "acme"
    context = json.loads(event.context or "")
    assert context == {"count": 7, "flag": True, "colour": "red", "content-type": STRUCTURED["content-type"]}


def test_extensions_keep_their_names_whatever_these_are(gateway: Gateway) -> None:
    extensions = {"payload": "p", "producer": 7, "dataref": "https://a.example/b", "schemaversion": 2}
    gateway.post("/v1/events", CLOUDEVENT | extensions, **STRUCTURED)
    gateway.post("/v1/events", {"n": 1}, **BINARY | {f"ce-{name}": str(v) for name, v in extensions.items()})

    structured, binary = sorted(envelopes(gateway), key=lambda event: len(event.context or ""))
    for event, kept in ((structured, {}), (binary, {"producer": "7"})):
        assert (event.producer, event.schema_version) == ("/shop", 2)
        expected = {"payload": "p", "producer": 7, "dataref": "https://a.example/b"} | kept
        assert json.loads(event.context or "") == expected


def test_parameters_of_the_content_type_are_kept(gateway: Gateway) -> None:
    gateway.post("/v1/events", {"n": 1}, **BINARY | {"content-type": "text/json; charset=UTF-8; v=2"})

    [event] = envelopes(gateway)
    assert json.loads(event.context or "") == {"datacontenttype": "text/json; charset=UTF-8; v=2"}


@pytest.mark.parametrize("path", ["/ingest", "/v1/events"])
def test_an_empty_batch_is_a_batch(gateway: Gateway, path: str) -> None:
    answer = gateway.post(path, b" [] ", **BATCH)

    assert (answer.status_code, answer.json()) == (202, {"items": []})


@pytest.mark.parametrize("path", ["/ingest", "/v1/events"])
def test_a_sender_of_web_hooks_may_ask_first(gateway: Gateway, path: str) -> None:
    asked = {"webhook-request-origin": "shop.example.com", "webhook-request-rate": "120"}

    answer = gateway.client.options(path, headers=asked)
    plain = gateway.client.options(path)

    assert answer.status_code == plain.status_code == 200
    assert "POST" in answer.headers["allow"]
    assert answer.headers["webhook-allowed-origin"] == "shop.example.com"
    assert answer.headers["webhook-allowed-rate"] == str(int(10.5 * 60 * 60))
    assert "webhook-allowed-origin" not in plain.headers


# ── how a body is packed ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
@pytest.mark.parametrize(
    ("body", "headers"),
    [(a_pulse(), {}), ([a_pulse(), a_pulse()], {}), ([CLOUDEVENT | {"type": "pulse"}], BATCH)],
)
def test_a_packed_body_is_unpacked(
    gateway: Gateway, body: Any, headers: dict[str, str], encoding: str
) -> None:
    packed = gzip.compress(json.dumps(body).encode())

    answer = gateway.post("/ingest", packed, **headers | {"content-encoding": encoding})

    assert answer.status_code == 202, answer.text
    assert len(gateway.queued()) == (len(body) if isinstance(body, list) else 1)


def test_an_unknown_encoding_is_told_which_one_is_known(gateway: Gateway) -> None:
    answer = gateway.post("/ingest", a_pulse(), content_encoding="br")

    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "gzip, deflate")


def test_a_byte_order_mark_is_no_part_of_a_body(gateway: Gateway) -> None:
    for body in (a_pulse(), [a_pulse()]):
        assert gateway.post("/ingest", b"\xef\xbb\xbf" + json.dumps(body).encode()).status_code == 202
    gateway.post("/v1/events", b"\xef\xbb\xbf" + b'{"n": 1}', **BINARY)

    assert [event["payload"] for event in gateway.queued()] == [a_pulse(), a_pulse(), {"n": 1}]


def test_a_pulse_that_goes_on_as_a_pulse_keeps_the_version_of_its_schema(gateway: Gateway) -> None:
    """No native event could have `payload` in its context."""
    answer = gateway.post("/ingest", a_pulse() | {"payload": 1, "schema_version": 3})

    assert answer.status_code == 202, answer.text
    [found] = envelopes(gateway)
    assert (found.event_type, found.schema_version, found.context) == ("pulse", 3, '{"payload": 1}')


# ── the rule, whatever stands there ───────────────────────────────────────────────────────────────────

_values = st.sampled_from(["acme", "globex", "1", "2026-11-29T03:00:00Z", "2026-11-29T04:00:00+01:00", "7.5"])
_headers = st.dictionaries(st.sampled_from(sorted(NAMES)), _values, max_size=4)
_own = {"tenant_id": _values, "id": _values, "producer": _values, "occurred_at": _values}
_bodies = st.one_of(
    st.fixed_dictionaries({"event_type": _values, "payload": _values}, optional=_own),
    st.fixed_dictionaries(
        {"product_sku": _values, "used_amount": st.just(1)},
        optional=_own
        | {
            "event_type": st.sampled_from(["pulse", "void"]),
            "schema_version": st.just(1),
            # No context of a native event.
            "payload": _values,
        },
    ),
    st.fixed_dictionaries({"n": _values}),
)


@few
@given(_bodies, _headers)
def test_the_event_is_what_the_rule_says_whatever_headers_stand_beside_a_body(
    gateway: Gateway, body: dict[str, str], headers: dict[str, str]
) -> None:
    """The same body with the same names beside it, over SQS, is the same event, or no event either."""
    expected = decode(json.dumps(body).encode(), headers, size_bytes_max=10**6, depth_max=64)

    answer = gateway.post("/v1/events", body, **{f"x-{name}": value for name, value in headers.items()})

    found = envelopes(gateway)
    if not isinstance(expected, Envelope):
        assert (answer.status_code in (400, 422), found) == (True, [])
        return
    [event] = found
    assert answer.status_code == 202, answer.text
    for field in (
        "tenant_id",
        "event_type",
        "producer",
        "occurred_at",
        "schema_version",
    ):
        assert getattr(event, field) == getattr(expected, field), field
    # As values: the white space of a payload need not survive, and the database does not keep it.
    assert json.loads(event.payload) == json.loads(expected.payload)
    assert json.loads(event.context or "{}") == json.loads(expected.context or "{}")
    assert event.message_id == (expected.message_id or answer.json()["message_id"])
    for name, value in headers.items():
        own = getattr(event, name)
        assert name == "occurred_at" or str(own) == value, f"{name} was said, and is not what was stored"


def test_white_space_around_a_headers_value_is_no_part_of_it(gateway: Gateway) -> None:
    """As RFC 9110 has it in 5.5: a proxy may take it off, and the same event is sent through it again."""
    # A client that sends it as it is.
    address = gateway.client.base_url
    connection = http.client.HTTPConnection(address.host, address.port or 80, timeout=20)
    for message_id in ("ws-1", "ws-1 \t"):
        headers = JSON | {"X-Message-Id": message_id, "X-Tenant-Id": "acme ", "X-Schema-Version": " 1 "}
        body = '{"event_type": "free", "payload": 1, "schema_version": 1}'
        connection.request("POST", "/v1/events", body, headers)
        with connection.getresponse() as response:
            assert response.status == 202, response.read()
            response.read()
    connection.close()

    assert [found.message_id for found in envelopes(gateway)] == ["ws-1", "ws-1"]


def test_a_content_type_among_the_headers_of_a_cloudevent_must_agree_with_the_requests(
    gateway: Gateway,
) -> None:
    same = gateway.post("/v1/events", {"n": 1}, **BINARY, **{"ce-datacontenttype": "application/json"})
    other = gateway.post("/v1/events", {"n": 1}, **BINARY, **{"ce-datacontenttype": "text/json"})

    assert (same.status_code, other.status_code) == (202, 422)
    assert "ce-datacontenttype" in other.json()["detail"]
    assert len(envelopes(gateway)) == 1


def test_refusals_speak_of_headers(gateway: Gateway) -> None:
    differs = gateway.post("/v1/events", NATIVE, **{"x-tenant-id": "globex"}).json()["detail"]
    unknown = gateway.post("/v1/events", {"n": 1}).json()["detail"]
    missing = gateway.post("/v1/events", {**CLOUDEVENT, "id": None}, **STRUCTURED).json()

    assert "the header X-Tenant-Id differs from the tenant in the body" in differs
    assert "expected headers X-Tenant-Id and X-Event-Type" in unknown
    assert "set it in the event or as the header X-Message-Id" in missing["detail"]
    assert "attribute" not in differs + unknown + str(missing)
