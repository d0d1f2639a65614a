"""Real brokers for the tests: who has one runs them, who has none is told how to, and CI takes no excuse.

BROKERS=required turns the missing broker of a test into its failure.
"""

import os
from typing import NoReturn

import pytest


def require(name: str, how: str) -> NoReturn:
    """End the test that needs the broker `name`, which is not here: skipped, or failed where it must be.

    `how` says what to do so that it runs.
    """
    words = f"needs {name}, which is not here; {how}"
    if os.environ.get("BROKERS") == "required":
        pytest.fail(f"{words} (BROKERS=required: a skip counts as a failure)", pytrace=False)
    pytest.skip(words)
