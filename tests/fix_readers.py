"""Whoever reads the books besides us: psycopg, Python's json and psql, each with every row of them."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import pytest

from processor.devstack.servers.binaries import find_binaries, server_account
from tests.fix_database import books

ReadBack: TypeAlias = Callable[[], None]

TABLES = ("message", "duplicate", "rejection")


@pytest.fixture
def read_back(db: psycopg.Connection[Any], database_url: str) -> ReadBack:
    """Reads every row of the books as psycopg, Python's json and psql do; fails where one can't."""
    psql = find_binaries(server_account()) / "psql"

    def read() -> None:
        for table in TABLES:
            assert len(db.execute(f"SELECT * FROM {table}").fetchall()) == books(db)[table]
        for column in ("payload", "context"):
            for (text,) in db.execute(f"SELECT {column}::text FROM message WHERE {column} IS NOT NULL"):
                assert json.loads(json.dumps(json.loads(text), allow_nan=False)) is not ...
        for column in ("detail", "attributes"):
            for (text,) in db.execute(f"SELECT {column}::text FROM rejection"):
                assert isinstance(json.loads(text), dict)
        for table in TABLES:
            answer = _psql(psql, database_url, f"SELECT delivery_id, t.* FROM {table} AS t")
            begun = {line.split("|", 1)[0] for line in answer.split("\n")}
            assert {row[0] for row in db.execute(f"SELECT delivery_id FROM {table}")} <= begun

    return read


def _psql(psql: Path, url: str, query: str) -> str:
    done = subprocess.run(
        [psql, "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", url],
        input=query,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
