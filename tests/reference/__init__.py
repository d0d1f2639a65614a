"""The pages of `docs/reference` that are made from the code: settings, commands and tables.

`python -m tests.reference` writes them. `tests/shape/test_reference.py` fails while one is out of date.
"""

from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
MARK = "<!-- Made by `make docs` from {source}. Edit that, not this page. -->\n"
"""The first line of each page."""


def cell(text: str) -> str:
    """Give a text as it stands in a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")
