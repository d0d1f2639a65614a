"""What the HTTP door says to whom, and what it puts on the queue: a real socket, a real SQS."""

import gzip
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from processor.devstack.servers.sqs import EmbeddedSqs
from tests.gateway.http.rig import PROBLEM, Gateway, a_gateway, a_pulse, settings_of

CLOUDEVENT = {
    "specversion": "1.0",
    "id": "o-1",
    "source": "shop",
    "type": "order.created",
    "tenantid": "acme",
    "data": {"total": 12.5},
}
NATIVE = {"tenant_id": "acme", "event_type": "order.created", "payload": {"total": 1}}


@pytest.fixture(scope="module")
def gateway(sqs_server: EmbeddedSqs) -> Iterator[Gateway]:
    queue_url = sqs_server.create_queue("http-answers")
    changes = {
        "gateway_body_bytes_max": 20_000,
        "gateway_items_max": 50,
        "gateway_tenant_rates": {"busy": 0.001},
    }
    with a_gateway(settings_of(sqs_server, queue_url, **changes), sqs_server) as gateway:
        yield gateway


# ── what is taken ─────────────────────────────────────────────────────────────────────────────────────


def test_a_pulse_is_answered_with_202_once_it_is_on_the_queue(gateway: Gateway) -> None:
    answer = gateway.post("/ingest", a_pulse(), idempotency_key="my-1")

    [event] = gateway.queued()
    assert answer.status_code == 202
    assert answer.json() == {
        "message_id": "my-1",
        "delivery_id": answer.json()["delivery_id"],
        "tenant_id": "acme",
        "made_id": False,
    }
    assert (event["id"], event["event_type"], event["payload"]) == ("my-1", "pulse", a_pulse())


def test_pulses_are_answered_without_a_body_where_that_is_set(
    sqs_server: EmbeddedSqs, gateway: Gateway
) -> None:
    settings = settings_of(sqs_server, gateway.queue_url, gateway_answer="204")
    with a_gateway(settings, sqs_server) as silent:
        one, many = silent.post("/ingest", a_pulse()), silent.post("/ingest", [a_pulse(), a_pulse()])
        some, none = silent.post("/ingest", [a_pulse(), 7]), silent.post("/ingest", a_pulse(tenant_id=""))
        event = silent.post("/v1/events", a_pulse())
        taken = len(silent.queued())

    assert [(answer.status_code, answer.content) for answer in (one, many)] == [(204, b"")] * 2
    assert [answer.status_code for answer in (some, none, event)] == [207, 422, 202]
    assert taken == 5


def test_every_digit_of_an_amount_goes_on(gateway: Gateway) -> None:
    digits = "0.10000000000000000000000000000001"
    body = json.dumps(a_pulse(used_amount="?")).replace('"?"', digits).encode()

    assert gateway.post("/ingest", body).status_code == 202
    assert gateway.post("/ingest", b" [" + body + b"]").status_code == 202

    assert [event["payload"]["used_amount"] for event in gateway.queued()] == [float(digits)] * 2


def test_without_any_id_one_is_made_and_a_retry_counts_again(gateway: Gateway) -> None:
    answers = [gateway.post("/ingest", a_pulse()).json() for _ in range(2)]

    assert all(answer["made_id"] for answer in answers)
    assert answers[0]["message_id"] != answers[1]["message_id"]
    assert len(gateway.queued()) == 2


def test_an_event_keeps_its_own_id_beside_an_idempotency_key(gateway: Gateway) -> None:
    answer = gateway.post("/v1/events", CLOUDEVENT, idempotency_key="another")

    assert answer.json()["message_id"] == "o-1"
    gateway.queued()


@pytest.mark.parametrize(("header", "message_id"), [("k-1", "k-1"), ('"k-2"', "k-2"), (r'"k\"3"', 'k"3')])
def test_an_idempotency_key_may_be_quoted(gateway: Gateway, header: str, message_id: str) -> None:
    assert gateway.post("/ingest", a_pulse(), idempotency_key=header).json()["message_id"] == message_id
    gateway.queued()


