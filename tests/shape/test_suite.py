"""What `make test` leaves out has a test in it that stands in for it."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
LONG = re.compile(r'mark\.long\("(test_\w+)')
TEXTS = {path: path.read_text() for path in TESTS.rglob("*.py") if path != Path(__file__)}


@pytest.mark.parametrize(
    ("path", "stands_in"),
    [
        pytest.param(path, name, id=f"{path.name}-{name}")
        for path, text in TEXTS.items()
        for name in LONG.findall(text)
    ],
)
def test_a_long_test_names_one_beside_it_that_always_runs(path: Path, stands_in: str) -> None:
    assert f"def {stands_in}(" in TEXTS[path]


def test_every_long_test_names_one() -> None:
    for path, text in TEXTS.items():
        assert text.count("mark.long") == len(LONG.findall(text)), path
