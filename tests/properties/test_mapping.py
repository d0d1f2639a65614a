"""Any JSON by any mapping: nothing raises, every digit stays, and nothing of a body is lost."""

import json
import random
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from processor.decoding.mapping import decode_mapped
from processor.wire.formats import Envelope, Malformed, pointer
from processor.wire.json_pointer import steps
from processor.wire.strict_json import JsonFault, read
from tests.properties.anything import Writer

LIMITS: dict[str, Any] = {"size_bytes_max": 2**20, "depth_max": 64, "values_max": 100_000}
FIELDS = ["tenant_id", "event_type", "id", "producer", "occurred_at", "schema_version"]
KEYS = ["a", "b", "", "a/b", "~", "~1", "0", "1", "payload", "body", "tenant_id", "é", "\ud83e", '"']
NUMBERS = [
    "0",
    "-0.0",
    "7",
    "1764489600",
    "1764489600123",
    "1.10",
    "1e5",
    "12e-3",
    "1E+5",
    "9007199254740993",
]
NUMBERS += ["0.1234567890123456789012345", "123456789012345678901234567890"]

Tree = dict[str, Any] | list[Any] | str
"""A body as it is written: objects, lists, and the texts of all other values."""

leaves = st.one_of(
    st.sampled_from([*NUMBERS, "true", "null"]), st.sampled_from(["", "x", "é"]).map(json.dumps)
)
trees: st.SearchStrategy[Tree] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from(KEYS), inner, max_size=4), st.lists(inner, max_size=3)
    ),
    max_leaves=12,
)


def written(tree: Tree, chance: random.Random) -> str:
    space = chance.choice(["", "", " ", "\n\t"])
    if isinstance(tree, dict):
        members = [f"{json.dumps(name)}{space}:{written(value, chance)}" for name, value in tree.items()]
        return "{" + space + f",{space}".join(members) + "}"
    if isinstance(tree, list):
        return "[" + f"{space},".join(written(value, chance) for value in tree) + space + "]"
    return space + tree


def parsed(text: str) -> Any:
    """The tree of a text, with each number as it stands there."""
    return json.loads(text, parse_int=lambda digits: {"#": digits}, parse_float=lambda digits: {"#": digits})


def leaves_of(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict) and value and "#" not in value:
        for name, inner in value.items():
            yield from leaves_of(inner, (*path, name))
    elif isinstance(value, list) and value:
        for place, inner in enumerate(value):
            yield from leaves_of(inner, (*path, str(place)))
    else:
        yield path, value


def paths_of(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, part in inner:
        yield from paths_of(part, (*path, str(step)))


@given(trees, st.data(), st.integers(0, 2**32))
def test_nothing_of_a_body_is_lost_and_every_digit_stays(tree: Tree, data: st.DataObject, seed: int) -> None:
    body = written(tree, random.Random(seed))
    texts = [path for path, value in leaves_of(parsed(body)) if isinstance(value, str) and value]
    places = {"payload": st.sampled_from([*paths_of(tree)])}
    if texts:
        places |= dict.fromkeys(("id", "producer"), st.sampled_from(texts))
    mapping = data.draw(
        st.fixed_dictionaries({}, optional={name: at.map(pointer) for name, at in places.items()})
    )

    found = decode_mapped(
        body.encode(), {}, mapping, implied={"tenant_id": "acme", "event_type": "free"}, **LIMITS
    )

    assert isinstance(found, Envelope), found
    payload_path = steps(mapping.get("payload", ""))
    payload = dict(leaves_of(parsed(found.payload)))
    context = dict(leaves_of(parsed(found.context or "{}")))
    taken = [steps(at) for field, at in mapping.items() if field != "payload"]
    whole = parsed(body)
    prefix: tuple[str, ...] = () if isinstance(whole, dict) else ("body",)
    for path, value in leaves_of(whole):
        if path[: len(payload_path)] == payload_path:
            assert payload[path[len(payload_path) :]] == value
        elif not any(path[: len(at)] == at for at in taken):
            assert context[(*prefix, *path)] == value
    assert found.payload_value == read(found.payload, 64).value


@given(
    st.binary(max_size=50),
    st.dictionaries(st.sampled_from([*FIELDS, "payload_json"]), st.sampled_from(["", "/a", "/0/b"])),
)
def test_bytes_are_an_envelope_or_a_reason(body: bytes, mapping: dict[str, str]) -> None:
    found = decode_mapped(body, {}, mapping, implied={"tenant_id": "acme", "event_type": "free"}, **LIMITS)

    assert isinstance(found, Envelope | Malformed)


@given(
    st.integers(0, 2**32),
    st.dictionaries(st.sampled_from([*FIELDS, "payload"]), st.sampled_from(["", "/a", "/b/0", "/total"])),
)
def test_json_however_written_is_an_envelope_or_a_reason(seed: int, mapping: dict[str, str]) -> None:
    body = Writer(random.Random(seed)).value()

    found = decode_mapped(
        body.encode("utf-8", "surrogatepass"),
        {},
        mapping,
        implied={"tenant_id": "acme", "event_type": "free"},
        **LIMITS,
    )

    assert isinstance(found, Envelope | Malformed)
    if isinstance(found, Envelope):
        for text in (found.payload, found.context):
            if text is not None:
                read(text, 64)


@given(st.integers(0, 2**32))
def test_a_text_that_is_json_is_a_payload_to_the_last_digit(seed: int) -> None:
    inner = Writer(random.Random(seed)).value()
    try:
        expected = read(inner, 64)
    except (JsonFault, UnicodeError):
        expected = None

    found = decode_mapped(
        json.dumps({"message": inner}).encode(),
        {},
        {"payload_json": "/message"},
        implied={"tenant_id": "acme", "event_type": "free"},
        **LIMITS,
    )

    if expected is None:
        assert isinstance(found, Malformed)
        assert "the text at /message is invalid JSON" in found.detail["message"]
    else:
        assert isinstance(found, Envelope)
        assert found.payload == inner.strip(" \t\r\n")
