"""A tenant that is let in with psql sees its own rows, and nobody else sees less than before."""

from contextlib import closing
from typing import Any

import psycopg
import pytest

from processor.check.roles import RIGHTS
from processor.database.connection import connect, hidden_relations
from processor.operations import reader
from processor.sources.quarantine import RejectionSelection
from processor.validation.tenant_bindings import Bindings
from tests.builders import a_delivery, an_event
from tests.fixtures.database import LogIn, a_bound_saver, books, count, login_of
from tests.fixtures.tenants import OWNERS, drop_wall, let_make_temporary, map_tenants, owners

Db = psycopg.Connection[Any]

# ── what a tenant sees ────────────────────────────────────────────────────────────────────────────────


def test_a_tenant_sees_its_own_rows_and_shared_ones(acme: Db, db: Db) -> None:
    for table in OWNERS:
        assert {"acme", "globex"} <= owners(db, table), table

        assert owners(acme, table) - {None} == {"acme"}, table


def test_it_is_the_policy_of_a_table_that_hides_others(acme: Db, db: Db) -> None:
    # Last the table that the policies of all others ask.
    for table in OWNERS:
        drop_wall(db, table)

        assert {"acme", "globex"} <= owners(acme, table), table


def test_every_table_that_a_tenant_may_read_has_a_wall(db: Db) -> None:
    readable = """
        SELECT relname FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'm', 'p')
          AND has_any_column_privilege('processor_tenant_reader', pg_class.oid, 'SELECT')
    """
    walled = "SELECT relname FROM pg_class JOIN pg_policy ON polrelid = pg_class.oid WHERE NOT polpermissive"

    tables = {name for (name,) in db.execute(readable)}

    assert tables == {*OWNERS, "event_type", "usage"}
    # A view asks as whoever reads it, and so has the walls of its tables.
    assert tables - {"usage"} == {name for (name,) in db.execute(walled + " AND relrowsecurity")}


def test_a_rejection_is_shown_by_what_is_proven_and_not_by_what_it_claims(acme: Db) -> None:
    rows = acme.execute("SELECT tenant_id, bound_tenant_id, reason FROM rejection ORDER BY reason").fetchall()

    assert rows == [("globex", "acme", "envelope_invalid"), (None, "acme", "not_json")]


def test_removed_rejections_are_not_shown_since_they_were_counted_by_claim(acme: Db) -> None:
    assert acme.execute("SELECT outcome FROM removal ORDER BY outcome").fetchall() == [
        ("duplicate",),
        ("message",),
    ]


def test_event_types_that_only_others_have_are_not_shown(acme: Db, db: Db) -> None:
    names = "SELECT event_type FROM event_type ORDER BY event_type"
    assert acme.execute(names).fetchall() == [("acme.secret",), ("order.created",)]

    drop_wall(db, "event_type")

    assert ("globex.secret",) in acme.execute(names).fetchall()


SHARED = {"event_schema", "meter"}
"""What of these is nobody's own is shown to all."""


def test_who_is_mapped_to_nobody_sees_nothing(two_tenants: None, log_in: LogIn) -> None:
    with psycopg.connect(log_in("processor_tenant_reader"), autocommit=True) as nobody:
        for table in OWNERS.keys() - SHARED:
            assert count(nobody, table) == 0, table
        for table in SHARED:
            assert owners(nobody, table) == {None}


def test_a_mapping_holds_at_once_and_until_it_is_taken_away(acme: Db, acme_url: str, db: Db) -> None:
    map_tenants(db, acme_url, "globex")
    assert owners(acme, "message") == {"acme", "globex"}

    db.execute("DELETE FROM tenant_reader WHERE role_name = %s", [login_of(acme_url)])
    assert owners(acme, "message") == set()


