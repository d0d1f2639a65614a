"""The security model names tests that exist, and a defence without a test is none."""

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs/explanation/security-model.md").read_text(encoding="utf-8")
HEADINGS = "| attack | defence | test | what remains |"
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in (TOP / "tests").rglob("test_*.py"))


def _defences() -> list[list[str]]:
    tables = PAGE.split(f"{HEADINGS}\n")[1:]
    lines = [line for table in tables for line in table.split("\n\n")[0].splitlines()[1:]]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


DEFENCES = _defences()


def test_there_are_defences_against_attacks_of_every_kind() -> None:
    assert PAGE.count(HEADINGS) >= 5
    assert len(DEFENCES) >= 70


@pytest.mark.parametrize("defence", DEFENCES, ids=lambda defence: defence[0][:60])
def test_every_defence_has_a_test_and_says_what_remains(defence: list[str]) -> None:
    attack, stop, tests, remains = defence

    assert attack
    assert stop
    assert remains
    named = re.findall(r"`(test_\w+)`", tests)
    assert named
    assert [name for name in named if f"def {name}(" not in TESTS] == []


def test_the_page_stays_one_that_people_read() -> None:
    assert len(PAGE.splitlines()) <= 200
