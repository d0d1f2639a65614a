"""The values that flow through the pipeline. All are frozen.

Delivery ──validate──▶ Message | Rejection ──save──▶ Settlement ──settle──▶ deleted from the queue

Values made for every event are msgspec structs: a frozen dataclass of ten fields takes 2 µs to make, a struct
0.25 µs. Other values are dataclasses.
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
"""From this receive on, a delivery is decoded and saved alone: it may have killed a process before."""


class Outcome(StrEnum):
    """The result of saving a delivery."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    REDELIVERED = "redelivered"
    REJECTED = "rejected"


class Delivery(Struct, frozen=True, gc=False):
    """One delivery of one queue message.

    `queue` is the queue's name. `delivery_id` is the queue's id of the message, the same in all redeliveries.
    `receipt` is the handle by which this delivery is settled. `rejection_id` is set for a replayed rejection,
    and `bound_tenant_id` is then its proven tenant. `sender_id` is the sender as the queue names it (None:
    unknown). `group` is set by ordered queues only: outcomes of a group are committed in the queue's order.
    `named` is false if the queue has no message ids, so that the id belongs to this delivery only; `repeated`
    then marks a redelivery, whose earlier id differs only at its end. `fault` describes what can't be read,
    for which the delivery is rejected. `ended` is set when the connection of the delivery ends, so that it
    can't be settled and is redelivered (None: the queue has no such end). `may_be_known` means that an
    outcome may exist although no earlier delivery was counted.
    """

    queue: str
    delivery_id: str
    body: bytes
    receipt: str
    receive_count: int
    sent_at: datetime
    received_at: datetime
    attributes: Mapping[str, Attribute] = {}  # msgspec copies an empty default
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
        """The unique key of the delivery in every table."""
        return self.queue, self.delivery_id

    @property
    def lasting_id(self) -> str:
        """The id shared by all deliveries of its message: the delivery id if the queue gave one."""
        return self.delivery_id if self.named else base_of(self.delivery_id)

    @property
    def redelivered(self) -> bool:
        """Whether this is a redelivery, which another process may have saved or may be saving."""
        return (self.receive_count > 1 or self.may_be_known) and self.rejection_id is None

    @property
    def lost(self) -> bool:
        """Whether its connection has ended, so that it will be redelivered in any case."""
        return self.ended is not None and self.ended.is_set()

    @property
    def suspect(self) -> bool:
        """Whether it may have killed a process before."""
        return self.receive_count >= SUSPECT_RECEIVE_COUNT


class Tries(NamedTuple):
    """Notes on a suspect: the number of attempts to read it alone, and of workers that hung at it."""

    attempts: int = 0
    hangs: int = 0


class Message(Struct, frozen=True, gc=False):
    """The verdict on a valid delivery: a row for the table `message`.

    `payload` and `context` are the original JSON texts, so that numbers keep every digit. The verdict was
    made with `registry_version`, which also decides whether a meter counts the message (`metered`).
    `occurred_at_rest` has the digits of `occurred_at` beyond the microsecond (None: none). `proven_tenant` is
    the only tenant that its queue and sender may speak for, independent of its content.
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
        """The unique key of the message."""
        return self.tenant_id, self.message_id, self.producer


class Rejection(Struct, frozen=True, gc=False):
    """The verdict on a bad delivery: its reason, the detail, and the claimed tenant, type and id.

    `key_known` is false if an earlier validation may have found another key than the claimed one.
    `searched` is false if the lookup of an earlier outcome timed out and is skipped.
    `final` means that the verdict does not depend on the registry and must not be made again.
    `rule_id` is the rule that discards it at once (None: it stays open for a person).
    `new_tenant` is the unknown tenant of an otherwise valid event, if its queue registers tenants.
    `proven_tenant` is the only tenant that its queue and sender may speak for, independent of its content.
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
    """The permission to delete one delivery from its queue. Only `Store.save` returns it, after its COMMIT.

    `discarded` marks a rejection that a rule closed at once.
    """

    delivery: Delivery
    outcome: Outcome
    reason: Reason | None = None
    discarded: bool = False


@dataclass(frozen=True, slots=True)
class EventSchema:
    """One version of the JSON Schema of an event type; `tenant_id` None means shared.

    `definition` is the complete JSON text. `formats` is "assert" or "annotate".
    """

    schema_id: int
    event_type: str
    tenant_id: str | None
    version: int
    definition: str
    formats: str = "assert"


@dataclass(frozen=True, slots=True)
class Meter:
    """The part of a meter that matters for verdicts.

    `tenant_id` None means shared, `value_pointer` None that the meter counts messages. `text_amounts` allows
    numbers in quotes.
    """

    meter: str
    tenant_id: str | None
    event_type: str
    value_pointer: str | None
    allows_corrections: bool
    text_amounts: bool = False


@dataclass(frozen=True, slots=True)
class RejectionRule:
    """A filter for rejections that are known noise; None means any.

    `conditions` maps JSON pointers into the body to values.
    """

    rule_id: int
    reason: str
    queue: str | None
    tenant_id: str | None
    event_type: str | None
    conditions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class QueueRules:
    """The rules of one queue; None or false means no rule.

    `unwrap` names the envelope that another service puts around each event ("none": there is none). `mapping`
    has the JSON pointers of envelope fields (and `payload`) in the bodies. `tenants` are those that the queue
    may speak for. `event_type` is the type of events that name none. With `registers_tenants` a valid event
    of an unknown tenant registers it. `rights` are the kinds of events that the queue may carry.
    """

    unwrap: str | None = None
    mapping: Mapping[str, str] | None = None
    tenants: frozenset[str] | None = None
    event_type: str | None = None
    registers_tenants: bool = False
    rights: Rights = EVERYTHING

    def over(self, other: "QueueRules") -> "QueueRules":
        """Return these rules, with those of `other` where a rule is not set."""
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
    """Tenants (id → suspended?), event schemas and active meters at one `version`.

    `id_scopes` has, for event types whose ids are unique within a part of the payload only, the JSON pointers
    of that part. `queues` has the rules of queues by name. `rejection_rules` are the active ones, oldest
    first.
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
        """Return what decides whether an event corrects an amount, or has another event's stored name."""
        return EventMeaning.of(
            ((event_type, len(pointers)) for event_type, pointers in self.id_scopes.items() if pointers),
            (
                (meter.event_type, meter.tenant_id, meter.value_pointer)
                for meter in self.meters
                if meter.allows_corrections and meter.value_pointer is not None
            ),
        )
