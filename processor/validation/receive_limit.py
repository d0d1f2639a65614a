"""Rejects deliveries unread: those received too often, and those that hung workers.

The first limit is for brokers without a dead-letter queue, the second for all: a message that kills or hangs
workers ends as a rejection after a few, and `processor rejection replay` can bring it back.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from processor.errors import Reason
from processor.model import SUSPECT_RECEIVE_COUNT, Delivery, Rejection, Tries

HANGS_MAX = 2
"""Hangs until rejection: one may be the machine's fault, and each costs a worker."""


class UnreadJudge(Protocol):
    """The validator, which gives verdicts."""

    def unread(self, delivery: Delivery, reason: Reason, detail: Mapping[str, Any]) -> Rejection:
        """Return the verdict on a delivery without reading its body."""


class SuspectLimits:
    """Decides which suspects are rejected unread, by their recorded attempts.

    `receive_count_max` is for queues without a dead-letter queue; None: the broker enforces its own limit.
    """

    def __init__(self, judge: UnreadJudge, *, judge_timeout_s: float, receive_count_max: int | None) -> None:
        self._judge = judge
        self._judge_timeout_s = judge_timeout_s
        self._receive_count_max = receive_count_max

    def unread(self, delivery: Delivery, tries: Tries) -> Rejection | None:
        """Reject a suspect without reading its body; None: the delivery may be read."""
        # Attempts, not receives: a worker that dies of one delivery holds others that it never read.
        # Earlier receives made the delivery a suspect.
        count = SUSPECT_RECEIVE_COUNT - 1 + tries.attempts
        if tries.hangs >= HANGS_MAX:
            words = (
                f"validated {tries.hangs} times, each time for longer than JUDGE_TIMEOUT_S "
                f"({self._judge_timeout_s:g} s), and the worker was replaced; the body was not read. "
                "Correct the schema of such events, or another cause of the delay, then replay this rejection"
            )
            detail = {"message": words, "hangs": tries.hangs, "judge_timeout_s": self._judge_timeout_s}
            return self._judge.unread(delivery, Reason.UNSTORABLE, detail)
        if self._receive_count_max is not None and count > self._receive_count_max:
            words = (
                f"received {count} times without an outcome, sent {delivery.sent_at:%Y-%m-%dT%H:%M:%SZ}; the "
                "body was not read"
            )
            detail = {"message": words, "receive_count": count, "receive_count_max": self._receive_count_max}
            return self._judge.unread(delivery, Reason.DEAD_LETTERED, detail)
        return None
