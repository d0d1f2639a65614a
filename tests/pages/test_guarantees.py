"""The page of guarantees names tests and scenarios that exist, and the page of chaos shows all scenarios."""

import re
from pathlib import Path

import pytest

from tests.chaos.scenarios import ALL

TOP = Path(__file__).parents[2]
EXPLANATION = TOP / "docs/explanation"
HEADINGS = "| guarantee | held by | tried by |"
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in (TOP / "tests").rglob("test_*.py"))


def _guarantees() -> list[list[str]]:
    tables = (EXPLANATION / "guarantees.md").read_text(encoding="utf-8").split(f"{HEADINGS}\n")[1:]
    lines = [line for table in tables for line in table.split("\n\n")[0].splitlines()[1:]]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


GUARANTEES = _guarantees()


def test_there_are_guarantees_of_every_kind() -> None:
    assert len(GUARANTEES) >= 50


@pytest.mark.parametrize("guarantee", GUARANTEES, ids=lambda guarantee: guarantee[0][:60])
def test_a_guarantee_names_tests_and_scenarios_that_exist(guarantee: list[str]) -> None:
    _, held_by, tried_by = guarantee
    tests = re.findall(r"`(test_\w+)`", held_by)

    assert tests
    assert [name for name in tests if f"def {name}(" not in TESTS] == []
    assert set(tried_by.split("; ")) <= {scenario.name for scenario in ALL} | {"all", "none"}


def test_the_page_of_chaos_shows_every_scenario() -> None:
    page = (EXPLANATION / "chaos.md").read_text(encoding="utf-8")

    assert [scenario.title for scenario in ALL if f"| {scenario.title} |" not in page] == []
