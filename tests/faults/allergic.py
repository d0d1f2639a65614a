"""`processor run` that dies of looking at some bodies: `python -m tests.faults.allergic WORD run`."""

import os
import signal
import sys
from typing import Any

from processor.cli import main
from processor.schemas import Schemas


def die_of(word: bytes) -> None:
    """Kill the process with -9 when it validates a body with this word in it."""
    validate = Schemas.validate

    def deadly(self: Schemas, delivery: Any) -> Any:
        if word in delivery.body:
            os.kill(os.getpid(), signal.SIGKILL)
        return validate(self, delivery)

    Schemas.validate = deadly  # type: ignore[method-assign]


if __name__ == "__main__":
    die_of(sys.argv.pop(1).encode())
    main()
