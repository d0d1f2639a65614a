"""The OpenAPI document of the door: what it takes and every answer that it gives, with examples."""

from typing import Any

from pydantic.json_schema import models_json_schema

from producers.gateway.http.docs_page import docs_page
from producers.gateway.http.models import MODELS, CloudEvent, NativeEvent, Pulse

INTRODUCTION = """\
Takes events over HTTP and answers 202 only once SQS has accepted them: nothing that was acknowledged \
waits in memory.

**Send an Idempotency-Key, or events with ids of their own.** Then an event that is sent again, because \
the answer was lost or was 503, counts once. Without either an id is made and returned (`made_id`), and \
sending again counts again.

An array answers for each of its events: 202 if all were taken, 207 if some, else the status that all of \
them share, or 422. One bad event never fails its neighbours.

What headers name beside a body (`X-Tenant-Id`, `X-Event-Type`, `X-Message-Id`, `X-Producer`, \
`X-Occurred-At`, `X-Schema-Version`, and the `ce-` headers of CloudEvents) fills what the body leaves open, \
in an array for each event, and must agree with what it says: else the answer is 422 and names both. With a \
type in `X-Event-Type` a body in no known format is the payload. Who names no tenant sends as the key's. An \
event with an id of its own keeps it, and then an `Idempotency-Key` goes into its context. No other header \
says anything of an event. Bodies may be packed: `Content-Encoding: gzip`.
"""

_TEXTS = {
    "/ingest": (
        "Send pulses",
        "Pulses, one or an array: bare, as native events or as CloudEvents of type `pulse`. Events of other "  # noqa: ISC004
        "types go to `/v1/events`. With `GATEWAY_ANSWER=204` pulses that were all taken are answered 204, "
        "without a body.",
    ),
    "/v1/events": (
        "Send events",
        "Native events, CloudEvents and pulses, one or an array. CloudEvents in binary mode have their "  # noqa: ISC004
        "attributes in `ce-` headers, and their data is the body; beside a batch these headers are refused.",
    ),
    "/livez": ("Does the process answer?", "Say that the process answers."),
    "/readyz": ("Would events be taken now?", "Not if the queue or the keys can't be reached."),
    "/metrics": ("Metrics for Prometheus", "Give the metrics in Prometheus's text format."),
}

_PROBLEMS = {
    400: "No JSON, a length that is not true, or a header that can't be read.",
    401: "No API key, or none that is known.",
    403: "The API key is another tenant's, or has no right to send this.",
    408: "The request was not there in time.",
    413: "More bytes or events than are taken at once.",
    415: "Not JSON in UTF-8, or packed otherwise than by gzip or deflate.",
    422: "JSON, but no event that is taken; `errors` points at what is wrong.",
    429: "Over the tenant's quota, or the gateway is full.",
    431: "The headers are too large.",
    500: "A fault of the gateway; its log has more under the answer's `instance`.",
    503: "SQS has not accepted it, as far as is known: send it again, under the same id.",
}
_FROM_ARRAYS = (400, 403, 413, 422, 429, 503)
_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}


