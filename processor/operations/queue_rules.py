"""Changes of queue rules in the registry, one transaction per change."""

import re
from collections.abc import Mapping
from typing import Any

import orjson
import psycopg
from psycopg.rows import dict_row

from processor.brokers.source_url import source_address
from processor.database.queries import queries
from processor.errors import NotFound, SettingsError

NOTHING_SAID: Mapping[str, Any] = {
    "unwrap": None,
    "mapping": None,
    "tenants": None,
    "event_type": None,
    "registers_tenants": False,
    "registers_max": 1000,
    "event_types": None,
    "producers": None,
    "may_void": True,
    "may_correct": True,
}
"""The rules of a queue with their defaults."""


def require_name(queue: str) -> None:
    """Raise SettingsError, with the name to use, for a queue's URL instead of its name."""
    if "://" not in queue and not queue.startswith("arn:"):
        return
    try:
        name = source_address(queue).queue
    except ValueError:
        name = re.split("[/:]", queue.partition("?")[0].rstrip("/"))[-1]
    raise SettingsError(
        f"that is the address of a queue; expected its name, as in message.queue: {name[:256]!r}"
    )


def set_queue(connection: psycopg.Connection[Any], queue: str, changes: Mapping[str, Any]) -> None:
    """Set rules of a queue, by the names of NOTHING_SAID; the other rules stay unchanged.

    Raises SettingsError if the table refuses the values.
    """
    sql = queries("registry")
    try:
        with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
            cursor.execute(sql["add_queue"], {"queue": queue})
            row = cursor.execute(sql["lock_queue"], {"queue": queue}).fetchone()
            said = {**(row or NOTHING_SAID), **changes, "queue": queue}
            if said["mapping"] is not None:
                said["mapping"] = orjson.dumps(said["mapping"]).decode()
            cursor.execute(sql["set_queue"], said)
    except (psycopg.errors.CheckViolation, psycopg.DataError, UnicodeEncodeError) as error:
        which = error.diag.constraint_name if isinstance(error, psycopg.Error) else None
        raise SettingsError(
            f"the database does not take this of queue {queue[:64]!r} ({which or 'text'}); expected names of "
            "1 to 256 characters without control characters"
        ) from None


def remove_queue(connection: psycopg.Connection[Any], queue: str) -> None:
    """Reset all rules of a queue. Raises NotFound.

    The row stays: messages may have keys by the old rules, and their redeliveries are found by it.
    """
    if connection.execute(queries("registry")["empty_queue"], {"queue": queue}).rowcount == 0:
        raise nothing_said(queue)


def nothing_said(queue: str) -> NotFound:
    """Make the error for a queue without rules."""
    return NotFound(f"queue {queue!r} has no rules; `processor queue list` shows those that have")
