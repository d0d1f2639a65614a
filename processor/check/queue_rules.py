"""The check of queue rules: the registry's rules of the queue, and contradictions with the settings."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg

from processor.check import Finding, listed, tell
from processor.model import QueueRules
from processor.operations import reader
from processor.validation.tenant_bindings import Bindings
from processor.wire.sender_rights import shown


def look_at_queue_rules(
    connection: psycopg.Connection[Any],
    queue: str | None,
    bindings: Bindings,
    said: Mapping[str, QueueRules],
    registered: Sequence[str],
) -> Iterator[Finding]:
    """Describe the registry's rules of the configured queue, if it has any."""
    for row in [] if queue is None else reader.queues(connection, queue):
        yield _judge(row, bindings, said.get(row["queue"], QueueRules()), registered)


def _judge(
    row: Mapping[str, Any], bindings: Bindings, said: QueueRules, registered: Sequence[str]
) -> Finding:
    notes = []
    if said.unwrap is not None and row["unwrap"] not in (None, said.unwrap):
        notes.append(f"UNWRAP is {said.unwrap}, but the registry's {row['unwrap']} applies")
    tenants = set(row["tenants"] or ())
    if tenants and bindings.queue_tenants not in (None, tenants) and bindings.queue == row["queue"]:
        both = sorted(tenants & (bindings.queue_tenants or set()))
        notes.append(f"QUEUE_TENANTS names other tenants; allowed by both: {listed(both) or 'none is left'}")
    unknown = sorted(tenants - set(registered))
    if unknown and not row["registers_tenants"]:
        notes.append(f"events of unregistered tenants are rejected: {listed(unknown)} (processor tenant add)")
    parts = {
        "unwrap": row["unwrap"],
        "mapped": ", ".join(sorted(row["mapping"] or ())),
        "tenants": listed(sorted(tenants)),
        "event type": row["event_type"],
        "event types": listed(sorted(row["event_types"] or ())),
        "producers": listed(list(map(shown, row["producers"] or ()))),
        "refuses": " and ".join(
            words
            for column, words in (("may_void", "voids"), ("may_correct", "negative amounts"))
            if not row[column]
        ),
        "new tenants per hour": row["registers_max"] if row["registers_tenants"] else None,
    }
    found = "; ".join(f"{what}: {value}" for what, value in parts.items() if value)
    return tell(
        "queue rules",
        f"{row['queue']}: {found}",
        note=bool(notes),
        advice="; ".join(notes) + "; see processor queue set",
    )