@pytest.mark.parametrize("header", ["", '"', '""', '"a"b"', "x" * 257, "caf\u00e9", '"a', "a\tb"])
def test_an_idempotency_key_that_can_be_no_id_is_refused(gateway: Gateway, header: str) -> None:
    answer = gateway.client.post(
        "/ingest",
        content=json.dumps(a_pulse()),
        headers=[(b"content-type", b"application/json"), (b"idempotency-key", header.encode("latin-1"))],
    )

    assert answer.status_code == 400
    assert "Idempotency-Key" in answer.json()["detail"]


def test_an_array_is_answered_for_each_of_its_events(gateway: Gateway) -> None:
    answer = gateway.post("/ingest", [a_pulse(), a_pulse(product_sku="net")], idempotency_key="many")

    assert answer.status_code == 202
    assert [(item["index"], item["status"], item["message_id"]) for item in answer.json()["items"]] == [
        (0, 202, "many:0"),
        (1, 202, "many:1"),
    ]
    assert sorted(event["id"] for event in gateway.queued()) == ["many:0", "many:1"]


def test_one_bad_event_never_fails_its_neighbours(gateway: Gateway) -> None:
    body = [
        a_pulse(),
        a_pulse(used_amount=None),
        7,
        NATIVE,
        a_pulse(tenant_id=""),
        a_pulse(product_sku="net"),
    ]

    answer = gateway.post("/ingest", body, idempotency_key="mixed")

    items = answer.json()["items"]
    assert answer.status_code == 207
    assert [item["status"] for item in items] == [202, 422, 422, 422, 422, 202]
    assert items[1]["problem"]["errors"][0]["pointer"] == "/used_amount"
    assert items[4]["problem"]["errors"][0]["pointer"] == "/tenant_id"
    assert sorted(event["id"] for event in gateway.queued()) == ["mixed:0", "mixed:5"]


def test_an_array_of_which_nothing_is_taken_has_the_status_that_all_share(gateway: Gateway) -> None:
    alike = gateway.post("/ingest", [a_pulse(tenant_id=""), a_pulse(product_sku=None)])
    gateway.post("/ingest", [a_pulse(tenant_id="busy")] * 2)
    unlike = gateway.post("/ingest", [a_pulse(tenant_id="busy"), a_pulse(tenant_id="")])
    gateway.queued()

    assert (alike.status_code, alike.json()["code"], len(alike.json()["items"])) == (422, "invalid", 2)
    assert (unlike.status_code, unlike.json()["code"]) == (422, "none_taken")
    assert [item["status"] for item in unlike.json()["items"]] == [429, 422]
    assert unlike.headers["content-type"] == PROBLEM


def test_a_tenant_over_its_quota_is_told_when_to_come_again(gateway: Gateway) -> None:
    answers = [gateway.post("/ingest", a_pulse(tenant_id="busy")) for _ in range(2)]
    gateway.queued()

    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert answers[-1].json()["code"] == "over_quota"


# ── CloudEvents and native events ─────────────────────────────────────────────────────────────────────


def test_events_of_every_format_are_taken_as_one_or_as_an_array(gateway: Gateway) -> None:
    structured = gateway.post(
        "/v1/events", CLOUDEVENT, content_type="application/cloudevents+json; charset=UTF-8"
    )
    batched = gateway.post(
        "/v1/events", [CLOUDEVENT | {"id": "o-2"}], content_type="application/cloudevents-batch+json"
    )
    native = gateway.post("/v1/events", [NATIVE | {"id": "n-1"}, a_pulse(id="p-1")])

    assert [answer.status_code for answer in (structured, batched, native)] == [202, 202, 202]
    assert sorted(event["id"] for event in gateway.queued()) == ["n-1", "o-1", "o-2", "p-1"]


