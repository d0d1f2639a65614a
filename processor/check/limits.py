"""What a login could stop the others with: rights that every login has, and limits that no login can lift.

A session may change most settings for itself, `statement_timeout` and `work_mem` among them. What holds is
what was taken from PUBLIC, CONNECTION LIMIT, and settings of superusers such as `temp_file_limit`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from processor.check import Finding, judge, listed, tell

SERVER = {
    "all tables (by DDL)",
    "database",
    "language plpgsql",
    "lo_*",
    "pg_advisory_*",
    "pg_current_xact_id",
    "pg_export_snapshot",
    "pg_logical_emit_message",
    "pg_notify",
    "tables that are only locked",
    "txid_current",
}
"""What is asked about the server: the database, languages, locks, and `functions_kept_from_public()`."""

OF_THE_SERVER: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "processor_writer": {
        "database": ("TEMPORARY",),
        "pg_advisory_*": ("EXECUTE",),
        "pg_current_xact_id": ("EXECUTE",),
        "pg_logical_emit_message": ("EXECUTE",),
    },
    "processor_reader": {"database": ("TEMPORARY",)},
    "processor_biller": {
        "database": ("TEMPORARY",),
        "pg_advisory_*": ("EXECUTE",),
        "pg_logical_emit_message": ("EXECUTE",),
    },
    "processor_retention": {"pg_advisory_*": ("EXECUTE",)},
}
"""Which of these a group role may have.

For temporary tables of commands, locks of earlier releases, and the commit of a redelivery.
"""


def every_login(rights: str, *, let_in: bool) -> Finding:
    """Judge what PUBLIC has of these; it is a problem as soon as a tenant is let in."""
    what = "every login"
    if rights == "nothing":
        return tell(what, "can make nothing that stays, and hold no lock that others wait for")
    advice = (
        "as the owner, for what is on the database, else as a superuser: SELECT put_up_tenant_walls(), "
        "whose notices say what it lacks; "
        "where you have none, let tenants' readers in on a replica alone (docs/reference/roles.md)"
    )
    if let_in:
        return judge(what, rights, fine=False, advice=advice)
    return tell(what, rights, note=True, advice=f"before a tenant is let in: {advice}")


def limits_of(logins: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Judge the limits of tenants' logins, and say into which other databases they get."""
    yield _tenant_limits(logins)
    yield _other_databases(logins)


def _tenant_limits(logins: Sequence[Mapping[str, Any]]) -> Finding:
    """Judge whether a tenant's login could take all connections, or fill the disk by sorting or by logs."""
    free = {
        "CONNECTION LIMIT": [login["role"] for login in logins if not login["connections"]],
        "temp_file_limit": [login["role"] for login in logins if not login["temporary_files"]],
        "log_min_messages": [login["role"] for login in logins if not login["unlogged"]],
    }
    problems = [f"no {limit}: {listed(roles)}" for limit, roles in free.items() if roles]
    return judge(
        "tenant limits",
        "; ".join(problems) or ("set for each tenant reader" if logins else "none needed"),
        fine=not problems,
        advice="as a superuser: ALTER ROLE ... CONNECTION LIMIT 5; "
        "ALTER ROLE ... SET temp_file_limit = '1GB'; ALTER ROLE ... SET log_min_messages = 'panic'",
    )


def _other_databases(logins: Sequence[Mapping[str, Any]]) -> Finding:
    # DDL waits there for locks that are the server's.
    names = sorted({name for login in logins for name in login["other_databases"]})
    return tell(
        "tenant databases",
        f"tenants' logins may connect to {listed(names)} as well" if names else "this one alone",
        note=bool(names),
        advice="REVOKE CONNECT ON DATABASE ... FROM PUBLIC for each: there a login could hold up the "
        "whole server by locks on pg_database",
    )
