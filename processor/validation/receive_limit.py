"""What is not read any more: what was received too often, and what its readers hung at.

Brokers without a dead-letter queue of their own need the first, and all need the second: what kills or stops
its readers ends after a few of them as a rejection, which `processor rejection replay` can bring back.
"""

from typing import Any, Protocol

from processor.errors import Reason
from processor.model import SUSPECT_RECEIVE_COUNT, Delivery, Rejection, Tries
from processor.wire.formats import Claimed

HANGS_MAX = 2
"""At so many a delivery is put aside: one may be the machine's fault, and each costs a worker."""


class RegistryVersion(Protocol):
    """Whoever judges what is read."""

    @property
    def version(self) -> int: ...  # noqa: D102


class SuspectLimits:
    """Says which suspects are rejected unread, by what is noted of them.

    `receive_count_max` is for a queue that doesn't take such messages away itself; None: it does, and knows
    what its receives were.
    """

    def __init__(
        self, judge: RegistryVersion, *, judge_timeout_s: float, receive_count_max: int | None
    ) -> None:
        self._judge = judge
        self._judge_timeout_s = judge_timeout_s
        self._receive_count_max = receive_count_max

    def unread(self, delivery: Delivery, tries: Tries) -> Rejection | None:
        """Reject a suspect without a look at its body; None: it may be read."""
        # Attempts, and not hand-overs: whoever dies of one delivery has others in hand that it never read.
        # Those before the first that we note made it a suspect.
        count = SUSPECT_RECEIVE_COUNT - 1 + tries.attempts
        if tries.hangs >= HANGS_MAX:
            return self._rejection(
                delivery,
                Reason.UNSTORABLE,
                f"judged {tries.hangs} times, each time for longer than JUDGE_TIMEOUT_S "
                f"({self._judge_timeout_s:g} s), so that its reader was replaced; the body was not read. "
                "Mend the schema of such events, or what else may take so long, then replay this rejection",
                {"hangs": tries.hangs, "judge_timeout_s": self._judge_timeout_s},
            )
        if self._receive_count_max is not None and count > self._receive_count_max:
            return self._rejection(
                delivery,
                Reason.DEAD_LETTERED,
                f"received {count} times without an outcome, sent {delivery.sent_at:%Y-%m-%dT%H:%M:%SZ}; the "
                "body was not read",
                {"receive_count": count, "receive_count_max": self._receive_count_max},
            )
        return None

    def _rejection(
        self, delivery: Delivery, reason: Reason, words: str, figures: dict[str, Any]
    ) -> Rejection:
        detail = {"message": words, **figures}
        return Rejection(
            delivery, self._judge.version, reason, detail, Claimed(), key_known=False, final=True
        )