def test_a_cloudevent_in_binary_mode_keeps_its_attributes(gateway: Gateway) -> None:
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "b-1",
        "ce-source": "caf%C3%A9%20%22one%22",
        "ce-type": "order.created",
        "ce-tenantid": "acme",
        "ce-time": "2026-11-22T10:00:00Z",
        "ce-colour": '"quoted \\" red"',
        "content-type": "application/json",
    }

    answer = gateway.client.post("/v1/events", content=b'{"total": 1.50}', headers=headers)

    [event] = gateway.queued()
    assert answer.status_code == 202, answer.text
    assert event["id"] == "b-1"
    assert event["producer"] == 'caf\u00e9 "one"'
    assert event["occurred_at"].startswith("2026-11-22T10:00:00")
    assert event["colour"] == 'quoted " red'
    assert event["payload"] == {"total": 1.5}


@pytest.mark.parametrize(
    "body",
    [b'{}, "tenantid": "globex", "x": {}', b"{", b"{} {}", b'{}, "colour": "red"', b"\xff", b'1}, {"a": 1'],
)
def test_data_in_binary_mode_cannot_say_who_it_is_from(gateway: Gateway, body: bytes) -> None:
    headers = {f"ce-{name}": str(value) for name, value in CLOUDEVENT.items() if name != "data"}

    answer = gateway.post("/v1/events", body, **headers)

    assert answer.status_code == 400
    assert gateway.queued() == []


@pytest.mark.parametrize("name", ["ce-data", "ce-data_base64", "ce-Not_A-Name"])
def test_a_header_that_names_no_attribute_is_refused(gateway: Gateway, name: str) -> None:
    headers = {
        f"ce-{attribute}": str(value) for attribute, value in CLOUDEVENT.items() if attribute != "data"
    }

    answer = gateway.client.post("/v1/events", json={"total": 1}, headers=headers | {name: "x"})

    assert answer.status_code == 400


def test_a_cloudevent_batch_is_an_array_and_a_single_one_is_not(gateway: Gateway) -> None:
    batch = gateway.post("/v1/events", CLOUDEVENT, content_type="application/cloudevents-batch+json")
    single = gateway.post("/v1/events", [CLOUDEVENT], content_type="application/cloudevents+json")

    assert [batch.status_code, single.status_code] == [400, 400]


def test_a_trace_context_goes_on_beside_the_event_and_a_bad_one_does_not(gateway: Gateway) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    gateway.post("/ingest", a_pulse(id="good"), traceparent=parent, tracestate="a=1")
    gateway.post("/ingest", a_pulse(id="bad"), traceparent="00-" + "0" * 32 + "-b7ad6b7169203331-01")

    beside = {event["id"]: event["attributes"] for event in gateway.queued()}
    assert beside == {"good": {"traceparent": parent, "tracestate": "a=1"}, "bad": {}}


# ── what is not ───────────────────────────────────────────────────────────────────────────────────────

