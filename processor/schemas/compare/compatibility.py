"""Decides whether one schema accepts every payload that another accepts, with a counterexample.

    a counterexample was found and validated      ─▶ no
    else the library's proof                      ─▶ yes or no
    else the differences of their structure       ─▶ yes, if none narrows
                                                  ─▶ unknown

A counterexample is the best answer: it shows what breaks, and needs no trust in a proof.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import jsonschema_rs

from processor.errors import SettingsError
from processor.schemas.compare.conjunctions import UNTRANSLATED, ModernSchema
from processor.schemas.compare.differences import differences
from processor.schemas.compare.payloads import payloads
from processor.schemas.compiling import compile_schema
from processor.schemas.dialects import dialect_of
from processor.schemas.schema_text import schema_text, schema_value

_PAYLOADS_MAX = 3000

Answer: TypeAlias = Literal["yes", "no", "unknown"]


@dataclass(frozen=True, slots=True)
class Compared:
    """A schema, and its mode for formats: "assert" or "annotate"."""

    definition: dict[str, Any] | bool
    formats: str = "assert"

    def modern(self) -> ModernSchema:
        """Return the schema in draft 2020-12."""
        return ModernSchema(self.definition, formats=self.formats == "assert")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer; `example` is a payload, as JSON, that only the other schema accepts."""

    answer: Answer
    example: str | None = None


def takes_all(taker: Compared, taken: Compared) -> Verdict:
    """Decide whether `taker` accepts every payload that `taken` accepts."""
    takes, may_refuse = _compiled(taken), _compiled(taker)
    if takes is None or may_refuse is None:
        # A schema that can't be used rejects every payload.
        return Verdict("yes" if takes is None else "no")
    if (example := _example(taker, taken, takes, may_refuse)) is not None:
        return Verdict("no", example)
    answer = proof(taker, taken)
    if answer == "unknown":
        found = differences(taken.definition, taker.definition, formats=(taken.formats, taker.formats))
        answer = "unknown" if any(one.narrows for one in found) else "yes"
    return Verdict(answer)


def _compiled(asked: Compared) -> jsonschema_rs.Validator | None:
    try:
        return compile_schema(asked.definition, formats=asked.formats)
    except SettingsError:
        return None


def _example(
    taker: Compared, taken: Compared, takes: jsonschema_rs.Validator, may_refuse: jsonschema_rs.Validator
) -> str | None:
    found = [
        text
        for text, value in _serialized(payloads(taken.modern(), taker.modern(), _PAYLOADS_MAX))
        if takes.is_valid(value) and not may_refuse.is_valid(value)
    ]
    return min(found, key=len, default=None)


def _serialized(values: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Yield payloads as JSON and as parsed from it; payloads that can't be parsed are skipped."""
    for value in values:
        text = schema_text(value)
        with suppress(SettingsError):
            yield text, schema_value(text)


def proof(taker: Compared, taken: Compared) -> Answer:
    """Return what the library can prove."""
    try:
        whole, part = (
            jsonschema_rs.canonicalize(definition, validate_formats=one.formats == "assert", offline=True)
            for one, definition in zip((taker, taken), _definitions(taker, taken), strict=True)
        )
        covers = whole.covers(part)
    except (ValueError, jsonschema_rs.ReferencingError):
        return "unknown"
    known: dict[jsonschema_rs.canonical.Containment, Answer] = {
        jsonschema_rs.canonical.Containment.YES: "yes",
        jsonschema_rs.canonical.Containment.NO: "no",
    }
    return known.get(covers, "unknown")


def _definitions(*both: Compared) -> list[dict[str, Any] | bool]:
    """Return both schemas in one draft that the library can compare."""
    dialects = {dialect_of(one.definition) for one in both}
    if len(dialects) == 1:
        named = {"$schema": dialects.pop().uri}
        whole = [one.definition for one in both]
        return [definition | named if isinstance(definition, dict) else definition for definition in whole]
    schemas = [one.modern() for one in both]
    bundles: list[dict[str, Any] | bool] = [schema.bundled(schema.root) for schema in schemas]
    if any(UNTRANSLATED in str(bundle) for bundle in bundles):
        raise ValueError("no draft says both")
    return bundles