def test_a_group_may_be_mapped_and_its_members_inherit_it(two_tenants: None, log_in: LogIn, db: Db) -> None:
    group = log_in("processor_tenant_reader", name="acme_people")
    map_tenants(db, group, "acme")
    member, stranger = log_in(login_of(group), name="alice"), log_in("processor_tenant_reader", name="bob")

    for url, seen in ((member, {"acme"}), (stranger, set())):
        with psycopg.connect(url, autocommit=True) as connection:
            assert owners(connection, "message") == seen


def test_it_is_the_current_role_whose_rows_are_seen(acme_url: str, db: Db) -> None:
    """So a pooler that sets a role for each request shows that role's rows, and an administrator can look."""
    db.execute(f"SET ROLE {login_of(acme_url)}")

    assert owners(db, "message") == {"acme"}


def test_a_mapping_of_a_role_that_is_gone_troubles_nobody(acme: Db, db: Db) -> None:
    db.execute("INSERT INTO tenant_reader VALUES ('long gone; \"', 'globex')")

    assert owners(acme, "message") == {"acme"}


@pytest.mark.parametrize("role", RIGHTS)
def test_a_group_role_of_ours_can_not_be_mapped(db: Db, role: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="tenant_reader_role_own"):
        db.execute("INSERT INTO tenant_reader VALUES (%s, 'acme')", [role])


# ── what a tenant sees of usage ───────────────────────────────────────────────────────────────────────


def test_a_tenant_sees_its_usage_by_shared_meters_and_its_own(acme: Db, db: Db) -> None:
    usage = "SELECT tenant_id, meter, group_by ->> 'sku', value, revision FROM usage ORDER BY 1, 2"

    assert acme.execute(usage).fetchall() == [
        ("acme", "acme-own", "of acme", 7, 1),
        ("acme", "shared", "of acme", 7, 1),
    ]
    assert acme.execute("SELECT meter FROM meter ORDER BY meter").fetchall() == [("acme-own",), ("shared",)]

    # The view has no wall of its own: take away that of a table behind it.
    drop_wall(db, "total")
    assert ("globex", "shared", "of globex", 7, 0) in acme.execute(usage).fetchall()


def test_a_view_that_asks_as_its_owner_would_show_all_usage(acme: Db, db: Db) -> None:
    owners_of_usage = "SELECT DISTINCT tenant_id FROM usage ORDER BY tenant_id"
    assert acme.execute(owners_of_usage).fetchall() == [("acme",)]

    db.execute("ALTER VIEW usage RESET (security_invoker)")

    assert acme.execute(owners_of_usage).fetchall() == [("acme",), ("globex",)]


