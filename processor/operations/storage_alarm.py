"""What takes much of the disk should be heard of before it is full: tenants and senders, by what they keep.

    rejection_room ─▶ holders with half of what they may keep   ─┬─▶ a gauge, a log line as one begins or
    message        ─▶ a sample, by tenant: STORAGE_ALARM_BYTES   ─┘    ends, a line of `processor check`

Nothing is refused by it. A sample reads some thousand pages, whatever the table has: good for what is large.
"""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeAlias

import psycopg
import structlog

from processor.database.queries import queries
from processor.errors import StoreUnavailable
from processor.runtime import metrics

log = structlog.get_logger(__name__)

Connection: TypeAlias = psycopg.Connection[Any]

_EVERY_S = 60.0
_PAGES = 2000
_TIMEOUT_MS = 5000
_HOLDERS_MAX = 1000


@dataclass(frozen=True, slots=True)
class StorageAlarmLimits:
    """What a holder may keep in open rejections, and from how many bytes on a tenant is an alarm."""

    rejected_bytes: int
    alarm_bytes: int


@dataclass(frozen=True, slots=True)
class Large:
    """A holder of rejections, or a tenant, that keeps much; `full`: new rejections of it are cut."""

    who: str
    what: str
    bytes: int
    full: bool = False


def find_large(connection: Connection, limits: StorageAlarmLimits) -> list[Large]:
    """List who keeps much, within a few seconds. Raises psycopg.Error, a time-out among them."""
    sql = queries("storage")
    with connection.transaction():
        connection.execute(sql["bound"], {"timeout_ms": str(_TIMEOUT_MS)}, prepare=False)
        holders = connection.execute(
            sql["full_holders"],
            {"bytes": limits.rejected_bytes // 2, "holders_max": _HOLDERS_MAX},
            prepare=False,
        ).fetchall()
        row = connection.execute(sql["pages"], prepare=False).fetchone()
        percent = min(100.0, 100.0 * _PAGES / max(1, row[0] if row else 1))
        tenants = connection.execute(
            sql["large_tenants"], {"percent": percent, "bytes": limits.alarm_bytes}, prepare=False
        ).fetchall()
    return [
        *(
            Large(who, "rejections", held, full=8 * held >= 7 * limits.rejected_bytes)
            for who, held in holders
        ),
        *(Large(who, "messages", held) for who, held in tenants),
    ]


class StorageAlarm:
    """Looks once a minute, and says what began and what is over. For one thread."""

    def __init__(self, connect: Callable[[], Connection], limits: StorageAlarmLimits) -> None:
        self._connect = connect
        self._limits = limits
        self._look_at = 0.0
        self._known: set[tuple[str, str]] = set()

    def look(self) -> None:
        """Look, if it is time to; a database that does not answer is said by whoever saves."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _EVERY_S
        try:
            with closing(self._connect()) as connection:
                found = find_large(connection, self._limits)
        except (psycopg.Error, StoreUnavailable) as error:
            log.debug("storage_unknown", trouble=type(error).__name__)
            return
        now = {(each.who, each.what) for each in found}
        for each in found:
            if (each.who, each.what) not in self._known:
                log.warning(
                    "storage_alarm", holder=each.who, what=each.what, bytes=each.bytes, full=each.full
                )
        for who, what in sorted(self._known - now):
            log.info("storage_alarm_over", holder=who, what=what)
        self._known = now
        metrics.storage_alarms.set(len(now))
