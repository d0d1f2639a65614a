"""A tenant that is let in with psql sees its own rows, and nobody else sees less than before."""

import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from processor import reader, registry
from processor.audit import audit
from processor.bindings import Bindings
from processor.connection import connect, hidden_relations
from processor.devstack.binaries import find_binaries, server_account
from processor.devstack.postgres import EmbeddedPostgres
from processor.errors import StoreFault
from processor.migrations import migrate
from processor.settings import Settings
from processor.sources.quarantine import Selection
from processor.wiring.commands import apply_retention, plan_retention, replay, run_audit
from processor.wiring.service import Stops, run
from tests.builders import QUEUE, a_delivery, an_event
from tests.fix_database import LogIn, a_bound_saver, books, count, login_of

Db = psycopg.Connection[Any]

OWNERS = {
    "message": "tenant_id",
    "duplicate": "tenant_id",
    "rejection": "bound_tenant_id",
    "removal": "tenant_id",
    "tenant": "tenant_id",
    "event_schema": "tenant_id",
    "tenant_reader": "tenant_id",
}
"""Each table with a wall, and the column that says whose a row is."""


@pytest.fixture
def two_tenants(database_url: str, db: Db) -> None:
    """Rows of acme and of globex in every table, and rejections that claim what isn't so."""
    for tenant in ("acme", "globex"):
        registry.publish_schema(db, f"{tenant}.secret", {}, tenant)
        bindings = Bindings(QUEUE, frozenset({tenant}))
        with closing(a_bound_saver(database_url, bindings)) as saver:
            event = an_event(id="o-1", tenant_id=tenant, payload={"total": 1, "note": f"of {tenant}"})
            saver.save(a_delivery(**event), a_delivery(**event))
            # Says that it is from the other one; and says nothing at all.
            saver.save(a_delivery(tenant_id="globex" if tenant == "acme" else "acme"))
            saver.save(a_delivery(b"nonsense"))
        rows = [(tenant, "message"), (tenant, "duplicate"), (tenant, "rejection_discarded")]
        for row in rows:
            db.execute("INSERT INTO removal VALUES (%s, %s, %s, 7, now())", [*row, date(2026, 1, 1)])
    with closing(a_bound_saver(database_url, Bindings())) as saver:
        # Of a stranger, who claims to be acme.
        saver.save(a_delivery(b'{"tenant_id": "acme", "event_type": "x", "payload": ""}'))
        saver.save(a_delivery(tenant_id="acme", event_type="unheard-of"))


def _map(db: Db, url: str, *tenants: str) -> None:
    for tenant in tenants:
        db.execute("INSERT INTO tenant_reader VALUES (%s, %s)", [login_of(url), tenant])


@pytest.fixture
def acme_url(two_tenants: None, log_in: LogIn, db: Db) -> str:
    """The URL of a login that reads for acme; another one reads for globex."""
    acme = log_in("processor_tenant_reader", name="acme_reader")
    _map(db, acme, "acme")
    _map(db, log_in("processor_tenant_reader", name="globex_reader"), "globex")
    return acme


@pytest.fixture
def acme(acme_url: str) -> Iterator[Db]:
    with psycopg.connect(acme_url, autocommit=True) as connection:
        yield connection


def _owners(db: Db, table: str) -> set[Any]:
    """Whose rows are seen."""
    return {owner for (owner,) in db.execute(f"SELECT {OWNERS[table]} FROM {table}")}


def _drop_wall(db: Db, table: str) -> None:
    db.execute(f"DROP POLICY {table}_of_tenant ON {table}")


# ── what a tenant sees ────────────────────────────────────────────────────────────────────────────────


def test_a_tenant_sees_its_own_rows_and_shared_ones(acme: Db, db: Db) -> None:
    for table in OWNERS:
        assert {"acme", "globex"} <= _owners(db, table), table

        assert _owners(acme, table) - {None} == {"acme"}, table


def test_it_is_the_policy_of_a_table_that_hides_others(acme: Db, db: Db) -> None:
    # Last the table that the policies of all others ask.
    for table in OWNERS:
        _drop_wall(db, table)

        assert {"acme", "globex"} <= _owners(acme, table), table


