"""Numbers that come from outside, brought within bounds. The one place that does so.

Counts and clocks are written by brokers, and by whoever can write to them. Whatever they say, the delivery
that they come with must have its row. Waits and dates are written by servers that we ask: whatever they say,
nothing is raised.
"""

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

NOT_READABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
"""What reading an answer raises, in a library or here, where it has another shape than its server's."""

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


def wait_s_of(said: object, at_most_s: float) -> float | None:
    """Give the seconds that a Retry-After asks for, from 0 to `at_most_s`; None: it asks for none."""
    text = said.decode("latin-1") if isinstance(said, bytes) else str(said)
    try:
        wait_s = float(text)
    except ValueError:
        moment = http_date(text)
        wait_s = math.nan if moment is None else (moment - datetime.now(UTC)).total_seconds()
    return None if math.isnan(wait_s) else min(max(wait_s, 0.0), at_most_s)


def http_date(said: str) -> datetime | None:
    """Give the moment that a header names; None: it names none, or one that no clock here can show."""
    try:
        moment = parsedate_to_datetime(said)
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except NOT_READABLE:
        return None
