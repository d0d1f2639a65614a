"""Writes the body of an event for the queue; every digit of its numbers is kept.

Envelope ─▶ native, unless a name of its context has a meaning there
         ─▶ else a CloudEvent, if it has a producer; else a pulse, if it is one
         ─▶ else None: no format of the queue can hold all of it
"""

from collections.abc import Mapping
from json.encoder import encode_basestring_ascii as _quoted

from processor.wire.formats import PULSE, Envelope
from processor.wire.strict_json import read
from producers.publishers.publish import BATCH_BYTES_MAX

NATIVE = frozenset(
    ("id", "tenant_id", "event_type", "payload", "producer", "occurred_at", "schema_version", "specversion")
)
"""Names that have a meaning in a native event, or would turn it into another format."""

_NATIVE_WRITTEN = tuple(f"{_quoted(name)}: " for name in NATIVE)

_CLOUDEVENT = frozenset(
    ("specversion", "id", "source", "type", "time", "data", "data_base64", "tenantid", "schemaversion")
)
_PULSE = frozenset(
    ("tenant_id", "tenant", "product_sku", "used_amount", "use_unity", "use_unit", "specversion")
) | {"id", "producer", "occurred_at", "event_type", "schema_version"}

# The configured limits were applied to these texts when they were received.
_DEPTH_MAX, _VALUES_MAX = 1000, 2 * BATCH_BYTES_MAX


def native(envelope: Envelope, message_id: str) -> str | None:
    """Write a native event; None if a name of its context has a meaning there."""
    context = envelope.context
    # A cheap search for the written names comes first; only a hit makes us parse the context.
    if (
        context is not None
        and any(name in context for name in _NATIVE_WRITTEN)
        and not NATIVE.isdisjoint(read(context, _DEPTH_MAX, _VALUES_MAX).value)
    ):
        return None
    parts = [
        f'{{"id": {_quoted(message_id)}',
        f'"tenant_id": {_quoted(envelope.tenant_id)}',
        f'"event_type": {_quoted(envelope.event_type)}',
    ]
    if envelope.producer:
        parts.append(f'"producer": {_quoted(envelope.producer)}')
    if envelope.occurred_at is not None:
        parts.append(f'"occurred_at": "{_time(envelope)}"')
    if envelope.schema_version is not None:
        parts.append(f'"schema_version": {envelope.schema_version}')
    parts.append(f'"payload": {envelope.payload}')
    if context is not None:
        parts.append(context[1:-1])
    return ", ".join(parts) + "}"


def otherwise(envelope: Envelope, message_id: str) -> str | None:
    """Write the event in the first other format that can hold all of it; None: there is none."""
    members = read(envelope.context or "{}", _DEPTH_MAX, _VALUES_MAX).member_texts
    if envelope.producer and _CLOUDEVENT.isdisjoint(members):
        return _cloudevent(envelope, message_id, members)
    payload = read(envelope.payload, _DEPTH_MAX, _VALUES_MAX)
    if envelope.event_type == PULSE and isinstance(payload.value, dict) and _PULSE.isdisjoint(members):
        return _pulse(envelope, message_id, {**members, **payload.member_texts})
    return None


def _cloudevent(envelope: Envelope, message_id: str, members: Mapping[str, str]) -> str:
    texts = {
        "specversion": '"1.0"',
        "id": _quoted(message_id),
        "source": _quoted(envelope.producer),
        "type": _quoted(envelope.event_type),
        "tenantid": _quoted(envelope.tenant_id),
    }
    if envelope.occurred_at is not None:
        texts["time"] = _quoted(_time(envelope))
    if envelope.schema_version is not None:
        texts["schemaversion"] = str(envelope.schema_version)
    return _object({**texts, **members, "data": envelope.payload})


def _pulse(envelope: Envelope, message_id: str, members: Mapping[str, str]) -> str:
    texts = {"id": _quoted(message_id)}
    if envelope.producer:
        texts["producer"] = _quoted(envelope.producer)
    if envelope.occurred_at is not None:
        texts["occurred_at"] = _quoted(_time(envelope))
    if envelope.schema_version is not None:
        texts["schema_version"] = str(envelope.schema_version)
    return _object({**texts, **members})


def _time(envelope: Envelope) -> str:
    moment, rest = envelope.occurred_at, envelope.occurred_at_rest
    assert moment is not None  # noqa: S101 - checked by the callers
    text = moment.isoformat(timespec="microseconds" if rest else "auto")
    return text if rest is None else f"{text[: -len('+00:00')]}{rest}+00:00"


def _object(texts: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{_quoted(name)}: {text}" for name, text in texts.items()) + "}"
