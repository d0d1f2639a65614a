"""The progress of long commands, on standard error."""

import time

from processor.runtime.terminal import say

_EVERY_S = 5.0


class Progress:
    """Prints progress at most once in some seconds."""

    def __init__(self) -> None:
        self._said_at = time.monotonic()

    def say(self, words: str) -> None:
        """Print the progress, unless a line was printed a moment ago."""
        if time.monotonic() - self._said_at >= _EVERY_S:
            self._said_at = time.monotonic()
            say(words, err=True)
