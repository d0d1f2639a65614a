"""How-to pages are short, and the index of a folder names each of its pages."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", sorted((DOCS / "howto").rglob("*.md")), ids=lambda page: page.stem)
def test_a_how_to_page_is_short(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("folder", ["howto", "decisions"])
def test_the_index_of_a_folder_names_every_page(folder: str) -> None:
    pages = {path.name for path in (DOCS / folder).glob("*.md")} - {"README.md"}

    index = (DOCS / folder / "README.md").read_text(encoding="utf-8")

    assert pages <= set(re.findall(r"\(([\w-]+\.md)\)", index))


def test_a_decision_has_a_number_of_its_own_a_title_a_date_and_a_reason() -> None:
    records = sorted((DOCS / "decisions").glob("[0-9]*.md"))

    for record in records:
        text = record.read_text(encoding="utf-8")
        assert re.match(rf"# {record.name[:4]}\. .+\n\n\d{{4}}-\d\d-\d\d · .+\n", text), record.name
        assert "**Decision.**" in text
        assert "**Why.**" in text
    assert len({record.name[:4] for record in records}) == len(records)
