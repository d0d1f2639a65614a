"""Tests that any schema in the registry gives each event a verdict, and raises nothing."""

import json
import random
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from hypothesis import settings

from processor.model import EventSchema, Message, Registry, Rejection
from processor.schemas.dialects import DIALECTS, KEYWORDS
from processor.validation.validator import Schemas
from tests.builders import a_delivery

SAMPLES = Path(__file__).parents[2] / "processor" / "devstack" / "samples"
VENDORED = Path(str(files("check_jsonschema"))) / "builtin_schemas" / "vendor"
DRAFTS = Path(str(files("jsonschema_specifications"))) / "schemas"
BYTES_MAX = 40_000
PLACES_MAX = 100_000
"""Limits the size of generated schemas, which may contain themselves: an unlimited search took all memory."""
WORDS = [*KEYWORDS, "x"]
ODD: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    1e-300,
    10**30,
    "",
    "x",
    "#",
    "#/",
    "(",
    "a{9}",
    [],
    {},
    [[]],
]
ODD += [[{}], {"": {}}, "string", ["string", 3], "\\p{L}", "http://json-schema.org/draft-04/schema#", [True]]

REFERENCES = ["$ref", "$ref", "$dynamicRef", "$recursiveRef"]

Rng = random.Random


def seeds() -> list[Any]:
    files = [path for folder in (SAMPLES, VENDORED, DRAFTS) for path in sorted(folder.rglob("*.json"))]
    return [json.loads(path.read_bytes()) for path in files if path.stat().st_size <= BYTES_MAX]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Return every container and key in it, top down."""
    pending, seen = [value], 0
    while pending:
        at = pending.pop()
        keys = at if isinstance(at, dict) else range(len(at)) if isinstance(at, list) else ()
        seen += len(keys)
        assert seen < PLACES_MAX, "it has grown without end"
        for key in keys:
            yield at, key
            pending.append(at[key])


def mutated(rng: Rng, seed: Any, others: list[Any]) -> Any:
    found = copied(seed)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        if not (all_places := list(places(found))):
            return copied(rng.choice(ODD))
        at, key = rng.choice(all_places)
        # A schema at one place may not be one at another.
        other, place = rng.choice(all_places if rng.random() < 0.5 else list(places(rng.choice(others))))
        at[key] = rng.choice(
            [
                at[key],
                copied(rng.choice(ODD)),
                copied(other[place]),
                {rng.choice(REFERENCES): pointer_into(rng, found)},
            ]
        )
        if isinstance(at, dict):
            at[rng.choice([key, *rng.sample(WORDS, 2)])] = rng.choice(
                [copied(at[key]), at.pop(key), copied(rng.choice(ODD))]
            )
        if isinstance(found, dict) and rng.random() < 0.2:
            found["$schema"] = rng.choice(DIALECTS).uri
    return found


def copied(value: Any) -> Any:
    return json.loads(json.dumps(value))


def pointer_into(rng: Rng, value: Any) -> str:
    way = ["#"]
    while isinstance(value, dict | list) and value and rng.random() < 0.8:
        step = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        way.append(str(step).replace("~", "~0").replace("/", "~1"))
        value = value[step]
    return "/".join(way)


def a_payload(rng: Rng, names: list[str], depth: int = 0) -> Any:
    match rng.randrange(6 if depth < 4 else 3):
        case 3 | 4:
            return {rng.choice(names): a_payload(rng, names, depth + 1) for _ in range(rng.randint(0, 4))}
        case 5:
            return [a_payload(rng, names, depth + 1) for _ in range(rng.randint(0, 4))]
    return rng.choice([None, True, 0, -1, 2.5, "", "a", "x" * 50, 10**25, "\u00e9", "2020-01-01"])


def test_any_mutation_of_real_schemas_gives_each_event_a_verdict() -> None:
    examples = settings.default.max_examples  # type: ignore[union-attr]
    rng, known, verdicts = Rng(examples), seeds(), set()
    judge = Schemas(body_bytes_max=1024 * 1024, json_depth_max=64)

    for number in range(examples * 4):
        definition = mutated(rng, rng.choice(known), known)
        names = [*WORDS[:8], *(key for _, key in places(definition) if isinstance(key, str))]
        schema = EventSchema(number, "order.created", None, 1, json.dumps(definition))
        judge.install(Registry(number, {"acme": False}, (schema,)))
        for _ in range(4):
            verdict = judge.validate(a_delivery(payload={rng.choice(names): a_payload(rng, names)}))

            assert isinstance(verdict, Message | Rejection), definition
            verdicts.add(verdict.detail["message"][:16] if isinstance(verdict, Rejection) else "")

    assert len(verdicts) > 10
