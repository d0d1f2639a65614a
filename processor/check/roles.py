"""The check of roles: the effective privileges of each role, and those beyond its purpose.

Privileges add up in PostgreSQL: from groups, from PUBLIC and on single columns. So the check asks for the
effective privileges, whatever their origin.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg
from psycopg.rows import dict_row

from processor.check import Finding, judge, listed, tell
from processor.check.limits import OF_THE_SERVER, SERVER, every_login, limits_of
from processor.database.connection import hidden_relations
from processor.database.queries import queries

_CHANGE = "UPDATE"


def update_of(columns: str) -> tuple[str, ...]:
    """Return the UPDATE privileges on these columns."""
    return tuple(f"{_CHANGE} ({column})" for column in columns.split())


_TOTAL_RAISED = update_of("value messages first_at last_at is_closed")

RIGHTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "processor_writer": {
        "migration": ("SELECT",),
        "registry": ("SELECT",),
        "tenant": ("SELECT",),
        "event_type": ("SELECT",),
        "event_schema": ("SELECT",),
        "queue": ("SELECT",),
        "message": ("SELECT", "INSERT"),
        "duplicate": ("SELECT", "INSERT"),
        "rejection": (
            "SELECT",
            "INSERT",
            *update_of(
                "reason detail tenant_id event_type message_id producer rejected_at status replay_count"
            ),
            *update_of("closed_at bound_tenant_id first_rejected_at rule_id"),
        ),
        "removal": ("SELECT",),
        "meter": ("SELECT",),
        "total": ("SELECT", "INSERT", *_TOTAL_RAISED),
        "meter_miss": ("SELECT", "INSERT", *update_of("messages first_at last_at last_message_id")),
        "voided": ("SELECT", "INSERT"),
        "usage_rebuild": ("SELECT",),
        "usage_removal": ("SELECT",),
        "reopened_window": ("SELECT",),
        "usage_line": ("SELECT",),
        "usage": ("SELECT",),
        "attempt": ("SELECT", "INSERT", *update_of("attempts hangs noted_at"), "DELETE"),
        "unsettled": ("SELECT", "INSERT", *update_of("delivery_id noted_at"), "DELETE"),
        "run_message": ("SELECT", "INSERT", "DELETE"),
        "rejection_room": ("SELECT",),
        "rejection_rule": ("SELECT",),
        "registry_lock": ("DELETE",),
    },
    "processor_reader": {
        "migration": ("SELECT",),
        "registry": ("SELECT",),
        "tenant": ("SELECT",),
        "event_type": ("SELECT",),
        "event_schema": ("SELECT",),
        "queue": ("SELECT",),
        "message": ("SELECT",),
        "duplicate": ("SELECT",),
        "rejection": ("SELECT",),
        "removal": ("SELECT",),
        "tenant_reader": ("SELECT",),
        "api_key": ("SELECT",),
        "meter": ("SELECT",),
        "total": ("SELECT",),
        "meter_miss": ("SELECT",),
        "voided": ("SELECT",),
        "usage_rebuild": ("SELECT",),
        "usage_removal": ("SELECT",),
        "reopened_window": ("SELECT",),
        "usage_batch": ("SELECT",),
        "usage_line": ("SELECT",),
        "usage_place": ("SELECT",),
        "usage": ("SELECT",),
        "attempt": ("SELECT",),
        "unsettled": ("SELECT",),
        "run_message": ("SELECT",),
        "rejection_room": ("SELECT",),
        "rejection_rule": ("SELECT",),
        "retention_floor": ("SELECT",),
    },
    "processor_biller": {
        "migration": ("SELECT",),
        "registry": ("SELECT",),
        "tenant": ("SELECT",),
        "event_type": ("SELECT",),
        "event_schema": ("SELECT",),
        "message": ("SELECT",),
        "removal": ("SELECT",),
        "meter": ("SELECT",),
        "total": ("SELECT", "INSERT", *_TOTAL_RAISED),
        "meter_miss": ("SELECT",),
        "voided": ("SELECT",),
        "usage_rebuild": ("SELECT", "INSERT", *update_of("rebuilt_at")),
        "usage_removal": ("SELECT",),
        "reopened_window": ("SELECT", "INSERT", "DELETE"),
        "usage_batch": (
            "SELECT",
            "INSERT",
            *update_of("attempt_count next_attempt_at handed_over_at trouble"),
        ),
        "usage_line": ("SELECT", "INSERT", *update_of("batch_id handed_over_at trouble")),
        "usage_place": ("SELECT", "INSERT", *update_of("place reason noted_at")),
        "usage": ("SELECT",),
        "books_lock": ("DELETE",),
        "window_lock": ("DELETE",),
        "batch_lock": ("DELETE",),
    },
    "processor_retention": {
        "migration": ("SELECT",),
        "tenant": ("SELECT",),
        "message": ("SELECT",),
        "duplicate": ("SELECT",),
        "rejection": ("SELECT",),
        "removal": ("SELECT",),
        "rejection_rule": ("SELECT",),
        "retention_floor": ("SELECT",),
        "meter": ("SELECT",),
        "voided": ("SELECT",),
        "usage_rebuild": ("SELECT",),
        "usage_removal": ("SELECT",),
        "books_lock": ("DELETE",),
    },
    "processor_gateway": {
        "tenant": ("SELECT",),
        "event_type": ("SELECT",),
        "meter": ("SELECT",),
        "api_key": ("SELECT",),
    },
    "processor_tenant_reader": {
        "tenant": ("SELECT",),
        "event_type": ("SELECT",),
        "event_schema": ("SELECT",),
        "message": ("SELECT",),
        "duplicate": ("SELECT",),
        "rejection": ("SELECT",),
        "removal": ("SELECT",),
        "tenant_reader": ("SELECT",),
        "meter": ("SELECT",),
        "total": ("SELECT",),
        "meter_miss": ("SELECT",),
        "voided": ("SELECT",),
        "usage_removal": ("SELECT",),
        "usage_line": ("SELECT",),
        "usage": ("SELECT",),
    },
}
"""The exact privileges of each group role, by table or view. This is their only definition."""

_OWNERS_ALONE = {"migrate_lock", "newcomer_lock"}

RELATIONS = tuple(sorted({relation for rights in RIGHTS.values() for relation in rights} | _OWNERS_ALONE))

TENANT_READER = "processor_tenant_reader"
PUBLIC = "public"

_PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
_PRIVILEGES_SINCE = {170_000: "MAINTAIN"}
"""By `server_version_num`; an older server does not know the privilege and raises an error."""

Connection = psycopg.Connection[Any]
Held = Mapping[str, Mapping[str, set[str]]]
"""Role → relation → privileges; CREATE on the schema and EXECUTE on functions stand among the relations."""

_FUNCTIONS_TO_SAVE = (
    ("registry_version_held(boolean,boolean,boolean)", "EXECUTE"),
    ("register_tenants(text,text[],bigint)", "EXECUTE"),
    ("pg_logical_emit_message", "EXECUTE"),
    ("pg_current_xact_id", "EXECUTE"),
)

TO_SAVE = (
    ("registry", "SELECT"),
    ("tenant", "SELECT"),
    ("event_type", "SELECT"),
    ("event_schema", "SELECT"),
    ("queue", "SELECT"),
    *(
        (table, privilege)
        for table in ("message", "duplicate", "rejection")
        for privilege in ("SELECT", "INSERT")
    ),
    ("rejection_rule", "SELECT"),
    ("meter", "SELECT"),
    ("usage_rebuild", "SELECT"),
    ("voided", "SELECT"),
    ("voided", "INSERT"),
    *(
        (table, privilege)
        for table in ("total", "meter_miss", "attempt", "unsettled")
        for privilege in RIGHTS["processor_writer"][table]
    ),
    *(("run_message", privilege) for privilege in ("SELECT", "INSERT", "DELETE")),
    ("registry_lock", "DELETE"),
    *_FUNCTIONS_TO_SAVE,
)
"""The privileges that a save needs: relation (or function) and privilege."""

_FUNCTIONS = {
    "processor_writer": _FUNCTIONS_TO_SAVE,
    "processor_retention": tuple(
        (name, "EXECUTE")
        for name in (
            "remove_messages(tid[],timestamptz,timestamptz)",
            "remove_duplicates(tid,tid,timestamptz,integer)",
            "remove_rejections(tid,tid,timestamptz,timestamptz,integer)",
        )
    ),
}


def wanted_by(role: str) -> list[tuple[str, str]]:
    """Return the privileges of a group role: relation (or function) and privilege."""
    functions = _FUNCTIONS.get(role, ())
    return [
        *((relation, privilege) for relation, given in RIGHTS[role].items() for privilege in given),
        *functions,
    ]


def missing_rights(connection: psycopg.Connection[Any], wanted: Sequence[tuple[str, str]]) -> list[str]:
    """Return the wanted privileges that the current role lacks, in the syntax of GRANT."""
    asked = {
        "relations": [relation for relation, _ in wanted],
        "privileges": [privilege for _, privilege in wanted],
    }
    rows = connection.execute(queries("check")["missing_rights"], asked).fetchall()
    missing: dict[str, dict[str, set[str]]] = {}
    for relation, privilege in rows:
        # Columns with the same privilege are grouped.
        missing.setdefault(f"{relation} {privilege.split(' ')[0]}", {}).setdefault(relation, set()).add(
            privilege
        )
    return [_words(rights) for rights in missing.values()]


def look_at_roles(connection: Connection, login: str, *, superuser: bool) -> Iterator[Finding]:
    """Describe the privileges of our group roles, of PUBLIC, of tenant readers and of the login."""
    readers = _rows(connection, "tenant_readers")
    names = [reader["role"] for reader in readers]
    held = _held(connection, [*RIGHTS, PUBLIC, login, *names])
    present = {row["role"] for row in _rows(connection, "roles_present", roles=[*RIGHTS])}
    for role in RIGHTS:
        yield _group_role(role, held) if role in present else _absent(role)
    yield _public(held)
    yield every_login(_words(_of_server(held.get(PUBLIC, {}))), let_in=bool(readers))
    yield tell("login", f"{login}: everything, as a superuser" if superuser else _words(held.get(login, {})))
    yield _sight(connection)
    yield _tenant_readers(readers, held)
    yield from limits_of(_rows(connection, "tenant_limits"))
    yield _walls(connection, present)


def _rows(connection: Connection, name: str, **parameters: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - as queries differ
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(queries("check")[name], parameters, prepare=False).fetchall()


def _held(connection: Connection, roles: Sequence[str]) -> Held:
    newer = [word for since, word in _PRIVILEGES_SINCE.items() if connection.info.server_version >= since]
    held: dict[str, dict[str, set[str]]] = {}
    for row in (
        *_rows(
            connection,
            "role_rights",
            roles=[*roles],
            relations=[*RELATIONS],
            privileges=[*_PRIVILEGES, *newer],
        ),
        *_rows(connection, "server_rights", roles=[*roles]),
    ):
        held.setdefault(row["role"], {}).setdefault(row["relation"], set()).add(row["privilege"])
    return held


def _excess(role: str, held: Held, expected: Mapping[str, tuple[str, ...]]) -> dict[str, set[str]]:
    """Find a role's privileges beyond the expected ones, without those of PUBLIC."""
    everybody = held.get(PUBLIC, {})
    found = {
        relation: privileges - set(expected.get(relation, ())) - everybody.get(relation, set())
        for relation, privileges in held.get(role, {}).items()
    }
    return {relation: privileges for relation, privileges in found.items() if privileges}