def test_what_joins_many_tenants_is_not_shown(acme: Db) -> None:
    for table in ("usage_batch", "usage_rebuild", "reopened_window"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            acme.execute(f"SELECT * FROM {table}")


def test_a_function_in_the_question_is_not_shown_others_usage(acme: Db, db: Db) -> None:
    let_make_temporary(db, acme)
    heard: list[str] = []
    acme.add_notice_handler(lambda notice: heard.append(notice.message_primary or ""))
    acme.execute("""
        CREATE FUNCTION pg_temp.overhear(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001
        AS $$ BEGIN RAISE NOTICE '%', $1; RETURN true; END $$
    """)
    questions = (
        "SELECT FROM usage WHERE pg_temp.overhear(group_by::text)",
        "SELECT FROM total WHERE pg_temp.overhear(group_key)",
        "SELECT FROM voided WHERE pg_temp.overhear(message_id)",
    )

    for question in questions:
        acme.execute(question)
    assert heard
    assert not any("globex" in words for words in heard)

    drop_wall(db, "total")
    acme.execute(questions[1])
    assert any("of globex" in words for words in heard)


def test_walls_that_are_put_up_again_stand_as_before(acme: Db, db: Db) -> None:
    policies = "SELECT polrelid::regclass::text, polname, polpermissive FROM pg_policy ORDER BY 1, 2"
    before = db.execute(policies).fetchall()
    drop_wall(db, "total")

    for _ in range(2):
        assert db.execute("SELECT put_up_tenant_walls()").fetchone() == (True,)

    assert db.execute(policies).fetchall() == before
    assert owners(acme, "total") == {"acme"}


def test_a_tenant_traces_and_lists_with_our_commands_questions(acme: Db) -> None:
    places = [row["place"] for row in reader.trace(acme, "o-1", None)]

    assert places == ["message", "duplicate"]
    assert {row["tenant_id"] for row in reader.trace(acme, "o-1", None)} == {"acme"}
    assert len(reader.rejections(acme, RejectionSelection().parameters(), status=None, limit=9)) == 2


def test_a_tenants_question_finds_its_rows_by_the_index(acme: Db) -> None:
    acme.execute("SET enable_seqscan = off")

    plan = "\n".join(line for (line,) in acme.execute("EXPLAIN (COSTS OFF) SELECT * FROM message"))

    assert "message_pkey" in plan
    assert "Index Cond: (tenant_id = ANY" in plan


# ── what a tenant tries ───────────────────────────────────────────────────────────────────────────────


ATTEMPTS = [
    "INSERT INTO tenant_reader VALUES (current_user, 'globex')",
    "UPDATE tenant_reader SET tenant_id = 'globex'",
    "DELETE FROM tenant_reader",
    "TRUNCATE tenant_reader",
    "INSERT INTO message SELECT * FROM message",
    "UPDATE total SET value = 0",
    "DELETE FROM usage_line",
    "INSERT INTO voided SELECT * FROM voided",
    "UPDATE meter SET tenant_id = 'acme'",
    "UPDATE rejection SET bound_tenant_id = 'acme'",
    "DELETE FROM duplicate",
    "INSERT INTO tenant (tenant_id, name) VALUES ('x', 'x')",
    "ALTER TABLE message DISABLE ROW LEVEL SECURITY",
    "DROP POLICY message_of_tenant ON message",
    "SELECT put_up_tenant_walls()",
    "SELECT version FROM registry",
    "SELECT * FROM migration",
    "SET ROLE processor_reader",
    "SET SESSION AUTHORIZATION postgres",
    "SET row_security = off; SELECT * FROM message",
    "CREATE TABLE mine ()",
    "COPY message TO PROGRAM 'cat'",
]


def test_a_tenant_changes_nothing_and_gets_nowhere(acme: Db) -> None:
    for statement in ATTEMPTS:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            acme.execute(statement.encode())


@pytest.mark.parametrize("role", RIGHTS)
def test_no_member_of_a_group_takes_walls_down_by_dropping_what_the_group_has(
    acme: Db, db: Db, log_in: LogIn, role: str
) -> None:
    """PostgreSQL asks who drops for no right on the table from whose policies it takes the group."""
    walls = "SELECT polname, polroles FROM pg_policy ORDER BY polrelid, polname"
    before = db.execute(walls).fetchall()

    with closing(connect(log_in(role))) as member, pytest.raises(psycopg.errors.InsufficientPrivilege):
        member.execute(f"DROP OWNED BY {role}".encode())

    assert db.execute(walls).fetchall() == before
    assert owners(acme, "message") == {"acme"}


def test_only_the_owner_puts_up_walls(db: Db) -> None:
    """Who is not the owner of the tables would get nowhere with it anyway."""
    question = "SELECT has_function_privilege('public', 'put_up_tenant_walls()', 'EXECUTE')"

    assert db.execute(question).fetchone() == (False,)


def test_the_other_roles_may_not_say_who_reads_for_whom_either(two_tenants: None, log_in: LogIn) -> None:
    for group in RIGHTS.keys() - {"processor_tenant_reader"}:
        with psycopg.connect(log_in(group), autocommit=True) as connection:
            for statement in (
                "INSERT INTO tenant_reader VALUES (current_user, 'globex')",
                "DELETE FROM tenant_reader",
                "UPDATE tenant_reader SET tenant_id = 'acme'",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)


def test_a_function_in_the_question_is_not_shown_others_rows(acme: Db, db: Db) -> None:
    """One that claims to cost nothing, so that the planner would like to ask it first."""
    let_make_temporary(db, acme)
    heard: list[str] = []
    acme.add_notice_handler(lambda notice: heard.append(notice.message_primary or ""))
    acme.execute("""
        CREATE FUNCTION pg_temp.overhear(jsonb) RETURNS boolean LANGUAGE plpgsql COST 0.0000001
        AS $$ BEGIN RAISE NOTICE '%', $1; RETURN true; END $$
    """)

    acme.execute("SELECT * FROM message WHERE pg_temp.overhear(payload)")
    assert len(heard) == 1
    assert "of acme" in heard[0]

    drop_wall(db, "message")
    acme.execute("SELECT * FROM message WHERE pg_temp.overhear(payload)")
    assert any("of globex" in words for words in heard)


def test_an_error_does_not_tell_of_others_rows(acme: Db, db: Db) -> None:
    question = (
        "SELECT count(*) FROM message WHERE 1 / (CASE WHEN payload ->> 'note' = 'of globex' THEN 0 END) = 1"
    )

    assert acme.execute(question).fetchone() == (0,)

    drop_wall(db, "message")
    with pytest.raises(psycopg.errors.DivisionByZero):
        acme.execute(question)


def test_a_table_of_ones_own_named_as_ours_opens_nothing(acme: Db, db: Db) -> None:
    let_make_temporary(db, acme)
    acme.execute("CREATE TEMPORARY TABLE tenant_reader (role_name text, tenant_id text)")
    acme.execute("INSERT INTO pg_temp.tenant_reader VALUES (current_user, 'globex')")
    acme.execute("SET search_path = pg_temp, public")

    assert {owner for (owner,) in acme.execute("SELECT tenant_id FROM message")} == {"acme"}


def test_the_planners_statistics_are_not_shown(acme: Db, db: Db) -> None:
    db.execute("ANALYZE")
    question = "SELECT attname FROM pg_stats WHERE tablename = ANY (%s)"
    assert db.execute(question, [[*OWNERS]]).fetchall()

    assert acme.execute(question, [[*OWNERS]]).fetchall() == []


def test_whatever_else_a_tenant_is_granted_it_sees_its_own_rows_alone(
    acme: Db, acme_url: str, db: Db
) -> None:
    for more in ("processor_reader", "pg_read_all_data", "processor_writer"):
        db.execute(f"GRANT {more} TO {login_of(acme_url)}")

        for table in OWNERS:
            assert owners(acme, table) - {None} == {"acme"}, table


# ── nobody else sees less ─────────────────────────────────────────────────────────────────────────────

BOOKS = {"message": 2, "duplicate": 2, "rejection": 6}


def test_the_other_roles_see_all_rows(two_tenants: None, log_in: LogIn, db: Db) -> None:
    assert books(db) == BOOKS

    for group in ("processor_writer", "processor_reader", "processor_retention", "processor_biller"):
        with connect(log_in(group)) as connection:
            assert hidden_relations(connection) == [], group
            assert count(connection, "message") == BOOKS["message"], group
            assert group == "processor_biller" or books(connection) == BOOKS, group


def test_a_login_with_grants_of_its_own_sees_all_rows_and_saves(
    two_tenants: None, log_in: LogIn, db: Db
) -> None:
    """As a deployment has it that never used our group roles."""
    url = log_in(name="old_hand")
    db.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {login_of(url)}")
    db.execute(f"GRANT INSERT ON message, duplicate, rejection, voided, total, meter_miss TO {login_of(url)}")
    db.execute(f"GRANT UPDATE ON rejection, total, meter_miss TO {login_of(url)}")
    db.execute(f"GRANT DELETE ON public_locks.registry_lock TO {login_of(url)}")
    db.execute("SELECT put_up_tenant_walls()")
    event = an_event(id="o-2")

    with closing(a_bound_saver(url, Bindings())) as saver:
        outcomes = saver.outcomes(a_delivery(**event), a_delivery(**event))
        assert books(db) == BOOKS | {"message": 3, "duplicate": 3}

    assert outcomes == ["stored", "duplicate"]
