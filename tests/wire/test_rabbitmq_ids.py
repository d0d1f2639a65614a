"""Tests that equal messages share a base, different ones do not, and each receive has its own suffix."""

import json
import struct
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties

from processor.brokers.rabbitmq import read_headers
from processor.brokers.rabbitmq_ids import (
    DELIVERY_ID_LENGTH_MAX,
    UnreadableHeaders,
    attributes_of,
    delivery_base,
)
from processor.wire.formats import Attribute
from processor.wire.hand_overs import base_of, hand_over

HEADERS: Mapping[str, Attribute] = {"a": "1", "b": b"2"}


def a_base(body: bytes = b"body", key: str = "key", **properties: Any) -> str:
    attributes, fault = attributes_of(BasicProperties(**properties), key)
    assert fault is None
    return delivery_base(attributes, body)


BASE = a_base(message_id="m", headers=HEADERS)


def test_a_base_is_the_property_and_a_digest_or_the_digest_alone() -> None:
    assert a_base(message_id="m", headers={"b": b"2", "a": "1"}) == BASE
    assert BASE.startswith("m:")
    assert len(BASE) == len("m:") + 16
    assert len(a_base()) == len(a_base(message_id="")) == 64


@pytest.mark.parametrize(
    "changes",
    [
        {"body": b"bod"},
        {"headers": {}},
        {"headers": {"a": "1", "b": "2"}},
        {"headers": {"a": "1b", "b": b"2"}},
        {"headers": {"a": "1", "b": b"2b"}, "body": b"ody"},
        # One exchange, two users, the same id: only the routing key distinguishes them.
        {"key": "other"},
        {"timestamp": 1_700_000_000},
        {"timestamp": 1_700_000_000_000},
        {"app_id": "shop"},
        {"content_type": "application/json"},
        {"correlation_id": "c"},
        {"headers": dict(HEADERS) | {"region": "eu"}},
    ],
)
def test_any_difference_gives_another_base(changes: dict[str, Any]) -> None:
    assert a_base(**{"message_id": "m", "headers": HEADERS} | changes) != BASE


def test_headers_added_by_the_broker_do_not_change_the_base() -> None:
    added: Any = {"x-delivery-count": 3, "x-death": [{"queue": "q"}], "x-first-death-queue": "q", "a": "1"}

    attributes, _ = attributes_of(BasicProperties(headers=added), "k")

    assert attributes == {"x-first-death-queue": "q", "a": "1", "routing_key": "k"}
    assert a_base(headers=added) == a_base(headers={"a": "1"})
    assert a_base(expiration="60000", delivery_mode=2, priority=1, user_id="guest") == a_base()
    assert a_base(headers={"user_id": "a"}) != a_base(headers={"user_id": "b"})


@pytest.mark.parametrize(
    "name",
    [
        "traceparent",
        "Traceparent",
        "tracestate",
        "baggage",
        "b3",
        "x-b3-traceid",
        "X-B3-Sampled",
        "sentry-trace",
        "uber-trace-id",
        "x-request-id",
        "X-Amzn-Trace-Id",
        "x-datadog-parent-id",
        "cloudEvents:traceparent",
        "ce_tracestate",
    ],
)
def test_headers_that_differ_on_each_publish_do_not_change_the_base(name: str) -> None:
    assert a_base(message_id="m", headers=dict(HEADERS) | {name: "other"}) == BASE


def test_a_null_counts_as_missing_and_a_time_is_text() -> None:
    headers: Any = {"tenant_id": None, "occurred_at": datetime(2026, 11, 22, 10, tzinfo=UTC), "n": 2}

    attributes, fault = attributes_of(BasicProperties(headers=headers), "k")

    assert attributes == {"occurred_at": "2026-11-22T10:00:00+00:00", "n": "2", "routing_key": "k"}
    assert fault is None


@pytest.mark.parametrize("message_id", ["x" * 171, "é" * 255, "a\nb", "\ud800"])
def test_a_delivery_id_always_fits(message_id: str) -> None:
    name = hand_over(a_base(message_id=message_id))

    assert len(name) <= DELIVERY_ID_LENGTH_MAX
    assert name.isprintable()


