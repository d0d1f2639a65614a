"""The check of storage: large tenants and holders of rejections, with the limits of the storage alarm."""

from collections.abc import Iterator
from typing import Any

import psycopg

from processor.check import Finding, judge, tell
from processor.operations.storage_alarm import StorageAlarmLimits, find_large

_NAMED_MAX = 6
_GIB = 2**30


def look_at_storage(connection: psycopg.Connection[Any], limits: StorageAlarmLimits) -> Iterator[Finding]:
    """Name holders of rejections near or at their limit, and large tenants."""
    try:
        found = find_large(connection, limits)
    except psycopg.errors.QueryCanceled:
        yield tell("storage", "not measured: the query timed out", note=True, advice="try again later")
        return
    full = [each for each in found if each.full]
    yield judge(
        "storage",
        f"{len(full)} holder(s) of rejections have no room left, {len(found) - len(full)} are large",
        fine=not full,
        advice="new rejections of full holders are truncated to their head: see processor rejection stats, "
        "fix the producer, discard noise by a rule, discard old rejections, or raise STORAGE_REJECTED_BYTES",
    )
    for each in found[:_NAMED_MAX]:
        yield tell(
            f"storage of {each.who}",
            f"{each.what}: {each.bytes / _GIB:.2f} GiB",
            note=True,
            advice="processor rejection stats lists them"
            if each.what == "rejections"
            else "shorten MESSAGE_RETENTION_DAYS, or raise STORAGE_ALARM_BYTES if the size is intended",
        )
