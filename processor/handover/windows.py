"""Windows close: what a total came to is written down as a line, and each later change as another one.

    total ──lock all slots──▶ sum ──difference to the last line──▶ usage_line (revision + 1), total.is_closed

A save that raises a locked total waits for us and then opens it again, and a slot that we have not locked
stays open: so whatever the order, nothing is missed, and what was written stays. Each step is one
transaction, so that whoever dies in it has done nothing.
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
"""Totals that are closed in one transaction at the most: saves that raise one of them wait for it."""

_COLUMNS = ("tenant_id", "meter_id", "window_start", "group_key", "slot")


@dataclass(frozen=True, slots=True)
class Closed:
    """What was closed: totals (of one tenant, window and group), lines written, reopened windows released."""

    totals: int = 0
    lines: int = 0
    released: int = 0
    not_ended: int = 0
    slots: int = 0

    def __add__(self, other: "Closed") -> "Closed":
        """Add up what two steps did."""
        return Closed(
            self.totals + other.totals,
            self.lines + other.lines,
            self.released + other.released,
            self.not_ended + other.not_ended,
            self.slots + other.slots,
        )


@dataclass(frozen=True, slots=True)
class Reopened:
    """A window that is kept open from now on; `marked` says that it was not before."""

    meter: str
    window_start: datetime
    marked: bool
    totals: int


def count_due(connection: Connection) -> int:
    """Count the slots that are due now, which bounds a round: late events may open them again for ever."""
    count: int = _value(connection.execute(queries("windows")["count_due"]))
    return count


def close_due(connection: Connection, limit: int = STEP_SIZE) -> Closed | None:
    """Close up to `limit` totals whose window and grace are over; None where another process is closing.

    Call it again while it closes something. The connection is in autocommit mode.
    """
    sql = queries("windows")
    with connection.transaction():
        # Two would only wait for each other's rows.
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
    """Close the windows that ended by `until` (None: by now) without waiting for their grace.

    Reopened windows among them are released, unless for one tenant alone: the others still need them open.
    Raises NotFound for a meter that is not there, SettingsError for windows that have not ended.
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
    # No more than there is now: late events that keep coming would keep it going for ever.
    open_slots = _value(connection.execute(queries("windows")["count_ended"], asked))
    while done.slots < open_slots:
        step = _close_step(connection, asked | {"limit": limit})
        done += step
        if step.slots == 0:
            break
    return done


def reopen(connection: Connection, *, meter: str, moment: datetime) -> list[Reopened]:
    """Keep the window in which `moment` lies open until `close_ended`; one for each meter named so.

    Lines that are written stay, and what is handed over stays handed over. Raises NotFound, SettingsError.
    """
    sql = queries("windows")
    reopened = []
    for meter_id, name in _meters_with_windows(connection, meter, None):
        which = {"meter_id": meter_id, "moment": moment}
        window_start = _value(connection.execute(sql["window_of"], which))
        which |= {"window_start": window_start}
        with connection.transaction():
            # With the turn, so that no closing under way has looked for marks already.
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
