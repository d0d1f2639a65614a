"""Brings external numbers within bounds: counts, times and waits.

Brokers and their clients write counts and timestamps. Whatever the values, the delivery must get its row.
Servers write waits and dates. Whatever the values, nothing is raised.
"""

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

NOT_READABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
"""Exceptions of parsing a response with an unexpected shape."""

COUNT_MAX = 2**31 - 1
"""The largest value of a column of type int."""


def count_of(number: int) -> int:
    """Clamp a receive count to 1..COUNT_MAX."""
    return min(max(1, number), COUNT_MAX)


def moment_of(seconds: object) -> datetime | None:
    """Return the time of a Unix timestamp; None: invalid, or out of range for a table."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def wait_s_of(said: object, at_most_s: float) -> float | None:
    """Return the seconds of a Retry-After header, from 0 to `at_most_s`; None: invalid."""
    text = said.decode("latin-1") if isinstance(said, bytes) else str(said)
    try:
        wait_s = float(text)
    except ValueError:
        moment = http_date(text)
        wait_s = math.nan if moment is None else (moment - datetime.now(UTC)).total_seconds()
    return None if math.isnan(wait_s) else min(max(wait_s, 0.0), at_most_s)


def http_date(said: str) -> datetime | None:
    """Parse an HTTP date; None: invalid, or out of range."""
    try:
        moment = parsedate_to_datetime(said)
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except NOT_READABLE:
        return None
