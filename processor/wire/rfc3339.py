"""Parses the times of events: a datetime to the microsecond, and the finer digits."""

import re
from datetime import UTC, datetime, timedelta

_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:(?P<second>\d\d)(?P<fraction>\.\d+)?"
    r"(?:[Zz]|[+-](?P<hours>\d\d):(?P<minutes>\d\d))",
    re.ASCII,
)
_LONG_YEAR = re.compile(r"[+-]?\d{5,}-|-\d{4}-", re.ASCII)
_REST = re.compile(r"\.[0-9]{6}([0-9]*[1-9])")
_MICROSECONDS_LENGTH = len("2026-11-22T10:00:00.123456Z")

_FIRST_MOMENT = datetime(1, 1, 2, tzinfo=UTC)
_LAST_MOMENT = datetime(9999, 12, 30, tzinfo=UTC)

_YEARS = "time out of range: times go from 0001-01-02 to 9999-12-30, in UTC"


def moment_of(value: object) -> datetime:
    """Parse a time to UTC; `rest_of` has its digits beyond the microsecond. Raises ValueError.

    A leap second (`:60`) is at the end of a day in UTC, and becomes the first second of the next day, as on
    clocks without leap seconds.
    """
    matched = _RFC3339.fullmatch(value) if isinstance(value, str) else None
    if matched is None or not isinstance(value, str):
        if isinstance(value, str) and _LONG_YEAR.match(value):
            raise ValueError(_YEARS)
        raise ValueError("expected an RFC 3339 time with a zone, such as 2026-11-22T10:00:00Z")
    if matched["hours"] is not None and (matched["hours"] > "23" or matched["minutes"] > "59"):
        raise ValueError("invalid time: the hours of a zone go from 00 to 23, its minutes from 00 to 59")
    leaps = matched["second"] == "60"
    text = value[: matched.start("second")] + "59" + value[matched.end("second") :] if leaps else value
    try:
        moment = datetime.fromisoformat(_cut_fraction(text, matched["fraction"]).upper()).astimezone(UTC)
    except OverflowError:
        raise ValueError(_YEARS) from None
    except ValueError as error:
        raise ValueError(f"invalid time: {error}") from None
    if leaps and (moment.hour, moment.minute) != (23, 59):
        raise ValueError("invalid time: a leap second (:60) is possible at 23:59:60 UTC only")
    # The time zone of a reader may move the first and the last day out of the range of datetime.
    if not _FIRST_MOMENT <= moment <= _LAST_MOMENT:
        raise ValueError(_YEARS)
    return moment + timedelta(seconds=1) if leaps else moment


def rest_of(named: object) -> str | None:
    """Return the digits of a valid time beyond the microsecond, without trailing zeros."""
    matched = _REST.search(named) if isinstance(named, str) and len(named) > _MICROSECONDS_LENGTH else None
    return matched[1] if matched else None


def _cut_fraction(text: str, fraction: str | None) -> str:
    return text if fraction is None else text.replace(fraction, fraction[:7].ljust(7, "0"), 1)
