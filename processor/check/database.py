"""The database checks of `processor check`."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import dict_row

from processor.check import Finding, judge, listed, tell
from processor.check.binding import judge_binding
from processor.check.clock import Now, compare_clock, utc_now
from processor.check.keys import look_at_keys
from processor.check.meters import look_at_meters
from processor.check.queue_rules import look_at_queue_rules
from processor.check.roles import look_at_roles, missing_rights, wanted_by
from processor.check.storage import look_at_storage
from processor.check.usable import look_at_schemas
from processor.database import migrations
from processor.database.connection import Deadline
from processor.database.queries import queries
from processor.database.sqlstates import name_of
from processor.errors import StoreFault, StoreUnavailable
from processor.model import QueueRules
from processor.operations.storage_alarm import StorageAlarmLimits
from processor.validation.tenant_bindings import UNBOUND, Bindings

VERSION_MIN = 15
_VERSION_STEP = 10_000
"""`server_version_num` of PostgreSQL 15.2 is 150002."""

_DURABLE = ("on", "remote_apply")
_POOLER_ROUNDS = 20

Connection = psycopg.Connection[Any]
Open = Callable[[], Connection]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CheckedSettings:
    """The settings to compare with the database: queue name, bindings, queue rules, storage limits."""

    queue: str | None = None
    bindings: Bindings = UNBOUND
    rules: Mapping[str, QueueRules] = field(default_factory=dict)
    storage: StorageAlarmLimits | None = None


NOTHING_SAID = CheckedSettings()


def check_database(
    open_connection: Open, *, timeout_s: float, said: CheckedSettings = NOTHING_SAID, now: Now = utc_now
) -> list[Finding]:
    """Check the database; `open_connection` gives connections in autocommit mode that are closed here.

    A server that needs more than `timeout_s` for all checks counts as unreachable. No database error is
    raised; each becomes a finding.
    """
    findings: list[Finding] = []
    try:
        with open_connection() as connection, Deadline(timeout_s).over(connection):
            for found in _look(connection, open_connection, said, now):
                findings.append(found)  # noqa: PERF402 - findings from before an outage are kept
    except StoreUnavailable as error:
        findings.append(_unreachable(str(error)))
    except StoreFault as error:
        advice = "correct DATABASE_URL, or the server's access rules (pg_hba.conf)"
        findings.append(judge("database", str(error), fine=False, advice=advice))
    except psycopg.OperationalError as error:
        findings.append(_unreachable(f"connection lost during the check: {name_of(error)}"))
    except psycopg.Error as error:
        advice = "ask the database administrator for the cause"
        findings.append(
            judge("database", f"a query was refused: {name_of(error)}", fine=False, advice=advice)
        )
    return findings


def _unreachable(found: str) -> Finding:
    return Finding(
        "database",
        fine=False,
        found=found,
        advice="check the server, and host and port in DATABASE_URL; the processor retries until then",
        unreachable=True,
    )


def _look(
    connection: Connection, open_connection: Open, said: CheckedSettings, now: Now
) -> Iterator[Finding]:
    before = now()
    at = _row(connection, "clock")["at"]
    clock = compare_clock("database clock", (before, now()), (at, at))
    server = _row(connection, "server")
    yield tell(
        "database", f"PostgreSQL {server['version']}, database {server['database']}, role {server['role']}"
    )
    yield from _server(server)
    yield clock
    yield _pooler(connection, open_connection)
    yield (migrated := _migrations(connection, server))
    if migrated.fine:
        yield (rights := _missing_rights(connection))
        excess = _row(connection, "excess_rights")
        yield _excess_rights(excess, server["role"])
        yield from look_at_roles(connection, server["role"], superuser=excess["superuser"])
        if rights.fine:
            yield _registry(connection)
            yield look_at_schemas(connection)
            yield from look_at_meters(connection)
            if said.storage is not None:
                yield from look_at_storage(connection, said.storage)
            yield look_at_keys(connection)
            registered = _registered(connection)
            yield judge_binding(said.bindings, registered)
            yield from look_at_queue_rules(connection, said.queue, said.bindings, said.rules, registered)


def _row(connection: Connection, name: str) -> Row:
    with connection.cursor(row_factory=dict_row) as cursor:
        # Never prepared: behind a pooler, prepared statements of two connections collide.
        row = cursor.execute(queries("check")[name], prepare=False).fetchone()
    assert row is not None  # noqa: S101 - each of these queries gives one row
    return row


# ── the server ────────────────────────────────────────────────────────────────────────────────────────


def _server(server: Row) -> Iterator[Finding]:
    yield judge_version(server["version_num"], server["version"])
    yield judge(
        "encoding",
        server["encoding"],
        fine=server["encoding"] == "UTF8",
        advice="recreate the database with ENCODING 'UTF8': with another encoding, events with characters "
        "outside of it are rejected as unstorable",
    )
    yield judge(
        "writable",
        "a standby" if server["standby"] else "read-only" if server["read_only"] else "yes",
        fine=not server["read_only"],
        advice="point DATABASE_URL to the primary (with several hosts: target_session_attrs=read-write)"
        if server["standby"]
        else "reset default_transaction_read_only of the database or the role",
    )
    for name, loss in (
        ("fsync", "a crash of the machine can corrupt the whole database"),
        ("full_page_writes", "a crash of the machine can leave torn pages"),
    ):
        yield judge(
            name,
            "on" if server[name] else "off",
            fine=server[name],
            advice=f"turn {name} on in postgresql.conf and reload: {loss}, and the events are deleted from "
            "the queue by then",
        )
    yield tell(
        "synchronous_commit",
        server["synchronous_commit"],
        note=server["synchronous_commit"] not in _DURABLE,
        advice="events are safe: the processor's sessions raise it to on. Other writes, such as processor "
        "tenant add, can be lost in a crash",
    )


def judge_version(number: int, text: str) -> Finding:
    """Judge a server version, given as `server_version_num` and as text."""
    return judge(
        "database version",
        text,
        fine=number >= VERSION_MIN * _VERSION_STEP,
        advice=f"upgrade to PostgreSQL {VERSION_MIN} or newer",
    )


def _pooler(first: Connection, open_connection: Open) -> Finding:
    """Look for a pooler in transaction or statement mode.

    Two open connections have two server processes, unless a pooler shares them. So both are asked in turn for
    their process: a process that serves both, or a connection that changes its process, proves such a pooler.
    The reverse is no proof, since twenty rounds may see no change in a busy or large pool. PgBouncer was
    detected 30 times of 30, idle and with twelve busy clients. A pooler in session mode is not detected, and
    does no harm.
    """
    try:
        with open_connection() as second:
            seen: list[set[Any]] = [set(), set()]
            for _ in range(_POOLER_ROUNDS):
                for place, connection in enumerate((first, second)):
                    seen[place].add(tuple(_row(connection, "backend").values()))
    except (StoreUnavailable, StoreFault) as error:
        return judge(
            "pooler",
            f"unknown: a second connection was refused: {error}",
            fine=False,
            advice="allow WRITERS connections and a few more (max_connections, CONNECTION LIMIT)",
        )
    steady = len(seen[0]) == len(seen[1]) == 1 and seen[0] != seen[1]
    return judge(
        "pooler",
        "no pooling by transaction detected" if steady else "pooling by transaction",
        fine=steady,
        advice="connect directly to PostgreSQL, or set pool_mode = session: durability and time limits are "
        "set per session, and processor migrate holds a session lock",
    )


# ── tables and privileges ─────────────────────────────────────────────────────────────────────────────


def _migrations(connection: Connection, server: Row) -> Finding:
    grant = f"as the owner: GRANT processor_writer TO {server['role']}"
    if server["schema"] is None:
        return judge(
            "migrations",
            f"role {server['role']} has USAGE on no schema of its search_path",
            fine=False,
            advice=f"{grant}; if the role is a member already, correct its search_path",
        )
    try:
        state = migrations.state(connection)
    except psycopg.errors.InsufficientPrivilege:
        found = f"role {server['role']} lacks SELECT on the table migration"
        return judge("migrations", found, fine=False, advice=grant)
    return _judge_migrations(state)


def _judge_migrations(state: migrations.State) -> Finding:
    if state.pending:
        found, advice = f"not applied: {listed(state.pending)}", "as the owner, run: processor migrate"
    elif state.breaking:
        found = f"the database is newer and incompatible with this version since {state.breaking[0]}"
        advice = "deploy the version of event-processor that has this migration"
    elif state.edited:
        found = f"the applied text differs from this version's: {listed(state.edited)}"
        advice = "compare the tables with sql/migrations: a file was edited after it was applied"
    else:
        return tell(
            "migrations",
            f"all applied, and newer ones: {listed(state.unknown)}" if state.unknown else "all applied",
            note=bool(state.unknown),
            advice="this version is compatible with them; finish the upgrade",
        )
    return judge("migrations", found, fine=False, advice=advice)


def _missing_rights(connection: Connection) -> Finding:
    missing = missing_rights(connection, wanted_by("processor_writer"))
    return judge(
        "rights",
        f"missing privileges: {listed(missing)}" if missing else "sufficient",
        fine=not missing,
        advice="as the owner: GRANT processor_writer TO this role (its GRANTs are in sql/migrations)",
    )


_EXCESS = {
    "superuser": "a superuser",
    "owner": "the owner of the tables",
    "may_change_messages": "allowed to change stored messages",
}


def _excess_rights(excess: Row, role: str) -> Finding:
    worst = next((words for name, words in _EXCESS.items() if excess[name]), None)
    return tell(
        "least privilege",
        f"role {role} is {worst}" if worst else f"role {role} can't change stored messages",
        note=worst is not None,
        advice="run the processor with a login of its own (CREATE ROLE ... LOGIN IN ROLE processor_writer), "
        "and use this role only for processor migrate",
    )


def _registry(connection: Connection) -> Finding:
    size = _row(connection, "registry_size")
    return tell(
        "registry",
        f"active tenants: {size['tenants']}, schemas: {size['schemas']}",
        note=not size["tenants"] or not size["schemas"],
        advice="all events are rejected without both: run processor tenant add and processor schema publish",
    )


def _registered(connection: Connection) -> list[str]:
    rows = connection.execute(queries("registry")["list_tenants"], prepare=False).fetchall()
    return [tenant_id for tenant_id, *_ in rows]
