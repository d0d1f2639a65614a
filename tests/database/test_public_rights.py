"""What a login could stop others with, tried as a tenant's reader and as a login that may only connect."""

import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from processor.check.roles import look_at_roles
from processor.database.migrations import migrate
from processor.devstack.servers.binaries import find_binaries, server_account
from processor.devstack.servers.postgres import EmbeddedPostgres
from tests.fixtures.database import LogIn, login_of

Db = psycopg.Connection[Any]

KEPT = (
    r"^(lo|pg_(try_)?advisory)_|^lo(read|write)$|notify|emit|export_snapshot|current_xact_id$|txid_current$"
)
"""By this a function of the server is taken for one that could stop others: wider than the migration's."""

HARMLESS = {"pg_notification_queue_usage"}

ATTACKS = [
    "CREATE TEMPORARY TABLE filler AS SELECT repeat('x', 1000) FROM generate_series(1, 1000)",
    "SELECT 1 INTO TEMPORARY filler",
    "CREATE TEMPORARY SEQUENCE filler",
    "CREATE FUNCTION pg_temp.filler() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE TABLE filler ()",
    "CREATE VIEW filler AS SELECT 1",
    "CREATE SCHEMA filler",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT lo_creat(-1)",
    "SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000))",
    "SELECT pg_logical_emit_message(true, 'x', 'x'::bytea)",
    "SELECT pg_advisory_lock(7309453202311081)",
    "SELECT pg_try_advisory_xact_lock_shared(1, 1)",
    "SELECT pg_notify('x', 'x')",
    "SELECT pg_export_snapshot()",
    "DO $$ BEGIN FOR i IN 1..9 LOOP COMMIT; END LOOP; END $$",
    "DO $$ BEGIN RAISE LOG 'x'; END $$",
    "CREATE FUNCTION filler() RETURNS int LANGUAGE plpgsql AS 'BEGIN END'",
    "SELECT txid_current()",
    "SELECT pg_current_xact_id()",
    "SET log_min_messages = 'log'",
    "ALTER ROLE CURRENT_USER SET log_min_messages = 'log'",
    "SET temp_file_limit = -1",
    "ALTER ROLE CURRENT_USER SET temp_file_limit = -1",
    "ALTER ROLE CURRENT_USER CONNECTION LIMIT -1",
    "SET log_min_duration_statement = 0",
]