_REFUSED: list[tuple[str, bytes, dict[str, str], int, str]] = [
    ("/ingest", b"", {}, 400, "malformed"),
    ("/ingest", b"{", {}, 400, "malformed"),
    ("/ingest", b"[{}", {}, 400, "malformed"),
    ("/ingest", b"\xff\xfe", {}, 400, "malformed"),
    ("/ingest", b'"text"', {}, 422, "invalid"),
    ("/ingest", b"[" * 5000, {}, 400, "malformed"),
    ("/ingest", b'{"a":' * 3000, {}, 400, "malformed"),
    ("/ingest", b'{"tenant_id":"a","product_sku":"x","used_amount":NaN}', {}, 400, "malformed"),
    ("/ingest", b"[]", {}, 422, "invalid"),
    ("/ingest", json.dumps(NATIVE).encode(), {}, 422, "invalid"),
    ("/ingest", json.dumps(CLOUDEVENT).encode(), {}, 422, "invalid"),
    ("/ingest", b"[" + b"1," * 50 + b"1]", {}, 413, "too_large"),
    ("/ingest", b" " * 20_001, {}, 413, "too_large"),
    ("/ingest", b"{}", {"content-type": "text/plain"}, 415, "unsupported_media_type"),
    ("/ingest", b"{}", {"content-type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
    ("/ingest", b"{}", {"content-type": "application/cloudevents+json"}, 422, "invalid"),
    ("/ingest", b"{}", {"content-type": "application/json; charset=latin-1"}, 415, "unsupported_media_type"),
    ("/ingest", b"{}", {"content-type": "application/json; charset=utf-8; charset=utf-7"}, 400, "malformed"),
    ("/ingest", b"{}", {"content-type": 'application/json; v="1;"; V=2'}, 400, "malformed"),
    ("/ingest", b"{}", {"content-type": 'application/json; v="; charset=utf-16"'}, 422, "invalid"),
    ("/ingest", gzip.compress(bytes(10**7), mtime=0), {"content-encoding": "gzip"}, 413, "too_large"),
    ("/ingest", gzip.compress(b"{}", mtime=0)[:-3], {"content-encoding": "gzip"}, 400, "malformed"),
    ("/ingest", b"{}", {"content-encoding": "gzip"}, 400, "malformed"),
    ("/ingest", b"{}", {"content-encoding": "br"}, 415, "unsupported_media_type"),
    ("/v1/events", b"{}", {"content-type": "application/cloudevents+xml"}, 415, "unsupported_media_type"),
    ("/v1/events", b'{"specversion": "0.3"}', {}, 422, "invalid"),
    ("/v1/events", b"7", {}, 400, "malformed"),
    ("/nothing", b"{}", {}, 404, "not_found"),
    ("/ingest/", b"{}", {}, 404, "not_found"),
    ("/docs", b"{}", {}, 405, "method_not_allowed"),
]


@pytest.mark.parametrize(("path", "body", "headers", "status", "code"), _REFUSED)
def test_what_can_not_be_taken_is_refused_as_a_problem(
    gateway: Gateway, path: str, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    answer = gateway.post(path, body, **headers)

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert answer.headers["content-type"] == PROBLEM
    assert problem["status"] == status
    assert problem["type"] == f"/docs#{code}"
    assert problem["title"]
    assert problem["detail"]
    assert re.fullmatch(r"urn:gateway:[0-9a-f]{16}", problem["instance"])
    assert gateway.queued() == []


def test_a_request_without_a_content_type_is_refused(gateway: Gateway) -> None:
    with gateway.raw() as client:
        status, _, problem = client.send(
            b"POST /ingest HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"
        ).answer()

    assert status == 415
    assert "application/json" in problem["detail"]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/openapi.json"])
def test_a_probe_may_ask_for_the_head_alone(gateway: Gateway, path: str) -> None:
    answer = gateway.client.head(path)

    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "TRACE"])
def test_another_method_is_told_which_one_is_taken(gateway: Gateway, method: str) -> None:
    answer = gateway.client.request(method, "/ingest")

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.headers["content-type"] == PROBLEM


def test_a_missing_field_is_pointed_at(gateway: Gateway) -> None:
    def pointers(path: str, body: Any) -> list[str]:
        return [error["pointer"] for error in gateway.post(path, body).json()["errors"]]

    assert pointers("/ingest", {"tenant_id": "acme"}) == ["/product_sku", "/used_amount"]
    assert pointers("/v1/events", NATIVE | {"tenant_id": 7}) == ["/tenant_id"]


def test_headers_that_stand_twice_are_refused(gateway: Gateway) -> None:
    headers = [("idempotency-key", "a"), ("idempotency-key", "b"), ("content-type", "application/json")]

    answer = gateway.client.post("/ingest", content=json.dumps(a_pulse()), headers=headers)

    assert answer.status_code == 400
    assert gateway.queued() == []
