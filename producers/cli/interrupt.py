"""Signal handling of the sending commands: the first signal ends them cleanly, a second one at once."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import BinaryIO, NoReturn, Protocol

EXIT_SIGNAL = 128


class Stoppable(Protocol):
    """A run that a signal can stop."""

    def stop(self) -> None:
        """Finish the current calls, and send no more. Called by a signal handler."""


class Interrupt:
    """The first SIGINT or SIGTERM ends the sending cleanly; a second one ends the process at once."""

    def __init__(self) -> None:
        self.signal = 0
        self.reading = False
        self._sender: Stoppable | None = None

    @contextmanager
    def handled_by(self, sender: Stoppable) -> Iterator[None]:
        """Stop this sender on a signal, within the block."""
        self._sender = sender
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.signal:
            self._leave(number)
        self.signal = number
        if self._sender is not None:
            self._sender.stop()
        if self.reading:
            # Python would resume a blocked read, which on a terminal never ends.
            raise KeyboardInterrupt

    @staticmethod
    def _leave(number: int) -> NoReturn:
        # The manifest is not buffered: every message that was sent is in it.
        os._exit(EXIT_SIGNAL + number)


class InterruptibleStream:
    """A stream that ends at a signal."""

    def __init__(self, stream: BinaryIO, interrupt: Interrupt) -> None:
        self._stream = stream
        self._interrupt = interrupt

    def readline(self, size: int = -1, /) -> bytes:
        """Return the next line; empty after a signal."""
        if self._interrupt.signal:
            return b""
        try:
            self._interrupt.reading = True
            return self._stream.readline(size)
        except KeyboardInterrupt:
            return b""
        finally:
            self._interrupt.reading = False
