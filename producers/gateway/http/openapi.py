"""The OpenAPI document of the HTTP gateway and its page, made by FastAPI, which serves no request.

    functions below ─▶ FastAPI ─▶ /openapi.json ─▶ Swagger UI at /docs (its files come with fastapi-offline)

The functions describe the routes and are never called: `app` reads the bytes of events itself.
"""

from gzip import compress
from html import escape
from importlib.resources import files
from typing import Annotated, Any

from fastapi import Body, FastAPI, Response, Security
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import PlainTextResponse
from fastapi.security import APIKeyHeader, HTTPBearer

from producers.gateway.http.models import (
    CLOUD_EVENT,
    NATIVE_EVENT,
    PULSE,
    AcceptedEvent,
    Alive,
    CloudEvent,
    Items,
    NativeEvent,
    NoneTaken,
    Problem,
    Pulse,
    Ready,
)
from producers.gateway.http.problems import PROBLEM_TYPE, STATUSES, TITLES

INTRODUCTION = """\
Takes events over HTTP and answers 202 only once SQS has accepted them: no acknowledged event waits in memory.

**Send an Idempotency-Key, or events with ids of their own.** Then an event that is sent again, because \
the answer was lost or was 503, counts once. Without either, the gateway makes an id and returns it \
(`made_id`), and an event that is sent again counts again.

The answer to an array has one entry per event: 202 if all were accepted, 207 if some, else the status that \
all of them share, or 422. One bad event never fails its neighbours.

Headers beside a body (`X-Tenant-Id`, `X-Event-Type`, `X-Message-Id`, `X-Producer`, `X-Occurred-At`, \
`X-Schema-Version`, and the `ce-` headers of CloudEvents) add what the body leaves open, in an array for \
each event, and must agree with the body: else the answer is 422 and names both values. With \
`X-Event-Type`, a body in no known format is the payload. Without a tenant, an event belongs to the \
tenant of the API key. An event with an id of its own keeps it, and an `Idempotency-Key` goes into its \
context. Other headers are ignored. Bodies may be compressed: `Content-Encoding: gzip`.
"""

ASSETS = {
    f"/docs/{name}": (media_type, compress((files("fastapi_offline") / "static" / name).read_bytes(), 6))
    for name, media_type in {
        "swagger-ui-bundle.js": b"text/javascript",
        "swagger-ui.css": b"text/css",
        "favicon.png": b"image/png",
    }.items()
}
"""The files that the page loads: media type and gzipped content by path. Small, as they need no key."""

