"""The recipes for tenants that another platform creates, word for word."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg

from tests.builders import a_delivery
from tests.fixtures.database import Saver, books

ROOT = Path(__file__).resolve().parents[2]


def _recipes() -> list[str]:
    page = (ROOT / "docs/howto/upstream-tenants.md").read_text(encoding="utf-8")
    return re.findall(r"```sh\n(.*?)```", page, re.DOTALL)


def _run(script: str, database_url: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": os.environ.get("HOME", "/"), "DATABASE_URL": database_url}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_closed_way_adds_those_that_were_rejected_and_replays(
    saver: Saver, database_url: str, tmp_path: Path, db: psycopg.Connection[Any]
) -> None:
    closed, _ = _recipes()
    names = ["new-1", "new-2", "new-1", 'it\'s "odd" $1', "é"]
    saver.save(*(a_delivery(tenant_id=name) for name in names), a_delivery(b"nonsense"))

    said = _run(closed, database_url, tmp_path)

    assert "4 tenants added" in said
    assert "would be: 5 stored, 0 still open" in said
    assert said.endswith("5 stored, 0 still open\n")
    assert books(db) == {"message": 5, "duplicate": 0, "rejection": 6}


def test_the_open_way_registers_them_with_the_stream(saver: Saver, database_url: str, tmp_path: Path) -> None:
    _, opened = _recipes()

    assert "acme" in _run(opened, database_url, tmp_path)

    assert saver.outcomes(a_delivery(tenant_id="new-1", queue="orders")) == ["stored"]
    assert re.search(
        r"^new-1 .* orders\s*$", _run("processor tenant list", database_url, tmp_path), re.MULTILINE
    )