def test_every_table_that_a_tenant_may_read_has_a_wall(db: Db) -> None:
    readable = """
        SELECT relname FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'm', 'p')
          AND has_any_column_privilege('processor_tenant_reader', pg_class.oid, 'SELECT')
    """
    walled = "SELECT relname FROM pg_class JOIN pg_policy ON polrelid = pg_class.oid WHERE NOT polpermissive"

    tables = {name for (name,) in db.execute(readable)}

    assert tables == {*OWNERS, "event_type"}
    assert tables == {name for (name,) in db.execute(walled + " AND relrowsecurity")}


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

    _drop_wall(db, "event_type")

    assert ("globex.secret",) in acme.execute(names).fetchall()


def test_who_is_mapped_to_nobody_sees_nothing(two_tenants: None, log_in: LogIn) -> None:
    with psycopg.connect(log_in("processor_tenant_reader"), autocommit=True) as nobody:
        for table in ("message", "duplicate", "rejection", "removal", "tenant", "tenant_reader"):
            assert count(nobody, table) == 0, table
        assert _owners(nobody, "event_schema") == {None}


def test_a_mapping_holds_at_once_and_until_it_is_taken_away(acme: Db, acme_url: str, db: Db) -> None:
    _map(db, acme_url, "globex")
    assert _owners(acme, "message") == {"acme", "globex"}

    db.execute("DELETE FROM tenant_reader WHERE role_name = %s", [login_of(acme_url)])
    assert _owners(acme, "message") == set()


def test_a_group_may_be_mapped_and_its_members_inherit_it(two_tenants: None, log_in: LogIn, db: Db) -> None:
    group = log_in("processor_tenant_reader", name="acme_people")
    _map(db, group, "acme")
    member, stranger = log_in(login_of(group), name="alice"), log_in("processor_tenant_reader", name="bob")

    for url, seen in ((member, {"acme"}), (stranger, set())):
        with psycopg.connect(url, autocommit=True) as connection:
            assert _owners(connection, "message") == seen


def test_it_is_the_current_role_whose_rows_are_seen(acme_url: str, db: Db) -> None:
    """So a pooler that sets a role for each request shows that role's rows, and an administrator can look."""
    db.execute(f"SET ROLE {login_of(acme_url)}")

    assert _owners(db, "message") == {"acme"}


def test_a_mapping_of_a_role_that_is_gone_troubles_nobody(acme: Db, db: Db) -> None:
    db.execute("INSERT INTO tenant_reader VALUES ('long gone; \"', 'globex')")

    assert _owners(acme, "message") == {"acme"}


def test_a_group_role_of_ours_can_not_be_mapped(db: Db) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="tenant_reader_role_own"):
        db.execute("INSERT INTO tenant_reader VALUES ('processor_tenant_reader', 'acme')")


def test_a_tenant_traces_and_lists_with_our_commands_questions(acme: Db) -> None:
    places = [row["place"] for row in reader.trace(acme, "o-1", None)]

    assert places == ["message", "duplicate"]
    assert {row["tenant_id"] for row in reader.trace(acme, "o-1", None)} == {"acme"}
    assert len(reader.rejections(acme, Selection().parameters(), status=None, limit=9)) == 2


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


def test_only_the_owner_puts_up_walls(db: Db) -> None:
    """Who is not the owner of the tables would get nowhere with it anyway."""
    question = "SELECT has_function_privilege('public', 'put_up_tenant_walls()', 'EXECUTE')"

    assert db.execute(question).fetchone() == (False,)


def test_the_other_roles_may_not_say_who_reads_for_whom_either(two_tenants: None, log_in: LogIn) -> None:
    for group in ("processor_writer", "processor_reader", "processor_retention"):
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
    heard: list[str] = []
    acme.add_notice_handler(lambda notice: heard.append(notice.message_primary or ""))
    acme.execute("""
        CREATE FUNCTION pg_temp.overhear(jsonb) RETURNS boolean LANGUAGE plpgsql COST 0.0000001
        AS $$ BEGIN RAISE NOTICE '%', $1; RETURN true; END $$
    """)

    acme.execute("SELECT * FROM message WHERE pg_temp.overhear(payload)")
    assert len(heard) == 1
    assert "of acme" in heard[0]

    _drop_wall(db, "message")
    acme.execute("SELECT * FROM message WHERE pg_temp.overhear(payload)")
    assert any("of globex" in words for words in heard)


