"""Equal messages have one name, and whatever differs in them makes another."""

from collections.abc import Mapping

import pytest

from processor.amqp_ids import DELIVERY_ID_LENGTH_MAX, attributes_of, delivery_id
from processor.wire import Attribute

HEADERS: Mapping[str, Attribute] = {"a": "1", "b": b"2"}
NAME = delivery_id("m", "key", HEADERS, b"body")


def test_a_name_is_the_property_and_a_digest() -> None:
    assert delivery_id("m", "key", {"b": b"2", "a": "1"}, b"body") == NAME
    assert NAME.startswith("m:")
    assert len(NAME) == len("m:") + 16


@pytest.mark.parametrize(
    ("message_id", "key", "headers", "body"),
    [
        ("m", "key", HEADERS, b"bod"),
        ("m", "key", {}, b"body"),
        ("m", "key", {"a": "1", "b": "2"}, b"body"),
        ("m", "key", {"a": "1b", "b": b"2"}, b"body"),
        ("m", "key", {"a": "1", "b": b"2b"}, b"ody"),
        # One exchange, two users, the same id: the key is all that tells them apart.
        ("m", "other", HEADERS, b"body"),
    ],
)
def test_whatever_differs_makes_another_name(
    message_id: str, key: str, headers: Mapping[str, Attribute], body: bytes
) -> None:
    assert delivery_id(message_id, key, headers, body) != NAME


def test_what_the_broker_adds_changes_no_name() -> None:
    added = {"x-delivery-count": 3, "x-death": [{"queue": "q"}], "x-first-death-queue": "q", "a": "1"}

    assert attributes_of(added) == {"x-first-death-queue": "q", "a": "1"}
    assert delivery_id("m", "k", attributes_of(added), b"") == delivery_id("m", "k", {"a": "1"}, b"")


@pytest.mark.parametrize("message_id", ["x" * 184, "é" * 255, "a\nb", "\ud800"])
def test_a_name_always_fits(message_id: str) -> None:
    name = delivery_id(message_id, "k", {}, b"")

    assert len(name) <= DELIVERY_ID_LENGTH_MAX
    assert name.isprintable()
