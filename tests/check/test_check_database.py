"""The database's part of `processor check`: each problem provoked for real."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from processor.check.database import check_database, judge_version
from processor.database.connection import connect
from processor.devstack.servers.children import free_port
from tests.fixtures.check import look_at_database, problems, url_as

pytestmark = pytest.mark.usefixtures("nothing_is_set")
Db = psycopg.Connection[Any]


def test_a_server_that_may_forget_is_a_problem(server_url: str, database_url: str, db: Db) -> None:
    """The server of the tests runs without fsync, unless it is somebody's own."""
    expected = {
        name for name in ("fsync", "full_page_writes") if db.execute(f"SHOW {name}").fetchone() == ("off",)
    }
    if os.environ.get("DATABASE_URL_TEST") is None:
        assert expected == {"fsync", "full_page_writes"}

    assert problems(look_at_database(database_url)) == expected


def test_an_owner_is_told_to_use_less(database_url: str) -> None:
    finding = look_at_database(database_url)["least privilege"]

    assert finding.fine
    assert "superuser" in finding.found
    assert "processor_writer" in (finding.advice or "")


def test_the_owner_of_the_tables_is_told_to_use_less(database_url: str, db: Db) -> None:
    db.execute("CREATE ROLE some_owner LOGIN")
    try:
        db.execute("GRANT processor_writer TO some_owner")
        db.execute("ALTER TABLE message OWNER TO some_owner")

        finding = look_at_database(url_as(database_url, "some_owner"))["least privilege"]
    finally:
        db.execute("REASSIGN OWNED BY some_owner TO CURRENT_USER")
        db.execute("DROP OWNED BY some_owner")
        db.execute("DROP ROLE some_owner")

    assert finding.fine
    assert "owner of the tables" in finding.found


def test_a_database_without_tables_names_the_command(server_url: str) -> None:
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE unmigrated")
        try:
            finding = look_at_database(
                url_as(server_url, urlsplit(server_url).username or "", path="/unmigrated")
            )["migrations"]
        finally:
            admin.execute("DROP DATABASE unmigrated WITH (FORCE)")

    assert not finding.fine
    assert "0000_migration" in finding.found
    assert "processor migrate" in (finding.advice or "")


def _note_migration(db: Db, *, breaks: bool) -> None:
    db.execute("INSERT INTO migration VALUES (9001, 'from_the_future', 'x', %s)", [breaks])


def test_a_newer_database_is_fine_and_told(database_url: str, db: Db) -> None:
    _note_migration(db, breaks=False)

    finding = look_at_database(database_url)["migrations"]

    assert finding.fine
    assert "9001_from_the_future" in finding.found


def test_a_newer_database_that_breaks_us_is_a_problem(database_url: str, db: Db) -> None:
    _note_migration(db, breaks=True)

    assert "migrations" in problems(look_at_database(database_url))


def test_an_edited_migration_is_a_problem(database_url: str, db: Db) -> None:
    db.execute("UPDATE migration SET checksum = 'other' WHERE number = 1")

    findings = look_at_database(database_url)

    assert "migrations" in problems(findings)
    assert "0001_registry" in findings["migrations"].found


def test_a_schema_that_cannot_be_used_is_a_problem_and_named(database_url: str, db: Db) -> None:
    db.execute(
        "INSERT INTO event_schema (event_type, tenant_id, version, definition)"
        """ VALUES ('order.created', 'acme', 1, '{"pattern": "(a)\\\\1"}')"""
    )

    findings = look_at_database(database_url)

    assert "schemas" in problems(findings)
    assert findings["schemas"].found == "can't be used: order.created version 1 of acme"


def _alter(db: Db, setting: str) -> None:
    row = db.execute("SELECT current_database()").fetchone()
    assert row is not None
    db.execute(f"ALTER DATABASE {row[0]} SET {setting}")


def test_synchronous_commit_off_is_fine_and_told(database_url: str, db: Db) -> None:
    _alter(db, "synchronous_commit = off")

    finding = look_at_database(database_url)["synchronous_commit"]

    assert (finding.fine, finding.found) == (True, "off")
    assert "raise it" in (finding.advice or "")


