"""What was received too often is put aside unread: brokers without a dead-letter queue of their own need it.

SQS moves such a message itself. Here it becomes a rejection, so that what kills its readers ends after a few
of them, and `processor rejection replay` can bring it back when the fault is mended.
"""

from typing import Protocol

from processor.errors import Reason
from processor.model import Delivery, Registry, Rejection, Verdict
from processor.wire import Claimed


class Judge(Protocol):
    """Whoever else gives verdicts, by the registry that was last installed."""

    @property
    def version(self) -> int: ...  # noqa: D102
    def install(self, registry: Registry) -> None: ...  # noqa: D102
    def validate(self, delivery: Delivery) -> Verdict: ...  # noqa: D102
    def proven_tenant(self, delivery: Delivery) -> str | None: ...  # noqa: D102


class ReceiveLimit:
    """Judges as `judge` does, but rejects unread what was received more than `receive_count_max` times."""

    def __init__(self, judge: Judge, receive_count_max: int) -> None:
        self._judge = judge
        self._receive_count_max = receive_count_max

    @property
    def version(self) -> int:
        """The version of the registry that verdicts are made with."""
        return self._judge.version

    def install(self, registry: Registry) -> None:
        """Judge by this registry from now on."""
        self._judge.install(registry)

    def validate(self, delivery: Delivery) -> Verdict:
        """Give the verdict on one delivery; never raises for its content."""
        # Before anything looks at the body: to look at it may be what ended its readers.
        if delivery.receive_count <= self._receive_count_max:
            return self._judge.validate(delivery)
        detail = {
            "message": f"received {delivery.receive_count} times without an outcome, sent "
            f"{delivery.sent_at:%Y-%m-%dT%H:%M:%SZ}; the body was not read",
            "receive_count": delivery.receive_count,
            "receive_count_max": self._receive_count_max,
        }
        return Rejection(delivery, self.version, Reason.DEAD_LETTERED, detail, Claimed(), key_known=False)

    def proven_tenant(self, delivery: Delivery) -> str | None:
        """Give the one tenant that a delivery can be from, whatever it says; None: nothing proves it."""
        return self._judge.proven_tenant(delivery)
