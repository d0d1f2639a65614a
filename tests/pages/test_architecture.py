"""The pages for those who read the code say what is there: every room, and no file that is gone."""

import ast
import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
EXPLANATION = TOP / "docs/explanation"
ARCHITECTURE = (EXPLANATION / "architecture.md").read_text(encoding="utf-8")
CORE = (EXPLANATION / "core.md").read_text(encoding="utf-8")
PACKAGES = [
    path.parent for package in ("processor", "producers") for path in (TOP / package).rglob("__init__.py")
]
PLACE = re.compile(r"`((?:processor|producers|sql|tests)/[\w/.]+)`")


def _purpose(package: Path) -> str:
    """Give the first line of the package's docstring."""
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8")))
    return (docstring or "").partition("\n")[0]


def test_every_room_stands_on_the_page_with_the_first_line_of_its_docstring() -> None:
    purposes = {f"{package.relative_to(TOP)}/": _purpose(package) for package in PACKAGES}

    assert dict(re.findall(r"(?m)^\| `(\S+/)` \| (.+) \|$", ARCHITECTURE)) == purposes


@pytest.mark.parametrize("page", [ARCHITECTURE, CORE], ids=["architecture", "core"])
def test_a_file_that_a_page_sends_its_readers_to_is_there(page: str) -> None:
    places = PLACE.findall(page)

    assert len(places) >= 10
    assert [place for place in places if not (TOP / place).exists()] == []


def test_the_core_is_read_in_at_most_15_files() -> None:
    files = re.findall(r"(?m)^(\d+)\. `(\S+)`", CORE)

    assert [int(number) for number, _ in files] == list(range(1, len(files) + 1))
    assert len(files) <= 15


def test_the_names_that_the_pages_tell_readers_to_look_for_are_in_the_file() -> None:
    for item in re.split(r"(?m)^\d+\. ", CORE)[1:]:
        [file, *names] = re.findall(r"`([\w/.]+)`", item.partition("\n\n")[0])
        text = (TOP / file).read_text(encoding="utf-8")
        assert [name for name in names if "/" not in name and name not in text] == [], file
