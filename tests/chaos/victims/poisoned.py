"""`processor run` that one body kills: `python -m tests.chaos.victims.poisoned run ...`.

Its workers are forked, and so poisoned, too. The program itself knows nothing of this.
"""

import os
import signal

from processor.cli import main
from processor.model import Delivery, Verdict
from processor.validation.validator import Schemas

POISON = b"poison"


def arm() -> None:
    """Make the process die of reading POISON."""
    validate = Schemas.validate

    def dying(schemas: Schemas, delivery: Delivery, **how: bool) -> Verdict:
        if POISON in delivery.body:
            os.kill(os.getpid(), signal.SIGKILL)
        return validate(schemas, delivery, **how)

    setattr(Schemas, "validate", dying)  # noqa: B010 - by name, because mypy knows it is a method


if __name__ == "__main__":
    arm()
    main()
