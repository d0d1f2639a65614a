"""The check of schemas: all events of an unusable schema are rejected.

`processor schema publish` refuses such a schema; it was inserted by psql, or by a version without the limit.
"""

from collections.abc import Sequence
from typing import Any

import psycopg

from processor.check import Finding, judge, listed
from processor.database.queries import queries
from processor.errors import SettingsError
from processor.schemas.judge.client import require_usable


def look_at_schemas(connection: psycopg.Connection[Any]) -> Finding:
    """Compile every version of every schema (some milliseconds each), and name the unusable ones."""
    rows = connection.execute(queries("save")["registry_schemas"], prepare=False).fetchall()
    unusable = [name for row in rows if (name := _name_if_unusable(row)) is not None]
    return judge(
        "schemas",
        f"can't be used: {listed(unusable)}" if unusable else f"all {len(rows)} can be used",
        fine=not unusable,
        advice="their events are rejected as schema_violation: publish a corrected version (processor schema "
        "publish reports the errors), then replay",
    )


def _name_if_unusable(row: Sequence[Any]) -> str | None:
    _, event_type, tenant_id, version, definition, formats = row
    try:
        require_usable(definition, formats)
    except SettingsError:
        whose = "" if tenant_id is None else f" of {tenant_id}"
        return f"{event_type} version {version}{whose}"
    return None
