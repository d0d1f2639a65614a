"""A schema tried before it is published: on what is stored, and on what was rejected."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.builders import a_delivery
from tests.edges.test_cli import FINE, PROBLEM_FOUND, Answer, run  # noqa: F401 - a fixture
from tests.fix_database import Saver

Db = psycopg.Connection[Any]
Try = Callable[..., Answer]


@pytest.fixture
def trial(run: Callable[..., Answer], tmp_path: Path) -> Try:  # noqa: F811 - the fixture
    """Tries a schema of order.created."""

    def try_it(
        schema: Any, *options: object, url: str | None = None, event_type: str = "order.created"
    ) -> Answer:
        file = tmp_path / "schema.json"
        file.write_text(schema if isinstance(schema, str) else json.dumps(schema))
        return run("schema", "test", event_type, file, *options, **({} if url is None else {"url": url}))

    return try_it


def test_it(trial: Try, saver: Saver, db: Db) -> None:
    saver.save(*(a_delivery(payload={"total": number}) for number in range(10)), a_delivery(payload={}))
    a = trial({"properties": {"total": {"maximum": 5}}})
    print(a.out, a.error)
    a = trial({"properties": {"total": {"maximum": 5}}}, "--json")
    print(a.out, a.error)
    assert 0
