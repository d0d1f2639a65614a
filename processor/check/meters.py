"""What keeps meters from counting what they should: messages that they miss, and voids that can't come in."""

from collections.abc import Iterator
from typing import Any

import psycopg

from processor.check import Finding, listed, tell
from processor.queries import queries


def look_at_meters(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    """Name active meters that missed messages within the last day, and say whether voids are taken."""
    sql = queries("check")
    missing = connection.execute(sql["meters_missing"], prepare=False).fetchall()
    [(active, voids_known)] = connection.execute(sql["meters_active"], prepare=False).fetchall()
    misses = listed([f"{meter} ({messages})" for meter, messages in missing])
    worst = missing[0][0] if missing else ""
    yield tell(
        "meters",
        f"active: {active}" + (f"; with misses today: {misses}" if missing else ""),
        note=bool(missing),
        advice=f"stored, and not counted: processor meter show {worst} says why, and which schema should "
        "forbid it",
    )
    alike = [meter for (meter,) in connection.execute(sql["meters_alike"], prepare=False)]
    if alike:
        yield tell(
            "meters alike",
            f"lines of {listed(alike)} look alike and count the same messages",
            note=True,
            advice="a sink that adds up has them twice: retire one (processor meter retire), and settle with "
            "whoever runs the sink what it has",
        )
    [(idle,)] = connection.execute(sql["voids_idle"], prepare=False).fetchall()
    if active:
        yield tell(
            "voids",
            "taken" if voids_known else "not taken: there is no schema of event type void",
            note=not voids_known,
            advice="none needed while nobody cancels what was counted; else processor schema publish void "
            'FILE (an object with "message_id", and "producer" where messages name one)',
        )
    if idle:
        yield tell(
            "idle voids",
            f"{idle} of the last 35 days name a message that has not come within a day",
            note=True,
            advice="what they were to cancel counts on: processor usage voids lists them, and the producers "
            "who use the same id",
        )
