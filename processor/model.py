"""The values that flow through the pipeline: all frozen, made once, passed on.

Delivery ──validate──▶ Message | Rejection ──save──▶ Settlement ──settle──▶ gone from the queue

Those that every event needs anew are msgspec's structs: a frozen dataclass of ten fields takes two
microseconds to make, one of these a quarter of one. What is made once is an ordinary dataclass.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from threading import Event
from typing import Any, NamedTuple, TypeAlias

from msgspec import Struct

from processor.errors import Reason
from processor.wire.formats import Attribute, Claimed
from processor.wire.hand_overs import base_of
from processor.wire.sender_rights import EVERYTHING, EventMeaning, Rights

SUSPECT_RECEIVE_COUNT = 3
"""From this receive on a delivery is decoded and saved alone: it may be what killed the process before."""


class Outcome(StrEnum):
    """What the database said of a delivery."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    REDELIVERED = "redelivered"
    REJECTED = "rejected"


class Delivery(Struct, frozen=True, gc=False):
    """One hand-over of one queue message.

    `queue` is the queue's name, `delivery_id` what the queue calls the message through all its redeliveries,
    `receipt` what this one hand-over is settled by. `rejection_id` is set where it is replayed from the table
    of rejections, and `bound_tenant_id` then is the tenant that it was proven to be from. `sender_id` is who
    put it on the queue, as the queue says; None: it says nothing. `group` is set by an ordered queue only:
    within one group outcomes are committed in the order in which the queue hands the messages over. `named`
    is false where the queue gave it no id, so that this hand-over alone has this one; `repeated` says of such
    a one that it was handed over before, under an id that differs in its end alone. `fault` says in words
    what of it can't be read; it is rejected for that. `ended` is set once what it came over has ended, so
    that it can't be settled any more and comes again; None: the queue knows no such end. `may_be_known` says
    that it may have an outcome, though nobody counted an earlier hand-over.
    """

    queue: str
    delivery_id: str
    body: bytes
    receipt: str
    receive_count: int
    sent_at: datetime
    received_at: datetime
    attributes: Mapping[str, Attribute] = {}  # each gets its own
    rejection_id: int | None = None
    sender_id: str | None = None
    bound_tenant_id: str | None = None
    group: str | None = None
    named: bool = True
    repeated: bool = False
    fault: str | None = None
    ended: Event | None = None
    may_be_known: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """What tells this delivery from all others, in every table."""
        return self.queue, self.delivery_id

    @property
    def lasting_id(self) -> str:
        """What all hand-overs of its message have in common: the delivery id, where the queue gave one."""
        return self.delivery_id if self.named else base_of(self.delivery_id)

    @property
    def redelivered(self) -> bool:
        """Whether the queue handed it over before, so that somebody else may be saving it, or has."""
        return (self.receive_count > 1 or self.may_be_known) and self.rejection_id is None

    @property
    def lost(self) -> bool:
        """Whether it comes again, whatever becomes of this hand-over."""
        return self.ended is not None and self.ended.is_set()

    @property
    def suspect(self) -> bool:
        """Whether it may be what killed the process before."""
        return self.receive_count >= SUSPECT_RECEIVE_COUNT


class Tries(NamedTuple):
    """What is noted of a suspect: how often it was about to be read alone, and how often its reader hung."""

    attempts: int = 0
    hangs: int = 0


