"""`processor check` on what each role can do: each excess made for real, and named."""

from typing import Any

import psycopg
import pytest

from processor.check import Finding
from processor.check.roles import RELATIONS, RIGHTS, TENANT_READER, look_at_roles
from tests.fixtures.check import look_at_database, problems
from tests.fixtures.database import LogIn, login_of

pytestmark = pytest.mark.usefixtures("nothing_is_set")
Db = psycopg.Connection[Any]

OF_THE_SERVER = {"fsync", "full_page_writes"}


def _after(db: Db, change: str) -> dict[str, Finding]:
    """What is found of roles after a change, which is taken back again."""
    with db.transaction(force_rollback=True):
        db.execute(change.encode())
        return {finding.what: finding for finding in look_at_roles(db, "postgres", superuser=True)}


def _wrong(findings: dict[str, Finding]) -> set[str]:
    """What is wrong, but for the speed that the tests' server gives up."""
    return problems(findings) - OF_THE_SERVER


def test_what_is_listed_is_what_the_migrations_granted(database_url: str, db: Db) -> None:
    """The tables' own lists of grants, against ours."""
    granted = db.execute(
        "SELECT DISTINCT grantee::regrole::text, relname, privilege_type"
        " FROM pg_class CROSS JOIN LATERAL ("
        "  SELECT * FROM aclexplode(relacl) UNION"
        "  SELECT grantor, grantee, format('%%s (%%s)', privilege_type, attname), is_grantable"
        "  FROM pg_attribute CROSS JOIN LATERAL aclexplode(attacl) AS rights"
        "  WHERE attrelid = pg_class.oid) AS granted"
        " WHERE relnamespace::regnamespace::text ~ '^public' AND relkind IN ('r', 'v')"
        " AND grantee::regrole::text = ANY (%s)",
        [[*RIGHTS]],
    ).fetchall()

    expected = {
        (role, table, word) for role in RIGHTS for table, words in RIGHTS[role].items() for word in words
    }
    assert set(granted) == expected
    relations = db.execute(
        "SELECT relname FROM pg_class"
        " WHERE relnamespace::regnamespace::text ~ '^public' AND relkind IN ('r', 'v')"
    ).fetchall()
    assert {name for (name,) in relations} == set(RELATIONS)
    assert _wrong(look_at_database(database_url)) == set()


def test_a_right_to_register_tenants_that_is_not_a_writers_is_named(db: Db) -> None:
    for role, what in (("PUBLIC", "public"), ("processor_reader", "role processor_reader")):
        findings = _after(db, f"GRANT EXECUTE ON FUNCTION register_tenants(text, text[], bigint) TO {role}")

        assert not findings[what].fine
        assert "EXECUTE on register_tenants(text,text[],bigint)" in findings[what].found
    assert _after(db, "SELECT")["role processor_writer"].fine


def test_each_role_and_the_login_are_listed_with_what_they_can_do(log_in: LogIn) -> None:
    url = log_in("processor_writer")

    findings = look_at_database(url)

    words = "SELECT, INSERT on duplicate, message, voided"
    assert words in findings["role processor_writer"].found
    assert findings["login"].found == findings["role processor_writer"].found
    assert "DELETE on books_lock" in findings["role processor_retention"].found
    assert findings[f"role {TENANT_READER}"].found.startswith("SELECT on duplicate, event_schema")
    assert findings["public"].found == "no privileges on our tables"
    assert findings["tenant readers"].found == "none"
    assert findings["tenant walls"].found == "up"