def _group_role(role: str, held: Held) -> Finding:
    excess = _excess(role, held, {**RIGHTS[role], **OF_THE_SERVER.get(role, {})})
    found = _words(held.get(role, {}))
    return judge(
        f"role {role}",
        f"{found}; excess privileges: {_words(excess)}" if excess else found,
        fine=not excess,
        advice=f"as the owner, REVOKE the excess privileges from {role} (or its membership in another role)",
    )


def _absent(role: str) -> Finding:
    return tell(
        f"role {role}",
        "does not exist",
        note=True,
        advice="only needed for logins with this role; docs/reference/roles.md describes how to create it",
    )


def _public(held: Held) -> Finding:
    rights = held.get(PUBLIC, {})
    everybody = {name: words for name, words in rights.items() if name not in _of_server(rights)}
    return judge(
        PUBLIC,
        f"every login: {_words(everybody)}" if everybody else "no privileges on our tables",
        fine=not everybody,
        advice="as the owner, REVOKE them FROM PUBLIC: every login has them, tenant readers too",
    )


def _of_server(rights: Mapping[str, set[str]]) -> dict[str, set[str]]:
    return {name: words for name, words in rights.items() if name in SERVER}


def _sight(connection: Connection) -> Finding:
    hidden = hidden_relations(connection)
    return judge(
        "row-level security",
        f"hides rows from this role, of {', '.join(hidden)}" if hidden else "hides nothing from this role",
        fine=not hidden,
        advice="the processor refuses to start: REVOKE processor_tenant_reader from this role, or, as the "
        "owner, SELECT put_up_tenant_walls()",
    )


