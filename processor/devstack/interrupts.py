"""Interrupts: Ctrl-C, SIGTERM and SIGHUP raise one exception at most, so that cleanup always completes."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Interrupted(BaseException):
    """A stop signal arrived. Not an Exception, so that no retry or fallback swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@dataclass
class Interrupts:
    """The signal state: the first signal (kept in `came`) raises; after it, or after `ignore`, none does."""

    raising: bool = True
    came: int | None = None

    def ignore(self) -> None:
        """Ignore further signals: a second Ctrl-C must not interrupt the cleanup."""
        self.raising = False

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Raise Interrupted for the first signal; later signals have no effect."""
        if self.raising:
            self.raising = False
            self.came = number
            raise Interrupted(number)

    def obey(self) -> None:
        """Raise Interrupted again if a signal arrived. Long loops call it in each round.

        Python drops exceptions raised in a finalizer or a weak reference's callback.
        """
        if self.came is not None:
            raise Interrupted(self.came)


@contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Raise Interrupted at the first SIGINT, SIGTERM or SIGHUP in the block; call it from the main thread.

    SIGINT is handled even if a shell had it ignored, as for `command &`. An ignored SIGHUP stays ignored, for
    `nohup`.
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
