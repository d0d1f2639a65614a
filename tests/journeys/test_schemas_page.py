"""The page of schemas, typed word for word beside `processor dev`: it prints what the page shows."""

import os
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

EXIT_CODE = re.compile(r"# exit code (\d)$", re.MULTILINE)
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\dZ")


def pattern(shown: str) -> re.Pattern[str]:
    """What the page shows, at any moment; a line of three dots stands for any lines."""
    text = re.escape(MOMENT.sub("MOMENT", shown))
    return re.compile(re.sub(r"^\\\.\\\.\\\.\\\n", "(.*\n)*", text, flags=re.MULTILINE))


def test_the_page_prints_what_it_shows(tmp_path: Path) -> None:
    # Standard error in its place among what is printed.
    script = "exec 2>&1; cd shop; set -a; . ../dev.env; set +a\n"
    (tmp_path / "shop").mkdir()
    environment = dev.environment() | {
        "PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}",
        "COLUMNS": "80",
    }

    with dev.running(tmp_path):
        for typed, shown in BLOCK.findall(PAGE):
            done = subprocess.run(
                ["bash", "-c", script + typed],
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                check=False,
                timeout=60,
            )
            assert done.returncode == int((EXIT_CODE.findall(typed) or [0])[-1]), typed + done.stdout
            printed = MOMENT.sub("MOMENT", done.stdout)
            assert pattern(shown).fullmatch(printed), f"{typed}\n{done.stdout}\nshown:\n{shown}"


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
