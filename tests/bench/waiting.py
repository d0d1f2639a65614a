"""Waits for a condition within a timeout, with a message for its failure."""

import time
from collections.abc import Callable

from tests.bench.faults import LoadError

POLL_S = 0.02


def wait_until(true: Callable[[], bool], seconds: float, what: str) -> None:
    """Come back once it is true; raises LoadError after so many seconds."""
    give_up_at = time.monotonic() + seconds
    while not true():
        if time.monotonic() > give_up_at:
            raise LoadError(f"waited {seconds:.0f} s for {what}, in vain; is the machine too busy?")
        time.sleep(POLL_S)
