"""Numbers that come from outside, brought within what the tables can hold. The one place that does so.

Counts and clocks are written by brokers, and by whoever can write to them. Whatever they say, the delivery
that they come with must have its row.
"""

from datetime import UTC, datetime

COUNT_MAX = 2**31 - 1
"""The largest number that a column of type int holds."""


def count_of(number: int) -> int:
    """Give a count of hand-overs, from 1 to COUNT_MAX."""
    return min(max(1, number), COUNT_MAX)


def moment_of(seconds: object) -> datetime | None:
    """Give the moment that a Unix time names; None: it names none, or one that no table holds."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
