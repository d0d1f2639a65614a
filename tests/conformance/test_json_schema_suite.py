"""Every payload of the JSON Schema Test Suite gets the verdict of its draft, whichever way it is read."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest

from processor.errors import Reason, SettingsError
from processor.model import Message
from processor.operations import registry
from processor.schemas.dialects import DIALECTS, Dialect
from processor.schemas.documents.preparing import HowToRead, prepare
from processor.schemas.schema_text import schema_text
from tests.builders import a_delivery
from tests.conformance.json_schema_suite import REMOTE, Group, Suite, fetch
from tests.fixtures.database import MakeSaver

DRAFTS = dict(zip(("draft4", "draft6", "draft7", "draft2019-09", "draft2020-12"), DIALECTS, strict=True))
PAYLOADS_MIN = {"draft4": 608, "draft6": 825, "draft7": 909, "draft2019-09": 1214, "draft2020-12": 1244}
"""That many are judged at the least."""

_OWN_METASCHEMA = (
    "vocabulary: schema that uses custom metaschema with with no validation vocabulary",
    "vocabulary: ignore unrecognized optional vocabulary",
)
"""A `$schema` that is none of the five drafts is refused: what its words mean can't be known."""

_OTHER_ID = (
    "refRemote: remote HTTP ref with different $id",
    "refRemote: remote HTTP ref with different URN $id",
)
"""A document that is given is known by its $id; these are called by where they would be fetched."""

_NUL = "nul characters in strings"
"""PostgreSQL's jsonb holds no U+0000, so no schema can ask for one."""

REFUSED: dict[str, set[str]] = {
    "draft4": {f"enum: {_NUL}"},
    "draft6": {f"const: {_NUL}", f"enum: {_NUL}"},
    "draft7": {f"const: {_NUL}", f"enum: {_NUL}"},
    "draft2019-09": {f"const: {_NUL}", f"enum: {_NUL}", *_OWN_METASCHEMA, *_OTHER_ID},
    "draft2020-12": {f"const: {_NUL}", f"enum: {_NUL}", *_OWN_METASCHEMA, *_OTHER_ID},
}
"""Groups whose schema is refused when it is published. Each has its reason above."""


@pytest.fixture(scope="session")
def suite(request: pytest.FixtureRequest) -> Suite:
    return fetch(request.config.cache.mkdir("json-schema-suite"))


@pytest.mark.parametrize("draft", DRAFTS)
def test_the_required_verdicts_are_those_of_the_draft(
    draft: str, suite: Suite, db: psycopg.Connection[Any], make_saver: MakeSaver, tmp_path: Path
) -> None:
    suite.remotes(draft, tmp_path)
    refused, published = {}, {}
    for number, group in enumerate(suite.groups(draft)):
        try:
            _publish(db, f"group-{number}", group, DRAFTS[draft], tmp_path)
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
    assert refused.keys() == REFUSED[draft], refused
    assert judged >= PAYLOADS_MIN[draft], judged


def _publish(
    db: psycopg.Connection[Any], event_type: str, group: Group, dialect: Dialect, remotes: Path
) -> None:
    """Publish as `schema publish --draft DRAFT --with DIR` does."""
    text = schema_text(group.schema)
    # What `format` means to the standard is a note. The suite asks for no more; see its optional part.
    how = HowToRead(
        formats="annotate" if group.name.startswith("format:") else "assert",
        draft=dialect if isinstance(group.schema, dict) and "$schema" not in group.schema else None,
        others=(remotes,) if REMOTE in text else (),
    )
    registry.publish_schema(db, event_type, prepare(text.encode(), how), formats=how.formats)


def _bodies(event_type: str, payload: Any) -> Iterator[tuple[str, bytes]]:
    """Give an event as the fast reader takes it, and as only the exact one does: an escape is in its id."""
    text = schema_text(payload)
    event = {"id": "a", "tenant_id": "acme", "event_type": event_type, "payload": json.loads(text)}
    yield "plain", orjson.dumps(event)
    yield (
        "exact",
        rf'{{"id":"\u0061","tenant_id":"acme","event_type":"{event_type}","payload":{text}}}'.encode(),
    )
