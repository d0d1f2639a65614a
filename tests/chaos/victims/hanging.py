"""`processor run` in which reading one body never ends: `python -m tests.chaos.victims.hanging HOW run ...`.

HOW is `interpreter` (one call that keeps the interpreter to itself), `loop` (of Python, beside which other
threads run) or `sleep`. Its workers are forked, and so hang, too. The program itself knows nothing of this.
"""

import sys
import time
from collections.abc import Callable

from processor.cli import main
from processor.model import Delivery, Verdict
from processor.validation.validator import Schemas

POISON = b"hangs"


def _keep_the_interpreter() -> None:
    # One step of the interpreter, which takes as good as for ever.
    sum(range(10**13))


def _loop() -> None:
    while True:
        pass


def _sleep() -> None:
    time.sleep(10**6)


WAYS: dict[str, Callable[[], None]] = {
    "interpreter": _keep_the_interpreter,
    "loop": _loop,
    "sleep": _sleep,
}


def arm(how: str) -> None:
    """Make the process hang at reading POISON."""
    validate = Schemas.validate

    def hanging(schemas: Schemas, delivery: Delivery, **more: bool) -> Verdict:
        if POISON in delivery.body:
            WAYS[how]()
        return validate(schemas, delivery, **more)

    setattr(Schemas, "validate", hanging)  # noqa: B010 - by name, because mypy knows it is a method


if __name__ == "__main__":
    arm(sys.argv.pop(1))
    main()