EXCESSES = [
    ("GRANT UPDATE ON message TO processor_writer", "role processor_writer", "UPDATE on message"),
    (
        "GRANT UPDATE (payload) ON message TO processor_writer",
        "role processor_writer",
        "UPDATE (payload) on message",
    ),
    ("GRANT DELETE ON rejection TO processor_writer", "role processor_writer", "DELETE on rejection"),
    ("GRANT INSERT ON tenant_reader TO processor_writer", "role processor_writer", "INSERT on tenant_reader"),
    ("GRANT INSERT ON tenant TO processor_reader", "role processor_reader", "INSERT on tenant"),
    ("GRANT CREATE ON SCHEMA public TO processor_reader", "role processor_reader", "CREATE on schema public"),
    ("GRANT UPDATE ON message TO processor_retention", "role processor_retention", "UPDATE on message"),
    ("GRANT DELETE ON message TO processor_tenant_reader", f"role {TENANT_READER}", "DELETE on message"),
    ("GRANT processor_writer TO processor_reader", "role processor_reader", "INSERT on duplicate, message"),
    ("GRANT UPDATE ON meter TO processor_writer", "role processor_writer", "UPDATE on meter"),
    ("GRANT UPDATE ON usage_line TO processor_writer", "role processor_writer", "UPDATE on usage_line"),
    ("GRANT INSERT ON message TO processor_biller", "role processor_biller", "INSERT on message"),
    ("GRANT DELETE ON total TO processor_biller", "role processor_biller", "DELETE on total"),
    ("GRANT SELECT ON usage_batch TO processor_tenant_reader", f"role {TENANT_READER}", "usage_batch"),
    ("GRANT SELECT ON total TO PUBLIC", "public", "SELECT on total"),
    (
        "GRANT EXECUTE ON FUNCTION meter_begins_or_ends() TO PUBLIC",
        "public",
        "EXECUTE on meter_begins_or_ends()",
    ),
    (
        "GRANT EXECUTE ON FUNCTION registry_changed() TO processor_writer",
        "role processor_writer",
        "EXECUTE on",
    ),
    ("GRANT UPDATE ON message TO PUBLIC", "public", "UPDATE on message"),
    ("GRANT USAGE ON SCHEMA public_locks TO PUBLIC", "public", "USAGE on schema public_locks"),
    (
        "GRANT USAGE ON SCHEMA public_locks TO processor_reader",
        "role processor_reader",
        "USAGE on schema public_locks",
    ),
    ("GRANT DELETE ON public_locks.registry_lock TO PUBLIC", "public", "DELETE on registry_lock"),
    (
        "GRANT DELETE ON public_locks.registry_lock TO processor_biller",
        "role processor_biller",
        "DELETE on registry_lock",
    ),
    (
        "GRANT DELETE ON public_locks.newcomer_lock TO processor_writer",
        "role processor_writer",
        "DELETE on newcomer_lock",
    ),
    ("GRANT DELETE ON message TO processor_retention", "role processor_retention", "DELETE on message"),
    (
        "GRANT UPDATE (value, trouble) ON usage_line TO processor_biller",
        "role processor_biller",
        "excess privileges: UPDATE (value) on usage_line",
    ),
    (
        "GRANT EXECUTE ON FUNCTION remove_messages(tid[], timestamptz, timestamptz) TO processor_writer",
        "role processor_writer",
        "EXECUTE on remove_messages(tid[],timestamptz,timestamptz)",
    ),
    ("GRANT SELECT (payload) ON message TO PUBLIC", "public", "SELECT on message"),
    ("GRANT CREATE ON SCHEMA public TO PUBLIC", "public", "CREATE on schema public"),
    (
        "GRANT EXECUTE ON FUNCTION put_up_tenant_walls() TO PUBLIC",
        "public",
        "EXECUTE on put_up_tenant_walls()",
    ),
]


def test_a_right_too_many_is_named_once(db: Db) -> None:
    for grant, what, words in EXCESSES:
        findings = _after(db, grant)

        # A wall is missing too where a tenant's reader was given a table without one.
        assert problems(findings) - {"tenant walls"} == {what}, grant
        assert words in findings[what].found
        assert "REVOKE" in (findings[what].advice or "")


WAYS_ROUND = {
    "ALTER ROLE {login} BYPASSRLS": "BYPASSRLS",
    "ALTER ROLE {login} SUPERUSER": "a superuser",
    "ALTER ROLE {login} REPLICATION": "REPLICATION",
    "ALTER ROLE {login} CREATEROLE": "CREATEROLE",
    "ALTER TABLE message OWNER TO {login}": "the rights of the tables' owner",
    "GRANT pg_read_all_data TO {login}": "membership in pg_read_all_data",
    "GRANT processor_reader TO {login}": "membership in processor_reader",
    "GRANT processor_writer TO {login}": "membership in processor_writer",
    "GRANT processor_biller TO {login}": "membership in processor_biller",
    "GRANT UPDATE ON rejection TO {login}": "UPDATE on rejection",
}


def test_a_tenants_reader_with_a_way_round_the_walls_is_named(log_in: LogIn, db: Db) -> None:
    login = login_of(log_in(TENANT_READER))
    assert _after(db, "SELECT")["tenant readers"].found == login

    for change, words in WAYS_ROUND.items():
        findings = _after(db, change.format(login=login))

        assert problems(findings) == {"tenant readers"}, change
        assert words in findings["tenant readers"].found


OPEN_TO_EVERYBODY = [
    "GRANT TEMPORARY ON DATABASE {database} TO {role}",
    "GRANT CREATE ON DATABASE {database} TO {role}",
    "GRANT EXECUTE ON FUNCTION lo_put(oid, bigint, bytea) TO {role}",
    "GRANT EXECUTE ON FUNCTION loread(integer, integer) TO {role}",
    "GRANT EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, text, boolean) TO {role}",
    "GRANT EXECUTE ON FUNCTION pg_try_advisory_lock_shared(bigint) TO {role}",
    "GRANT EXECUTE ON FUNCTION pg_notify(text, text) TO {role}",
    "GRANT EXECUTE ON FUNCTION pg_export_snapshot() TO {role}",
    "GRANT EXECUTE ON FUNCTION pg_current_xact_id() TO {role}",
    "GRANT USAGE ON LANGUAGE plpgsql TO {role}",
]


