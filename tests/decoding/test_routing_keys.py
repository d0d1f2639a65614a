"""Tests that values of a routing key complete an event, and that contradictions are rejected."""

import json
from typing import Any

import pytest

from processor.decoding.decoder import Decoder
from processor.decoding.routing_keys import RoutingKeys
from processor.errors import SettingsError
from processor.model import QueueRules
from processor.settings import Settings
from processor.wire.formats import Attribute, Envelope, Malformed, decode
from tests.builders import QUEUE, a_delivery
from tests.wire.reading import a_cloudevent

COUNTER = "<user_id>.event.<event_type>"


def keys(template: str = COUNTER, tenant: str | None = "acme") -> RoutingKeys:
    found = RoutingKeys.of(Settings.load(_env_file=None, routing_key=template, routing_key_tenant=tenant))
    assert found is not None
    return found


def read(
    key: str, body: object, attributes: dict[str, Attribute] | None = None, by: RoutingKeys | None = None
) -> Envelope | Malformed:
    written = body if isinstance(body, bytes) else json.dumps(body).encode()
    routed = (by or keys()).apply(key, written, attributes or {})
    if isinstance(routed, Malformed):
        return routed
    return decode(*routed, size_bytes_max=1_000_000, depth_max=64)


def envelope(*arguments: Any, **more: Any) -> Envelope:
    found = read(*arguments, **more)
    assert isinstance(found, Envelope), found
    return found


def fault(*arguments: Any, **more: Any) -> str:
    found = read(*arguments, **more)
    assert isinstance(found, Malformed), found
    assert found.reason == "envelope_invalid"
    return str(found.detail["message"])


def test_a_message_with_a_matching_routing_key_is_an_event() -> None:
    found = envelope("u1.event.created", {"id": "1"})

    assert (found.tenant_id, found.event_type, found.message_id) == ("acme", "created", "1")
    assert found.payload_value == {"user_id": "u1"}


def test_key_and_body_make_the_payload_and_no_number_loses_a_digit() -> None:
    found = envelope("u1.event.created", b'{"amount": 0.1000000000000000000000000001, "id": "1"}')

    assert json.loads(found.payload, parse_float=str) == {
        "user_id": "u1",
        "amount": "0.1000000000000000000000000001",
    }


def test_the_key_may_contain_tenant_and_producer() -> None:
    by = keys("<tenant_id>.<producer>.<event_type>", None)

    found = envelope("globex.app.order", {"id": "1", "n": 1}, by=by)

    assert (found.tenant_id, found.producer, found.event_type) == ("globex", "app", "order")
    assert found.payload_value == {"n": 1}


@pytest.mark.parametrize(
    "body",
    [
        {"id": "1", "tenant_id": "acme", "event_type": "created", "payload": {"a": 1}},
        {"id": "1", "event_type": "created", "payload": {"a": 1, "user_id": "u1"}},
        {"specversion": "1.0", "id": "1", "source": "app", "type": "created", "data": {"a": 1}},
    ],
)
def test_an_envelope_keeps_its_format_and_gets_missing_fields(body: dict[str, Any]) -> None:
    found = envelope("u1.event.created", body)

    assert (found.tenant_id, found.event_type, found.message_id) == ("acme", "created", "1")
    assert found.payload_value == {"a": 1, "user_id": "u1"}


@pytest.mark.parametrize(
    ("body", "attributes"),
    [
        ({"id": "1", "user_id": "u2"}, {}),
        ({"id": "1", "tenant_id": "globex"}, {}),
        ({"event_type": "deleted", "payload": {}}, {}),
        ({"event_type": "created", "payload": {"user_id": "u2"}}, {}),
        ({"specversion": "1.0", "id": "1", "source": "s", "type": "deleted", "data": {}}, {}),
        ({"id": "1"}, {"tenant_id": "globex"}),
        ({"id": "1"}, {"tenant_id": "globex", "event_type": "created"}),
        ({"id": "1"}, {"event_type": b"created"}),
    ],
)
def test_a_message_that_disagrees_with_its_key_is_rejected(
    body: dict[str, Any], attributes: dict[str, Attribute]
) -> None:
    assert "differs from the routing key" in fault("u1.event.created", body, attributes)


