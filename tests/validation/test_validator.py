"""Tests verdicts: the schema for an event, and the message for the producer's developer."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from processor.errors import Reason, SettingsError
from processor.model import EventSchema, Message, Registry, Rejection
from processor.schemas.compiling import compile_schema
from processor.schemas.judge.process import ERRORS_PAYLOAD_MAX
from processor.validation.validator import Schemas
from tests.builders import ORDER_SCHEMA, a_body, a_delivery

NOTHING_FITS: dict[str, Any] = {"not": {}}


def a_schema(definition: Any = None, **changes: Any) -> EventSchema:
    """A shared schema, version 1, of order.created."""
    text = definition if isinstance(definition, str) else json.dumps(definition or ORDER_SCHEMA)
    fields: dict[str, Any] = {"schema_id": 1, "event_type": "order.created", "tenant_id": None, "version": 1}
    return EventSchema(**(fields | changes), definition=text)


def a_judge(*schemas: EventSchema, version: int = 7, json_depth_max: int = 64) -> Schemas:
    """Schemas with acme active, globex suspended, and the event schemas given."""
    judge = Schemas(body_bytes_max=1024 * 1024, json_depth_max=json_depth_max)
    judge.install(Registry(version, {"acme": False, "globex": True, "initech": False}, schemas))
    return judge


def stored(judge: Schemas, **changes: Any) -> Message:
    verdict = judge.validate(a_delivery(**changes))
    assert isinstance(verdict, Message), verdict
    return verdict


def rejected(judge: Schemas, **changes: Any) -> Rejection:
    verdict = judge.validate(a_delivery(**changes))
    assert isinstance(verdict, Rejection), verdict
    return verdict


# ── which schema ──────────────────────────────────────────────────────────────────────────────────────


def test_a_valid_event_becomes_a_message_that_names_its_schema_and_registry() -> None:
    delivery = a_delivery(id="o-1", producer="shop", trace="t")

    verdict = a_judge(a_schema(schema_id=42)).validate(delivery)

    assert isinstance(verdict, Message)
    assert verdict.delivery is delivery
    assert (verdict.registry_version, verdict.schema_id) == (7, 42)
    assert (verdict.tenant_id, verdict.message_id, verdict.producer) == ("acme", "o-1", "shop")
    assert (verdict.payload, verdict.context) == ('{"total":12.5}', '{"trace": "t"}')


def test_a_message_without_an_id_is_identified_by_its_delivery() -> None:
    verdict = stored(a_judge(a_schema()), id=None, delivery_id="d-1")

    assert verdict.message_id == "events/d-1"


def test_a_rejected_event_without_an_id_claims_its_derived_id() -> None:
    # Rule 1 searches by this key for the message of an earlier delivery.
    verdict = rejected(a_judge(), id=None, delivery_id="d-1")

    assert verdict.claimed.message_id == "events/d-1"


def test_the_newest_version_applies_in_any_order() -> None:
    versions = [a_schema(schema_id=number * 10, version=number) for number in (2, 10, 9, 1)]

    assert stored(a_judge(*versions)).schema_id == 100


def test_an_event_may_name_an_older_version() -> None:
    judge = a_judge(a_schema(schema_id=1), a_schema(NOTHING_FITS, schema_id=2, version=2))

    assert stored(judge, schema_version=1).schema_id == 1
    assert rejected(judge).reason is Reason.SCHEMA_VIOLATION
    assert rejected(judge, schema_version=2).detail["schema_version"] == 2


def test_an_unknown_version_is_rejected_with_the_known_ones() -> None:
    verdict = rejected(a_judge(a_schema(), a_schema(schema_id=2, version=2)), schema_version=3)

    assert verdict.reason is Reason.UNKNOWN_SCHEMA_VERSION
    assert "no schema version 3" in verdict.detail["message"]
    assert verdict.detail["message"].endswith("known: 1, 2")


def test_a_tenants_own_schemas_replace_the_shared_ones() -> None:
    shared = [a_schema(schema_id=number, version=number) for number in (1, 2, 3)]
    judge = a_judge(*shared, a_schema(schema_id=9, version=1, tenant_id="acme"))

    assert stored(judge).schema_id == 9
    assert stored(judge, tenant_id="initech").schema_id == 3
    assert rejected(judge, schema_version=2).reason is Reason.UNKNOWN_SCHEMA_VERSION


def test_a_tenants_schema_applies_to_no_other_tenant() -> None:
    judge = a_judge(a_schema(tenant_id="initech"))

    assert rejected(judge).reason is Reason.UNKNOWN_EVENT_TYPE
    assert stored(judge, tenant_id="initech")


def test_an_event_type_without_a_schema_is_unknown_and_the_message_has_advice() -> None:
    verdict = rejected(a_judge(a_schema()), event_type="order.lost")

    assert verdict.reason is Reason.UNKNOWN_EVENT_TYPE
    assert "'order.lost'" in verdict.detail["message"]
    assert "processor schema publish" in verdict.detail["message"]


def test_an_unknown_and_a_suspended_tenant_have_different_reasons() -> None:
    judge = a_judge(a_schema())

    assert rejected(judge, tenant_id="nobody").reason is Reason.UNKNOWN_TENANT
    assert rejected(judge, tenant_id="globex").reason is Reason.TENANT_SUSPENDED
    assert rejected(judge, tenant_id="ACME").reason is Reason.UNKNOWN_TENANT


def test_checks_run_in_the_order_tenant_event_type_payload() -> None:
    judge = a_judge(a_schema(NOTHING_FITS))

    assert rejected(judge, tenant_id="nobody", event_type="x").reason is Reason.UNKNOWN_TENANT
    assert rejected(judge, tenant_id="globex", event_type="x").reason is Reason.TENANT_SUSPENDED
    assert rejected(judge, event_type="x").reason is Reason.UNKNOWN_EVENT_TYPE


def test_before_any_registry_is_installed_every_tenant_is_unknown_at_version_0() -> None:
    judge = Schemas(body_bytes_max=1024, json_depth_max=64)

    assert rejected(judge).reason is Reason.UNKNOWN_TENANT
    assert rejected(judge).registry_version == 0


def test_a_newer_registry_applies_from_the_next_verdict() -> None:
    judge = a_judge(a_schema())
    assert stored(judge).registry_version == 7

    judge.install(Registry(8, {"acme": True}, ()))

    assert rejected(judge).reason is Reason.TENANT_SUSPENDED
    assert rejected(judge).registry_version == 8


def test_a_definition_changed_in_place_is_compiled_again() -> None:
    judge = a_judge(a_schema())
    assert stored(judge)

    judge.install(Registry(8, {"acme": False}, (a_schema(NOTHING_FITS),)))

    assert rejected(judge).reason is Reason.SCHEMA_VIOLATION


# ── what is wrong with a payload ──────────────────────────────────────────────────────────────────────


def test_a_violation_names_the_place_the_rule_and_what_was_expected() -> None:
    verdict = rejected(a_judge(a_schema(schema_id=3, version=2)), payload={"total": "much", "note": 1})

    assert verdict.reason is Reason.SCHEMA_VIOLATION
    assert verdict.detail == {
        "schema_id": 3,
        "schema_version": 2,
        "message": '/total: "much" is not of type "number" (and 1 more)',
        "errors": [
            {
                "pointer": "/total",
                "rule": "/properties/total/type",
                "message": '"much" is not of type "number"',
            },
            {"pointer": "/note", "rule": "/properties/note/type", "message": '1 is not of type "string"'},
        ],
        "error_count": 2,
    }


def test_the_payload_itself_has_the_empty_pointer() -> None:
    verdict = rejected(a_judge(a_schema()), payload=[])

    assert verdict.detail["errors"][0]["pointer"] == ""
    assert verdict.detail["message"].startswith("the payload: ")


def test_pointers_are_escaped_as_rfc_6901_says() -> None:
    judge = a_judge(a_schema({"additionalProperties": {"type": "string"}}))

    verdict = rejected(judge, payload={"a/b~c": 1})

    assert verdict.detail["errors"][0]["pointer"] == "/a~1b~0c"


def test_the_first_fifty_errors_are_kept_and_the_rest_counted() -> None:
    judge = a_judge(a_schema({"items": {"type": "string"}}))

    detail = rejected(judge, payload=list(range(120))).detail

    assert [error["pointer"] for error in detail["errors"]] == [f"/{place}" for place in range(50)]
    assert detail["error_count"] == 120
    assert detail["message"].endswith("(and 119 more)")


def test_a_long_payload_is_searched_for_its_first_error_only() -> None:
    # All errors would take some 7 KB and 50 µs each, and a sender could cause 100,000.
    judge = a_judge(a_schema({"items": {"anyOf": [{"type": "string"}, {"type": "null"}]}}))
    began = time.process_time()

    detail = rejected(judge, payload=[1] * 90_000).detail

    assert time.process_time() - began < 2
    assert ERRORS_PAYLOAD_MAX < 90_000
    assert [error["pointer"] for error in detail["errors"]] == ["/0"]
    assert detail["error_count"] is None
    assert "first error only" in detail["message"]


@pytest.mark.parametrize("payload", [0, 1.5, "text", True, [], [{}], {"total": []}, {"total": {}}, {}])
def test_wrong_types_everywhere_are_violations(payload: Any) -> None:
    assert rejected(a_judge(a_schema()), payload=payload).reason is Reason.SCHEMA_VIOLATION


@pytest.mark.parametrize(
    ("definition", "digits", "fits"),
    [
        ({"multipleOf": 0.01}, "19.99", True),
        ({"multipleOf": 0.01}, "19.999", False),
        ({"const": 0.1}, "0.1", True),
        ({"const": 1}, "1.0", True),
        ({"type": "integer"}, "1.0", True),
        ({"type": "integer"}, "1E300", True),
        ({"type": "integer"}, "1.5", False),
        ({"maximum": 0.1}, "0.10000000000000000000001", False),
        ({"maximum": 9007199254740992}, "9007199254740993", False),
        ({"minimum": 0}, "-0", True),
        ({"exclusiveMinimum": 0}, "1e-308", True),
        ({"type": "number"}, "9" * 300, True),
    ],
)
def test_numbers_are_validated_to_the_last_digit(definition: Any, digits: str, fits: bool) -> None:
    body = a_body(payload="DIGITS").replace(b'"DIGITS"', digits.encode())

    verdict = a_judge(a_schema(definition)).validate(a_delivery(body))

    assert isinstance(verdict, Message) is fits


@pytest.mark.parametrize("payload", [b'"\\ud800"', b'["\\udfff\\ud800"]', b'{"a": {"b": "\\ud83d"}}'])
def test_half_a_surrogate_pair_is_unstorable_or_left_to_postgresql_but_never_raises(payload: bytes) -> None:
    body = a_body(payload="TEXT").replace(b'"TEXT"', payload)

    for definition in ("true", '{"type": "string"}', '{"minLength": 1, "items": {"pattern": "a"}}'):
        verdict = a_judge(a_schema(definition)).validate(a_delivery(body))
        assert isinstance(verdict, Message) or verdict.claimed.tenant_id == "acme"


@pytest.mark.parametrize(
    "field", [b'"\\ud800": 1', b'"a": "\\ud800"', b'"a": ["\\u0000"]', b'"a": 123456789012345678901234567890']
)
def test_arbitrary_envelope_fields_raise_nothing(field: bytes) -> None:
    verdict = a_judge(a_schema()).validate(a_delivery(a_body().replace(b"{", b"{" + field + b", ", 1)))

    assert isinstance(verdict, Message)
    assert verdict.context == "{" + field.decode() + "}"


@pytest.mark.parametrize("depth_max", [64, 512])
def test_any_accepted_nesting_is_validated(depth_max: int) -> None:
    nested = "[" * (depth_max - 2) + "]" * (depth_max - 2)
    judge = a_judge(a_schema({"type": "array", "items": {"$ref": "#"}}), json_depth_max=depth_max)

    for event in ({"payload": "DEEP"}, {"payload": [], "other": "DEEP"}):
        body = a_body(**event).replace(b'"DEEP"', nested.encode())
        assert isinstance(judge.validate(a_delivery(body)), Message)


# ── schemas that can't be used ────────────────────────────────────────────────────────────────────────


@pytest.fixture
def web() -> Iterator[tuple[str, list[str]]]:
    """The URL of a web server, and the requested paths."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *args: Any) -> None:
            """Suppress output on the terminal."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    "definition",
    [
        {"$ref": "WEB/order.json"},
        {"$schema": "WEB/dialect"},
        {"$id": "WEB/base/", "$ref": "other"},
        {"properties": {"a": {"$dynamicRef": "WEB/x#a"}}},
        {"$defs": {"a": {"$id": "WEB/a", "$schema": "WEB/dialect", "$ref": "WEB/b"}}, "$ref": "#/$defs/a"},
    ],
)
def test_nothing_is_ever_fetched_for_a_schema(definition: dict[str, Any], web: tuple[str, list[str]]) -> None:
    url, asked = web
    there = json.loads(json.dumps(definition).replace("WEB", url))

    with pytest.raises(SettingsError, match="not a usable JSON Schema"):
        compile_schema(there)

    assert asked == []


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ({"type": "nope"}, "at /type"),
        ({"properties": {"a": {"minimum": "x"}}}, "at /properties/a/minimum"),
        ({"multipleOf": 0}, "at /multipleOf"),
        ([], "expected an object, true or false"),
        (None, "expected an object, true or false"),
        ('{"type": "string"}', "expected an object, true or false"),
        ({"$ref": "#/nope"}, "does not resolve to a schema"),
        ({"$ref": "file:///etc/passwd"}, "nothing is fetched: file:///etc/passwd (at (root))"),
        ({"$schema": "file:///etc/passwd"}, "$schema"),
        ({"$schema": 1}, "$schema"),
        ({"pattern": "("}, "at /pattern"),
        ({"pattern": "(?=look)ahead"}, "at /pattern"),
        ({"pattern": "(a)\\1"}, "at /pattern"),
        ({"pattern": "(a{1000}){1000}"}, "at /pattern"),
        ({"patternProperties": {"(?!x)": True}}, "at /patternProperties"),
    ],
)
def test_an_unusable_schema_is_rejected_with_a_message(definition: Any, words: str) -> None:
    with pytest.raises(SettingsError, match="not a usable JSON Schema") as caught:
        compile_schema(definition)

    assert words in str(caught.value)


def test_a_schema_nested_too_deeply_is_refused() -> None:
    definition: dict[str, Any] = {}
    for _ in range(400):
        definition = {"items": definition}

    with pytest.raises(SettingsError):
        compile_schema(definition)


def test_patterns_run_in_linear_time() -> None:
    validator = compile_schema({"pattern": "^(a+)+$"})
    began = time.process_time()

    assert not validator.is_valid("a" * 5000 + "b")

    assert time.process_time() - began < 1


def test_formats_are_checked() -> None:
    assert not compile_schema({"format": "date-time"}).is_valid("yesterday")


@pytest.mark.parametrize(
    "text", ['{"type": "nope"}', '"text"', "3", '{"pattern": "(?=a)"}', '{"minimum": 1e400}']
)
def test_an_unusable_schema_put_in_by_psql_rejects_its_events_and_no_others(text: str) -> None:
    judge = a_judge(a_schema(text, schema_id=1, version=1), a_schema(schema_id=2, event_type="other"))

    detail = rejected(judge).detail

    assert "can't be used; publish a corrected one" in detail["message"]
    assert (detail["schema_id"], detail["errors"], detail["error_count"]) == (1, [], 0)
    assert stored(judge, event_type="other")