def test_an_error_does_not_tell_of_others_rows(acme: Db, db: Db) -> None:
    question = (
        "SELECT count(*) FROM message WHERE 1 / (CASE WHEN payload ->> 'note' = 'of globex' THEN 0 END) = 1"
    )

    assert acme.execute(question).fetchone() == (0,)

    _drop_wall(db, "message")
    with pytest.raises(psycopg.errors.DivisionByZero):
        acme.execute(question)


def test_a_table_of_ones_own_named_as_ours_opens_nothing(acme: Db) -> None:
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
            assert _owners(acme, table) - {None} == {"acme"}, table


# ── nobody else sees less ─────────────────────────────────────────────────────────────────────────────

BOOKS = {"message": 2, "duplicate": 2, "rejection": 6}


def test_the_other_roles_see_all_rows(two_tenants: None, log_in: LogIn, db: Db) -> None:
    assert books(db) == BOOKS

    for group in ("processor_writer", "processor_reader", "processor_retention"):
        with connect(log_in(group)) as connection:
            assert books(connection) == BOOKS, group
            assert hidden_relations(connection) == [], group


def test_a_login_with_grants_of_its_own_sees_all_rows_and_saves(
    two_tenants: None, log_in: LogIn, db: Db
) -> None:
    """As a deployment has it that never used our group roles."""
    url = log_in(name="old_hand")
    db.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {login_of(url)}")
    db.execute(f"GRANT INSERT ON message, duplicate, rejection TO {login_of(url)}")
    db.execute(f"GRANT UPDATE ON rejection TO {login_of(url)}")
    event = an_event(id="o-2")

    with closing(a_bound_saver(url, Bindings())) as saver:
        outcomes = saver.outcomes(a_delivery(**event), a_delivery(**event))
        assert books(db) == BOOKS | {"message": 3, "duplicate": 3}

    assert outcomes == ["stored", "duplicate"]


# ── a saver from whom rows are hidden does not start, and does not go on ──────────────────────────────


def test_a_saver_from_whom_rows_are_hidden_does_not_start(log_in: LogIn) -> None:
    url = log_in("processor_writer", "processor_tenant_reader", name="both")

    with pytest.raises(StoreFault, match=r"hides rows of .*message.* processor_tenant_reader"):
        a_bound_saver(url, Bindings())


def test_run_ends_before_it_receives_anything_where_rows_are_hidden(log_in: LogIn) -> None:
    settings = Settings.load(
        database_url=log_in("processor_writer", "processor_tenant_reader", name="runs"),
        sqs_queue_url="http://127.0.0.1:1/000000000000/events",
        aws_region="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        keep_to_one_core="off",
        http_port=0,
    )

    with pytest.raises(StoreFault, match="take it out of processor_tenant_reader"):
        run(settings, Stops(threading.Event(), threading.Event()))


def test_a_saver_does_not_start_where_no_policy_lets_it_see(log_in: LogIn, db: Db) -> None:
    url = log_in("processor_writer")
    db.execute("DROP POLICY duplicate_open ON duplicate")

    with pytest.raises(StoreFault, match=r"hides rows of duplicate .*put_up_tenant_walls"):
        a_bound_saver(url, Bindings())

    db.execute("SELECT put_up_tenant_walls()")
    a_bound_saver(url, Bindings()).close()


def test_a_grant_while_a_processor_runs_ends_it_before_it_stores_twice(log_in: LogIn, db: Db) -> None:
    url = log_in("processor_writer", name="running")
    with closing(a_bound_saver(url, Bindings())) as saver:
        before = a_delivery(tenant_id="newcomer")
        assert saver.outcomes(before) == ["unknown_tenant"]
        registry.add_tenant(db, "newcomer")
        # For any other tenant the wall itself would refuse the row.
        _map(db, url, "newcomer")
        db.execute(f"GRANT processor_tenant_reader TO {login_of(url)}")

        with pytest.raises(StoreFault, match="42501"):
            saver.save(before)

    assert books(db) == {"message": 0, "duplicate": 0, "rejection": 1}


