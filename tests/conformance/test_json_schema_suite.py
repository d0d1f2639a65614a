"""Every payload of the JSON Schema Test Suite gets the verdict of its draft, whichever way it is read."""

import json
from collections.abc import Iterator
from typing import Any

import orjson
import psycopg
import pytest

from processor import registry
from processor.errors import Reason, SettingsError
from processor.model import Message
from processor.validation.dialects import DIALECTS
from processor.validation.schema_text import schema_text, schema_value
from tests.builders import a_delivery
from tests.conformance.json_schema_suite import Group, Suite, fetch
from tests.fix_database import MakeSaver

DRAFTS = dict(zip(("draft4", "draft6", "draft7", "draft2019-09", "draft2020-12"), DIALECTS, strict=True))
PAYLOADS_MIN = {"draft4": 590, "draft6": 800, "draft7": 880, "draft2019-09": 1180, "draft2020-12": 1200}
"""That many are judged at the least."""

REMOTE = "http://localhost:1234/"

_OWN_METASCHEMA = (
    "vocabulary: schema that uses custom metaschema with with no validation vocabulary",
    "vocabulary: ignore unrecognized optional vocabulary",
)
"""A `$schema` that is none of the five drafts is refused: what its words mean can't be known."""

_NUL = "nul characters in strings"
"""PostgreSQL's jsonb holds no U+0000, so no schema can ask for one."""

REFUSED: dict[str, set[str]] = {
    "draft4": {f"enum: {_NUL}"},
    "draft6": {f"const: {_NUL}", f"enum: {_NUL}"},
    "draft7": {f"const: {_NUL}", f"enum: {_NUL}"},
    "draft2019-09": {f"const: {_NUL}", f"enum: {_NUL}", *_OWN_METASCHEMA},
    "draft2020-12": {f"const: {_NUL}", f"enum: {_NUL}", *_OWN_METASCHEMA},
}
"""Groups whose schema is refused when it is published. Each has its reason above."""


@pytest.fixture(scope="session")
def suite(request: pytest.FixtureRequest) -> Suite:
    return fetch(request.config.cache.mkdir("json-schema-suite"))


@pytest.mark.parametrize("draft", DRAFTS)
def test_the_required_verdicts_are_those_of_the_draft(
    draft: str, suite: Suite, db: psycopg.Connection[Any], make_saver: MakeSaver
) -> None:
    refused, published = {}, {}
    for number, group in enumerate(suite.groups(draft)):
        try:
            _publish(db, f"group-{number}", draft, group)
            published[f"group-{number}"] = group
        except SettingsError as error:
            refused[group.name] = str(error)
    schemas = make_saver().schemas

    wrong, judged = [], 0
    for event_type, group in published.items():
        for test in group.tests:
            judged += 1
            for path, body in _bodies(event_type, test["data"]):
                verdict = schemas.validate(a_delivery(body))
                if not isinstance(verdict, Message):
                    assert verdict.reason is Reason.SCHEMA_VIOLATION, (group.name, verdict)
                    assert verdict.detail["errors"], (group.name, verdict)
                if isinstance(verdict, Message) is not test["valid"]:
                    wrong.append(f"{group.name}: {test['description']} ({path})")

    assert not wrong
    assert {name for name, words in refused.items() if REMOTE not in words or "no draft" in words} == REFUSED[
        draft
    ]
    assert judged >= PAYLOADS_MIN[draft]


def _publish(db: psycopg.Connection[Any], event_type: str, draft: str, group: Group) -> None:
    definition = schema_value(schema_text(group.schema))
    if isinstance(definition, dict):
        definition = {"$schema": DRAFTS[draft].uri} | definition
    # What `format` means to the standard is a note. The suite asks for no more; see its optional part.
    formats = "annotate" if group.name.startswith("format:") else "assert"
    registry.publish_schema(db, event_type, definition, formats=formats)


def _bodies(event_type: str, payload: Any) -> Iterator[tuple[str, bytes]]:
    """Give an event as the fast reader takes it, and as only the exact one does: an escape is in its id."""
    text = schema_text(payload)
    event = {"id": "a", "tenant_id": "acme", "event_type": event_type, "payload": json.loads(text)}
    yield "plain", orjson.dumps(event)
    yield (
        "exact",
        rf'{{"id":"\u0061","tenant_id":"acme","event_type":"{event_type}","payload":{text}}}'.encode(),
    )
