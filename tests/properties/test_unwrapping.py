"""Whatever is in or around an envelope of AWS comes to a verdict, and what is taken keeps every digit."""

import json
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from processor.decoding.unwrapping.shapes import shape_words
from processor.model import EventSchema, Message, QueueRules, Registry, Rejection, RejectionRule
from processor.validation.tenant_bindings import Bindings
from processor.validation.validator import Schemas
from processor.wire.formats import Attribute
from processor.wire.strict_json import JsonFault, read
from tests.builders import SENT_AT, a_delivery
from tests.decoding.test_unwrapping import an_eventbridge_event, an_s3_record
from tests.properties.anything import Writer

KINDS = ("sns", "eventbridge", "s3")
RULES = tuple(
    RejectionRule(1, reason, None, None, None, {"/Records/0/s3": "1", "/detail/a": "b", "/a/0/~1": "true"})
    for reason in ("envelope_invalid", "unknown_event_type")
)
IN_PLACE_OF_IT = '"IN PLACE OF IT"'


def envelope_of(kind: str) -> dict[str, Any]:
    return {
        "sns": {
            "Type": "Notification",
            "MessageId": "n-1",
            "TopicArn": "arn",
            "Message": "M",
            "Timestamp": "2026-11-22T09:00:00Z",
            "MessageAttributes": {"tenant_id": {"Type": "String", "Value": "acme"}},
        },
        "eventbridge": an_eventbridge_event({"tenant_id": "acme"}),
        "s3": {"Records": [an_s3_record()]},
    }[kind]


def schemas_of(kind: str | None) -> Schemas:
    schemas = Schemas(
        body_bytes_max=64 * 1024,
        json_depth_max=64,
        bindings=Bindings("wrapped", frozenset(["acme"]), None),
        said={"wrapped": QueueRules(unwrap=kind)},
    )
    types = ("ObjectCreated:Put", "Order Created")
    versions = tuple(EventSchema(number, name, None, 1, "true") for number, name in enumerate(types))
    schemas.install(Registry(1, {"acme": False}, versions, rejection_rules=RULES))
    return schemas


BY_KIND = {kind: schemas_of(kind) for kind in (*KINDS, None)}


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [path, *(found for name, inner in members for found in paths_of(inner, (*path, name)))]


def with_json_at(value: Any, path: tuple[Any, ...], text: str) -> str:
    """The JSON of a value that has the text in the place of what is at the path."""
    if not path:
        return text
    part = value
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = "IN PLACE OF IT"
    return json.dumps(value).replace(IN_PLACE_OF_IT, text)


@given(seed=st.integers(0, 2**32), kind=st.sampled_from(KINDS), read_as=st.sampled_from([*KINDS, None]))
def test_any_json_anywhere_in_an_envelope_comes_to_a_verdict(
    seed: int, kind: str, read_as: str | None
) -> None:
    rng = random.Random(seed)
    envelope = envelope_of(kind)
    body = with_json_at(envelope, rng.choice(paths_of(envelope)), Writer(rng).value())
    attributes: dict[str, Attribute] = {} if rng.random() < 0.5 else {"id": body[:9], "tenant_id": "acme"}
    delivery = a_delivery(body.encode("utf-8", "surrogatepass"), queue="wrapped", attributes=attributes)

    verdict = BY_KIND[read_as].validate(delivery)

    if isinstance(verdict, Message):
        assert verdict.sent_at is None or verdict.sent_at <= SENT_AT
        assert isinstance(json.loads(verdict.context or "{}"), dict)
    else:
        assert isinstance(verdict, Rejection)
        assert verdict.detail["message"]


@given(seed=st.integers(0, 2**32))
def test_a_detail_and_a_record_are_kept_to_the_last_digit(seed: int) -> None:
    rng = random.Random(seed)
    text = Writer(rng).value()
    detail = f'{{"tenant_id": "acme", "n": {text}}}'
    record = json.dumps(an_s3_record())[:-1] + f', "n": {text}}}'
    event = json.dumps(an_eventbridge_event("IN PLACE OF IT")).replace(IN_PLACE_OF_IT, detail)
    for kind, body, inner in (
        ("eventbridge", event, detail),
        ("s3", f'{{"Records": [{record}]}}', record),
    ):
        verdict = BY_KIND[kind].validate(a_delivery(body.encode("utf-8", "surrogatepass"), queue="wrapped"))
        if isinstance(verdict, Message):
            assert read(verdict.payload, 64).value == read(inner, 64).value
            assert "".join(verdict.payload.split()) == "".join(inner.split())


@given(seed=st.integers(0, 2**32))
def test_any_json_has_words_or_none(seed: int) -> None:
    rng = random.Random(seed)
    names = ["Type", "TopicArn", "Records", "detail", "detail-type", "source", "schema", "payload", "op"]
    text = Writer(rng).object([(name, Writer(rng).value()) for name in rng.sample(names, 4)])
    try:
        value = read(text, 64).value
    except JsonFault:
        return

    assert shape_words(value) is None or isinstance(shape_words(value), str)
