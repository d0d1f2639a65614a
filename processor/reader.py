"""The questions people ask of the tables. Nothing here writes."""

from typing import Any, TypeAlias

import psycopg
from psycopg.rows import dict_row

from processor.errors import NotFound
from processor.queries import queries

Connection: TypeAlias = psycopg.Connection[Any]
Row: TypeAlias = dict[str, Any]


def tenants(connection: Connection) -> list[Row]:
    """List the tenants: tenant_id, name, status, created_at."""
    return _rows(connection, "registry", "list_tenants", {})


def schemas(connection: Connection, event_type: str | None) -> list[Row]:
    """List the versions of all schemas, or of one event type's; without the definitions."""
    return _rows(connection, "registry", "list_schemas", {"event_type": event_type})


def schema(connection: Connection, event_type: str, tenant_id: str | None, version: int | None) -> Row:
    """Give one version of a schema with its definition; None: the latest. Raises NotFound."""
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
    """Give one rejection whole. Raises NotFound."""
    rows = _rows(connection, "rejections", "show", {"rejection_id": rejection_id})
    if not rows:
        raise NotFound(
            f"no rejection {rejection_id}; `processor rejection list --status any` shows what there is"
        )
    return rows[0]


def rejection_stats(connection: Connection, selection: dict[str, Any]) -> list[Row]:
    """Count rejections by status, reason, tenant and event type."""
    return _rows(connection, "rejections", "stats", selection)


def trace(connection: Connection, message_id: str, tenant_id: str | None) -> list[Row]:
    """Find every place of an event by its message id, or else by the queue's id of its delivery."""
    parameters = {"message_id": message_id, "tenant_id": tenant_id}
    found = [
        row
        for name in ("message", "duplicate", "rejection")
        for row in _rows(connection, "trace", name, parameters)
    ]
    return found or _rows(connection, "trace", "message_by_delivery", parameters)


def _rows(connection: Connection, topic: str, name: str, parameters: dict[str, Any]) -> list[Row]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(queries(topic)[name], parameters).fetchall()
