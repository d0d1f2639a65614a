"""What the HTTP door says of itself is what it does: its OpenAPI document, its page, its metrics."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from structlog.testing import capture_logs

from processor.devstack.seed import seed
from processor.devstack.servers.sqs import EmbeddedSqs
from producers.gateway.http import HttpLimits
from producers.gateway.http.app import make_app
from producers.gateway.http.problems import STATUSES, TITLES
from producers.gateway.items import Refusal, Why
from tests.builders import a_delivery
from tests.fixtures.database import Saver
from tests.gateway.grpc.parts import PlainIntake
from tests.gateway.http.rig import Gateway, a_gateway, a_pulse, settings_of

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def gateway(sqs_server: EmbeddedSqs) -> Iterator[Gateway]:
    queue_url = sqs_server.create_queue("http-openapi")
    with a_gateway(settings_of(sqs_server, queue_url), sqs_server) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/ingest"), ("POST", "/v1/events"), ("OPTIONS", "/ingest"), ("GET", "/readyz")],
)
def test_whatever_is_sent_is_answered_as_the_document_says(gateway: Gateway, method: str, path: str) -> None:
    document = schemathesis.openapi.from_dict(gateway.client.get("/openapi.json").json())
    statuses = set()

    @given(case=document[path][method].as_strategy())
    @settings(
        max_examples=30,
        deadline=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def whatever(case: Any) -> None:
        # What headers name seldom agrees with the body beside which they came by chance.
        for headers in (case.headers, dict[str, str]()):
            case.headers = headers
            answer = case.call(base_url=f"http://127.0.0.1:{gateway.port}")
            statuses.add(answer.status_code)
            case.validate_response(answer, checks=CHECKS)

    whatever()

    assert statuses & {200, 202, 207}, "something was taken, too"
    gateway.queued()


def test_every_status_is_documented() -> None:
    described = _document()["paths"]["/ingest"]["post"]["responses"]

    assert {str(why.status) for why in Why} <= set(described)
    assert {str(status) for status in STATUSES.values()} - {"404"} <= set(described)


def test_every_word_of_a_refusal_has_a_title_and_the_status_of_its_word() -> None:
    assert {why.word: why.status for why in Why}.items() <= STATUSES.items()
    assert STATUSES.keys() == TITLES.keys()


def _examples() -> Iterator[tuple[str, str, Any]]:
    """Each path, media type and example of the document."""
    for path, item in _document()["paths"].items():
        for media_type, content in item.get("post", {}).get("requestBody", {}).get("content", {}).items():
            for example in [found["value"] for found in content.get("examples", {}).values()] or [
                content["example"]
            ]:
                yield path, media_type, example


def test_every_path_of_the_document_is_served_and_has_an_operation_id_of_its_own(gateway: Gateway) -> None:
    operations = [
        (path, method, operation["operationId"])
        for path, item in _document()["paths"].items()
        for method, operation in item.items()
    ]

    assert len({name for _, _, name in operations}) == len(operations) == 7
    for path, method, _ in operations:
        assert gateway.client.request(method, path).status_code not in (404, 405), (path, method)


def test_every_example_is_accepted_and_stored_by_dev(
    gateway: Gateway, database_url: str, saver: Saver
) -> None:
    seed(database_url)
    examples = [*_examples()]
    for number, (path, media_type, example) in enumerate(examples):
        answer = gateway.post(path, example, content_type=media_type, idempotency_key=f"my-{number}")
        assert answer.status_code == 202, (path, example, answer.text)

    deliveries = [
        a_delivery(
            attributes=event.pop("attributes"), body=json.dumps(event).encode(), delivery_id=str(number)
        )
        for number, event in enumerate(gateway.queued())
    ]
    assert len(deliveries) > len(examples) > 5
    assert set(saver.outcomes(*deliveries)) <= {"stored", "duplicate"}


def test_the_page_loads_nothing_from_elsewhere(gateway: Gateway) -> None:
    answer = gateway.client.get("/docs")
    loaded = re.findall(r"""(?:src|href|url)(?:="|: ')([^"']+)["']""", answer.text)

    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-security-policy"].startswith("default-src 'self' 'unsafe-inline';")
    assert len(loaded) == 4
    assert not re.search(r"https?://|@import", answer.text)
    kinds = {url: gateway.client.get(url).headers["content-type"] for url in loaded}
    assert set(kinds.values()) == {"text/css", "text/javascript", "image/png", "application/json"}
    styles = gateway.client.get("/docs/swagger-ui.css").text
    assert not re.search(r"url\((?!data:|\"data:)|@import", styles)
    assert gateway.client.get("/docs/swagger-ui-bundle.js").text.count("SwaggerUIBundle")


def test_a_problem_type_leads_to_its_place_on_the_page(gateway: Gateway) -> None:
    page = gateway.client.get("/docs").text

    for code in TITLES:
        assert f"id='{code}'" in page


def test_requests_are_counted_by_route_and_status_and_a_path_makes_no_series(gateway: Gateway) -> None:
    def shown() -> dict[str, float]:
        lines = gateway.client.get("/metrics").text.splitlines()
        pairs = [line.rsplit(" ", 1) for line in lines if line.startswith("gateway_http_requests_total")]
        return {name: float(value) for name, value in pairs}

    before = shown()
    gateway.post("/ingest", a_pulse())
    gateway.post("/made-up-by-a-sender", a_pulse())
    gateway.queued()
    after = shown()

    taken, other = (
        f'gateway_http_requests_total{{route="{route}",status="{status}"}}'
        for route, status in (("/ingest", 202), ("other", 404))
    )
    assert after[taken] - before.get(taken, 0) == 1
    assert after[other] - before.get(other, 0) == 1
    assert not any("made-up" in name for name in after)
    assert "gateway_http_requests_in_flight 1.0" in gateway.client.get("/metrics").text, "this one alone"


class _Nobody(PlainIntake):
    async def take(self, *_: Any) -> list[Any]:
        raise RuntimeError("the payload, say")

    async def caller(self, _: str | None) -> Refusal:
        raise RuntimeError("the key, say")


def _document() -> dict[str, Any]:
    found: dict[str, Any] = make_app(_Nobody(), _Nobody(), HttpLimits()).document
    return found


def test_a_fault_of_ours_is_a_problem_without_its_text() -> None:
    app, sent = make_app(_Nobody(), _Nobody(), HttpLimits()), []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/ingest", "headers": [], "state": {}}
    with capture_logs() as logged:
        asyncio.run(app(scope, receive, send))

    assert sent[0]["status"] == 500
    assert b'"code":"internal"' in sent[1]["body"]
    assert json.loads(sent[1]["body"])["instance"] == logged[0]["instance"]
    assert "RuntimeError" in logged[0]["error"]
    assert b"say" not in sent[1]["body"]
    assert "say" not in str(logged)
