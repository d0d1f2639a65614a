"""The page of threats names tests that are there, and a wall without a test is none."""

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs/threat-model.md").read_text(encoding="utf-8")
HEADINGS = "| attack | wall | test | what is not defended |"


def _walls() -> list[list[str]]:
    tables = PAGE.split(HEADINGS)[1:]
    lines = [line for table in tables for line in table.split("\n\n")[0].splitlines()]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]


WALLS = [wall for wall in _walls() if not set(wall[0]) <= set("- ")]
TESTS: dict[str, list[str]] = {path.name: [] for path in (TOP / "tests").rglob("test_*.py")}
for path in (TOP / "tests").rglob("test_*.py"):
    TESTS[path.name].append(path.read_text(encoding="utf-8"))


def test_there_are_walls_against_attacks_of_every_kind() -> None:
    assert PAGE.count(HEADINGS) >= 5
    assert len(WALLS) >= 40


@pytest.mark.parametrize("wall", WALLS, ids=lambda wall: wall[0][:60])
def test_every_wall_has_a_test_and_says_what_it_does_not_stop(wall: list[str]) -> None:
    attack, stop, tests, not_defended = wall

    assert attack
    assert stop
    assert not_defended
    named = re.findall(r"(test_\w+\.py)::(test_\w+)", tests)
    assert named
    for file, name in named:
        assert any(f"def {name}(" in text for text in TESTS.get(file, [])), (file, name)


def test_the_page_stays_one_that_people_read() -> None:
    assert len(PAGE.splitlines()) <= 200
