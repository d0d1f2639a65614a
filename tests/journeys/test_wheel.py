"""The wheel that `python -m build` makes works in an environment without the checkout, from any folder."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

ROOT = Path(__file__).parents[2]


def _run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command outside the checkout and give its standard output."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True)
class Installation:
    """A wheel and the programs of an environment that has nothing else of ours."""

    wheel: Path
    programs: Path
    elsewhere: Path

    def run(self, program: str, *arguments: str, **environment: str) -> str:
        return _run(self.programs / program, *arguments, cwd=self.elsewhere, **environment)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The wheel, installed by pip into an empty environment that borrows the installed dependencies.

    A `.pth` file appends our site-packages. Python reads no `.pth` file there, so the editable
    installation of the checkout stays out of sight.
    """
    folder = tmp_path_factory.mktemp("wheel")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    _run(*build, cwd=elsewhere)
    [wheel] = folder.glob("*.whl")
    environment = folder / "environment"
    _run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=elsewhere)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index"]
    _run(*pip, wheel, cwd=elsewhere)
    [packages] = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return Installation(wheel, environment / "bin", elsewhere)


def test_every_file_comes_from_the_wheel(installed: Installation) -> None:
    code = "import json, processor, producers; print(json.dumps([processor.__file__, producers.__file__]))"

    found = [Path(path) for path in json.loads(installed.run("python", "-c", code))]

    assert all(path.is_relative_to(installed.programs.parent) for path in found), found


def test_the_wheel_has_all_data_files(installed: Installation) -> None:
    names = set(zipfile.ZipFile(installed.wheel).namelist())
    data = [
        *(path.relative_to(ROOT).as_posix() for path in (ROOT / "processor").rglob("*.json")),
        *(path.relative_to(ROOT).as_posix() for path in (ROOT / "producers").rglob("*.proto")),
        *(f"processor/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "sql").rglob("*.sql")),
        "processor/.env-template",
    ]

    assert len(data) > 40
    assert [name for name in data if name not in names] == []
    assert any(name.endswith("/licenses/LICENSE") for name in names)


@pytest.mark.parametrize("program", ["processor", "producers"])
def test_the_version_is_that_of_the_wheel(installed: Installation, program: str) -> None:
    version = installed.wheel.name.split("-")[1]

    assert installed.run(program, "--version") == f"{program}, version {version}\n"
    assert re.match(r"\d+\.\d+", version)


def test_migrate_makes_all_tables_on_an_empty_database(installed: Installation, server_url: str) -> None:
    name = f"wheel_{os.getpid()}"
    url = server_url.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        try:
            installed.run("processor", "migrate", DATABASE_URL=url)

            with psycopg.connect(url) as connection:
                row = connection.execute("SELECT count(*) FROM message").fetchone()
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

    assert row == (0,)
