"""Closing windows: a total is stored as a line, and each later change as another line.

    total ──lock all slots──▶ sum ──difference to the last line──▶ usage_line (revision + 1), total.is_closed

A save that raises a locked total waits for the lock and then reopens the total. A slot that was not locked
stays open. So no change is missed in any order, and written lines never change. Each step is one transaction,
so a crash leaves no partial work.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import psycopg

from processor.database.queries import queries
from processor.errors import NotFound, SettingsError

Connection: TypeAlias = psycopg.Connection[Any]

STEP_SIZE = 500
"""The most totals closed in one transaction. Saves that raise one of them wait for its end."""

_COLUMNS = ("tenant_id", "meter_id", "window_start", "group_key", "slot")


@dataclass(frozen=True, slots=True)
class Closed:
    """The counts of a closing: totals (per tenant, window and group), lines, released reopened windows."""

    totals: int = 0
    lines: int = 0
    released: int = 0
    not_ended: int = 0
    slots: int = 0

    def __add__(self, other: "Closed") -> "Closed":
        """Add the counts of two steps."""
        return Closed(
            self.totals + other.totals,
            self.lines + other.lines,
            self.released + other.released,
            self.not_ended + other.not_ended,
            self.slots + other.slots,
        )


@dataclass(frozen=True, slots=True)
class Reopened:
    """A window that is kept open from now on; `marked` is False if it was already kept open."""

    meter: str
    window_start: datetime
    marked: bool
    totals: int


def count_due(connection: Connection) -> int:
    """Count the slots that are due now. The count bounds a round: late events may reopen slots endlessly."""
    count: int = _value(connection.execute(queries("windows")["count_due"]))
    return count


def close_due(connection: Connection, limit: int = STEP_SIZE) -> Closed | None:
    """Close up to `limit` totals whose window and grace are over; None while another process is closing.

    Repeat the call until nothing is closed. The connection is in autocommit mode.
    """
    sql = queries("windows")
    with connection.transaction():
        # Two processes would only wait for each other's row locks.
        try:
            with connection.transaction():
                connection.execute(sql["take_turn"])
        except psycopg.errors.LockNotAvailable:
            return None
        return _close(connection, connection.execute(sql["lock_due"], {"limit": limit}).fetchall())


def close_ended(
    connection: Connection,
    *,
    meter: str | None,
    tenant_id: str | None,
    until: datetime | None,
    limit: int = STEP_SIZE,
) -> Closed:
    """Close the windows that ended by `until` (None: now) without waiting for their grace.

    Reopened windows among them are released, unless `tenant_id` is given: other tenants still need them open.
    Raises NotFound for an unknown meter, SettingsError if `until` is in the future.
    """
    meter_ids = [meter_id for meter_id, _ in _meters_with_windows(connection, meter, tenant_id)]
    now = _value(connection.execute(queries("windows")["now"]))
    if until is not None and until > now:
        raise SettingsError(
            f"--until {until.isoformat()} is still to come (it is {now.isoformat(timespec='seconds')} by the "
            "database's clock); a window can be closed once it has ended: expected a moment that is over"
        )
    asked = {"meter_ids": meter_ids, "tenant_id": tenant_id, "until": until or now}
    done = Closed(not_ended=_value(connection.execute(queries("windows")["count_not_ended"], asked)))
    if tenant_id is None:
        done += Closed(released=connection.execute(queries("windows")["release"], asked).rowcount)
    # Only the slots of now: late events that keep coming would make the loop endless.
    open_slots = _value(connection.execute(queries("windows")["count_ended"], asked))
    while done.slots < open_slots:
        step = _close_step(connection, asked | {"limit": limit})
        done += step
        if step.slots == 0:
            break
    return done


def reopen(connection: Connection, *, meter: str, moment: datetime) -> list[Reopened]:
    """Keep the window that contains `moment` open until `close_ended`, for each meter of that name.

    Written lines stay, and handed-over lines stay handed over. Raises NotFound, SettingsError.
    """
    sql = queries("windows")
    reopened = []
    for meter_id, name in _meters_with_windows(connection, meter, None):
        which = {"meter_id": meter_id, "moment": moment}
        window_start = _value(connection.execute(sql["window_of"], which))
        which |= {"window_start": window_start}
        with connection.transaction():
            # Under the lock, so that no closing in progress has read the marks already.
            connection.execute(sql["wait_for_turn"])
            marked = connection.execute(sql["mark_reopened"], which).rowcount == 1
            totals = _value(connection.execute(sql["reopen"], which))
        reopened.append(Reopened(name, window_start, marked, totals))
    return reopened


def _close_step(connection: Connection, asked: dict[str, Any]) -> Closed:
    sql = queries("windows")
    with connection.transaction():
        connection.execute(sql["wait_for_turn"])
        return _close(connection, connection.execute(sql["lock_ended"], asked).fetchall())


def _close(connection: Connection, locked: Sequence[tuple[Any, ...]]) -> Closed:
    if not locked:
        return Closed()
    columns = {name: list(values) for name, values in zip(_COLUMNS, zip(*locked, strict=True), strict=True)}
    [(totals, lines, slots)] = connection.execute(queries("windows")["close"], columns).fetchall()
    return Closed(totals, lines, slots=slots)


def _meters_with_windows(
    connection: Connection, meter: str | None, tenant_id: str | None
) -> list[tuple[int, str]]:
    found = connection.execute(
        queries("windows")["meters_named"], {"meter": meter, "tenant_id": tenant_id}
    ).fetchall()
    if meter is not None and not found:
        raise NotFound(f"there is no meter {meter!r}; `processor meter list` names those that are")
    if meter is not None and all(size == "none" for _, _, size in found):
        raise SettingsError(f"the meter {meter!r} has no windows (window none), so nothing of it ever closes")
    return [(meter_id, name) for meter_id, name, size in found if size != "none"]


def _value(cursor: psycopg.Cursor[Any]) -> Any:  # noqa: ANN401 - whatever is asked for
    [(value,)] = cursor.fetchall()
    return value
