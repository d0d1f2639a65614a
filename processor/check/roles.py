"""What each role can do with our tables, and which of it is more than it was ever meant to.

Rights add up in PostgreSQL: a grant to a group, to PUBLIC or on one column opens as much as one to the login.
So what is asked is what a role can do in the end, whichever way it came by it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg
from psycopg.rows import dict_row

from processor.check import Finding, judge, listed, tell
from processor.connection import hidden_relations
from processor.queries import queries

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
        "rejection": ("SELECT", "INSERT", "UPDATE"),
        "removal": ("SELECT",),
        "meter": ("SELECT",),
        "total": ("SELECT", "INSERT", "UPDATE"),
        "meter_miss": ("SELECT", "INSERT", "UPDATE"),
        "voided": ("SELECT", "INSERT"),
        "usage_rebuild": ("SELECT",),
        "usage_removal": ("SELECT",),
        "reopened_window": ("SELECT",),
        "usage_line": ("SELECT",),
        "usage": ("SELECT",),
        "attempt": ("SELECT", "INSERT", "UPDATE", "DELETE"),
        "unsettled": ("SELECT", "INSERT", "UPDATE", "DELETE"),
        "run_message": ("SELECT", "INSERT", "DELETE"),
        "rejection_rule": ("SELECT",),
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
        "rejection_rule": ("SELECT",),
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
        "total": ("SELECT", "INSERT", "UPDATE"),
        "meter_miss": ("SELECT",),
        "voided": ("SELECT",),
        "usage_rebuild": ("SELECT", "INSERT", "UPDATE"),
        "usage_removal": ("SELECT",),
        "reopened_window": ("SELECT", "INSERT", "DELETE"),
        "usage_batch": ("SELECT", "INSERT", "UPDATE"),
        "usage_line": ("SELECT", "INSERT", "UPDATE"),
        "usage_place": ("SELECT", "INSERT", "UPDATE"),
        "usage": ("SELECT",),
    },
    "processor_retention": {
        "migration": ("SELECT",),
        "tenant": ("SELECT",),
        "message": ("SELECT", "DELETE"),
        "duplicate": ("SELECT", "DELETE"),
        "rejection": ("SELECT", "DELETE"),
        "removal": ("SELECT", "INSERT", "UPDATE"),
        "rejection_rule": ("SELECT", "UPDATE"),
        "meter": ("SELECT",),
        "voided": ("SELECT",),
        "usage_rebuild": ("SELECT",),
        "usage_removal": ("SELECT", "INSERT", "UPDATE"),
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
"""What each group role is there to do, by table or view: no less, and no more. It is written here alone."""

RELATIONS = tuple(sorted({relation for rights in RIGHTS.values() for relation in rights}))

TENANT_READER = "processor_tenant_reader"
PUBLIC = "public"

_PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
_PRIVILEGES_SINCE = {170_000: "MAINTAIN"}
"""By `server_version_num`; an older server would call the word an error."""

Connection = psycopg.Connection[Any]
Held = Mapping[str, Mapping[str, set[str]]]
"""Role → relation → privileges; CREATE on the schema and EXECUTE on functions stand among the relations."""


_FUNCTIONS_TO_SAVE = (
    ("registry_version_held(boolean,boolean)", "EXECUTE"),
    ("register_tenants(text,text[],bigint)", "EXECUTE"),
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
        for table in ("total", "meter_miss")
        for privilege in ("SELECT", "INSERT", "UPDATE")
    ),
    *(
        (table, privilege)
        for table in ("attempt", "unsettled")
        for privilege in ("SELECT", "INSERT", "UPDATE", "DELETE")
    ),
    *(("run_message", privilege) for privilege in ("SELECT", "INSERT", "DELETE")),
    *_FUNCTIONS_TO_SAVE,
)
"""The rights without which nothing can be saved: relation (or function) and privilege."""


def wanted_by(role: str) -> list[tuple[str, str]]:
    """Give the rights of a role: relation (or function) and privilege."""
    functions = _FUNCTIONS_TO_SAVE if role == "processor_writer" else ()
    return [
        *((relation, privilege) for relation, given in RIGHTS[role].items() for privilege in given),
        *functions,
    ]


def missing_rights(connection: psycopg.Connection[Any], wanted: Sequence[tuple[str, str]]) -> list[str]:
    """Name those of the wanted rights that this role lacks, as words of a GRANT."""
    asked = {
        "relations": [relation for relation, _ in wanted],
        "privileges": [privilege for _, privilege in wanted],
    }
    rows = connection.execute(queries("check")["missing_rights"], asked).fetchall()
    return [f"{privilege} on {relation}" for relation, privilege in rows]


def look_at_roles(connection: Connection, login: str, *, superuser: bool) -> Iterator[Finding]:
    """Say of our group roles, of PUBLIC, of tenants' readers and of the login itself what each can do."""
    readers = _rows(connection, "tenant_readers")
    names = [reader["role"] for reader in readers]
    held = _held(connection, [*RIGHTS, PUBLIC, login, *names])
    present = {row["role"] for row in _rows(connection, "roles_present", roles=[*RIGHTS])}
    for role in RIGHTS:
        yield _group_role(role, held) if role in present else _absent(role)
    yield _public(held)
    yield tell("login", f"{login}: everything, as a superuser" if superuser else _words(held.get(login, {})))
    yield _sight(connection)
    yield _tenant_readers(readers, held)
    yield _walls(connection, present)


