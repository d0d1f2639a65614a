"""A backup of the test's database, what puts it back (a dump into a database made anew), and reconciling."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from processor.devstack.servers.binaries import find_binaries, server_account
from processor.devstack.servers.sink import Receiver
from tests.fix_usage import Answer, Command

Restore = Callable[[], None]
BackUp = Callable[[], Restore]


@pytest.fixture
def back_up(server_url: str, database_url: str, tmp_path: Path) -> BackUp:
    """Dumps the database at this moment; what it gives restores it, whoever is connected."""

    def run() -> Restore:
        dump = tmp_path / "dump"
        _run("pg_dump", "--format=custom", f"--file={dump}", database_url)
        return lambda: _restore(server_url, database_url, dump)

    return run


def _restore(server_url: str, database_url: str, dump: Path) -> None:
    name = urlsplit(database_url).path.lstrip("/")
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        admin.execute(f"CREATE DATABASE {name}")
    _run("pg_restore", "--exit-on-error", f"--dbname={database_url}", str(dump))


def _run(program: str, *words: str) -> None:
    path = find_binaries(server_account()) / program
    done = subprocess.run([path, *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def written_by_sink(receiver: Receiver, file: Path) -> Path:
    """What the sink has, as it got it: an array of lines on each line."""
    file.write_bytes(b"\n".join(request.body for request in receiver.requests) + b"\n")
    return file


@pytest.fixture
def reconcile(processor: Command, receiver: Receiver, tmp_path: Path) -> Command:
    """Reconciles with all that the sink got, or with other lines."""

    def run(*words: str, lines: list[dict[str, Any]] | None = None) -> Answer:
        file = written_by_sink(receiver, tmp_path / "sink.jsonl")
        if lines is not None:
            file.write_text("\n".join(map(json.dumps, lines)))
        return processor("usage", "reconcile", file, "--json", *words)

    return run


def counts(answer: Answer) -> dict[str, int]:
    return {finding: count for finding, count in answer.json["lines"].items() if count}