def test_each_receive_has_its_own_suffix_after_the_base() -> None:
    names = {hand_over(BASE) for _ in range(100)}

    assert len(names) == 100
    assert {base_of(name) for name in names} == {BASE}
    assert base_of(BASE) == BASE
    # A message with an id in the form of another's receive gets no part of that one's ids.
    assert base_of(hand_over(a_base(message_id=hand_over(BASE)))) != BASE


def test_properties_are_attributes_beside_the_headers() -> None:
    attributes, _ = attributes_of(
        BasicProperties(
            message_id="m",
            timestamp=1_700_000_000,
            app_id="shop",
            type="order",
            headers={"type": "header", "routing_key": "forged", "amqp.message_id": "forged"},
        ),
        "key",
    )

    assert attributes == {
        "amqp.message_id": "m",
        "amqp.message_id#2": "forged",
        "routing_key#2": "forged",
        "amqp.timestamp": "2023-11-14T22:13:20+00:00",
        "app_id": "shop",
        "type": "header",
        "amqp.type": "order",
        "routing_key": "key",
    }


@pytest.mark.parametrize(
    ("timestamp", "moment"),
    [
        (1_700_000_000, "2023-11-14T22:13:20+00:00"),
        # Many clients write milliseconds, though AMQP specifies seconds.
        (1_700_000_000_250, "2023-11-14T22:13:20.250000+00:00"),
        (0, None),
    ],
)
def test_a_timestamp_is_in_seconds_or_milliseconds_and_zero_is_missing(
    timestamp: int, moment: str | None
) -> None:
    attributes, fault = attributes_of(BasicProperties(timestamp=timestamp), "key")

    assert (attributes.get("amqp.timestamp"), fault) == (moment, None)


@pytest.mark.parametrize("timestamp", [2**53, 2**63])
def test_an_out_of_range_timestamp_is_reported_and_kept(timestamp: int) -> None:
    attributes, fault = attributes_of(BasicProperties(timestamp=timestamp), "key")

    assert fault is not None
    assert str(timestamp) in fault
    assert attributes["amqp.timestamp.raw"] == str(timestamp)


@given(st.floats(), st.sampled_from("df"))
def test_a_float_of_a_table_keeps_every_digit(value: float, kind: str) -> None:
    if kind == "f":
        [value] = struct.unpack(">f", struct.pack(">f", value)) if abs(value) < 1e38 else [1.5]
    packed = b"\x01n" + kind.encode() + struct.pack(f">{kind}", value)
    table = struct.pack(">I", len(packed)) + packed

    attributes, fault = attributes_of(BasicProperties(headers=read_headers(table)), "k")

    assert fault is None
    # A whole number is written without a fraction.
    assert attributes["n"] == json.dumps(int(value) if value.is_integer() else value)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        (UnreadableHeaders("RecursionError"), "the headers can't be read: RecursionError"),
        ({b"\xff": "v"}, "a header's name is not UTF-8"),
        ({"odd": object()}, "the header 'odd' can't be written as JSON"),
    ],
)
def test_an_unreadable_header_is_reported(headers: Any, words: str) -> None:
    attributes, fault = attributes_of(BasicProperties(message_id="m", headers=headers), "key")

    assert fault == words
    assert attributes == {"amqp.message_id": "m", "routing_key": "key"}


def test_importing_our_modules_leaves_pika_as_it_was() -> None:
    program = """
import pika.data, pika.frame, logging
before = {module: dict(vars(module)) for module in (pika.data, pika.frame, pika.SelectConnection)}
level = logging.getLogger("pika").level
import processor.brokers.rabbitmq, processor.sources.rabbitmq.source, producers.publishers.rabbitmq
assert all(dict(vars(module)) == names for module, names in before.items())
assert logging.getLogger("pika").level == level
"""
    subprocess.run([sys.executable, "-c", program], check=True)
