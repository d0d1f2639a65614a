"""Who keeps much of the disk, by the same measure as the alarm of `processor run`."""

from collections.abc import Iterator
from typing import Any

import psycopg

from processor.check import Finding, judge, tell
from processor.operations.storage_alarm import StorageAlarmLimits, find_large

_NAMED_MAX = 6
_GIB = 2**30


def look_at_storage(connection: psycopg.Connection[Any], limits: StorageAlarmLimits) -> Iterator[Finding]:
    """Name holders of rejections that are near their limit, or at it, and tenants that are large."""
    try:
        found = find_large(connection, limits)
    except psycopg.errors.QueryCanceled:
        yield tell("storage", "too much at once to be measured now", note=True, advice="ask again later")
        return
    full = [each for each in found if each.full]
    yield judge(
        "storage",
        f"{len(full)} holder(s) of rejections have no room left, {len(found) - len(full)} are large",
        fine=not full,
        advice="of their new rejections the head is kept alone: look (processor rejection stats), mend what "
        "sends them, have a rule discard noise, discard what nobody needs; or raise STORAGE_REJECTED_BYTES",
    )
    for each in found[:_NAMED_MAX]:
        yield tell(
            f"storage of {each.who}",
            f"{each.what}: {each.bytes / _GIB:.2f} GiB",
            note=True,
            advice="processor rejection stats says what they are"
            if each.what == "rejections"
            else "shorten MESSAGE_RETENTION_DAYS, or raise STORAGE_ALARM_BYTES if it is to be so",
        )