def test_commands_that_count_or_remove_do_not_work_on_a_part(log_in: LogIn, db: Db) -> None:
    url = log_in("processor_writer", "processor_retention", "processor_tenant_reader", name="all_three")
    settings = Settings.load(database_url=url, message_retention_days=40, sqs_queue_url=None)
    deeds = (
        lambda: run_audit(settings, []),
        lambda: plan_retention(settings),
        lambda: apply_retention(
            settings, step_size=10, pause_s=0, stop=threading.Event(), on_step=lambda _step: None
        ),
        lambda: replay(settings, Selection(), dry_run=True, forced=False),
    )

    for deed in deeds:
        with pytest.raises(StoreFault, match="row-level security hides rows"):
            deed()


# ── where the role could not be made ──────────────────────────────────────────────────────────────────


def test_without_the_role_nothing_is_walled_until_it_is_there(tmp_path: Path) -> None:
    """A server of its own, since roles belong to the whole server."""
    with EmbeddedPostgres(tmp_path / "server", fsync=False) as server:
        with psycopg.connect(server.url(), autocommit=True) as admin:
            admin.execute("CREATE ROLE hosted LOGIN")
            admin.execute("CREATE DATABASE hosted OWNER hosted")
        heard: list[str] = []
        with psycopg.connect(server.url("hosted", "hosted"), autocommit=True) as owner:
            migrate(owner, heard.append)

            assert any("put_up_tenant_walls()" in words for words in heard)
            assert owner.execute("SELECT put_up_tenant_walls()").fetchone() == (False,)
            assert owner.execute("SELECT count(*) FROM pg_policy").fetchone() == (0,)

            with psycopg.connect(server.url(), autocommit=True) as admin:
                admin.execute("CREATE ROLE processor_tenant_reader NOLOGIN")
                admin.execute("CREATE ROLE acme_reader LOGIN IN ROLE processor_tenant_reader")
            assert owner.execute("SELECT put_up_tenant_walls()").fetchone() == (True,)
            for tenant in ("acme", "globex"):
                registry.add_tenant(owner, tenant)
            owner.execute("INSERT INTO tenant_reader VALUES ('acme_reader', 'acme')")
            assert audit(owner, [], None).holds

        with psycopg.connect(server.url("hosted", "acme_reader"), autocommit=True) as acme:
            assert _owners(acme, "tenant") == {"acme"}


# ── backups ───────────────────────────────────────────────────────────────────────────────────────────


def _dump(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    program = find_binaries(server_account()) / "pg_dump"
    return subprocess.run([program, *options, url], capture_output=True, text=True, check=False, timeout=60)


def test_a_dump_is_whole_or_it_fails(two_tenants: None, log_in: LogIn, acme_url: str) -> None:
    whole = _dump(log_in("pg_read_all_data", name="backup"), "--enable-row-security", "--data-only")
    by_another = _dump(log_in("pg_read_all_data", name="careless"), "--data-only")
    by_tenant = _dump(acme_url, "--data-only")

    assert whole.returncode == 0, whole.stderr
    assert "of globex" in whole.stdout
    for failed in (by_another, by_tenant):
        assert failed.returncode == 1
        assert "of globex" not in failed.stdout
    assert "row-level security" in by_another.stderr


def test_a_restored_dump_has_its_walls(
    acme_url: str, database_url: str, server_url: str, tmp_path: Path
) -> None:
    dumped = _dump(database_url)
    assert dumped.returncode == 0, dumped.stderr
    # A setting that servers older than our pg_dump don't know.
    text = re.sub(r"(?m)^SET transaction_timeout = 0;$", "", dumped.stdout)
    (tmp_path / "dump.sql").write_text(text)
    psql = find_binaries(server_account()) / "psql"
    name = urlsplit(database_url).path.strip("/") + "_restored"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        try:
            restored = urlsplit(acme_url)._replace(path=f"/{name}").geturl()
            owners = urlsplit(database_url)._replace(path=f"/{name}").geturl()
            subprocess.run(
                [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(tmp_path / "dump.sql"), owners],
                check=True,
                capture_output=True,
                timeout=60,
            )
            with psycopg.connect(restored, autocommit=True) as acme:
                for table in OWNERS:
                    assert _owners(acme, table) - {None} == {"acme"}, table
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
