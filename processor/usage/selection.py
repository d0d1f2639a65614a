"""Which totals are asked about: of which tenant, meters and windows; and which messages could be in them."""

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
    """What is asked for; None means any. Windows are chosen by when they begin: from, and before until."""

    tenant_id: str | None = None
    meter: str | None = None
    window_from: datetime | None = None
    window_until: datetime | None = None

    @property
    def by_window(self) -> bool:
        """Whether only some windows are asked for, and so no meter without windows."""
        return self.window_from is not None or self.window_until is not None


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the selection comes to in this database: the meters, and the parameters of the questions."""

    meters: list[Row]
    parameters: dict[str, Any]


def choose(connection: Connection, selection: TotalsSelection) -> Chosen:
    """Look up what is selected.

    Raises NotFound for an unknown tenant or meter, SettingsError for windows that make no sense.
    """
    window_from, window_until = selection.window_from, selection.window_until
    if window_from and window_until and window_from >= window_until:
        raise SettingsError(
            f"no window begins from {window_from.isoformat()} and before {window_until.isoformat()}; "
            "expected --from to be earlier than --until"
        )
    _require_tenant(connection, selection.tenant_id)
    meters = _meters(connection, selection)
    # NULL rather than the list of all, so that totals of a meter that somebody deleted are seen too.
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
    """Between which moments all messages of the windows were stored, as far as the meters' limits say."""
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
    """Write a moment as RFC 3339 in UTC; None stays."""
    return None if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def digits(value: Decimal) -> str:
    """Write a sum with all its digits and no exponent, trailing zeros as PostgreSQL has them."""
    return format(value, "f")
