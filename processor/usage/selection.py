"""The selection of totals by tenant, meter and window, and the time range of their messages."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias

import psycopg
from psycopg.rows import dict_row

from processor.database.queries import queries
from processor.errors import NotFound, SettingsError

Connection: TypeAlias = psycopg.Connection[Any]
Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TotalsSelection:
    """The selection; None means any. Windows are selected by their start: at or after from, before until."""

    tenant_id: str | None = None
    meter: str | None = None
    window_from: datetime | None = None
    window_until: datetime | None = None

    @property
    def by_window(self) -> bool:
        """Whether windows are limited, which excludes meters without windows."""
        return self.window_from is not None or self.window_until is not None


@dataclass(frozen=True, slots=True)
class Chosen:
    """The resolved selection: the meters, and the parameters of the queries."""

    meters: list[Row]
    parameters: dict[str, Any]


def choose(connection: Connection, selection: TotalsSelection) -> Chosen:
    """Resolve the selection.

    Raises NotFound for an unknown tenant or meter, SettingsError for invalid windows.
    """
    window_from, window_until = selection.window_from, selection.window_until
    if window_from and window_until and window_from >= window_until:
        raise SettingsError(
            f"no window begins from {window_from.isoformat()} and before {window_until.isoformat()}; "
            "expected --from to be earlier than --until"
        )
    _require_tenant(connection, selection.tenant_id)
    meters = _meters(connection, selection)
    # NULL instead of a list of all meters, so that totals of deleted meters are found too.
    narrowed = selection.meter is not None or selection.by_window
    stored_from, stored_until = _stored_between(meters, selection)
    return Chosen(
        meters,
        {
            "tenant_id": selection.tenant_id,
            "meter_ids": [meter["meter_id"] for meter in meters] if narrowed else None,
            "event_types": sorted({meter["event_type"] for meter in meters}),
            "window_from": window_from,
            "window_until": window_until,
            "stored_from": stored_from,
            "stored_until": stored_until,
        },
    )


def _require_tenant(connection: Connection, tenant_id: str | None) -> None:
    if tenant_id is None:
        return
    try:
        row = connection.execute(queries("usage")["tenant_known"], {"tenant_id": tenant_id}).fetchone()
    except (psycopg.DataError, UnicodeEncodeError):
        row = None
    if row != (True,):
        raise NotFound(f"no tenant {tenant_id!r}; `processor tenant list` shows those there are")


def _meters(connection: Connection, selection: TotalsSelection) -> list[Row]:
    parameters = {"meter": selection.meter, "tenant_id": selection.tenant_id}
    try:
        with connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(queries("usage")["chosen_meters"], parameters).fetchall()
    except (psycopg.DataError, UnicodeEncodeError):
        rows = []
    if not rows and selection.meter is not None:
        whose = f" that counts for tenant {selection.tenant_id!r}" if selection.tenant_id else ""
        raise NotFound(f"no meter {selection.meter!r}{whose}; `processor meter list` shows those there are")
    if not selection.by_window:
        return rows
    windowed = [row for row in rows if row["window_length"] is not None]
    if not windowed and selection.meter is not None:
        raise SettingsError(
            f"meter {selection.meter!r} has no windows, but one total for ever; leave out --from and --until"
        )
    return windowed


def _stored_between(meters: list[Row], selection: TotalsSelection) -> tuple[datetime | None, datetime | None]:
    """Bound the `stored_at` of all messages of the windows by the meters' limits."""
    earlier = _longest(meter["stored_earlier"] for meter in meters)
    later = _longest(meter["stored_later"] for meter in meters)
    return (
        _moved(selection.window_from, None if earlier is None else -earlier),
        _moved(selection.window_until, later),
    )


def _longest(lengths: Iterable[timedelta | None]) -> timedelta | None:
    known = list(lengths)
    if None in known:
        return None
    return max((length for length in known if length is not None), default=None)


def _moved(moment: datetime | None, by: timedelta | None) -> datetime | None:
    try:
        return None if moment is None or by is None else moment + by
    except OverflowError:
        return None


def moment(value: datetime | None) -> str | None:
    """Format a time as RFC 3339 in UTC; None stays None."""
    return None if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def digits(value: Decimal) -> str:
    """Format a sum with all digits and no exponent, with PostgreSQL's trailing zeros."""
    return format(value, "f")