_WAYS_ROUND = {
    "superuser": "a superuser",
    "bypasses": "BYPASSRLS",
    "replicates": "REPLICATION",
    "makes_roles": "CREATEROLE",
    "owner": "the rights of the tables' owner",
}


def _tenant_readers(readers: Sequence[Mapping[str, Any]], held: Held) -> Finding:
    problems = []
    for reader in readers:
        has = [words for name, words in _WAYS_ROUND.items() if reader[name]]
        has += [f"membership in {group}" for group in reader["groups"]]
        excess = _excess(reader["role"], held, RIGHTS[TENANT_READER])
        if excess and not has:
            # Otherwise the entries above explain the excess already.
            has = [_words(excess)]
        if has:
            problems.append(f"{reader['role']} has {', '.join(has)}")
    return judge(
        "tenant readers",
        f"excess privileges: {listed(problems)}"
        if problems
        else listed([reader["role"] for reader in readers]) or "none",
        fine=not problems,
        advice="revoke them: a tenant reader is a member of processor_tenant_reader, and of no other role of "
        "ours or of the server",
    )


def _walls(connection: Connection, present: set[str]) -> Finding:
    down = [row["relation"] for row in _rows(connection, "walls_down")] if TENANT_READER in present else []
    return judge(
        "tenant walls",
        f"down on {listed(down)}" if down else "up",
        fine=not down,
        advice="as the owner: SELECT put_up_tenant_walls(); a view for tenant readers needs "
        "WITH (security_invoker), otherwise it shows them the rows of all tenants",
    )


def _words(rights: Mapping[str, set[str]]) -> str:
    """Describe privileges; relations with the same privileges are grouped."""
    together: dict[tuple[str, ...], list[str]] = {}
    order = {word: place for place, word in enumerate(_PRIVILEGES)}
    for relation in sorted(rights):
        words = tuple(
            sorted(rights[relation], key=lambda word: (order.get(word.split(" ")[0], len(order)), word))
        )
        together.setdefault(words, []).append(relation)
    parts = [
        f"{', '.join(words)} on {', '.join(relations)}".replace(f"), {_CHANGE} (", ", ")
        for words, relations in together.items()
    ]
    return "; ".join(parts) or "nothing"