_PROBLEMS = {
    400: "Invalid JSON, a wrong length, or an invalid header.",
    401: "No API key, or an unknown one.",
    403: "The API key belongs to another tenant, or may not send this.",
    405: "Method not allowed.",
    408: "The request did not arrive in time.",
    413: "Too many bytes or events in one request.",
    415: "Not JSON in UTF-8, or compressed otherwise than by gzip or deflate.",
    422: "Valid JSON, but not a valid event; `errors` points at each fault.",
    429: "Over the tenant's quota, or the gateway is at capacity.",
    431: "The headers are too large.",
    500: "An internal error; the gateway's log has more under the answer's `instance`.",
    503: "SQS has not accepted it, as far as is known: send it again, with the same id.",
}
_FROM_ARRAYS = (400, 403, 413, 422, 429, 503)
_RETRY_AFTER = {
    "headers": {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {
        status: {
            "description": _PROBLEMS[status],
            "model": NoneTaken | Problem if status in _FROM_ARRAYS else Problem,
            **(_RETRY_AFTER if status in (429, 503) else {}),
        }
        for status in statuses
    }


def _header(name: str, description: str, **schema: Any) -> dict[str, Any]:  # noqa: ANN401 - words of JSON Schema
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string"} | schema}


_HEADERS = [
    _header(
        "Idempotency-Key",
        "The event's id, if it has none of its own; in an array `<key>:<index>`. Quoted or not. "
        "A CloudEvent must have an id.",
        minLength=1,
        maxLength=256,
    ),
    _header("X-Message-Id", "The event's id. Not beside an array."),
    _header("X-Tenant-Id", "Its tenant."),
    _header("X-Event-Type", "Its event type; a body in no known format is then its payload."),
    _header("X-Producer", "The application that made it."),
    _header("X-Occurred-At", "When it happened (RFC 3339).", format="date-time"),
    _header("X-Schema-Version", "The version of its event type's schema.", pattern="^[1-9]$"),
    _header("traceparent", "W3C Trace Context; kept with the event. Ignored if malformed."),
    _header("tracestate", "As above."),
    _header("ce-specversion", "Makes it a CloudEvent in binary mode.", enum=["1.0"]),
    _header("ce-id", "The event's id."),
    _header("ce-source", "Its producer."),
    _header("ce-type", "Its event type."),
    _header("ce-tenantid", "Its tenant; default: the tenant of the API key."),
    _header("ce-time", "When it happened (RFC 3339).", format="date-time"),
]
_ASKED = [
    _header("WebHook-Request-Origin", "The sender of the web hooks."),
    _header("WebHook-Request-Rate", "The requests a minute that it asks for."),
]
_ALLOWED = {
    name: {"description": description, "schema": {"type": "string"}}
    for name, description in {
        "Allow": "The methods of this path.",
        "WebHook-Allowed-Origin": "The sender that asked and may send.",
        "WebHook-Allowed-Rate": "Events a minute by `GATEWAY_TENANT_RATE`, or `*`.",
    }.items()
}


def _taking(event: dict[str, Any]) -> dict[str, Any]:
    """Return the common parts of the routes for events; `event` is the example of a CloudEvent."""
    # Each example has its own id, so that all of them can be sent one after the other.
    one, batched = ({**event, "id": f"{event['type']}-{number}"} for number in (1, 2))
    reference = {"$ref": "#/components/schemas/CloudEvent"}
    several = {"type": "array", "items": reference}
    return {
        "status_code": 202,
        "response_model": AcceptedEvent | Items,
        "response_description": "SQS has accepted all of it.",
        "responses": {207: {"description": "Some events were accepted; see `items`.", "model": Items}}
        | _problems(*_PROBLEMS),
        "dependencies": [
            Security(HTTPBearer(scheme_name="bearer", description="`Authorization: Bearer ep_…`")),
            Security(APIKeyHeader(scheme_name="header", name="X-API-Key")),
        ],
        "openapi_extra": {
            "parameters": _HEADERS,
            "requestBody": {
                "content": {
                    "application/cloudevents+json": {"schema": reference, "example": one},
                    "application/cloudevents-batch+json": {"schema": several, "example": [batched]},
                }
            },
        },
    }


def _examples(*events: dict[str, Any]) -> Any:  # noqa: ANN401 - FastAPI's own type of a parameter
    return Body(
        openapi_examples={
            "one": {"summary": "One", "value": events[0]},
            "several": {"summary": "Several", "value": [*events]},
        }
    )


_app = FastAPI(
    title="Event gateway",
    description=INTRODUCTION,
    version="1",
    generate_unique_id_function=lambda route: route.name,
    separate_input_output_schemas=False,
)
_PULSES = _taking({**CLOUD_EVENT, "type": "pulse", "data": PULSE})
_PULSES["responses"][204] = {"description": "As 202, with `GATEWAY_ANSWER=204`."}


@_app.post("/ingest", summary="Send pulses", **_PULSES)
def ingest(
    _: Annotated[Pulse | list[Pulse], _examples(PULSE, {**PULSE, "product_sku": "traffic"})],
) -> None:
    """Pulses, one or an array: bare, as native events or as CloudEvents of type `pulse`.

    Events of other types go to `/v1/events`. With `GATEWAY_ANSWER=204`, pulses that were all accepted are
    answered 204, without a body.
    """


@_app.post("/v1/events", summary="Send events", **_taking(CLOUD_EVENT))
def v1_events(
    _: Annotated[
        NativeEvent | CloudEvent | Pulse | list[NativeEvent | CloudEvent | Pulse],
        _examples(NATIVE_EVENT, CLOUD_EVENT, PULSE),
    ],
) -> None:
    """Native events, CloudEvents and pulses, one or an array.

    CloudEvents in binary mode have their attributes in `ce-` headers, and their data is the body; these
    headers are refused beside a batch.
    """


_HANDSHAKE: dict[str, Any] = {
    "summary": "May web hooks be sent here?",
    "responses": {200: {"description": "Yes, if `WebHook-Allowed-Origin` is there.", "headers": _ALLOWED}},
    "openapi_extra": {"parameters": _ASKED},
    "response_class": Response,
}


@_app.options("/ingest", name="ingest_handshake", **_HANDSHAKE)
@_app.options("/v1/events", name="v1_events_handshake", **_HANDSHAKE)
def handshake() -> None:
    """Answer the handshake of CloudEvents' web hooks. It needs no key; each delivery does."""


@_app.get("/livez", summary="Is the process alive?", response_model=Alive, responses=_problems(405))
def livez() -> None:
    """Answers as long as the process does."""


_NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"description": "No; `trouble` says why.", "model": Ready}
}


@_app.get(
    "/readyz", summary="Can events be taken now?", response_model=Ready, responses=_NOT_READY | _problems(405)
)
def readyz() -> None:
    """Not if the queue or the keys can't be reached."""


@_app.get("/metrics", summary="Metrics", response_class=PlainTextResponse, responses=_problems(405))
def metrics() -> None:
    """Metrics in Prometheus's text format."""


def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    found = _app.openapi()
    problem_type = PROBLEM_TYPE.decode()
    for operation in (operation for path in found["paths"].values() for operation in path.values()):
        for response in operation["responses"].values():
            for media_type, content in [*response.get("content", {}).items()]:
                # FastAPI has one media type for all responses of a route.
                if any("Problem" in str(schema) for schema in content["schema"].values()):
                    response["content"] = {problem_type: response["content"].pop(media_type)}
    return found


def docs_page() -> bytes:
    """Return the page: Swagger UI below the list of problem codes, to which the `type` of a problem links."""
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title=_app.title,
        swagger_js_url="/docs/swagger-ui-bundle.js",
        swagger_css_url="/docs/swagger-ui.css",
        swagger_favicon_url="/docs/favicon.png",
    )
    rows = (
        f"<tr id='{code}'><td>{STATUSES[code]}<td><code>{code}</code><td>{escape(title)}"
        for code, title in TITLES.items()
    )
    head = "<body><details style='font:14px sans-serif'><summary>Problem codes</summary><table>"
    return bytes(page.body).replace(b"<body>", f"{head}{''.join(rows)}</table></details>".encode())
