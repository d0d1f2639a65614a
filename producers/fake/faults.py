"""Makes invalid events, one kind for each reason for rejection that a producer can cause.

A fault is named by the reason that the processor must find. Not here: `id_conflict`, which takes two events
(see messages); `not_utf8`, which SQS can't carry; `tenant_suspended`, `unstorable` and `dead_lettered`, which
a producer can't cause.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import orjson

from processor.errors import Reason
from producers.fake.events import COUNTED, EventForm, FakeEvent, Payload, encode
from producers.publishers.outgoing import Outgoing

Fault: TypeAlias = Callable[[random.Random, FakeEvent, EventForm], Outgoing]


def _not_json(rng: random.Random, event: FakeEvent, form: EventForm) -> Outgoing:
    whole = encode(event, form)
    # A truncated object, plain text, and the repr of a Python dict.
    body = rng.choice((whole.body[: len(whole.body) * 2 // 3], "Hello World", str({"id": event.message_id})))
    if form is EventForm.ATTRIBUTES:
        return replace(whole, body=body, digest=None)
    return _garbage(body, event)


def _envelope_invalid(rng: random.Random, event: FakeEvent, _form: EventForm) -> Outgoing:
    native = orjson.loads(encode(replace(event, payload={"note": "spoilt"}), EventForm.NATIVE).body)
    cloud = orjson.loads(encode(replace(event, payload={"note": "spoilt"}), EventForm.CLOUDEVENTS).body)
    spoilt: Any = rng.choice(
        (
            # No envelope.
            [native],
            event.message_id,
            {"message": "Order received", "severity": "INFO"},
            # An envelope with a missing or invalid field.
            {name: value for name, value in native.items() if name != "tenant_id"},
            native | {"occurred_at": "2025-02-30 12:00"},
            native | {"id": "x" * 300},
            native | {"tenant_id": ""},
            {name: value for name, value in cloud.items() if name != "data"} | {"data_base64": "c3BvaWx0"},
            cloud | {"specversion": "7.0"},
        )
    )
    return _garbage(orjson.dumps(spoilt).decode(), event)


def _unknown_tenant(rng: random.Random, event: FakeEvent, form: EventForm) -> Outgoing:
    tenant_id = rng.choice(("initrode", f"{event.tenant_id}-staging", "vandelay", "ACME Corp."))
    # A pulse has its tenant in the payload as well, and it must agree with the attribute.
    payload = {name: tenant_id if name == "tenant_id" else value for name, value in event.payload.items()}
    return encode(replace(event, tenant_id=tenant_id, payload=payload), form)


def _unknown_event_type(rng: random.Random, event: FakeEvent, form: EventForm) -> Outgoing:
    event_type = rng.choice(("order.teleported", f"{event.event_type}.v2", event.event_type.upper()))
    return encode(replace(event, event_type=event_type), form)


def _unknown_schema_version(rng: random.Random, event: FakeEvent, form: EventForm) -> Outgoing:
    # A CloudEvent has no field for the version.
    form = EventForm.NATIVE if form is EventForm.CLOUDEVENTS else form
    return encode(replace(event, schema_version=rng.choice((99, 1042))), form)


def _schema_violation(rng: random.Random, event: FakeEvent, form: EventForm) -> Outgoing:
    counted = event.event_type in COUNTED
    spoilers = [_surplus, _without_user] if counted else _SPOILERS
    if event.event_type == "pulse":
        # The sample schema of pulses allows additional properties.
        spoilers = [spoiler for spoiler in _SPOILERS if spoiler is not _surplus]
    payload = rng.choice(spoilers)(rng, event)
    if event.event_type == "pulse" and form is EventForm.ATTRIBUTES:
        # A bare pulse without its required fields would not be recognised as a pulse.
        form = EventForm.NATIVE
    return encode(replace(event, payload=payload), form)


def _lacking(rng: random.Random, event: FakeEvent) -> Payload:
    required: tuple[str, ...] = {
        "order.created": ("order_id", "items", "total"),
        "user.signed_up": ("user_id", "email", "plan"),
        "payment.captured": ("payment_id", "amount", "method"),
        "pulse": ("product_sku", "used_amount", "use_unity"),
    }[event.event_type]
    if "purchase_order" in event.payload:
        # Only this tenant's own schema requires the field.
        required = ("purchase_order",)
    gone = rng.choice(required)
    return {name: value for name, value in event.payload.items() if name != gone}


def _surplus(rng: random.Random, event: FakeEvent) -> Payload:
    return event.payload | {rng.choice(("debug", "Total", "_id", "comment")): "left in by mistake"}


def _mistyped(rng: random.Random, event: FakeEvent) -> Payload:
    name = rng.choice(
        {
            "order.created": ("total", "items"),
            "user.signed_up": ("seats", "newsletter"),
            "payment.captured": ("amount", "fee"),
            "pulse": ("used_amount",),
        }[event.event_type]
    )
    return event.payload | {name: rng.choice(("12,50", None, "n/a"))}


def _out_of_range(rng: random.Random, event: FakeEvent) -> Payload:
    name = {
        "order.created": "total",
        "user.signed_up": "seats",
        "payment.captured": "amount",
        "pulse": "used_amount",
    }[event.event_type]
    return event.payload | {name: rng.choice((-1, -0.01))}


def _unlisted(rng: random.Random, event: FakeEvent) -> Payload:
    name = {
        "order.created": "currency",
        "user.signed_up": "plan",
        "payment.captured": "method",
        "pulse": "use_unity",
    }[event.event_type]
    # Any unit is valid, except an empty one.
    values = ("",) if event.event_type == "pulse" else ("BITCOIN", "platinum", "")
    return event.payload | {name: rng.choice(values)}


def _without_user(rng: random.Random, event: FakeEvent) -> Payload:
    return rng.choice(({}, {"user_id": None}, {"user_id": ""}, {"user_id": [event.payload["user_id"]]}))


_SPOILERS = [_lacking, _surplus, _mistyped, _out_of_range, _unlisted]


def _garbage(body: str, event: FakeEvent) -> Outgoing:
    """Send a body without a tenant, in the message group of the event's tenant."""
    return Outgoing(body=body, group=event.tenant_id, label=event.message_id)


_FAULTS: dict[Reason, Fault] = {
    Reason.NOT_JSON: _not_json,
    Reason.ENVELOPE_INVALID: _envelope_invalid,
    Reason.UNKNOWN_TENANT: _unknown_tenant,
    Reason.UNKNOWN_EVENT_TYPE: _unknown_event_type,
    Reason.UNKNOWN_SCHEMA_VERSION: _unknown_schema_version,
    Reason.SCHEMA_VIOLATION: _schema_violation,
}

FAULT_KINDS = (*_FAULTS, Reason.ID_CONFLICT)
"""The reasons that `producers fake --invalid` causes."""

_WEIGHTS = {Reason.SCHEMA_VIOLATION: 6, Reason.ENVELOPE_INVALID: 2, Reason.UNKNOWN_TENANT: 2}


def choose_fault(rng: random.Random) -> Reason:
    """Draw a reason; frequent faults are more likely."""
    return rng.choices(FAULT_KINDS, weights=[_WEIGHTS.get(kind, 1) for kind in FAULT_KINDS])[0]


def spoil(rng: random.Random, event: FakeEvent, form: EventForm, reason: Reason) -> Outgoing:
    """Write the event so that it is rejected for exactly this reason."""
    return replace(_FAULTS[reason](rng, event, form), kind=str(reason))
