"""The README is one that people read to its end."""

from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8").splitlines()


def test_the_readme_has_at_most_150_lines_of_100_columns() -> None:
    assert len(README) <= 150
    assert [line for line in README if len(line) > 100] == []
