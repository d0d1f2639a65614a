"""Tests that no payload contradicts a compatibility verdict, and that examples are counterexamples.

The library's proofs and the structural differences are tested separately, because either may decide.
"""

import json
import random
from typing import Any

import jsonschema_rs
from hypothesis import event, given, settings
from hypothesis import strategies as st

from processor.errors import SettingsError
from processor.schemas.compare.compatibility import Compared, proof, takes_all
from processor.schemas.compare.conjunctions import ModernSchema
from processor.schemas.compare.differences import differences
from processor.schemas.compare.payloads import payloads
from processor.schemas.compiling import compile_schema
from processor.schemas.dialects import DIALECTS
from tests.properties.schemas.schema_pairs import a_payload, a_schema, changed

FORMATS = ("assert", "assert", "annotate")


def a_pair(chance: random.Random) -> tuple[Compared, Compared]:
    dialect = chance.choice(DIALECTS)
    old = a_schema(chance, dialect)
    new = changed(chance, old, dialect)
    if chance.random() < 0.2:
        # The same keywords, by the rules of another draft.
        new["$schema"] = chance.choice(DIALECTS).uri
    return Compared(old, chance.choice(FORMATS)), Compared(new, chance.choice(FORMATS))


def compiled(asked: Compared) -> jsonschema_rs.Validator | None:
    try:
        return compile_schema(asked.definition, formats=asked.formats)
    except SettingsError:
        return None


@settings(max_examples=max(600, settings().max_examples))
@given(st.integers(0, 2**64))
def test_no_payload_contradicts_a_compatible_verdict(seed: int) -> None:
    chance = random.Random(seed)
    old, new = a_pair(chance)
    takes, may_refuse = compiled(old), compiled(new)
    if takes is None or may_refuse is None:
        event("one of them can't be used")
        return
    first, second = (ModernSchema(one.definition, formats=one.formats == "assert") for one in (old, new))
    tried: list[Any] = [a_payload(chance) for _ in range(100)]
    tried += [*payloads(first, second, 300), *payloads(second, first, 300)]

    lost = [value for value in tried if takes.is_valid(value) and not may_refuse.is_valid(value)]
    won = [value for value in tried if may_refuse.is_valid(value) and not takes.is_valid(value)]

    found = differences(old.definition, new.definition, formats=(old.formats, new.formats))
    for examples, taker, taken, by_words in (
        (lost, new, old, any(one.narrows for one in found)),
        (won, old, new, any(one.widens for one in found)),
    ):
        if examples:
            event("a payload tells them apart")
            assert by_words, (examples, found)
            assert proof(taker, taken) != "yes", examples
            assert takes_all(taker, taken).answer != "yes"


@given(st.integers(0, 2**64))
def test_an_example_is_valid_for_one_schema_only(seed: int) -> None:
    old, new = a_pair(random.Random(seed))

    verdict = takes_all(new, old)

    if verdict.example is not None:
        event("an example")
        value = json.loads(verdict.example)
        takes, may_refuse = compiled(old), compiled(new)
        assert takes is not None
        assert may_refuse is not None
        assert verdict.answer == "no"
        assert takes.is_valid(value)
        assert not may_refuse.is_valid(value)


@given(st.integers(0, 2**64), st.sampled_from(DIALECTS))
def test_a_schema_has_no_differences_from_itself(seed: int, dialect: Any) -> None:
    schema = a_schema(random.Random(seed), dialect)

    assert differences(schema, json.loads(json.dumps(schema))) == []
