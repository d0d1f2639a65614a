"""The storage alarm: tenants and senders that use much disk, reported before the disk is full.

    rejection_room ─▶ holders with half of what they may keep   ─┬─▶ a gauge, a log line as one begins or
    message        ─▶ a sample, by tenant: STORAGE_ALARM_BYTES   ─┘    ends, a line of `processor check`

The alarm refuses no event. A sample reads some thousand pages of any table, which is enough to find large
ones.
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
    """The limit of open rejections per holder, and the size of a tenant that is an alarm, in bytes."""

    rejected_bytes: int
    alarm_bytes: int


@dataclass(frozen=True, slots=True)
class Large:
    """A large holder of rejections or tenant; `full`: its new rejections are truncated."""

    who: str
    what: str
    bytes: int
    full: bool = False


def find_large(connection: Connection, limits: StorageAlarmLimits) -> list[Large]:
    """List large holders and tenants within a few seconds. Raises psycopg.Error, time-outs included."""
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
    """Checks once a minute, and logs the begin and the end of alarms. Not thread-safe."""

    def __init__(self, connect: Callable[[], Connection], limits: StorageAlarmLimits) -> None:
        self._connect = connect
        self._limits = limits
        self._look_at = 0.0
        self._known: set[tuple[str, str]] = set()

    def look(self) -> None:
        """Check if it is due; an outage of the database is ignored here, since the saves report it."""
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
