"""Read-only queries of the tables for operators."""

from typing import Any, TypeAlias

import psycopg
from psycopg.rows import dict_row

from processor.database.queries import queries
from processor.errors import NotFound
from processor.operations.reject_alarm import NOT_COUNTED, Pair, RejectAlarmLimits
from processor.wire.sender_rights import EventMeaning

_LATEST_MAX = 100_000
"""The most recent rejections that are counted; older ones within the window are ignored."""

_COUNT_MS_MAX = 5000

Connection: TypeAlias = psycopg.Connection[Any]
Row: TypeAlias = dict[str, Any]


def tenants(connection: Connection) -> list[Row]:
    """List the tenants: tenant_id, name, status, created_at, registered_by (a queue or None)."""
    return _rows(connection, "registry", "list_tenants", {})


def queues(connection: Connection, queue: str | None = None) -> list[Row]:
    """List the rules of all queues, or of one; empty without rules."""
    return _rows(connection, "registry", "list_queues", {"queue": queue})


def unknown_of_queue(connection: Connection, queue: str) -> Row:
    """Return the unregistered names in a queue's rules: tenants, and whether event_type is one."""
    return _rows(connection, "registry", "unknown_of_queue", {"queue": queue})[0]


def api_keys(connection: Connection, tenant_id: str | None) -> list[Row]:
    """List the API keys, revoked ones too, with tenant, note, permissions and times."""
    return _rows(connection, "keys", "list_keys", {"tenant_id": tenant_id})


def around_key(connection: Connection, key_id: str) -> tuple[list[str], list[str]]:
    """Return the tenant's older keys for any producer, and the key's event types without a schema."""
    [row] = _rows(connection, "keys", "around_key", {"key_id": key_id})
    return row["wide"], row["unknown"]


def known_keys(connection: Connection) -> tuple[list[Row], EventMeaning]:
    """Return the API keys in force, and the part of the registry that validates their events.

    A key has key_id, tenant_id, digest, digest_rounds, suspended (of its tenant), and its permissions;
    `reserved` are the producers that a key without producers of its own may not use.
    """
    sql = queries("keys")
    ground = EventMeaning.of(
        connection.execute(sql["known_scopes"]).fetchall(),
        connection.execute(sql["known_corrections"]).fetchall(),
    )
    return _rows(connection, "keys", "known_keys", {}), ground


def schemas(connection: Connection, event_type: str | None) -> list[Row]:
    """List the versions of all schemas, or of one event type's; without the definitions."""
    return _rows(connection, "registry", "list_schemas", {"event_type": event_type})


def schema(connection: Connection, event_type: str, tenant_id: str | None, version: int | None) -> Row:
    """Return one version of a schema, its definition as JSON text; None: the latest. Raises NotFound."""
    parameters = {"event_type": event_type, "tenant_id": tenant_id, "version": version}
    rows = _rows(connection, "registry", "show_schema", parameters)
    if not rows:
        whose = f"tenant {tenant_id!r}'s own" if tenant_id else "shared"
        which = f"version {version}" if version else "version"
        raise NotFound(
            f"no {which} of event type {event_type!r} is {whose}; `processor schema list` shows what there is"
        )
    return rows[0]


def rejections(
    connection: Connection, selection: dict[str, Any], *, status: str | None, limit: int
) -> list[Row]:
    """List rejections without their bodies, newest first; status None means any."""
    return _rows(connection, "rejections", "list", selection | {"status": status, "limit": limit})


def rejection(connection: Connection, rejection_id: int) -> Row:
    """Return one rejection with its body. Raises NotFound."""
    rows = _rows(connection, "rejections", "show", {"rejection_id": rejection_id})
    if not rows:
        raise NotFound(
            f"no rejection {rejection_id}; `processor rejection list --status any` shows what there is"
        )
    return rows[0]


def rejection_stats(connection: Connection, selection: dict[str, Any]) -> list[Row]:
    """Count rejections by status, reason, tenant and event type."""
    return _rows(connection, "rejections", "stats", selection)


def rejection_rules(connection: Connection) -> list[Row]:
    """List the rules that discard rejections, with their counts; retired rules last."""
    return _rows(connection, "rejections", "list_rules", {})


def reject_alarms(connection: Connection, limits: RejectAlarmLimits) -> list[tuple[Pair, int, int]] | None:
    """List the pairs whose recent share of rejections is too large, with rejections and deliveries.

    The query ends after a few seconds; None: too many recent messages to count in that time.
    """
    parameters = {
        "window_s": limits.window_s,
        "rows_max": _LATEST_MAX,
        "not_counted": [reason.value for reason in NOT_COUNTED],
    }
    sql = queries("reject_alarm")
    try:
        with connection.transaction(), connection.cursor() as cursor:
            cursor.execute(sql["bound"], {"timeout_ms": str(_COUNT_MS_MAX)})
            rejected: dict[Pair, int] = {
                (tenant_id, event_type): count
                for tenant_id, event_type, count in cursor.execute(sql["rejected_lately"], parameters)
            }
            # Few enough that no number of messages makes an alarm of them: those need not be counted.
            many = {
                pair: count
                for pair, count in rejected.items()
                if limits.begins(count, max(count, limits.count_min))
            }
            pairs = [pair for pair in many if None not in pair]
            stored: dict[Pair, int] = {}
            if pairs:
                parameters |= {
                    "tenant_ids": [tenant_id for tenant_id, _ in pairs],
                    "event_types": [event_type for _, event_type in pairs],
                }
                stored = {
                    (tenant_id, event_type): count
                    for tenant_id, event_type, count in cursor.execute(sql["stored_lately"], parameters)
                }
    except psycopg.errors.QueryCanceled:
        return None
    found = [(pair, count, count + stored.get(pair, 0)) for pair, count in many.items()]
    return sorted((alarm for alarm in found if limits.begins(*alarm[1:])), key=str)


def trace(connection: Connection, message_id: str, tenant_id: str | None) -> list[Row]:
    """Find all rows of an event by its message id, or by the queue's id of its delivery.

    With RabbitMQ also by the property message_id, and by the common prefix of one message's delivery ids.
    """
    parameters = {"message_id": message_id, "tenant_id": tenant_id}
    found = [
        row
        for name in ("message", "duplicate", "rejection")
        for row in _rows(connection, "trace", name, parameters)
    ]
    if any(row["place"] == "message" for row in found):
        return found
    return _rows(connection, "trace", "message_by_delivery", parameters) + found


def _rows(connection: Connection, topic: str, name: str, parameters: dict[str, Any]) -> list[Row]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(queries(topic)[name], parameters).fetchall()