def described(takings: tuple[str, ...]) -> dict[str, Any]:
    """Give the document; `takings` are the paths that take events."""
    _, definitions = models_json_schema(
        [(model, "serialization") for model in MODELS], ref_template="#/components/schemas/{model}"
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "Event gateway", "description": INTRODUCTION, "version": "1"},
        "paths": {
            path: {"post": _taking(path), "options": _handshake(path)}
            if path in takings
            else {"get": _probe(path)}
            for path in _TEXTS
        },
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer ep_…`"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def page_of(document: dict[str, Any]) -> bytes:
    """Give the document as a page for people."""
    return docs_page(document, _PROBLEMS)


def _operation(name: str, texts: tuple[str, str], responses: dict[str, Any]) -> dict[str, Any]:
    summary, description = texts
    return {"summary": summary, "description": description, "operationId": name, "responses": responses}


def _name(path: str) -> str:
    return path.strip("/").replace("/", "_")


def _operations(path: str) -> dict[str, Any]:
    return {"post": _taking(path), "options": _handshake(path)}


def _taking(path: str) -> dict[str, Any]:
    return _operation(_name(path), _TEXTS[path], _taking_responses(path)) | {
        "requestBody": {"required": True, "content": _request_content(path)},
        "parameters": [*_PARAMETERS, *_BINARY],
        "security": [{"bearer": []}, {"header": []}],
    }


def _handshake(path: str) -> dict[str, Any]:
    """Describe the question of a sender of web hooks on a path."""
    texts = (
        "May web hooks be sent here?",
        "As CloudEvents says of web hooks. The question needs no key; each delivery does.",
    )
    yes = {"description": "Yes, if `WebHook-Allowed-Origin` is there.", "headers": _ALLOWED}
    return _operation(f"{_name(path)}_handshake", texts, {"200": yes}) | {"parameters": _ASKED}


def _probe(path: str) -> dict[str, Any]:
    return _operation(_name(path), _TEXTS[path], _probe_responses(path))


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _one_or_many(schema: dict[str, Any], examples: list[Any]) -> dict[str, Any]:
    many = {"type": "array", "items": schema, "minItems": 1}
    return {
        "schema": {"anyOf": [schema, many]},
        "examples": {
            "one": {"summary": "One", "value": examples[0]},
            "several": {"summary": "Several", "value": examples},
        },
    }


def _example(model: type[Any]) -> Any:  # noqa: ANN401 - any JSON value
    return model.model_config["json_schema_extra"]["examples"][0]


def _request_content(path: str) -> dict[str, Any]:
    pulse, native, event = _example(Pulse), _example(NativeEvent), _example(CloudEvent)
    anything: dict[str, Any] = {"anyOf": [_ref(name) for name in ("NativeEvent", "CloudEvent", "Pulse")]}
    examples = [native, event, pulse]
    if path == "/ingest":
        anything, examples = _ref("Pulse"), [pulse, pulse | {"product_sku": "traffic"}]
        event = event | {"type": "pulse", "data": pulse}
    several: dict[str, Any] = {"type": "array", "items": _ref("CloudEvent")}
    # Each with an id of its own, so that all of them may be tried one after the other.
    alone, batched = (event | {"id": f"{event['type']}-{number}"} for number in (1, 2))
    return {
        "application/json": _one_or_many(anything, examples),
        "application/cloudevents+json": {"schema": _ref("CloudEvent"), "example": alone},
        "application/cloudevents-batch+json": {"schema": several, "example": [batched]},
    }


def _taking_responses(path: str) -> dict[str, dict[str, Any]]:
    words = {"anyOf": [_ref("Accepted"), _ref("Items")]}
    found: dict[str, dict[str, Any]] = {
        "202": {
            "description": "SQS has accepted all of it.",
            "content": {"application/json": {"schema": words}},
        },
        "207": {
            "description": "Some of the events were taken; `items` says which.",
            "content": {"application/json": {"schema": _ref("Items")}},
        },
    }
    if path == "/ingest":
        found["204"] = {"description": "As 202, with `GATEWAY_ANSWER=204`."}
    for status, description in _PROBLEMS.items():
        schema: dict[str, Any] = _ref("Problem")
        if status in _FROM_ARRAYS:
            schema = {"anyOf": [_ref("NoneTaken"), schema]}
        found[str(status)] = {
            "description": description,
            "content": {"application/problem+json": {"schema": schema}},
        }
        if status in (429, 503):
            found[str(status)]["headers"] = _RETRY_AFTER
    found["405"] = _problem("Not by this method.")
    return found


def _problem(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/problem+json": {"schema": _ref("Problem")}}}


def _probe_responses(path: str) -> dict[str, dict[str, Any]]:
    if path == "/metrics":
        text = {"text/plain": {"schema": {"type": "string"}}}
        found: dict[str, dict[str, Any]] = {"200": {"description": "The metrics.", "content": text}}
    elif path == "/livez":
        found = {"200": {"description": "Yes.", "content": {"application/json": {"schema": _ref("Alive")}}}}
    else:
        content = {"application/json": {"schema": _ref("Ready")}}
        found = {
            "200": {"description": "Yes.", "content": content},
            "503": {"description": "No; `trouble` says why.", "content": content},
        }
    return found | {"405": _problem("Not by this method.")}


def _header(name: str, description: str, **schema: Any) -> dict[str, Any]:  # noqa: ANN401 - words of JSON Schema
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string"} | schema}


_PARAMETERS = [
    _header(
        "Idempotency-Key",
        "The event's id, if it has none of its own; in an array `<key>:<index>`. Quoted or not. "
        "A CloudEvent has to have one.",
        minLength=1,
        maxLength=256,
    ),
    _header("X-Message-Id", "The event's id. Not beside an array."),
    _header("X-Tenant-Id", "Its tenant."),
    _header("X-Event-Type", "Its event type; a body in no known format is then its payload."),
    _header("X-Producer", "The application that made it."),
    _header("X-Occurred-At", "When it happened, as RFC 3339 has it.", format="date-time"),
    _header("X-Schema-Version", "The version of its type's schema that it keeps to.", pattern="^[1-9]$"),
    _header("traceparent", "W3C Trace Context; kept with the event. Ignored if it is not well formed."),
    _header("tracestate", "As above."),
]
_BINARY = [
    _header("ce-specversion", "Makes it a CloudEvent in binary mode.", enum=["1.0"]),
    _header("ce-id", "The event's id."),
    _header("ce-source", "Its producer."),
    _header("ce-type", "Its event type."),
    _header("ce-tenantid", "Its tenant, if it is not to be the key's."),
    _header("ce-time", "When it happened, as RFC 3339 has it.", format="date-time"),
]
_ASKED = [
    _header("WebHook-Request-Origin", "Who asks."),
    _header("WebHook-Request-Rate", "How many requests a minute it asks for."),
]
_ALLOWED = {
    "Allow": {"description": "The methods of this path.", "schema": {"type": "string"}},
    "WebHook-Allowed-Origin": {"description": "Who asked, who may send.", "schema": {"type": "string"}},
    "WebHook-Allowed-Rate": {
        "description": "Events a minute by `GATEWAY_TENANT_RATE`, or `*`.",
        "schema": {"type": "string"},
    },
}
