"""The setup of the counter: creates tenant, event types, schemas and meters in one transaction.

Existing entries are used unchanged: a schema that applies to the tenant, and a meter that counts by user.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from processor.database.queries import queries
from processor.errors import SettingsError
from processor.operations import registry
from processor.usage import meters
from processor.usage.doubts import PossibleMiss
from processor.usage.meters import Definition
from processor.usage.selection import Connection

SCOPE = ("/user_id",)

_ODD = re.compile(r"[^a-z0-9_.-]")
_NAME_LENGTH_MAX = 50


@dataclass(frozen=True, slots=True)
class SetUp:
    """The created entries; event types whose ids are not unique per user; schemas that allow misses."""

    made: list[str] = field(default_factory=list)
    unscoped: list[str] = field(default_factory=list)
    doubts: list[PossibleMiss] = field(default_factory=list)


def set_up(connection: Connection, tenant_id: str, event_types: Sequence[str], *, shared: bool) -> SetUp:
    """Create the missing entries to count events of these types by user, in one transaction; idempotent.

    New schemas and meters are the tenant's own, or shared if `shared`. Raises SettingsError for invalid
    names, and if messages of a tenant would count twice.
    """
    done = SetUp()
    owner = None if shared else tenant_id
    with connection.transaction():
        if registry.add_tenant(connection, tenant_id):
            done.made.append(f"tenant {tenant_id}")
        for event_type in dict.fromkeys(event_types):
            if not _has_schema(connection, owner, event_type, done):
                schema = _schema(event_type)
                registry.publish_schema(connection, event_type, schema, owner, SCOPE)
                done.made.append(f"schema {event_type}")
            definition = _meter(event_type, owner)
            if not _is_counted(connection, owner, event_type):
                meters.add(connection, definition)
                done.made.append(f"meter {definition.meter}")
            done.doubts.extend(meters.doubts(connection, definition))
    return done


def _has_schema(connection: Connection, owner: str | None, event_type: str, done: SetUp) -> bool:
    parameters = {"tenant_id": owner, "event_type": event_type}
    row = connection.execute(queries("counter")["schema_in_force"], parameters).fetchone()
    if row is not None and tuple(row[0]) != SCOPE:
        done.unscoped.append(event_type)
    return row is not None


def _is_counted(connection: Connection, owner: str | None, event_type: str) -> bool:
    parameters: dict[str, Any] = {"tenant_id": owner, "group_name": "user_id", "meters": []}
    rows = connection.execute(queries("counter")["counters"], parameters).fetchall()
    active = [row for row in rows if row[3] == event_type and row[4]]
    for _, meter, tenant_id, *_ in active:
        if owner is None and tenant_id is not None:
            raise SettingsError(
                f"event type {event_type!r} is counted for tenant {tenant_id!r} by a meter of its own, "
                f"{meter}: a shared one would count its messages again; leave --shared out, or retire that "
                f"one first: processor meter retire {meter} --tenant {tenant_id}"
            )
    return bool(active)


def _schema(event_type: str) -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{event_type} by a user",
        "description": "Counted by user. Its id is unique for this user and event type only.",
        "type": "object",
        "required": ["user_id"],
        "properties": {"user_id": {"type": ["string", "integer"], "minLength": 1, "maxLength": 128}},
    }


def _meter(event_type: str, owner: str | None) -> Definition:
    name = _ODD.sub("-", event_type)[:_NAME_LENGTH_MAX].lstrip("_.-")
    if name != event_type:
        # Without the digest, two event types could get the same name.
        name += sha256(event_type.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return Definition(
        meter=f"{name}-by-user",
        event_type=event_type,
        tenant_id=owner,
        groups=(("user_id", "/user_id"),),
        window_size="none",
        past_limit=None,
        future_limit=None,
    )
