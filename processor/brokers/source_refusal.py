"""Limit the retries of refusals by a broker that only a person can correct.

credentials refused ─┐
no such queue ───────┴─▶ an outage ── REFUSED_S_MAX of refusals only ──▶ SourceFault, SettingsError
"""

import time
from collections.abc import Callable

from processor.errors import ProcessorError, SettingsError, SourceFault, SourceUnavailable

REFUSED_S_MAX = 300.0
"""How long a broker may refuse us, or lack the queue, before the process ends.

Not at once, because passwords are changed on two sides, and new users, queues and topics take a while to
reach every server of a broker.
"""


class SourceRefusal:
    """The time since which a broker refuses us. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._mistake: type[ProcessorError] = SourceFault
        self._advice = ""

    @property
    def standing(self) -> bool:
        """Whether the last answer of the broker was a refusal."""
        return self._since is not None

    def credentials(self, advice: str) -> None:
        """Record that the broker refuses our credentials; `advice` says how to correct it."""
        self._note(SourceFault, advice)

    def missing(self, advice: str) -> None:
        """Record that the broker has no such queue; `advice` says how to correct it."""
        self._note(SettingsError, advice)

    def over(self) -> None:
        """Record an answer that is not a refusal."""
        self._since = None

    def error(self, words: str) -> ProcessorError:
        """Return the error to raise: SourceUnavailable, or after REFUSED_S_MAX the permanent one."""
        since = self._since
        if since is None or self._clock() - since < REFUSED_S_MAX:
            return SourceUnavailable(words)
        return self._mistake(f"{words}, for {REFUSED_S_MAX:.0f} s by now; {self._advice}")

    def _note(self, mistake: type[ProcessorError], advice: str) -> None:
        self._since = self._clock() if self._since is None else self._since
        self._mistake, self._advice = mistake, advice
