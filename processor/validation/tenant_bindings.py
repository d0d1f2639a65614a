"""Binds deliveries to tenants by their origin: the queue and the sender.

    queue.tenants  (the registry, any queue)    ─┐
    QUEUE_TENANTS  (the queue of SQS_QUEUE_URL) ─┤
    SENDER_TENANTS (the SQS SenderId)           ─┴─▶ allowed ─▶ a body that names another is rejected
                                                       └─▶ exactly one: proven ─▶ rejection.bound_tenant_id

Senders choose the body, but the operator and AWS define the origin. So the bindings are also the only proof
of a rejection's tenant. If several bindings apply, each must allow the tenant.
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
"""The SENDER_TENANTS entry for senders without an entry."""

_LISTED_MAX = 50


@dataclass(frozen=True, slots=True)
class Bindings:
    """The bindings: `queue_tenants` None allows the queue any tenant, `sender_tenants` None every sender.

    A sender's entry may be None: any tenant. `queue` is the name of the queue of `queue_tenants`.
    """

    queue: str | None = None
    queue_tenants: frozenset[str] | None = None
    sender_tenants: Mapping[str, frozenset[str] | None] | None = None

    @classmethod
    def of(cls, settings: ValidationSettings) -> "Bindings":
        """Read the bindings from the settings. Raises SettingsError if tenants are bound without a queue."""
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
        """Whether any binding exists."""
        return self.queue_tenants is not None or self.sender_tenants is not None

    def allowed(self, delivery: Delivery, registered: frozenset[str] | None = None) -> frozenset[str] | None:
        """Return the tenants that a delivery may name; None: any.

        `registered` has the tenants that the registry binds the queue to. Current bindings apply first. A
        replayed delivery without one keeps the tenant that was proven on arrival: a replay allows no more.
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
        """Return the only tenant that a delivery can be from; None: several, or none."""
        allowed = self.allowed(delivery, registered)
        return next(iter(allowed)) if allowed is not None and len(allowed) == 1 else None

    def refusal(
        self, delivery: Delivery, tenant_id: str, registered: frozenset[str] | None = None
    ) -> dict[str, Any] | None:
        """Return the detail of a rejection if a delivery may not name a tenant; None: allowed."""
        allowed = self.allowed(delivery, registered)
        if allowed is None or tenant_id in allowed:
            return None
        if allowed:
            words = (
                "the queue or its sender is bound to other tenants than the event names; send it to a queue "
                "of its tenant, or correct `processor queue`, QUEUE_TENANTS or SENDER_TENANTS and replay"
            )
        else:
            words = (
                "this sender may not send for any tenant on this queue; "
                "to allow it, correct SENDER_TENANTS, QUEUE_TENANTS or `processor queue` and replay"
            )
        return {"message": words, "allowed": sorted(allowed)[:_LISTED_MAX], "allowed_count": len(allowed)}

    @staticmethod
    def _of_sender(
        known: Mapping[str, frozenset[str] | None], sender_id: str | None
    ) -> frozenset[str] | None:
        # Sessions of a role append their name to the role's id (AROA...:session), so an entry may name
        # either. A sender without an entry, or without an id, is refused unless there is a default entry.
        names = () if sender_id is None else (sender_id, sender_id.partition(":")[0])
        for name in (*names, ANY_SENDER):
            if name in known:
                return known[name]
        return frozenset()


UNBOUND = Bindings()
"""No bindings: a body may name any tenant."""


def no_right(rights: Rights, queue: str, envelope: Envelope, ground: EventMeaning) -> dict[str, Any] | None:
    """Return the detail of a rejection if the queue may not carry an event; None: allowed."""
    denied = rights.denial(envelope, ground)
    if denied is None:
        return None
    words = (
        f"{denied.message}, and queue {queue!r} may not carry it: send it to another queue, or correct "
        "`processor queue set` and replay"
    )
    errors = [{"pointer": denied.pointer, "rule": denied.right, "message": words}]
    return {"message": words, "errors": errors, "error_count": 1}
