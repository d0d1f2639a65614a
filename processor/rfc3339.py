"""The times that events name: to the microsecond as a moment, and what is finer than that beside it."""

import re
from datetime import UTC, datetime

_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?P<fraction>\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_REST = re.compile(r"\.[0-9]{6}([0-9]*[1-9])")
_MICROSECONDS_LENGTH = len("2026-11-22T10:00:00.123456Z")

_FIRST_MOMENT = datetime(1, 1, 2, tzinfo=UTC)
_LAST_MOMENT = datetime(9999, 12, 30, tzinfo=UTC)


def moment_of(value: object) -> datetime:
    """Read a time in UTC; its digits beyond the microsecond are left to `rest_of`. Raises ValueError."""
    matched = _RFC3339.fullmatch(value) if isinstance(value, str) else None
    if matched is None or not isinstance(value, str):
        raise ValueError("expected an RFC 3339 time with a zone, such as 2026-11-22T10:00:00Z")
    try:
        moment = datetime.fromisoformat(_cut_fraction(value, matched["fraction"]).upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"no such time: {error}") from None
    # A reader's zone may push the first and the last day out of what its datetime can hold.
    if not _FIRST_MOMENT <= moment <= _LAST_MOMENT:
        raise ValueError("no such time: years go from 0001 to 9999")
    return moment


def rest_of(named: object) -> str | None:
    """Give the digits beyond the microsecond of what is known to be a time, without idle zeros."""
    matched = _REST.search(named) if isinstance(named, str) and len(named) > _MICROSECONDS_LENGTH else None
    return matched[1] if matched else None


def _cut_fraction(text: str, fraction: str | None) -> str:
    return text if fraction is None else text.replace(fraction, fraction[:7].ljust(7, "0"), 1)
