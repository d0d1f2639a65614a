"""API keys that may use the producer of the platform's own events."""

from typing import Any

import psycopg

from processor.check import Finding, listed, tell
from processor.database.queries import queries


def look_at_keys(connection: psycopg.Connection[Any]) -> Finding:
    """Name the keys in force that have no producers of their own, those first that may void or correct."""
    sql = queries("check")
    if connection.execute(sql["keys_hidden"], prepare=False).fetchone() == (True,):
        return tell("API keys", "not looked at: this role may not read them (processor_reader may)")
    rows = connection.execute(sql["keys_in_force"], prepare=False).fetchall()
    takers = [key_id for key_id, is_wide, takes_back in rows if is_wide and takes_back]
    wide = [key_id for key_id, is_wide, takes_back in rows if is_wide and not takes_back]
    found = [f"in force: {len(rows)}"]
    if takers:
        found.append(f"may void or correct what any producer that is not reserved has sent: {listed(takers)}")
    if wide:
        found.append(f"may send as any producer that is not reserved: {listed(wide)}")
    return tell(
        "API keys",
        "; ".join(found),
        note=len(found) > 1,
        advice="their tenants can take the ids of what the platform sends for them: replace each (processor "
        "key add TENANT --producer NAME, then processor key revoke KEY_ID), or name the platform's producers "
        "in RESERVED_PRODUCERS",
    )