def test_a_read_only_database_is_a_problem(database_url: str, db: Db) -> None:
    _alter(db, "default_transaction_read_only = on")

    assert "writable" in problems(look_at_database(database_url))


def test_another_encoding_is_a_problem(server_url: str) -> None:
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
        try:
            findings = look_at_database(
                url_as(server_url, urlsplit(server_url).username or "", path="/latin")
            )
        finally:
            admin.execute("DROP DATABASE latin WITH (FORCE)")

    assert findings["encoding"].found == "LATIN1"
    assert "encoding" in problems(findings)


def test_an_old_server_is_a_problem() -> None:
    """No PostgreSQL 14 is at hand: the judgement alone."""
    assert judge_version(150000, "15.0").fine
    assert not judge_version(140012, "14.12").fine


@pytest.fixture
def stranger_url(database_url: str, db: Db) -> Iterator[str]:
    """The URL of a login without any right of ours."""
    db.execute("CREATE ROLE stranger LOGIN")
    yield url_as(database_url, "stranger")
    db.execute("DROP OWNED BY stranger")
    db.execute("DROP ROLE stranger")


def test_a_role_without_rights_is_told_what_to_grant(stranger_url: str) -> None:
    findings = look_at_database(stranger_url)

    assert "migrations" in problems(findings)
    assert "GRANT processor_writer TO stranger" in (findings["migrations"].advice or "")


def test_a_role_that_may_only_read_lacks_rights(stranger_url: str, db: Db) -> None:
    db.execute("GRANT processor_reader TO stranger")

    findings = look_at_database(stranger_url)

    assert "rights" in problems(findings)
    assert "INSERT on message" in findings["rights"].found
    assert "SELECT" not in findings["rights"].found


def test_one_missing_right_is_named(stranger_url: str, db: Db) -> None:
    db.execute("GRANT processor_writer TO stranger")
    assert look_at_database(stranger_url)["rights"].fine
    function = "registry_version_held(boolean, boolean, boolean)"
    db.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC, processor_writer".encode())

    assert (
        look_at_database(stranger_url)["rights"].found
        == "missing privileges: EXECUTE on registry_version_held(boolean,boolean,boolean)"
    )


def test_a_schema_that_may_not_be_used_is_said(stranger_url: str, db: Db) -> None:
    db.execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC")

    finding = look_at_database(stranger_url)["migrations"]

    assert not finding.fine
    assert "no schema of its search_path" in finding.found


def test_an_empty_registry_is_told(database_url: str, db: Db) -> None:
    db.execute("UPDATE tenant SET status = 'suspended'")

    finding = look_at_database(database_url)["registry"]

    assert finding.fine
    assert "processor tenant add" in (finding.advice or "")


@pytest.mark.parametrize(("shift_s", "side"), [(5, "behind ours"), (-5, "ahead of ours")])
def test_a_clock_that_is_off_is_a_problem(database_url: str, shift_s: int, side: str) -> None:
    findings = look_at_database(database_url, lambda: datetime.now(UTC) + timedelta(seconds=shift_s))

    assert "database clock" in problems(findings)
    assert side in findings["database clock"].found


def test_a_closed_port_is_one_finding() -> None:
    findings = look_at_database(f"postgresql://postgres@127.0.0.1:{free_port()}/none")

    assert [(f.what, f.fine, f.unreachable) for f in findings.values()] == [("database", False, True)]
    assert "Connection refused" in findings["database"].found


def test_a_refused_login_is_a_problem_and_no_outage(database_url: str) -> None:
    finding = look_at_database(url_as(database_url, "nobody_at_all"))["database"]

    assert (finding.fine, finding.unreachable) == (False, False)
    assert "nobody_at_all" not in finding.found


def test_a_table_that_is_locked_does_not_hold_the_check_for_ever(database_url: str, db: Db) -> None:
    with db.transaction():
        db.execute("LOCK TABLE migration IN ACCESS EXCLUSIVE MODE")

        findings = check_database(lambda: connect(database_url), timeout_s=0.5)

    assert findings[-1].unreachable
    assert len(findings) > 1
