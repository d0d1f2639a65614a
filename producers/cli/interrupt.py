"""What a signal does to a command that sends: the first one ends it cleanly, a second one at once."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import BinaryIO, NoReturn, Protocol

EXIT_SIGNAL = 128


class Stoppable(Protocol):
    """Something that sends."""

    def stop(self) -> None:
        """Let what is being sent come to its end; nothing more will be sent. Called by a signal's handler."""


class Interrupt:
    """The first SIGINT or SIGTERM ends the sending cleanly; a second one ends the process where it stands."""

    def __init__(self) -> None:
        self.signal = 0
        self.reading = False
        self._sender: Stoppable | None = None

    @contextmanager
    def handled_by(self, sender: Stoppable) -> Iterator[None]:
        """Stop this sender on a signal, for as long as the block lasts."""
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
            # Python would go on with a blocked read, which on a terminal never ends.
            raise KeyboardInterrupt

    @staticmethod
    def _leave(number: int) -> NoReturn:
        # The manifest is not buffered: what it must know, it knows.
        os._exit(EXIT_SIGNAL + number)


class InterruptibleStream:
    """A stream that comes to its end when a signal does."""

    def __init__(self, stream: BinaryIO, interrupt: Interrupt) -> None:
        self._stream = stream
        self._interrupt = interrupt

    def readline(self, size: int = -1, /) -> bytes:
        """Give the next line, or nothing once a signal came."""
        if self._interrupt.signal:
            return b""
        try:
            self._interrupt.reading = True
            return self._stream.readline(size)
        except KeyboardInterrupt:
            return b""
        finally:
            self._interrupt.reading = False
