"""The page of schemas, typed word for word beside `processor dev`: it prints what the page shows."""

import contextlib
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.journeys import dev

# `processor dev` wants the port that awslocal looks at, and there is one.
pytestmark = pytest.mark.xdist_group("port 4566")

PAGE = (dev.ROOT / "docs/schemas.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```sh\n(.*?)```(?:\n+```\n(.*?)```)?", re.DOTALL)
"""What is typed, and what it shows."""

EXIT_CODE = re.compile(r"  # exit code (\d)$", re.MULTILINE)
"""Behind a command that ends with another than 0."""

ENDS_WITH = r" && exit 99 || [ $? -eq \1 ]"
SETTINGS = "set -e; cd shop; set -a; . ../dev.env; set +a\n"
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\dZ")


def at_any_moment(text: str) -> list[str]:
    """The lines in some order: which of several messages was stored first is nobody's promise."""
    return sorted(MOMENT.sub("MOMENT", text).splitlines())


def on_a_screen(script: str, directory: Path) -> tuple[int, str]:
    """Run it in a terminal of 80 columns; gives its exit code and what stands on the screen."""
    environment = dev.environment() | {
        "PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}",
        "COLUMNS": "80",
        "TERM": "dumb",
    }
    ours, its = pty.openpty()
    with subprocess.Popen(
        ["bash", "-c", script],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=its,
        stderr=its,
    ) as running:
        os.close(its)
        shown = b""
        # Linux says by an error that nobody has the other end any more.
        with contextlib.suppress(OSError):
            while part := os.read(ours, 4096):
                shown += part
        os.close(ours)
    lines = shown.decode().replace("\r\n", "\n").split("\n")
    return running.returncode, "\n".join(line.rstrip() for line in lines)


def test_the_page_prints_what_it_shows(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()

    with dev.running(tmp_path):
        for typed, shown in BLOCK.findall(PAGE):
            code, printed = on_a_screen(SETTINGS + EXIT_CODE.sub(ENDS_WITH, typed), tmp_path)
            assert code == 0, f"{typed}\n{printed}"
            assert at_any_moment(printed) == at_any_moment(shown), f"{typed}\n{printed}"


def test_the_ci_runs_what_the_page_has_typed() -> None:
    [workflow] = [YAML(typ="safe").load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
    [job] = workflow["jobs"].values()

    [install, command] = [step["run"] for step in job["steps"] if "run" in step]

    assert install.startswith("pip install ")
    assert any(line.startswith(command) for typed, _ in BLOCK.findall(PAGE) for line in typed.splitlines())


def test_the_page_s_blocks_fit_a_screen_of_80_columns() -> None:
    blocks = "".join(re.findall(r"```\w*\n(.*?)```", PAGE, re.DOTALL))

    assert [line for line in blocks.splitlines() if len(line) > 80] == []
    assert len(PAGE.splitlines()) <= 250
