"""How far a long command is, said now and then on standard error."""

import time

from processor.runtime.terminal import say

_EVERY_S = 5.0


class Progress:
    """Says what it is told, but only if it has been silent for some seconds."""

    def __init__(self) -> None:
        self._said_at = time.monotonic()

    def say(self, words: str) -> None:
        """Say how far it is, or keep silent because that was said a moment ago."""
        if time.monotonic() - self._said_at >= _EVERY_S:
            self._said_at = time.monotonic()
            say(words, err=True)
