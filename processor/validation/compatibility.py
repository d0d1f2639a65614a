"""Whether one schema takes every payload that another takes, and a payload that shows where it does not.

    a payload that was found, and judged by both  ─▶ no
    else what the library can prove               ─▶ yes or no
    else the differences of their structure       ─▶ yes, where none narrows
                                                  ─▶ unknown

A payload is the best answer: people see at once what breaks, and no proof has to be believed.
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import jsonschema_rs

from processor.errors import SettingsError
from processor.validation.compiling import compile_schema
from processor.validation.conjunctions import Document
from processor.validation.differences import differences, text
from processor.validation.payloads import payloads

COMPATS = ("none", "backward", "forward", "full")
_PAYLOADS_MAX = 3000

Answer: TypeAlias = Literal["yes", "no", "unknown"]
Definition: TypeAlias = dict[str, Any] | bool


@dataclass(frozen=True, slots=True)
class Version:
    """A schema as it is judged by, and what people call it."""

    name: str
    definition: Definition
    formats: str = "assert"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one takes all that the other takes; `example` is a payload, as JSON, that it does not take."""

    answer: Answer
    example: str | None = None


def takes_all(taker: Version, taken: Version) -> Verdict:
    """Say whether a schema takes every payload that another takes."""
    try:
        judges = [compile_schema(one.definition, formats=one.formats) for one in (taken, taker)]
    except SettingsError:
        return Verdict("yes" if not _usable(taken) else "no")
    if (example := _example(taker, taken, *judges)) is not None:
        return Verdict("no", example)
    answer = _proof(taker, taken)
    if answer == "unknown":
        found = differences(taken.definition, taker.definition, formats=(taken.formats, taker.formats))
        answer = "unknown" if any(one.narrows for one in found) else "yes"
    return Verdict(answer)


def _usable(version: Version) -> bool:
    """Say whether a schema can be used; all events are refused by one that can't be."""
    try:
        compile_schema(version.definition, formats=version.formats)
    except SettingsError:
        return False
    return True


def _example(
    taker: Version, taken: Version, takes: jsonschema_rs.Validator, may_refuse: jsonschema_rs.Validator
) -> str | None:
    first = Document(taken.definition, formats=taken.formats == "assert")
    second = Document(taker.definition, formats=taker.formats == "assert")
    found = [
        text(value)
        for value in payloads(first, second, _PAYLOADS_MAX)
        if takes.is_valid(value) and not may_refuse.is_valid(value)
    ]
    return min(found, key=len, default=None)


def _proof(taker: Version, taken: Version) -> Answer:
    try:
        whole, part = (
            jsonschema_rs.canonicalize(one.definition, validate_formats=one.formats == "assert", offline=True)
            for one in (taker, taken)
        )
        return str(whole.covers(part))
    except Exception:
        return "unknown"
