"""The linter as a command, and beside what is published."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.cli.test_cli import FINE, PROBLEM_FOUND, USAGE, Answer, run  # noqa: F401 - a fixture
from tests.fixtures.database import count

Db = psycopg.Connection[Any]
Run = Callable[..., Answer]

TYPO = b'{"type": "object", "requierd": ["a"]}'
NOWHERE = {"url": "postgresql://nobody@127.0.0.1:1/nowhere"}


@pytest.mark.parametrize(
    ("schema", "code"),
    [
        (b'{"type": "string"}', FINE),
        (b'{"type": "object"}', FINE),
        (TYPO, PROBLEM_FOUND),
        (b'{"type": 3}', USAGE),
    ],
)
def test_the_exit_code_says_whether_there_are_warnings(run: Run, schema: bytes, code: int) -> None:  # noqa: F811
    assert run("schema", "lint", "-", stdin=schema, **NOWHERE).code == code


def test_remarks_are_lines_for_people_and_values_for_programs(run: Run) -> None:  # noqa: F811
    told = run("schema", "lint", "-", stdin=TYPO)
    [warning, note] = run("schema", "lint", "-", "--json", stdin=TYPO).json

    assert told.out == (
        'warning: at /requierd: unknown keyword "requierd" has no effect; did you mean "required"?\n'
        "note: at (root): any object is valid, whatever its members\n"
        "1 warning, 1 note\n"
    )
    assert warning == {
        "level": "warning",
        "kind": "unknown word",
        "pointer": "/requierd",
        "message": 'unknown keyword "requierd" has no effect; did you mean "required"?',
        "places": 1,
    }
    assert note["level"] == "note"


def test_a_schema_with_a_warning_is_published_unless_strict(run: Run, db: Db) -> None:  # noqa: F811
    strict = run("schema", "publish", "order.lost", "-", "--strict", stdin=TYPO)
    before = count(db, "event_schema")
    loose = run("schema", "publish", "order.lost", "-", stdin=TYPO)
    clean = run("schema", "publish", "order.lost", "-", "--strict", stdin=b'{"type": "object"}')

    assert (strict.code, strict.out) == (PROBLEM_FOUND, "")
    assert "nothing was published: 1 warning" in strict.error
    assert (loose.code, loose.out) == (FINE, "published version 1 of order.lost (shared)\n")
    assert loose.error.startswith("warning: at /requierd: ")
    assert (clean.code, clean.error) == (FINE, "")
    assert count(db, "event_schema") == before + 2


def test_however_much_is_odd_the_answer_is_short(run: Run) -> None:  # noqa: F811
    many = json.dumps({"type": "object"} | {f"odd{number}": 1 for number in range(10_000)}).encode()

    told = run("schema", "lint", "-", stdin=many)

    assert told.out.count("\n") == 22
    assert "and 9980 more" in told.out
    assert told.out.endswith("10000 warnings, 0 notes\n")


def test_no_terminal_obeys_what_a_schema_is_made_of(run: Run, tmp_path: Path) -> None:  # noqa: F811
    nasty = "\x1b[31m\n\u202eodd" + "x" * 5000
    schema = {
        "type": "object",
        nasty: 1,
        "required": [nasty],
        "format": nasty,
        "properties": {"a": {nasty: {}}},
    }
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema))

    told = run("schema", "lint", file)
    published = run("schema", "publish", "order.lost", file)
    refused = run("schema", "lint", "-", stdin=json.dumps({"type": nasty, "pattern": nasty + "("}).encode())

    for text in (told.out, published.error, refused.error):
        assert text
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert max(map(len, text.splitlines())) < 1000
    assert all(re.match("warning: |note: |[0-9]+ warnings, ", line) for line in told.out.splitlines())
