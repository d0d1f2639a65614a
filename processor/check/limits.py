"""The check of logins that could block others: privileges of PUBLIC, and limits of tenants' logins.

A session can change most of its settings itself, `statement_timeout` and `work_mem` among them. Binding are
only revoked privileges of PUBLIC, CONNECTION LIMIT, and superuser settings such as `temp_file_limit`.
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
"""The checked objects of the server: database, languages, locks, and `functions_kept_from_public()`."""

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
"""The privileges on these that a group role may have.

They serve temporary tables of commands, locks of earlier releases, and the commit of a redelivery.
"""


def every_login(rights: str, *, let_in: bool) -> Finding:
    """Judge the privileges of PUBLIC on these; they are a problem once a tenant reader exists."""
    what = "every login"
    if rights == "nothing":
        return tell(what, "can create no lasting object, and hold no lock that blocks others")
    advice = (
        "run SELECT put_up_tenant_walls() as the owner for privileges on the database, else as a superuser; "
        "its notices name the missing privileges. Without a superuser, allow tenant readers on a replica "
        "only (docs/reference/roles.md)"
    )
    if let_in:
        return judge(what, rights, fine=False, advice=advice)
    return tell(what, rights, note=True, advice=f"before adding a tenant reader: {advice}")


def limits_of(logins: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Judge the limits of tenants' logins, and name the other databases that they may connect to."""
    yield _tenant_limits(logins)
    yield _other_databases(logins)


def _tenant_limits(logins: Sequence[Mapping[str, Any]]) -> Finding:
    """Judge whether a tenant's login could take all connections, or fill the disk by sorts or logs."""
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
    # DDL there takes locks of the whole server.
    names = sorted({name for login in logins for name in login["other_databases"]})
    return tell(
        "tenant databases",
        f"tenants' logins may also connect to {listed(names)}" if names else "this one alone",
        note=bool(names),
        advice="REVOKE CONNECT ON DATABASE ... FROM PUBLIC for each: a login there could block the whole "
        "server by locks on pg_database",
    )
