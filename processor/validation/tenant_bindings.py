"""Which tenants a delivery may speak for, by where it came from: its queue, and who put it there.

    queue.tenants  (the registry, any queue)    ─┐
    QUEUE_TENANTS  (the queue of SQS_QUEUE_URL) ─┤
    SENDER_TENANTS (the SQS SenderId)           ─┴─▶ allowed ─▶ a body that names another is rejected
                                                       └─▶ exactly one: proven ─▶ rejection.bound_tenant_id

A body says what its sender likes. These are said by the operator and by AWS, so what they allow is also the
one proof there is of whose a rejection is. Where several bind a delivery, each has to allow it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from processor.errors import SettingsError
from processor.model import Delivery
from processor.settings import ValidationSettings
from processor.wire.formats import Envelope
from processor.wire.sender_rights import EventMeaning, Rights

ANY_SENDER = "*"
"""The entry of SENDER_TENANTS that holds for every sender without one of its own."""

_LISTED_MAX = 50


@dataclass(frozen=True, slots=True)
class Bindings:
    """What is bound: `queue_tenants` None leaves the queue open, `sender_tenants` None every sender.

    A sender's entry may be None: it speaks for any tenant. `queue` is the name of the queue that
    `queue_tenants` are said of.
    """

    queue: str | None = None
    queue_tenants: frozenset[str] | None = None
    sender_tenants: Mapping[str, frozenset[str] | None] | None = None

    @classmethod
    def of(cls, settings: ValidationSettings) -> "Bindings":
        """Read them off the settings. Raises SettingsError where tenants are bound to no queue."""
        if settings.queue_tenants is None:
            return cls(sender_tenants=settings.sender_tenants)
        if settings.sqs_queue_url is None and settings.source_url is None:
            raise SettingsError(
                "QUEUE_TENANTS is set and SQS_QUEUE_URL is not; set SQS_QUEUE_URL (or SOURCE_URL) too: it "
                "names the queue that is bound"
            )
        return cls(settings.queue_name(), settings.queue_tenants, settings.sender_tenants)

    @property
    def any(self) -> bool:
        """Whether anything is bound."""
        return self.queue_tenants is not None or self.sender_tenants is not None

    def allowed(self, delivery: Delivery, registered: frozenset[str] | None = None) -> frozenset[str] | None:
        """Give the tenants that a delivery may speak for; None: any.

        `registered` are those that the registry binds its queue to. What is said today goes first. Where
        nothing is said of a delivery that is replayed, what was proven when it came still holds: a replay
        allows no more.
        """
        bounds = [] if registered is None else [registered]
        if self.queue_tenants is not None and delivery.queue == self.queue:
            bounds.append(self.queue_tenants)
        if self.sender_tenants is not None:
            of_sender = self._of_sender(self.sender_tenants, delivery.sender_id)
            if of_sender is not None:
                bounds.append(of_sender)
        if bounds:
            return frozenset.intersection(*bounds)
        return None if delivery.bound_tenant_id is None else frozenset((delivery.bound_tenant_id,))

    def proven(self, delivery: Delivery, registered: frozenset[str] | None = None) -> str | None:
        """Give the one tenant that a delivery can be from; None: there are more, or none."""
        allowed = self.allowed(delivery, registered)
        return next(iter(allowed)) if allowed is not None and len(allowed) == 1 else None

    def refusal(
        self, delivery: Delivery, tenant_id: str, registered: frozenset[str] | None = None
    ) -> dict[str, Any] | None:
        """Say why a delivery may not speak for a tenant, as the detail of a rejection; None: it may."""
        allowed = self.allowed(delivery, registered)
        if allowed is None or tenant_id in allowed:
            return None
        if allowed:
            words = (
                "the queue or its sender is bound to other tenants than the event names; send it where its "
                "tenant belongs, or mend `processor queue`, QUEUE_TENANTS or SENDER_TENANTS and replay"
            )
        else:
            words = (
                "nothing may be sent for any tenant by this sender on this queue; "
                "if it should, mend SENDER_TENANTS, QUEUE_TENANTS or `processor queue` and replay"
            )
        return {"message": words, "allowed": sorted(allowed)[:_LISTED_MAX], "allowed_count": len(allowed)}

    @staticmethod
    def _of_sender(
        known: Mapping[str, frozenset[str] | None], sender_id: str | None
    ) -> frozenset[str] | None:
        # A role's sessions have names of their own behind the role's id (AROA...:session), so an entry may
        # name either. Whoever has no entry, or no id, is refused unless there is one for all.
        names = () if sender_id is None else (sender_id, sender_id.partition(":")[0])
        for name in (*names, ANY_SENDER):
            if name in known:
                return known[name]
        return frozenset()


UNBOUND = Bindings()
"""Nothing is bound: a body may name any tenant."""


def no_right(rights: Rights, queue: str, envelope: Envelope, ground: EventMeaning) -> dict[str, Any] | None:
    """Say what of an event its queue may not carry, as the detail of a rejection; None: it may."""
    denied = rights.denial(envelope, ground)
    if denied is None:
        return None
    words = (
        f"{denied.message}, and queue {queue!r} may not carry it: send it where it belongs, or mend "
        "`processor queue set` and replay"
    )
    errors = [{"pointer": denied.pointer, "rule": denied.right, "message": words}]
    return {"message": words, "errors": errors, "error_count": 1}
