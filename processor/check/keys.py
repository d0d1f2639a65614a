"""The check of API keys: keys without a restriction to producers."""

from typing import Any

import psycopg

from processor.check import Finding, listed, tell
from processor.database.queries import queries


def look_at_keys(connection: psycopg.Connection[Any]) -> Finding:
    """Name the keys in force without a restriction to producers, those that may void or correct first."""
    sql = queries("check")
    if connection.execute(sql["keys_hidden"], prepare=False).fetchone() == (True,):
        return tell("API keys", "not checked: this role lacks the privilege (processor_reader has it)")
    rows = connection.execute(sql["keys_in_force"], prepare=False).fetchall()
    takers = [key_id for key_id, is_wide, takes_back in rows if is_wide and takes_back]
    wide = [key_id for key_id, is_wide, takes_back in rows if is_wide and not takes_back]
    found = [f"in force: {len(rows)}"]
    if takers:
        found.append(f"may void or correct events of any producer that is not reserved: {listed(takers)}")
    if wide:
        found.append(f"may send as any producer that is not reserved: {listed(wide)}")
    return tell(
        "API keys",
        "; ".join(found),
        note=len(found) > 1,
        advice="a tenant with such a key can use up the ids of the platform's events: replace each key "
        "(processor key add TENANT --producer NAME, then processor key revoke KEY_ID), or name the "
        "platform's producers in RESERVED_PRODUCERS",
    )
