"""Tests that numbers are compared exactly, and cost nothing extra without a uniqueness constraint."""

import json
from typing import Any

import pytest

from processor.errors import Reason
from processor.model import EventSchema, Registry, Rejection, Verdict
from processor.validation.validator import Schemas
from tests.builders import a_body, a_delivery

UNIQUE = {"properties": {"numbers": {"items": {"uniqueItems": True}}}}


def judged(texts: list[str], definition: Any = UNIQUE) -> Verdict:
    """The verdict on a payload with these numbers, nested some levels down."""
    judge = Schemas(body_bytes_max=1024 * 1024, json_depth_max=64)
    judge.install(
        Registry(1, {"acme": False}, (EventSchema(1, "order.created", None, 1, json.dumps(definition)),))
    )
    body = a_body(payload={"numbers": [["NUMBERS"]]}).decode()
    return judge.validate(a_delivery(body=body.replace('"NUMBERS"', ",".join(texts)).encode()))


DEAR = {
    "integers beyond 64 bits": [str(10**29 + number) for number in range(4900)],
    "negative ones": [str(-(10**29) - number) for number in range(4900)],
    "decimals of more digits than a double has": [f"0.1{number:019}" for number in range(1, 4900)],
    "few that are long": [f"0.1{number:0899}" for number in range(1, 300)],
    "inside of objects": [f'{{"a": [{10**29 + number}]}}' for number in range(4900)],
}
PLAIN = {
    "integers of 64 bits": [str(2**64 - 1 - number) for number in range(1000)],
    "decimals that a double holds": [f"{number}.50" for number in range(1000)],
    "decimals of seventeen digits": [repr(1 / (number + 3)) for number in range(1000)],
    "such numbers in quotes": [f'"{10**29 + number}"' for number in range(1000)],
    "some beyond 64 bits": [str(10**29 + number) for number in range(300)],
}


@pytest.mark.parametrize("name", PLAIN)
def test_hundreds_of_numbers_are_compared_pairwise(name: str) -> None:
    assert not isinstance(judged(PLAIN[name]), Rejection)
    twice = judged([*PLAIN[name], PLAIN[name][0]])
    assert isinstance(twice, Rejection)
    assert twice.reason is Reason.SCHEMA_VIOLATION


@pytest.mark.parametrize("name", DEAR)
def test_numbers_are_accepted_without_a_uniqueness_constraint(name: str) -> None:
    assert not isinstance(judged(DEAR[name], {"properties": {"numbers": {"type": "array"}}}), Rejection)
