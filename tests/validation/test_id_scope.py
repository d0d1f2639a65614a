"""Tests id scopes: which messages have the same duplicate key."""

import json
from typing import Any

import pytest

from processor.errors import Reason
from processor.model import EventSchema, Message, Registry, Rejection
from processor.validation.validator import Schemas
from tests.builders import a_body, a_delivery

SCOPES = {
    "created": ("/user_id",),
    "a/b": ("/user_id",),
    "a": ("/user_id", "/place/0"),
    "odd": ("/a~1b~0c",),
    "listed": ("/01",),
    "whole": ("",),
}


def a_judge(scopes: dict[str, tuple[str, ...]] = SCOPES, definition: Any = True) -> Schemas:
    """A validator of events of any shape, with scopes for some types."""
    judge = Schemas(body_bytes_max=1024 * 1024, json_depth_max=64)
    schemas = tuple(
        EventSchema(number, event_type, None, 1, json.dumps(definition))
        for number, event_type in enumerate([*scopes, "order.created"], start=1)
    )
    judge.install(Registry(7, {"acme": False, "globex": True}, schemas, id_scopes=scopes))
    return judge


def the_producer(payload: Any, event_type: str = "created", **changes: Any) -> str:
    verdict = a_judge().validate(a_delivery(event_type=event_type, payload=payload, id="1", **changes))
    assert isinstance(verdict, Message), verdict
    assert verdict.message_id == "1", "it stays as it was sent"
    return verdict.producer


def test_the_event_type_and_the_values_become_part_of_the_producer() -> None:
    assert the_producer({"user_id": "u1"}) == "created/u1"
    assert the_producer({"user_id": "u1"}, producer="app") == "created/u1/app"
    assert the_producer({"user_id": "u1", "place": ["x"]}, "a") == "a/u1/x"


def test_an_event_type_without_a_scope_keeps_its_producer() -> None:
    assert the_producer({"user_id": "u1"}, "order.created", producer="app/%") == "app/%"
    assert the_producer({"user_id": "u1"}, "order.created") == ""


@pytest.mark.parametrize(
    ("payload", "producer"),
    [
        ({"user_id": "a/b"}, "created/a%2Fb"),
        ({"user_id": "a%2Fb"}, "created/a%252Fb"),
        ({"user_id": ""}, "created/"),
        ({"user_id": "Zoë 田"}, "created/Zoë 田"),
        ({"user_id": "a\nb\u0085"}, "created/a%0Ab%C2%85"),
        ({"user_id": "\ud800"}, "created/%ED%A0%80"),
        ({"user_id": True}, "created/true"),
        ({"user_id": 7}, "created/7"),
        ({"user_id": 7.0}, "created/7"),
        ({"user_id": 700}, "created/700"),
        ({"user_id": -0.50}, "created/-0.5"),
        ({"user_id": -0.0}, "created/0"),
        ({"user_id": 1e30}, "created/1" + 30 * "0"),
    ],
)
def test_the_encoding_of_a_value_is_unique(payload: Any, producer: str) -> None:
    assert the_producer(payload) == producer


def test_a_number_keeps_every_digit() -> None:
    digits = "0." + 40 * "12"
    body = a_body(event_type="created", payload={"user_id": "DIGITS"}).replace(
        b'"DIGITS"', digits.encode() + b"00"
    )

    verdict = a_judge().validate(a_delivery(body))

    assert isinstance(verdict, Message)
    assert verdict.producer == f"created/{digits}"


def test_a_different_type_value_or_producer_gives_a_different_key() -> None:
    keys = [
        the_producer({"user_id": "u1"}),
        the_producer({"user_id": "u1/app"}),
        the_producer({"user_id": "u1"}, producer="app"),
        the_producer({"user_id": "u1/app"}, producer="app"),
        the_producer({"user_id": "u1"}, producer="app/x"),
        the_producer({"user_id": "c"}, "a/b"),
        the_producer({"user_id": "b", "place": ["c"]}, "a"),
        the_producer({"user_id": "b/c", "place": [""]}, "a"),
        the_producer({"user_id": "b", "place": ["c"]}, "a", producer="d"),
        the_producer({"user_id": "b", "place": ["c/d"]}, "a"),
    ]

    assert len(set(keys)) == len(keys)


def test_a_pointer_is_resolved_by_rfc_6901() -> None:
    assert the_producer({"a/b~c": "x"}, "odd") == "odd/x"
    assert the_producer({"01": "x"}, "listed") == "listed/x"
    assert the_producer("x", "whole") == "whole/x"


@pytest.mark.parametrize(
    ("event_type", "payload", "pointer"),
    [
        ("created", {}, "/user_id"),
        ("created", {"user_id": None}, "/user_id"),
        ("created", {"user_id": ["u1"]}, "/user_id"),
        ("created", {"user_id": {}}, "/user_id"),
        ("created", "u1", "/user_id"),
        ("created", None, "/user_id"),
        ("a", {"user_id": "u1"}, "/place/0"),
        ("a", {"user_id": "u1", "place": []}, "/place/0"),
        ("a", {"user_id": "u1", "place": {"1": "x"}}, "/place/0"),
        ("listed", ["a", "b"], "/01"),
    ],
)
def test_an_event_without_a_scope_value_is_rejected_with_the_place(
    event_type: str, payload: Any, pointer: str
) -> None:
    body = json.dumps({"id": "1", "tenant_id": "acme", "event_type": event_type, "payload": payload}).encode()

    verdict = a_judge().validate(a_delivery(body))

    assert isinstance(verdict, Rejection)
    assert verdict.reason is Reason.SCHEMA_VIOLATION
    assert verdict.detail["message"].startswith(f"{pointer}: ids of event type ")
    assert verdict.detail["errors"][0] | {"message": ""} == {
        "pointer": pointer,
        "rule": "id_scope",
        "message": "",
    }
    assert verdict.detail["schema_version"] == 1


@pytest.mark.parametrize(("length", "fits"), [(244, True), (245, False)])
def test_a_key_that_is_too_long_is_rejected(length: int, *, fits: bool) -> None:
    verdict = a_judge().validate(
        a_delivery(event_type="created", payload={"user_id": "u" * length}, producer="app")
    )

    if fits:
        assert isinstance(verdict, Message)
        assert len(verdict.producer) == 256
    else:
        assert isinstance(verdict, Rejection)
        assert verdict.reason is Reason.SCHEMA_VIOLATION
        assert "have 257 characters" in verdict.detail["message"]
        assert "at most 256" in verdict.detail["message"]


def test_the_schema_is_checked_before_the_scope() -> None:
    judge = a_judge(definition={"required": ["user_id"]})

    verdict = judge.validate(a_delivery(event_type="created", payload={}))

    assert isinstance(verdict, Rejection)
    assert verdict.detail["errors"][0]["rule"] == "/required"


def test_a_rejection_claims_the_key_that_its_message_would_have() -> None:
    # Rule 1 searches by this key for a message stored before the tenant was suspended.
    verdict = a_judge().validate(
        a_delivery(a_body(event_type="created", payload={"user_id": "u1"}, tenant_id="globex", id="1"))
    )

    assert isinstance(verdict, Rejection)
    assert verdict.reason is Reason.TENANT_SUSPENDED
    assert (verdict.claimed.message_id, verdict.claimed.producer) == ("1", "created/u1")