def _rows(connection: Connection, name: str, **parameters: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - as queries differ
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(queries("check")[name], parameters, prepare=False).fetchall()


def _held(connection: Connection, roles: Sequence[str]) -> Held:
    newer = [word for since, word in _PRIVILEGES_SINCE.items() if connection.info.server_version >= since]
    held: dict[str, dict[str, set[str]]] = {}
    for row in _rows(
        connection, "role_rights", roles=[*roles], relations=[*RELATIONS], privileges=[*_PRIVILEGES, *newer]
    ):
        held.setdefault(row["role"], {}).setdefault(row["relation"], set()).add(row["privilege"])
    return held


def _excess(role: str, held: Held, expected: Mapping[str, tuple[str, ...]]) -> dict[str, set[str]]:
    """Find what a role can do beyond what is expected; what PUBLIC can is said once, of PUBLIC."""
    everybody = held.get(PUBLIC, {})
    found = {
        relation: privileges - set(expected.get(relation, ())) - everybody.get(relation, set())
        for relation, privileges in held.get(role, {}).items()
    }
    return {relation: privileges for relation, privileges in found.items() if privileges}


def _group_role(role: str, held: Held) -> Finding:
    excess = _excess(role, held, RIGHTS[role])
    found = _words(held.get(role, {}))
    return judge(
        f"role {role}",
        f"{found}; more than it should: {_words(excess)}" if excess else found,
        fine=not excess,
        advice=f"as the owner, REVOKE from {role} what it has too much (or the role that it is a member of)",
    )


def _absent(role: str) -> Finding:
    return tell(
        f"role {role}",
        "there is none",
        note=True,
        advice="none needed while nobody is to log in by it; sql/README.md says how to make it",
    )


def _public(held: Held) -> Finding:
    everybody = held.get(PUBLIC, {})
    return judge(
        PUBLIC,
        f"every login: {_words(everybody)}" if everybody else "nothing that every login could do",
        fine=not everybody,
        advice="as the owner, REVOKE it FROM PUBLIC: whoever may connect has it, tenants' readers too",
    )


def _sight(connection: Connection) -> Finding:
    hidden = hidden_relations(connection)
    return judge(
        "row-level security",
        f"hides rows from this role, of {', '.join(hidden)}" if hidden else "hides nothing from this role",
        fine=not hidden,
        advice="no processor starts so: REVOKE processor_tenant_reader from it, or, as the owner, "
        "SELECT put_up_tenant_walls()",
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
            # What those bring along would only say the same again.
            has = [_words(excess)]
        if has:
            problems.append(f"{reader['role']} has {', '.join(has)}")
    return judge(
        "tenant readers",
        f"with more than they should: {listed(problems)}"
        if problems
        else listed([reader["role"] for reader in readers]) or "none",
        fine=not problems,
        advice="take it from them: a login that reads for a tenant is a member of processor_tenant_reader, "
        "and of nothing else of ours or of the server's",
    )


def _walls(connection: Connection, present: set[str]) -> Finding:
    down = [row["relation"] for row in _rows(connection, "walls_down")] if TENANT_READER in present else []
    return judge(
        "tenant walls",
        f"down on {listed(down)}" if down else "up",
        fine=not down,
        advice="as the owner: SELECT put_up_tenant_walls(); a view that tenants' readers may read needs "
        "WITH (security_invoker), or they see through it what its owner sees",
    )


def _words(rights: Mapping[str, set[str]]) -> str:
    """Name relations together that have the same privileges."""
    together: dict[tuple[str, ...], list[str]] = {}
    order = {word: place for place, word in enumerate(_PRIVILEGES)}
    for relation in sorted(rights):
        words = tuple(sorted(rights[relation], key=lambda word: (order.get(word, len(order)), word)))
        together.setdefault(words, []).append(relation)
    parts = [f"{', '.join(words)} on {', '.join(relations)}" for words, relations in together.items()]
    return "; ".join(parts) or "nothing"
