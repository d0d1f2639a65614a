"""Read the registry from its tables."""

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.rows import dict_row

from processor.model import EventSchema, Meter, QueueRules, Registry, RejectionRule
from processor.wire.sender_rights import Rights


def read_registry(connection: psycopg.Connection[Any], sql: Mapping[str, str], version: int) -> Registry:
    """Read the registry by the queries of `save.sql`. The caller has locked it at this version."""
    tenants = connection.execute(sql["registry_tenants"]).fetchall()
    id_scopes = connection.execute(sql["registry_id_scopes"]).fetchall()
    with connection.cursor(row_factory=dict_row) as cursor:
        schemas = cursor.execute(sql["registry_schemas"]).fetchall()
        meters = cursor.execute(sql["registry_meters"]).fetchall()
        queues = cursor.execute(sql["registry_queues"]).fetchall()
        noise = cursor.execute(sql["registry_rejection_rules"]).fetchall()
    return Registry(
        version=version,
        suspended=dict(tenants),
        schemas=tuple(EventSchema(**schema) for schema in schemas),
        meters=tuple(Meter(**meter) for meter in meters),
        id_scopes={event_type: tuple(pointers) for event_type, pointers in id_scopes},
        queues={row["queue"]: _rules(row) for row in queues},
        rejection_rules=tuple(RejectionRule(**rule) for rule in noise),
    )


def _rules(row: Mapping[str, Any]) -> QueueRules:
    return QueueRules(
        unwrap=row["unwrap"],
        mapping=row["mapping"],
        tenants=None if row["tenants"] is None else frozenset(row["tenants"]),
        event_type=row["event_type"],
        registers_tenants=row["registers_tenants"],
        rights=Rights.of(row),
    )