def test_equal_values_in_key_and_message_are_accepted() -> None:
    said_twice: dict[str, Attribute] = {"tenant_id": "acme", "event_type": "created", "message_id": "1"}

    found = envelope("7.event.created", {"user_id": 7}, said_twice)

    assert (found.message_id, found.payload_value) == ("1", {"user_id": 7})


@pytest.mark.parametrize(
    "key", ["", "u1.created", "u1.event", ".event.created", "u1.events.created", "a.b.c.d"]
)
def test_a_key_that_does_not_match_is_rejected(key: str) -> None:
    assert fault(key, {"id": "1"}) == f"the routing key does not match ROUTING_KEY ({COUNTER})"


@pytest.mark.parametrize(
    ("body", "reason"), [(b"Hello", "not_json"), (b"\xff", "not_utf8"), (b'{"a": 1, "a": 2}', "not_json")]
)
def test_invalid_json_is_rejected_with_the_tenant_of_its_key(body: bytes, reason: str) -> None:
    found = read("u1.event.created", body)

    assert isinstance(found, Malformed)
    assert (found.reason, found.claimed.tenant_id, found.claimed.event_type) == (reason, "acme", "created")


@pytest.mark.parametrize(
    ("template", "tenant", "words"),
    [
        ("<user_id>.event", "acme", "<event_type> is missing"),
        ("<event_type>", None, "ROUTING_KEY_TENANT"),
        ("<tenant_id>.<event_type>", "acme", "not both"),
        ("<event_type>.<event_type>", "acme", "repeated"),
        ("<event_type>.*", "acme", "not a valid word of a template"),
        ("<event_type>.#", "acme", "not a valid word of a template"),
        ("<event type>", "acme", "not a valid word of a template"),
        ("a..<event_type>", "acme", "not a valid word of a template"),
        ("<id>.<event_type>", "acme", "come from the body"),
        (None, "acme", "set both, or neither"),
    ],
)
def test_an_invalid_template_is_rejected_at_startup(
    template: str | None, tenant: str | None, words: str
) -> None:
    settings = Settings.load(_env_file=None, routing_key=template, routing_key_tenant=tenant)

    with pytest.raises(SettingsError, match=words):
        RoutingKeys.of(settings)


def test_the_key_fills_null_fields() -> None:
    native = {"id": "1", "tenant_id": None, "event_type": None, "payload": {"n": 1}}
    found = envelope("u1.event.created", native)
    assert (found.tenant_id, found.event_type, found.payload_value["user_id"]) == ("acme", "created", "u1")

    found = envelope("u1.event.created", a_cloudevent(tenantid=None, type=None))
    assert (found.tenant_id, found.event_type, found.payload_value["user_id"]) == ("acme", "created", "u1")

    found = envelope("u1.event.created", {"id": "1", "event_type": None, "specversion": None})
    assert (found.tenant_id, found.event_type) == ("acme", "created")


def test_a_binary_cloudevent_keeps_its_mode_and_its_data_is_filled() -> None:
    event: dict[str, Attribute] = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "/shop"}

    found = envelope("u1.event.created", {"event_type": "data", "payload": 1}, event)

    assert (found.tenant_id, found.event_type, found.message_id) == ("acme", "created", "1")
    assert found.payload_value == {"event_type": "data", "payload": 1, "user_id": "u1"}
    assert "differs" in fault("u1.event.created", {}, event | {"ce_type": "deleted"})


def test_only_the_brokers_own_routing_key_counts() -> None:
    decoder = Decoder(1_000_000, 64, routing_keys=keys(), routed_queue=QUEUE)
    inner = {"routing_key": {"Type": "String", "Value": "forged.event.deleted"}}
    body = json.dumps({"Type": "Notification", "Message": '{"id": "1"}', "MessageAttributes": inner}).encode()
    delivery = a_delivery(body, attributes={"routing_key": "u1.event.created"})

    found = decoder.read(delivery, QueueRules(unwrap="sns"))

    assert isinstance(found, Envelope), found
    assert (found.event_type, found.payload_value) == ("created", {"user_id": "u1"})
