"""The pages of schemas, typed word for word beside `processor dev`: they print what they show."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.journeys import dev

# `processor dev` wants the port that awslocal looks at, and there is one.
pytestmark = pytest.mark.xdist_group("port 4566")

PAGES = [
    (dev.ROOT / "docs" / "howto" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("tenants-and-schemas", "change-a-schema", "test-events-in-ci")
]
"""In the order in which they are typed: each goes on where the one before ends."""

PAGE = "\n".join(PAGES)
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


def test_the_pages_print_what_they_show(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()

    with dev.running(tmp_path):
        for typed, shown in BLOCK.findall(PAGE):
            code, printed = dev.on_a_screen(SETTINGS + EXIT_CODE.sub(ENDS_WITH, typed), tmp_path)
            assert code == 0, f"{typed}\n{printed}"
            assert at_any_moment(printed) == at_any_moment(shown), f"{typed}\n{printed}"


def test_the_ci_runs_what_the_page_has_typed() -> None:
    [workflow] = [YAML(typ="safe").load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
    [job] = workflow["jobs"].values()

    [install, command] = [step["run"] for step in job["steps"] if "run" in step]

    assert install.startswith("pip install ")
    assert any(line.startswith(command) for typed, _ in BLOCK.findall(PAGE) for line in typed.splitlines())


def test_the_blocks_that_are_typed_fit_a_screen_of_80_columns() -> None:
    blocks = "".join(re.findall(r"```\w*\n(.*?)```", PAGE, re.DOTALL))

    assert [line for line in blocks.splitlines() if len(line) > 80] == []
