"""What a broker says that only a person can mend: waited for as an outage is, but not for ever.

credentials refused ─┐
no such queue ───────┴─▶ an outage ── REFUSED_S_MAX without another word ──▶ SourceFault, SettingsError
"""

import time
from collections.abc import Callable

from processor.errors import ProcessorError, SettingsError, SourceFault, SourceUnavailable

REFUSED_S_MAX = 300.0
"""For how long a broker may refuse us, or have no such queue, before we end.

Not at once: passwords are changed on two sides, and users, queues and topics take a while to be known to
every server of a broker.
"""


class SourceRefusal:
    """Since when a broker has said that it won't serve us. Safe to share between threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._mistake: type[ProcessorError] = SourceFault
        self._advice = ""

    @property
    def standing(self) -> bool:
        """Whether a refusal was the broker's last word."""
        return self._since is not None

    def credentials(self, advice: str) -> None:
        """Note that the broker refuses who we are; `advice` says what a person can do."""
        self._note(SourceFault, advice)

    def missing(self, advice: str) -> None:
        """Note that the broker has no such queue; `advice` says what a person can do."""
        self._note(SettingsError, advice)

    def over(self) -> None:
        """Note that the broker has said something else since."""
        self._since = None

    def error(self, words: str) -> ProcessorError:
        """Give what to raise for a failure: SourceUnavailable, or what has been refused for too long."""
        since = self._since
        if since is None or self._clock() - since < REFUSED_S_MAX:
            return SourceUnavailable(words)
        return self._mistake(f"{words}, for {REFUSED_S_MAX:.0f} s by now; {self._advice}")

    def _note(self, mistake: type[ProcessorError], advice: str) -> None:
        self._since = self._clock() if self._since is None else self._since
        self._mistake, self._advice = mistake, advice