class Message(Struct, frozen=True, gc=False):
    """The verdict on a valid delivery: the row of `message` that it is to be.

    `payload` and `context` are JSON texts as they came, so that numbers keep every digit. `registry_version`
    is the version of the registry that the verdict was made with; it says too whether a meter counts it
    (`metered`). `occurred_at_rest` has the digits of `occurred_at` beyond the microsecond; None: none.
    `proven_tenant` is the one tenant that it can be from by its queue and its sender, whatever it says.
    """

    delivery: Delivery
    registry_version: int
    tenant_id: str
    message_id: str
    producer: str
    event_type: str
    schema_id: int
    occurred_at: datetime | None
    payload: str
    context: str | None
    metered: bool = False
    occurred_at_rest: str | None = None
    sent_at: datetime | None = None
    proven_tenant: str | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells this message from all others."""
        return self.tenant_id, self.message_id, self.producer


class Rejection(Struct, frozen=True, gc=False):
    """The verdict on a bad delivery: why, in detail, and who it claims to be from.

    `key_known` is false where another reading may have found another key in it than what is claimed.
    `searched` is false where to look for an earlier outcome of the delivery took too long, and is left out.
    `final` says that it rests on no registry, and that to judge it again would be of no use, or of harm.
    `rule_id` names the rule by which it is discarded at once; None: it waits for a person.
    `new_tenant` is the unknown tenant of an event that is valid otherwise, where its queue registers tenants.
    `proven_tenant` is the one tenant that it can be from by its queue and its sender, whatever it says.
    """

    delivery: Delivery
    registry_version: int
    reason: Reason
    detail: Mapping[str, Any]
    claimed: Claimed
    key_known: bool = True
    searched: bool = True
    final: bool = False
    rule_id: int | None = None
    new_tenant: str | None = None
    proven_tenant: str | None = None


Verdict: TypeAlias = Message | Rejection


class Settlement(Struct, frozen=True, gc=False):
    """The leave to delete one delivery from its queue. Only `Store.save` gives it out, after its COMMIT.

    `discarded` says of a rejection that a rule closed it at once.
    """

    delivery: Delivery
    outcome: Outcome
    reason: Reason | None = None
    discarded: bool = False


@dataclass(frozen=True, slots=True)
class EventSchema:
    """One version of the JSON Schema of an event type; `tenant_id` None means shared.

    `definition` is its JSON text, complete. `formats` is "assert" or "annotate".
    """

    schema_id: int
    event_type: str
    tenant_id: str | None
    version: int
    definition: str
    formats: str = "assert"


@dataclass(frozen=True, slots=True)
class Meter:
    """What of a meter has a say in a verdict; `tenant_id` None: shared, `value_pointer` None: it counts.

    With `text_amounts` it adds a number in quotes too.
    """

    meter: str
    tenant_id: str | None
    event_type: str
    value_pointer: str | None
    allows_corrections: bool
    text_amounts: bool = False


@dataclass(frozen=True, slots=True)
class RejectionRule:
    """Which rejections are known noise; None means any. `conditions` has JSON pointers into the body."""

    rule_id: int
    reason: str
    queue: str | None
    tenant_id: str | None
    event_type: str | None
    conditions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class QueueRules:
    """What one queue is said to carry; None, or false: nothing is said.

    `unwrap` names the envelope that another service puts around each event; "none": there is none. `mapping`
    has, for names of an envelope (and `payload`), the JSON pointers at which its bodies have them. `tenants`
    are those that it may speak for. `event_type` is that of its events, which need not name it. With
    `registers_tenants` a valid event of an unknown tenant registers it. `rights` say what it
    may carry.
    """

    unwrap: str | None = None
    mapping: Mapping[str, str] | None = None
    tenants: frozenset[str] | None = None
    event_type: str | None = None
    registers_tenants: bool = False
    rights: Rights = EVERYTHING

    def over(self, other: "QueueRules") -> "QueueRules":
        """Give these rules, completed by the other's where nothing is said here."""
        return QueueRules(
            other.unwrap if self.unwrap is None else self.unwrap,
            other.mapping if self.mapping is None else self.mapping,
            other.tenants if self.tenants is None else self.tenants,
            other.event_type if self.event_type is None else self.event_type,
            self.registers_tenants or other.registers_tenants,
            other.rights if self.rights == EVERYTHING else self.rights,
        )


@dataclass(frozen=True, slots=True)
class Registry:
    """Tenants (id → suspended?), event schemas and active meters as they stood at one `version`.

    `id_scopes` has those event types whose ids are unique within some values of the payload alone: JSON
    pointers to them. `queues` has the rules of queues, by name.
    `rejection_rules` are those in force, as they were added.
    """

    version: int
    suspended: Mapping[str, bool]
    schemas: tuple[EventSchema, ...]
    meters: tuple[Meter, ...] = ()
    id_scopes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    queues: Mapping[str, QueueRules] = field(default_factory=dict)
    rejection_rules: tuple[RejectionRule, ...] = ()

    @property
    def ground(self) -> EventMeaning:
        """Give what it is judged by whether an event takes back what counted, or bears another's name."""
        return EventMeaning.of(
            ((event_type, len(pointers)) for event_type, pointers in self.id_scopes.items() if pointers),
            (
                (meter.event_type, meter.tenant_id, meter.value_pointer)
                for meter in self.meters
                if meter.allows_corrections and meter.value_pointer is not None
            ),
        )