@pytest.mark.parametrize("grant", OPEN_TO_EVERYBODY)
def test_what_could_stop_others_is_named_once_a_tenant_is_let_in(db: Db, log_in: LogIn, grant: str) -> None:
    """Of PUBLIC it is a note while nobody is let in, since not everybody has a superuser to take it away."""
    if db.info.server_version < 170_000:
        grant = grant.replace("text, text, boolean)", "text, text)")
    to_public = grant.format(database=db.info.dbname, role="PUBLIC")
    noted = _after(db, to_public)["every login"]
    login = login_of(log_in(TENANT_READER))

    named = _after(db, to_public)
    to_one = _after(db, grant.format(database=db.info.dbname, role=login))

    assert noted.fine
    assert "put_up_tenant_walls()" in (noted.advice or "")
    assert problems(named) == {"every login"}
    assert named["every login"].found == noted.found
    assert problems(to_one) == {"tenant readers"}
    assert f"{login} has {noted.found}" in to_one["tenant readers"].found


def test_a_tenants_login_without_limits_is_named(db: Db, log_in: LogIn) -> None:
    login = login_of(log_in(TENANT_READER))
    db.execute(f"ALTER ROLE {login} CONNECTION LIMIT -1")
    db.execute(f"ALTER ROLE {login} RESET ALL")
    findings = _after(db, "SELECT")
    assert problems(findings) == {"tenant limits"}
    assert findings["tenant limits"].found == (
        f"no CONNECTION LIMIT: {login}; no temp_file_limit: {login}; no log_min_messages: {login}"
    )

    db.execute(f"ALTER ROLE {login} CONNECTION LIMIT 5")
    assert not _after(db, f"ALTER ROLE {login} SET temp_file_limit = '1GB'")["tenant limits"].fine
    db.execute(f"ALTER ROLE {login} SET log_min_messages = 'panic'")
    for place in (
        f"ROLE {login}",
        f"DATABASE {db.info.dbname}",
        f"ROLE {login} IN DATABASE {db.info.dbname}",
    ):
        assert _after(db, f"ALTER {place} SET temp_file_limit = '1GB'")["tenant limits"].fine, place
    lifted = f"ALTER ROLE {login} SET temp_file_limit = -1"
    of_database = f"ALTER DATABASE {db.info.dbname} SET temp_file_limit = '1GB'"
    assert not _after(db, f"{of_database}; {lifted}")["tenant limits"].fine


def test_other_databases_that_a_tenants_login_gets_into_are_named(db: Db, log_in: LogIn) -> None:
    assert "tenant databases" in _after(db, "SELECT")
    log_in(TENANT_READER)

    assert "postgres" in _after(db, "SELECT")["tenant databases"].found
    closed = "DO $$ DECLARE one name; BEGIN FOR one IN SELECT datname FROM pg_database LOOP"
    closed += " EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', one); END LOOP; END $$"
    assert _after(db, closed)["tenant databases"].found == "this one alone"


def test_ddl_that_nobody_refuses_is_named(db: Db) -> None:
    for change in ("DROP EVENT TRIGGER processor_ddl", "ALTER EVENT TRIGGER processor_ddl DISABLE"):
        assert _after(db, change)["every login"].found == "LOCK on all tables (by DDL)"


HOLES = [
    "ALTER TABLE message DISABLE ROW LEVEL SECURITY",
    "DROP POLICY rejection_of_tenant ON rejection",
    "DROP POLICY total_of_tenant ON total",
    "ALTER VIEW usage RESET (security_invoker)",
    "CREATE VIEW everything AS SELECT * FROM message; GRANT SELECT ON everything TO processor_tenant_reader",
    "CREATE TABLE notes (text text); GRANT SELECT ON notes TO processor_tenant_reader",
]


def test_a_wall_that_is_down_is_a_problem(db: Db) -> None:
    for change in HOLES:
        findings = _after(db, change)

        assert problems(findings) == {"tenant walls"}, change
        assert "put_up_tenant_walls()" in (findings["tenant walls"].advice or "")


def test_a_view_that_asks_as_its_reader_is_behind_the_wall(db: Db) -> None:
    view = "CREATE VIEW theirs WITH (security_invoker = true) AS SELECT * FROM message"

    assert _after(db, f"{view}; GRANT SELECT ON theirs TO processor_tenant_reader")["tenant walls"].fine


def test_a_login_from_whom_rows_are_hidden_is_a_problem(log_in: LogIn) -> None:
    url = log_in("processor_writer", TENANT_READER, name="both")

    findings = look_at_database(url)

    assert _wrong(findings) == {"row-level security", "tenant readers"}
    assert "message" in findings["row-level security"].found


def test_a_superuser_is_listed_as_one(database_url: str) -> None:
    assert "everything" in look_at_database(database_url)["login"].found
