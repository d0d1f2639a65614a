"""Generates realistic events, valid by the sample schemas, and writes them in the queue's formats.

    rng, tenant, number ─▶ Event ─▶ encode(event, form, spelling) ─▶ Outgoing

The bare pulse is not among the formats: it has no id of its own, and our producers always send one.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from hashlib import sha256
from typing import Any, TypeAlias

import orjson

from processor.wire.manifest import payload_digest
from producers.publishers.outgoing import Outgoing

Payload: TypeAlias = dict[str, Any]

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
STEP_S = 0.37
"""Seconds between the times at which two consecutive events occurred."""


class EventForm(StrEnum):
    """The format of an event."""

    ATTRIBUTES = "attributes"
    CLOUDEVENTS = "cloudevents"
    NATIVE = "native"


class Spelling(StrEnum):
    """The ways to write the same payload differently."""

    PLAIN = "plain"
    REORDERED = "reordered"
    SPACED = "spaced"
    NUMBERS = "numbers"


@dataclass(frozen=True, slots=True)
class FakeEvent:
    """An event before it is written in a format."""

    tenant_id: str
    event_type: str
    message_id: str
    producer: str
    occurred_at: str
    payload: Payload
    schema_version: int | None = None


def invent(rng: random.Random, tenant_id: str, run: str, number: int, since: datetime = EPOCH) -> FakeEvent:
    """Generate the event of this number; the same generator state gives the same event.

    `run` is part of the ids, so that two runs don't share any; `number` gives the time between `since` and
    the event.
    """
    moment = since + timedelta(seconds=number * STEP_S + rng.random())
    event_type = rng.choices(tuple(_MAKERS), weights=(40, 12, 28, 20))[0]
    prefix, producer, make = _MAKERS[event_type]
    return FakeEvent(
        tenant_id=tenant_id,
        event_type=event_type,
        message_id=f"{prefix}-{run}-{number:06d}",
        producer=producer,
        occurred_at=_rfc3339(rng, moment),
        payload=make(rng, tenant_id, moment),
    )


def invent_counted(
    rng: random.Random, tenant_id: str, run: str, number: int, since: datetime = EPOCH
) -> FakeEvent:
    """Generate an event of the counter: a user has created, updated or deleted an object.

    Its id is unique only for this user and event type: the users of a tenant share their ids.
    """
    round_number, place = divmod(number, len(_USERS))
    return FakeEvent(
        tenant_id=tenant_id,
        event_type=rng.choices(COUNTED, weights=(6, 3, 1))[0],
        message_id=f"{run}-{round_number:06d}",
        producer="app",
        occurred_at=_rfc3339(rng, since + timedelta(seconds=number * STEP_S + rng.random())),
        payload={"user_id": _USERS[place]},
    )


def encode(
    event: FakeEvent, form: EventForm, spelling: Spelling = Spelling.PLAIN, kind: str = "valid"
) -> Outgoing:
    """Write an event as a message for the queue; `kind` is its kind in reports."""
    payload = _SPELLERS[spelling](event.payload)
    if form is EventForm.ATTRIBUTES:
        body, attributes = payload, _attributes(event)
    else:
        envelope = _cloudevent(event, payload) if form is EventForm.CLOUDEVENTS else _native(event, payload)
        if spelling is not Spelling.PLAIN:
            envelope = dict(reversed(envelope.items()))
        body, attributes = orjson.dumps(envelope, option=_layout(spelling)), {}
    return Outgoing(
        body=body.decode(),
        attributes=attributes,
        tenant_id=event.tenant_id,
        message_id=event.message_id,
        digest=payload_digest(payload),
        group=event.tenant_id,
        kind=kind,
        label=event.message_id,
    )


def _attributes(event: FakeEvent) -> Mapping[str, str]:
    attributes = {
        "tenant_id": event.tenant_id,
        "event_type": event.event_type,
        "message_id": event.message_id,
        "producer": event.producer,
        "occurred_at": event.occurred_at,
    }
    if event.schema_version is not None:
        attributes["schema_version"] = str(event.schema_version)
    return attributes


def _native(event: FakeEvent, payload: bytes) -> dict[str, Any]:
    envelope: dict[str, Any] = {
        "id": event.message_id,
        "tenant_id": event.tenant_id,
        "event_type": event.event_type,
        "producer": event.producer,
        "occurred_at": event.occurred_at,
        "payload": orjson.Fragment(payload),
    }
    if event.schema_version is not None:
        envelope["schema_version"] = event.schema_version
    return envelope


def _cloudevent(event: FakeEvent, payload: bytes) -> dict[str, Any]:
    trace = sha256(event.message_id.encode()).hexdigest()
    return {
        "specversion": "1.0",
        "id": event.message_id,
        "source": event.producer,
        "type": event.event_type,
        "time": event.occurred_at,
        "tenantid": event.tenant_id,
        "traceparent": f"00-{trace[:32]}-{trace[32:48]}-01",
        "datacontenttype": "application/json",
        "data": orjson.Fragment(payload),
    }


def _order(rng: random.Random, tenant_id: str, moment: datetime) -> Payload:
    items: list[dict[str, Any]] = [
        {"sku": rng.choice(_SKUS), "quantity": rng.randint(1, 5), "unit_price": _money(rng, 100, 20_000)}
        for _ in range(rng.randint(1, 4))
    ]
    total = round(sum(item["quantity"] * item["unit_price"] for item in items), 2)
    order: Payload = {
        "order_id": _order_id(rng),
        "customer_id": f"C-{rng.randrange(10_000):05d}",
        "currency": rng.choice(("EUR", "USD")),
        "total": total,
        "channel": rng.choice(("web", "app", "phone", "marketplace")),
        "placed_at": _utc(moment),
        "ship_to": rng.choice(_ADDRESSES),
        "items": items,
    }
    if tenant_id == "globex":
        order |= {"purchase_order": f"PO-{rng.randrange(1_000_000):06d}", "channel": "web"}
    return order


def _sign_up(rng: random.Random, _tenant_id: str, moment: datetime) -> Payload:
    plan = rng.choice(("free", "free", "team", "business"))
    number = rng.getrandbits(128)
    return {
        "user_id": f"{number >> 96:08x}-{number >> 80 & 0xFFFF:04x}-4{number >> 68 & 0xFFF:03x}"
        f"-a{number >> 56 & 0xFFF:03x}-{number & 0xFFFFFFFFFFFF:012x}",
        "email": f"member.{rng.randrange(100_000)}@mail.example",
        "display_name": rng.choice((*_NAMES, None)),
        "plan": plan,
        "seats": 1 if plan == "free" else rng.randint(2, 80),
        "locale": rng.choice(("en", "en-GB", "de-CH", "fr", "sv-SE")),
        "newsletter": rng.choice((True, False, False)),
        "signed_up_at": _utc(moment),
    }


def _payment(rng: random.Random, _tenant_id: str, moment: datetime) -> Payload:
    method = rng.choice(("card", "card", "card", "sepa", "paypal", "invoice"))
    amount = _money(rng, 500, 80_000)
    payment: Payload = {
        "payment_id": f"PAY-{rng.randrange(16**12):012X}",
        "order_id": _order_id(rng),
        "amount": amount,
        "fee": round(amount * 0.0149 + 0.25, 4),
        "currency": rng.choice(("EUR", "USD", "GBP")),
        "method": method,
        "captured_at": _utc(moment),
    }
    if method == "card":
        payment["card"] = {
            "brand": rng.choice(("visa", "mastercard")),
            "last4": f"{rng.randrange(10_000):04d}",
        }
    return payment


def _pulse(rng: random.Random, tenant_id: str, _moment: datetime) -> Payload:
    sku, unit = rng.choice(
        (("storage", "GB"), ("egress", "KB"), ("link.fast", "MB/sec"), ("api-calls", "count"))
    )
    # More digits than a float holds: all of them must arrive.
    amount = (
        f"{rng.randrange(10**6)}"
        if unit == "count"
        else f"{rng.randrange(10**4)}.{rng.randrange(10**20):020d}"
    )
    return {
        "tenant_id": tenant_id,
        "product_sku": sku,
        "used_amount": orjson.Fragment(amount),
        "use_unity": unit,
    }


_Maker: TypeAlias = Callable[[random.Random, str, datetime], Payload]

_MAKERS: dict[str, tuple[str, str, _Maker]] = {
    "order.created": ("order", "shop", _order),
    "user.signed_up": ("user", "accounts", _sign_up),
    "payment.captured": ("payment", "billing", _payment),
    "pulse": ("pulse", "meter", _pulse),
}

EVENT_TYPES = tuple(_MAKERS)
COUNTED = ("created", "updated", "deleted")
"""The event types of the counter."""

_USERS = ("ada", "björn", "chloé", "dmitri", "emi", "fatima", "guest/7")

_SKUS = ("TEA-EARL-250", "TEA-SENCHA", "MUG-BLUE", "POT-IRON-2", "TIN-SMALL", "SPOON-01")
_NAMES = ("Ada Okafor", "Björn Ström", "Chloé Martin", "Dmitri Волков", "Emi 田中", "Fatima Zahra")
_ADDRESSES = (
    {"country": "CH", "postcode": "8004", "city": "Zürich"},
    {"country": "SE", "postcode": "411 06", "city": "Göteborg"},
    {"country": "GB", "postcode": "M1 4BT"},
    {"country": "US", "postcode": "94107", "city": "San Francisco"},
)


def _plain(payload: Payload) -> bytes:
    return orjson.dumps(payload)


def _reordered(payload: Payload) -> bytes:
    return orjson.dumps(dict(reversed(payload.items())))


def _spaced(payload: Payload) -> bytes:
    return orjson.dumps(payload, option=orjson.OPT_INDENT_2)


def _numbers(payload: Payload) -> bytes:
    """Write integers in the other form that JSON Schema permits: 2 as 2.0."""
    return orjson.dumps(_with_points(payload))


def _with_points(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, dict):
        return {name: _with_points(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_points(item) for item in value]
    return float(value) if type(value) is int else value


_SPELLERS: dict[Spelling, Callable[[Payload], bytes]] = {
    Spelling.PLAIN: _plain,
    Spelling.REORDERED: _reordered,
    Spelling.SPACED: _spaced,
    Spelling.NUMBERS: _numbers,
}


def _layout(spelling: Spelling) -> int:
    return orjson.OPT_INDENT_2 if spelling is Spelling.SPACED else 0


def _money(rng: random.Random, cents_min: int, cents_max: int) -> float:
    return round(rng.randint(cents_min, cents_max) / 100, 2)


def _order_id(rng: random.Random) -> str:
    return f"ORD-{rng.randrange(10**8):08d}"


def _utc(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _rfc3339(rng: random.Random, moment: datetime) -> str:
    """Write a moment in a random time zone, to the millisecond."""
    zone = rng.choice((UTC, UTC, timezone(timedelta(hours=1)), timezone(-timedelta(hours=7))))
    return moment.astimezone(zone).isoformat(timespec="milliseconds").replace("+00:00", "Z")
