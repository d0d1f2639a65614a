"""Ctrl-C, SIGTERM and a closed terminal as one exception at most, so that cleaning up is never cut off."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Interrupted(BaseException):
    """We were told to stop. Not an Exception, so that no retry or fallback on the way swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@dataclass
class Interrupts:
    """Whether the next signal still raises: the first one, kept in `came`, or `ignore`, ends that."""

    raising: bool = True
    came: int | None = None

    def ignore(self) -> None:
        """From here on we only clean up, and no impatient second Ctrl-C may leave a half of that undone."""
        self.raising = False

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Raise Interrupted for the first signal; the rest change nothing: we are stopping already."""
        if self.raising:
            self.raising = False
            self.came = number
            raise Interrupted(number)

    def obey(self) -> None:
        """Raise Interrupted again if a signal came: whoever loops for long asks each time round.

        Python drops what is raised in a finalizer or a weak reference's callback, wherever that runs.
        """
        if self.came is not None:
            raise Interrupted(self.came)


@contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Raise Interrupted at the first SIGINT, SIGTERM or SIGHUP within; call it from the main thread.

    SIGINT counts even where a shell made us ignore it, as shells do with `command &`. A SIGHUP that we
    were made to ignore stays so: that is `nohup`.
    """
    state = Interrupts()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, state.handle) for number in numbers}
    try:
        yield state
    finally:
        state.ignore()
        for number, handler in before.items():
            signal.signal(number, handler)
