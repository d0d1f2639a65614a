"""Validates deliveries: a known tenant, and a payload that matches its schema.

    Delivery ─▶ Decoder ─▶ bound? ─▶ tenant? ─▶ event type? ─▶ version? ─▶ payload ─▶ scope ─▶ Message
                     └───────────┴──────────┴───────────┴────────────┴───────────┴──────────┴────▶ Rejection

All answers come from one registry in memory, identified by its version. The database is not queried per
event: `Store.save` compares versions, and installs a newer registry if ours is stale.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from processor.decoding.decoder import NO_RULES, Decoder, RoutingKeyReader
from processor.errors import Reason
from processor.model import (
    Delivery,
    EventSchema,
    Message,
    Meter,
    QueueRules,
    Registry,
    Rejection,
    Verdict,
)
from processor.runtime import metrics
from processor.schemas.judge.client import JudgeProcess
from processor.schemas.judge.judging import Judging, RejectionCause, one_violation
from processor.validation import known_noise
from processor.validation.id_scope import IdScope, Unscoped
from processor.validation.meter_amounts import Amount, amounts_of, find_misfit
from processor.validation.plain_names import EXPECTED, is_plain
from processor.validation.tenant_bindings import UNBOUND, Bindings, no_right
from processor.validation.void_targets import find_void_misfit
from processor.wire.formats import PULSE, Claimed, Envelope, Malformed, derived_id
from processor.wire.sender_rights import VOID, EventMeaning
from processor.wire.strict_json import VALUES_MAX


@dataclass(frozen=True, slots=True)
class _Lookup:
    """An index of one registry."""

    registry: Registry
    versions: Mapping[tuple[str, str | None], Mapping[int, EventSchema]]
    event_types: frozenset[str]
    meters: Mapping[str, tuple[Meter, ...]]
    id_scopes: Mapping[str, IdScope]
    amounts: Mapping[str, tuple[Amount, ...]]
    noise: known_noise.Rules
    rules: Mapping[str, QueueRules]
    ground: EventMeaning

    @classmethod
    def of(cls, registry: Registry, said: Mapping[str, QueueRules]) -> "_Lookup":
        versions: dict[tuple[str, str | None], dict[int, EventSchema]] = {}
        for schema in sorted(registry.schemas, key=lambda schema: schema.version):
            versions.setdefault((schema.event_type, schema.tenant_id), {})[schema.version] = schema
        meters: dict[str, tuple[Meter, ...]] = {VOID: ()}
        for meter in registry.meters:
            meters[meter.event_type] = (*meters.get(meter.event_type, ()), meter)
        id_scopes = {
            event_type: IdScope.of(pointers)
            for event_type, pointers in registry.id_scopes.items()
            if pointers
        }
        event_types = frozenset(event_type for event_type, _ in versions)
        rules = {name: rules.over(said.get(name, NO_RULES)) for name, rules in registry.queues.items()}
        amounts = amounts_of(registry.meters)
        noise = known_noise.by_reason(registry.rejection_rules)
        return cls(
            registry,
            versions,
            event_types,
            meters,
            id_scopes,
            amounts,
            noise,
            {**said, **rules},
            registry.ground,
        )

    def rules_of(self, queue: str) -> QueueRules:
        """Return the rules of a queue, those of the registry first."""
        return self.rules.get(queue, NO_RULES)

    def is_metered(self, tenant_id: str) -> bool:
        """Return whether a tenant has any meter."""
        return any(meter.tenant_id in (None, tenant_id) for meter in self.registry.meters)

    def applicable(self, event_type: str, tenant_id: str) -> Mapping[int, EventSchema]:
        """Return the schema versions for a tenant, oldest first: its own, else the shared ones."""
        return self.versions.get((event_type, tenant_id)) or self.versions.get((event_type, None)) or {}


class Schemas:
    """Validates deliveries against the installed registry. Thread-safe.

    `said` has the rules from the settings, by queue; those of the registry take precedence. `process`
    validates expensive payloads; None: the shared judge process.
    """

    def __init__(
        self,
        *,
        body_bytes_max: int,
        json_depth_max: int,
        json_values_max: int = VALUES_MAX,
        bindings: Bindings = UNBOUND,
        said: Mapping[str, QueueRules] = MappingProxyType({}),
        routing_keys: RoutingKeyReader | None = None,
        routed_queue: str | None = None,
        process: JudgeProcess | None = None,
    ) -> None:
        self._decoder = Decoder(body_bytes_max, json_depth_max, json_values_max, routing_keys, routed_queue)
        self._bindings = bindings
        self._said = said
        self._lookup = _Lookup.of(Registry(0, {}, ()), said)
        self._judging = Judging(process)

    @property
    def version(self) -> int:
        """The version of the installed registry."""
        return self._lookup.registry.version

    def install(self, registry: Registry) -> None:
        """Use this registry from now on; verdicts name its version."""
        self._judging.install(registry.schemas)
        # One assignment: a running validation keeps its lookup.
        self._lookup = _Lookup.of(registry, self._said)

    def registered(self, tenant_id: str | None, event_type: str | None) -> tuple[str | None, str | None]:
        """Return the registered part of a claim; an unknown tenant gives nothing."""
        lookup = self._lookup
        if tenant_id not in lookup.registry.suspended:
            return None, None
        return tenant_id, event_type if event_type in lookup.event_types else None

    def read(self, delivery: Delivery) -> Envelope | Malformed:
        """Decode a delivery, and check only its form."""
        rules = self._lookup.rules_of(delivery.queue)
        return self._decoder.read(delivery, rules, self._bindings.proven(delivery, rules.tenants))

    def validate(self, delivery: Delivery, *, may_wait: bool = True) -> Verdict:
        """Validate a delivery. Bad content gives a Rejection; content never raises.

        Raises Stopped when told to stop while waiting for the judge process, and MustWait if that process is
        needed and `may_wait` is false.
        """
        lookup = self._lookup
        rules = lookup.rules_of(delivery.queue)
        proven = self._bindings.proven(delivery, rules.tenants)
        envelope = self._decoder.read(delivery, rules, proven)
        if isinstance(envelope, Malformed):
            return self._rejected(lookup, delivery, proven, envelope)
        is_unnamed = envelope.message_id is None and not delivery.named
        envelope = rules.rights.complete(envelope)
        # A message without an id is identified by its delivery: then only redeliveries are duplicates.
        message_id = envelope.message_id or derived_id(delivery.queue, delivery.delivery_id)
        # Also for a bad event, which may be a redelivery of a good one, and is searched by its key.
        producer, unscoped = envelope.producer, None
        if envelope.event_type in lookup.id_scopes:
            producer, unscoped = _producer(lookup.id_scopes[envelope.event_type], envelope)
        # Bindings first: a sender without the right to a tenant must learn nothing from the registry.
        refusal = self._bindings.refusal(delivery, envelope.tenant_id, rules.tenants) or no_right(
            rules.rights, delivery.queue, envelope, lookup.ground
        )
        found: EventSchema | RejectionCause
        if refusal:
            found = RejectionCause(Reason.ENVELOPE_INVALID, refusal)
        elif rules.registers_tenants and envelope.tenant_id not in lookup.registry.suspended:
            found = self._judge_new_tenant(lookup, delivery.queue, envelope, unscoped, may_wait=may_wait)
        else:
            found = _tenant_trouble(lookup, envelope.tenant_id) or self._fit(
                lookup, envelope, unscoped, may_wait=may_wait
            )
        if is_unnamed:
            metrics.unnamed.inc()
        if isinstance(found, EventSchema):
            return Message(
                delivery,
                lookup.registry.version,
                tenant_id=envelope.tenant_id,
                message_id=message_id,
                producer=producer,
                event_type=envelope.event_type,
                schema_id=found.schema_id,
                occurred_at=envelope.occurred_at,
                payload=envelope.payload,
                context=envelope.context,
                metered=envelope.event_type in lookup.meters,
                occurred_at_rest=envelope.occurred_at_rest,
                sent_at=envelope.sent_at,
                proven_tenant=proven,
            )
        claimed = Claimed(envelope.tenant_id, envelope.event_type, message_id, producer)
        why = Malformed(found.reason, found.detail, claimed)
        return self._rejected(lookup, delivery, proven, why, found.new_tenant)

    def unread(self, delivery: Delivery, reason: Reason, detail: Mapping[str, Any]) -> Rejection:
        """Return the rejection of an unread delivery, for a cause outside the registry."""
        lookup = self._lookup
        return Rejection(
            delivery,
            lookup.registry.version,
            reason,
            detail,
            Claimed(),
            key_known=False,
            final=True,
            proven_tenant=self._bindings.proven(delivery, lookup.rules_of(delivery.queue).tenants),
        )

    def refusal(self, envelope: Envelope) -> RejectionCause | None:
        """Return why a stored event would be rejected for its payload, whoever sent it; None: valid."""
        # The stored producer already has its scope, which later versions don't change.
        found = self._fit(self._lookup, envelope, None, may_wait=True)
        return None if isinstance(found, EventSchema) else found

    def _rejected(
        self,
        lookup: _Lookup,
        delivery: Delivery,
        proven: str | None,
        why: Malformed,
        new_tenant: str | None = None,
    ) -> Rejection:
        found = Rejection(
            delivery,
            lookup.registry.version,
            why.reason,
            why.detail,
            why.claimed,
            new_tenant=new_tenant,
            proven_tenant=proven,
        )
        return known_noise.discarded_by_rule(found, lookup.noise, self._decoder.json_of)

    def _judge_new_tenant(
        self,
        lookup: _Lookup,
        queue: str,
        envelope: Envelope,
        unscoped: Unscoped | None,
        *,
        may_wait: bool,
    ) -> RejectionCause:
        """Refuse an event of an unknown tenant; `new_tenant` names one that may be registered."""
        tenant_id, found = envelope.tenant_id, self._fit(lookup, envelope, unscoped, may_wait=may_wait)
        if isinstance(found, EventSchema) and not is_plain(tenant_id):
            words = (
                f"no tenant {tenant_id!r}, and no queue registers such a name: {EXPECTED}; correct it at "
                "the sender, or add the tenant (processor tenant add -- TENANT_ID), then replay"
            )
            return RejectionCause(Reason.UNKNOWN_TENANT, {"message": words})
        if isinstance(found, EventSchema):
            words = (
                f"no tenant {tenant_id!r}; queue {queue!r} has reached its hourly limit of new tenants, "
                "or this tenant is being added: replay later, or add it (processor tenant add), then replay"
            )
            return RejectionCause(Reason.UNKNOWN_TENANT, {"message": words}, tenant_id)
        words = f"no tenant {tenant_id!r}, and no valid event to register it by: {found.detail['message']}"
        return RejectionCause(Reason.UNKNOWN_TENANT, {"message": words})

    def _fit(
        self, lookup: _Lookup, envelope: Envelope, unscoped: Unscoped | None, *, may_wait: bool
    ) -> EventSchema | RejectionCause:
        """Return the schema that an event is valid by, or why there is none."""
        tenant_id, event_type = envelope.tenant_id, envelope.event_type
        versions = lookup.applicable(event_type, tenant_id)
        if not versions:
            words = (
                f"no schema of event type {event_type!r} applies to tenant {tenant_id!r}; "
                f"publish one ({_PUBLISH.get(event_type, 'processor schema publish')}), then replay"
            )
            return RejectionCause(Reason.UNKNOWN_EVENT_TYPE, {"message": words})
        if envelope.schema_version is None:
            schema = versions[max(versions)]
        elif envelope.schema_version in versions:
            schema = versions[envelope.schema_version]
        else:
            known = ", ".join(str(version) for version in list(versions)[-10:])
            words = (
                f"event type {event_type!r} has no schema version {envelope.schema_version} "
                f"for tenant {tenant_id!r}; known: {known}"
            )
            return RejectionCause(Reason.UNKNOWN_SCHEMA_VERSION, {"message": words})
        trouble = self._judging.trouble(schema, envelope, may_wait=may_wait) or _misfit(
            lookup, schema, envelope
        )
        if trouble is None and unscoped is not None:
            return one_violation(schema, unscoped.pointer, "id_scope", unscoped.message)
        return trouble or schema


_PUBLISH = {name: f"processor schema publish {name} --sample {name}" for name in (PULSE, VOID)}
"""Event types that are often sent before their schema exists."""


def _producer(scope: IdScope, envelope: Envelope) -> tuple[str, Unscoped | None]:
    """Return the producer of the event's key; the second value says why it is unknown."""
    producer = scope.producer(envelope)
    return (envelope.producer, producer) if isinstance(producer, Unscoped) else (producer, None)


def _tenant_trouble(lookup: _Lookup, tenant_id: str) -> RejectionCause | None:
    suspended = lookup.registry.suspended.get(tenant_id)
    if suspended is None:
        words = f"no tenant {tenant_id!r}; add it (processor tenant add), then replay"
        return RejectionCause(Reason.UNKNOWN_TENANT, {"message": words})
    if suspended:
        words = f"tenant {tenant_id!r} is suspended; resume it (processor tenant resume), then replay"
        return RejectionCause(Reason.TENANT_SUSPENDED, {"message": words})
    return None


def _misfit(lookup: _Lookup, schema: EventSchema, envelope: Envelope) -> RejectionCause | None:
    """Refuse an amount that a meter can't add, and a void without a message; a schema should do so too."""
    amounts = lookup.amounts.get(envelope.event_type)
    found = amounts and find_misfit(amounts, envelope.tenant_id, envelope.payload_value)
    if not found and envelope.event_type == VOID and lookup.is_metered(envelope.tenant_id):
        found = find_void_misfit(envelope.payload_value)
    if not found:
        return None
    return one_violation(schema, found.pointer, found.rule, found.message)
