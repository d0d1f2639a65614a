"""The check of meters: missed messages, meters whose lines look alike, and voids without effect."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg

from processor.check import Finding, listed, tell
from processor.database.queries import queries

_KEPT_MAX = 10
"""The most kinds of misses that are listed, largest first."""


def look_at_meters(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    """Name active meters that missed messages within the last day, and tell whether voids are accepted."""
    sql = queries("check")
    missing = connection.execute(sql["meters_missing"], {"kept": _KEPT_MAX}, prepare=False).fetchall()
    [(active, voids_known)] = connection.execute(sql["meters_active"], prepare=False).fetchall()
    yield tell("meters", f"active: {active}")
    for row in missing:
        yield _missed(*row)
    alike = [meter for (meter,) in connection.execute(sql["meters_alike"], prepare=False)]
    if alike:
        yield tell(
            "meters alike",
            f"lines of {listed(alike)} look alike and count the same messages",
            note=True,
            advice="a sink that adds amounts counts them twice: retire one (processor meter retire), and "
            "correct the amounts at the sink with its operator",
        )
    [(idle,)] = connection.execute(sql["voids_idle"], prepare=False).fetchall()
    if active:
        yield tell(
            "voids",
            "taken" if voids_known else "not taken: there is no schema of event type void",
            note=not voids_known,
            advice="to cancel counted messages, run processor schema publish void --sample void; otherwise "
            "no action is needed",
        )
    if idle:
        yield tell(
            "idle voids",
            f"{idle} of the last 35 days name a message that did not arrive within a day",
            note=True,
            advice="the messages that they should cancel still count: processor usage voids lists the voids, "
            "and the producers that use the same id",
        )


def _missed(
    meter: str,
    tenant_id: str | None,
    pointers: str,
    reason: str,
    text_amounts: bool,
    messages: int,
    last_at: datetime,
) -> Finding:
    name = f"{meter} --tenant {tenant_id}" if tenant_id else meter
    last = last_at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    advice = f"processor meter show {name} names a message, and the schema that should forbid it"
    if reason == "value_not_a_number":
        # Messages from before `text-amounts` remain misses until a rebuild.
        allow = "" if text_amounts else f"processor meter text-amounts {name} lets it count, and "
        advice += (
            f'; if the value is a number in quotes ("2.5"): {allow}processor usage rebuild --meter {name} '
            "counts the messages stored before"
        )
    return tell(
        f"meter {meter}",
        f"{messages} messages stored and not counted: {reason} at {pointers or 'the payload'}, last {last}",
        note=True,
        advice=advice,
    )