@pytest.fixture(params=["processor_tenant_reader", None], ids=["tenant", "stranger"])
def hostile(request: pytest.FixtureRequest, log_in: LogIn) -> Iterator[Db]:
    """A login that reads for a tenant, and one that may connect and nothing else."""
    groups = [request.param] if request.param else []
    with psycopg.connect(log_in(*groups), autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_refused(hostile: Db, attack: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        hostile.execute(attack.encode())


def test_no_function_of_the_kind_is_left_to_every_login(hostile: Db, db: Db) -> None:
    """Each is called, whatever its arguments are; a function that a new release of PostgreSQL adds, too."""
    functions = db.execute(
        "SELECT proname, proargtypes::regtype[]::text[] FROM pg_proc"
        " WHERE pronamespace = 'pg_catalog'::regnamespace AND proname ~ %s AND NOT proname = ANY (%s)",
        [KEPT, [*HARMLESS]],
    ).fetchall()
    assert len(functions) > 40

    for name, types in functions:
        # From a table, since a call with a constant NULL is taken for NULL before any right is asked for.
        arguments = sql.SQL(", ").join(sql.SQL("it.nothing::" + words) for words in types)
        call = sql.SQL("SELECT pg_catalog.{}({}) FROM (SELECT NULL AS nothing OFFSET 0) AS it")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            hostile.execute(call.format(sql.Identifier(name), arguments))


def test_a_limit_of_a_superuser_outlives_what_the_role_resets(log_in: LogIn, db: Db) -> None:
    """The others it takes away: statement_timeout is a courtesy, temp_file_limit a wall."""
    url = log_in("processor_tenant_reader")
    for limit in ("temp_file_limit = '1MB'", "statement_timeout = '30s'"):
        db.execute(f"ALTER ROLE {login_of(url)} SET {limit}".encode())

    with psycopg.connect(url, autocommit=True) as tenant:
        tenant.execute("ALTER ROLE CURRENT_USER RESET ALL")
    with psycopg.connect(url, autocommit=True) as tenant:
        assert tenant.execute("SHOW statement_timeout").fetchone() == ("0",)
        tenant.execute("SET work_mem = '64kB'")
        with pytest.raises(psycopg.errors.ConfigurationLimitExceeded, match="temp_file_limit"):
            tenant.execute("SELECT DISTINCT repeat('x', 100) || n FROM generate_series(1, 100000) AS n")


def test_a_login_whose_messages_are_not_logged_fills_no_log(tmp_path: Path) -> None:
    """By the recipe for tenants' logins; none of what it tries is a matter of rights."""
    with EmbeddedPostgres(tmp_path / "server", fsync=False) as server:
        with psycopg.connect(server.url(), autocommit=True) as admin:
            admin.execute("CREATE ROLE loud LOGIN PASSWORD 'secret'")
            _make_noise(server.url("postgres", "loud", "secret"), "heard")
            admin.execute("ALTER ROLE loud SET log_min_messages = 'panic'")
            _make_noise(server.url("postgres", "loud", "secret"), "unheard")
        log = (tmp_path / "server" / "server.log").read_text()

    assert log.count("aheard") > 3
    assert "aunheard" not in log


def _make_noise(url: str, word: str) -> None:
    with psycopg.connect(url, autocommit=True) as loud:
        for setting in ("log_min_messages = 'debug5'", "log_min_error_statement = 'debug5'"):
            with suppress(psycopg.errors.InsufficientPrivilege):
                loud.execute(f"ALTER ROLE CURRENT_USER SET {setting}".encode())
        for kind in ("parse", "rewritten", "plan"):
            loud.execute(f"SET debug_print_{kind} = on".encode())
        loud.execute(f'SELECT 1 AS "a{word}"'.encode())
        for wrong in (f"SELECT a{word}", f"SELECT 'a{word}'::int", f"a{word}"):
            with pytest.raises(psycopg.Error):
                loud.execute(wrong.encode())


def test_one_role_may_be_given_a_right_back(log_in: LogIn, db: Db) -> None:
    url = log_in(name="application")
    db.execute(f"GRANT EXECUTE ON FUNCTION pg_advisory_lock(bigint) TO {login_of(url)}".encode())
    db.execute(f"GRANT TEMPORARY ON DATABASE {db.info.dbname} TO {login_of(url)}".encode())
    assert db.execute("SELECT keep_rights_from_public()").fetchone() == (True,)

    with psycopg.connect(url, autocommit=True) as application:
        application.execute("SELECT pg_advisory_lock(1)")
        application.execute("CREATE TEMPORARY TABLE its_own ()")


def test_a_dump_keeps_what_was_taken_but_on_the_database_itself(
    database_url: str, server_url: str, log_in: LogIn, tmp_path: Path
) -> None:
    """Rights on a database are no part of its dump: the walls are put up again after a restore."""
    programs, dump = find_binaries(server_account()), tmp_path / "dump"
    name = urlsplit(database_url).path.strip("/") + "_restored"
    restored, stranger = (
        urlsplit(url)._replace(path=f"/{name}").geturl() for url in (database_url, log_in(name="stranger"))
    )
    subprocess.run(
        [programs / "pg_dump", "--format=custom", f"--file={dump}", database_url], check=True, timeout=60
    )
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
        try:
            # A server that is older than this pg_restore refuses a setting of its own, and nothing else.
            subprocess.run(
                [programs / "pg_restore", f"--dbname={restored}", dump],
                capture_output=True,
                check=False,
                timeout=60,
            )
            with psycopg.connect(stranger, autocommit=True) as connection:
                for attack, words in (
                    ("SELECT lo_creat(-1)", "function lo_creat"),
                    ("DO $$ BEGIN END $$", "language plpgsql"),
                    ("PREPARE p AS DELETE FROM public_locks.registry_lock", "schema public_locks"),
                    ("COMMENT ON TABLE message IS 'x'", "COMMENT is refused"),
                ):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege, match=words):
                        connection.execute(attack)
                connection.execute("CREATE TEMPORARY TABLE filler ()")
            with psycopg.connect(restored, autocommit=True) as owner:
                assert owner.execute("SELECT put_up_tenant_walls()").fetchone() == (True,)
            with (
                psycopg.connect(stranger, autocommit=True) as connection,
                pytest.raises(psycopg.errors.InsufficientPrivilege),
            ):
                connection.execute("CREATE TEMPORARY TABLE filler ()")
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_an_owner_who_is_no_superuser_is_told_what_is_left_and_goes_on(tmp_path: Path) -> None:
    """On a server of its own, since roles are the whole server's."""
    with EmbeddedPostgres(tmp_path / "server", fsync=False) as server:
        with psycopg.connect(server.url(), autocommit=True) as admin:
            admin.execute("CREATE ROLE hosted LOGIN PASSWORD 'secret' CREATEROLE")
            admin.execute("CREATE ROLE stranger LOGIN PASSWORD 'secret'")
            admin.execute("CREATE DATABASE hosted OWNER hosted")
        told: list[str] = []
        with closing(psycopg.connect(server.url("hosted", "hosted", "secret"), autocommit=True)) as owner:
            owner.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
            migrate(owner)
            left = "USAGE on language plpgsql, lo_*, locks by DDL, pg_advisory_*"
            assert [words for words in told if words.startswith(f"every login keeps {left}")]
            with (
                psycopg.connect(server.url("hosted", "stranger", "secret"), autocommit=True) as stranger,
                pytest.raises(psycopg.errors.InsufficientPrivilege),
            ):
                stranger.execute("CREATE TEMPORARY TABLE filler ()")
            with psycopg.connect(server.url("hosted"), autocommit=True) as admin:
                admin.execute("SELECT put_up_tenant_walls()")
            told.clear()
            owner.execute("SELECT put_up_tenant_walls()")
            owner.execute("SELECT pg_advisory_lock(1), lo_creat(-1)")
            owner.execute("CREATE TEMPORARY TABLE its_own ()")
        assert told == []


def test_an_owner_who_may_make_no_schema_is_told_so_and_goes_on(tmp_path: Path) -> None:
    """The tables that are only locked stay beside the others, until somebody makes a schema for them."""
    with EmbeddedPostgres(tmp_path / "server", fsync=False) as server:
        with psycopg.connect(server.url(), autocommit=True) as admin:
            admin.execute("CREATE ROLE modest LOGIN PASSWORD 'secret'")
            admin.execute("CREATE DATABASE modest")
        told: list[str] = []
        url = server.url("modest", "modest", "secret")
        with psycopg.connect(server.url("modest"), autocommit=True) as admin:
            admin.execute("GRANT USAGE, CREATE ON SCHEMA public TO modest")
        with psycopg.connect(url, autocommit=True) as owner:
            owner.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
            migrate(owner)
            statement = "CREATE SCHEMA public_locks AUTHORIZATION modest"
            assert [words for words in told if statement in words]
            assert "tables that are only locked" in _every_login(owner)
            owner.execute("SELECT registry_version_held(true, true, true), take_lock('books_lock', false)")

            with psycopg.connect(server.url("modest"), autocommit=True) as admin:
                admin.execute("CREATE SCHEMA public_locks")
                owner.execute("SELECT put_up_tenant_walls()")
                # A schema of somebody else would come before ours in functions with the owner's rights.
                assert owner.execute("SELECT to_regclass('registry_lock')").fetchone() == ("registry_lock",)
                admin.execute("ALTER SCHEMA public_locks OWNER TO modest")
            owner.execute("SELECT put_up_tenant_walls()")

            assert owner.execute("SELECT to_regclass('registry_lock')").fetchone() == (None,)
            assert "only locked" not in _every_login(owner)
            owner.execute("SELECT registry_version_held(true, true, true), take_lock('books_lock', false)")


def _every_login(owner: Db) -> str:
    findings = {finding.what: finding for finding in look_at_roles(owner, "modest", superuser=False)}
    return findings["every login"].found
