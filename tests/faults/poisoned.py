"""`processor run` in which reading one body kills the process: `python -m tests.faults.poisoned run ...`.

Its children are poisoned, too. The program itself knows nothing of this.
"""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

from processor import supervisor
from processor.cli import main
from processor.model import Delivery, Verdict
from processor.schemas import Schemas

POISON = b"poison"


def arm() -> None:
    """Make the process die of reading POISON, and whatever it starts as well."""
    validate = Schemas.validate

    def dying(schemas: Schemas, delivery: Delivery) -> Verdict:
        if POISON in delivery.body:
            os.kill(os.getpid(), signal.SIGKILL)
        return validate(schemas, delivery)

    def poisoned(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        arguments = command[command.index("processor") + 1 :]
        return subprocess.Popen([sys.executable, "-m", "tests.faults.poisoned", *arguments], **options)

    setattr(Schemas, "validate", dying)  # noqa: B010 - by name, because mypy knows it is a method
    setattr(supervisor, "subprocess", SimpleNamespace(Popen=poisoned))  # noqa: B010


if __name__ == "__main__":
    arm()
    main()
