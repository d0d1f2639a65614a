"""Migrations: each file once, in order, one process at a time, and nothing left of one that fails."""

import hashlib
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from processor.database import migrations
from processor.database.connection import connect
from processor.database.migrations import known_migrations, migrate, require_current, state
from processor.database.queries import sql_folder
from processor.devstack.servers.binaries import find_binaries, server_account
from processor.errors import MigrationsPending, StoreFault, StoreUnavailable
from tests.builders import a_delivery
from tests.fixtures.database import LogIn, Saver, login_of
from tests.rig import wait_until

Db = psycopg.Connection[Any]

NAMES = [f"{migration.number:04d}_{migration.name}" for migration in known_migrations()]


@pytest.fixture
def empty_url(server_url: str) -> Iterator[str]:
    """The URL of a database with nothing in it."""
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS processor_empty WITH (FORCE)")
        admin.execute("CREATE DATABASE processor_empty TEMPLATE template0")
        yield urlsplit(server_url)._replace(path="/processor_empty").geturl()
        admin.execute("DROP DATABASE IF EXISTS processor_empty WITH (FORCE)")


@pytest.fixture
def empty(empty_url: str) -> Iterator[Db]:
    with psycopg.connect(empty_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the SQL that a test may add to; gives its folder of migrations."""
    copy = tmp_path / "sql"
    shutil.copytree(sql_folder(), copy)
    monkeypatch.setattr(migrations, "sql_folder", lambda: copy)
    return copy / "migrations"


def tables(db: Db) -> set[str]:
    return {name for (name,) in db.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


def test_a_fresh_database_gets_every_migration_once(empty: Db) -> None:
    assert migrate(empty) == NAMES
    assert migrate(empty) == []

    found = require_current(empty)
    assert (found.pending, found.unknown, found.breaking, found.edited) == ((), (), (), ())
    assert {"message", "duplicate", "rejection", "tenant", "registry", "migration"} <= tables(empty)


def test_a_fresh_database_is_migrated_without_a_word(empty: Db) -> None:
    heard: list[str] = []

    migrate(empty, heard.append)

    assert heard == []


def test_the_files_are_numbered_without_a_gap_and_open_with_their_reason() -> None:
    assert [migration.number for migration in known_migrations()] == list(range(len(NAMES)))
    for migration in known_migrations():
        assert migration.text.startswith("-- ")


def test_several_at_once_apply_each_file_once(empty: Db, empty_url: str) -> None:
    def work(_: int) -> list[str]:
        with psycopg.connect(empty_url, autocommit=True) as connection:
            return migrate(connection)

    with ThreadPoolExecutor(4) as pool:
        applied = [name for names in pool.map(work, range(4)) for name in names]

    assert sorted(applied) == NAMES
    assert migrate(empty) == []


def test_a_database_without_migrations_is_behind_and_the_command_is_named(empty: Db) -> None:
    assert state(empty).pending == tuple(NAMES)

    with pytest.raises(MigrationsPending, match=f"from {NAMES[0]} on; run: processor migrate"):
        require_current(empty)


def test_a_half_migrated_database_goes_on_where_it_stopped(db: Db, folder: Path) -> None:
    (folder / "9000_more.sql").write_text("-- More.\nCREATE TABLE more ();")

    with pytest.raises(MigrationsPending, match=r"1 migration.*9000_more"):
        require_current(db)
    assert migrate(db) == ["9000_more"]


def test_a_database_newer_than_the_code_is_worked_with_unless_it_says_no(db: Db, folder: Path) -> None:
    (folder / "9000_harmless.sql").write_text("-- More.\nCREATE TABLE more ();")
    migrate(db)
    (folder / "9000_harmless.sql").unlink()
    assert require_current(db).unknown == ("9000_harmless",)

    (folder / "9001_harmful.sql").write_text("-- breaks older code: the table is another.\nDROP TABLE more;")
    migrate(db)
    (folder / "9001_harmful.sql").unlink()
    with pytest.raises(StoreFault, match="since 9001_harmful; run a newer version"):
        require_current(db)


def test_an_edited_file_is_noticed_and_not_applied_again(db: Db, folder: Path) -> None:
    path = folder / f"{NAMES[1]}.sql"
    path.write_text(path.read_text() + "\nCREATE TABLE more ();")

    assert state(db).edited == (NAMES[1],)
    assert migrate(db) == []
    assert "more" not in tables(db)


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("SELEC", "42601"),
        ("CREATE TABLE message ()", "42P07"),
        ("INSERT INTO registry VALUES (1, false)", "23514"),
        ("INSERT INTO tenant (tenant_id, name) VALUES ('acme', 'x')", "23505"),
        ("SELECT 1 / 0", "22012"),
        ("DO $$ BEGIN RAISE EXCEPTION 'no'; END $$", "P0001"),
    ],
)
def test_a_migration_that_fails_leaves_nothing_behind(
    db: Db, folder: Path, statement: str, code: str
) -> None:
    (folder / "9000_good.sql").write_text("-- Good.\nCREATE TABLE good ();")
    (folder / "9001_bad.sql").write_text(f"-- Bad.\nCREATE TABLE bad ();\n{statement};")

    with pytest.raises(StoreFault, match=rf"9001_bad failed and left nothing behind: .*\({code}\)"):
        migrate(db)

    assert "good" in tables(db)
    assert "bad" not in tables(db)
    assert state(db).pending == ("9001_bad",)
    (folder / "9001_bad.sql").write_text("-- Better.\nCREATE TABLE better ();")
    assert migrate(db) == ["9001_bad"]


def test_a_migration_that_meets_a_table_in_use_says_so_and_is_run_again(
    db: Db, database_url: str, folder: Path
) -> None:
    (folder / "9000_locks.sql").write_text("-- Locks.\nSET LOCAL lock_timeout = '50ms';\nLOCK TABLE message;")
    with psycopg.connect(database_url) as somebody:
        somebody.execute("SELECT FROM message")

        with pytest.raises(StoreUnavailable, match="9000_locks met a table that others have in use"):
            migrate(db)

    assert state(db).pending == ("9000_locks",)
    assert migrate(db) == ["9000_locks"]


def test_no_login_keeps_others_from_being_the_one_who_migrates(log_in: LogIn, db: Db, folder: Path) -> None:
    (folder / "9000_more.sql").write_text("-- More.\nCREATE TABLE more ();")
    with psycopg.connect(log_in()) as stranger:
        stranger.execute("PREPARE p AS DELETE FROM migration")
        for table in ("public_locks.migrate_lock", "migrate_lock"):
            with pytest.raises(psycopg.Error), stranger.transaction():
                stranger.execute(f"PREPARE q AS DELETE FROM {table}".encode())

        db.execute("SET lock_timeout = '1s'")
        assert migrate(db) == ["9000_more"]


def test_a_reader_who_stays_keeps_a_migration_waiting_and_no_save(
    saver: Saver, log_in: LogIn, database_url: str, db: Db, folder: Path
) -> None:
    """A save behind a lock that is waited for waits too, so it is not waited for long."""
    (folder / "9000_alters.sql").write_text("-- Alters.\nALTER TABLE message ADD COLUMN more int;")
    url, failed = log_in("processor_tenant_reader"), []

    def migrates() -> None:
        try:
            migrate(db)
        except StoreUnavailable as error:
            failed.append(str(error))

    with psycopg.connect(url) as reader, connect(database_url) as watcher:
        reader.execute("SELECT FROM message")
        migrating = threading.Thread(target=migrates, daemon=True)
        migrating.start()
        waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'message'::regclass"
        wait_until(lambda: watcher.execute(waits).fetchone() is not None, "the migration waits")
        outcomes = saver.outcomes(a_delivery(id="o-1"))
        migrating.join(60)

        assert outcomes == ["stored"]
        assert failed
        assert f"pid {reader.info.backend_pid} of {login_of(url)}" in failed[0]

    assert migrate(db) == ["9000_alters"]


def of_before(db: Db, count: int = 22) -> None:
    """Make the books say what they said before there was a baseline, of the first so many files."""
    db.execute("DELETE FROM migration")
    for line in BEFORE.splitlines()[:count]:
        values = line.split()
        db.execute(
            "INSERT INTO migration (number, name, checksum, breaks_older_code) VALUES (%s, %s, %s, false)",
            values,
        )


def test_a_database_at_the_end_of_the_history_before_is_taken_over_as_it_is(saver: Saver, db: Db) -> None:
    """`processor migrate` of that history and the baseline make the same tables."""
    saver.save(a_delivery(id="o-1"))
    before = _shape(db)
    of_before(db)
    with pytest.raises(MigrationsPending, match="run: processor migrate"):
        require_current(db)

    assert migrate(db) == []

    found = require_current(db)
    assert (found.pending, found.unknown, found.edited) == ((), (), ())
    assert _shape(db) == before
    assert saver.outcomes(a_delivery(id="o-1")) == ["duplicate"]


def test_a_database_in_the_middle_of_the_history_before_is_left_alone_and_told_what_to_do(db: Db) -> None:
    of_before(db, 15)

    with pytest.raises(StoreFault) as error:
        migrate(db)

    assert str(error.value) == (
        "the tables are of an older history of migrations, at 0014_meter_text; expected its end, "
        "0021_schema_choices: run `processor migrate` of the last code with that history, then this one"
    )
    assert db.execute("SELECT count(*) FROM migration").fetchone() == (15,)


def test_what_was_applied_is_in_the_books_with_its_checksum(db: Db) -> None:
    for migration in known_migrations():
        row = db.execute(
            "SELECT name, checksum FROM migration WHERE number = %s", [migration.number]
        ).fetchone()
        assert row == (migration.name, hashlib.sha256(migration.path.read_bytes()).hexdigest())


def test_what_is_no_migration_by_name_is_left_alone(db: Db, folder: Path) -> None:
    for name in ("README.md", "9000_Upper.sql", "900_short.sql", "9000_more.sql.orig", "x9000_more.sql"):
        (folder / name).write_text("CREATE TABLE more ();")

    assert migrate(db) == []


def test_the_tables_are_what_the_files_say_when_psql_reads_them(
    empty: Db, empty_url: str, database_url: str
) -> None:
    # By hand as by `processor migrate`: a DBA may apply the files with psql, and gets the same tables.
    psql = find_binaries(server_account()) / "psql"
    for migration in known_migrations():
        subprocess.run(
            [psql, "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-f", str(migration.path), empty_url],
            check=True,
            capture_output=True,
        )

    with psycopg.connect(database_url) as migrated:
        assert _shape(empty) == _shape(migrated)


def _shape(db: Db) -> list[tuple[Any, ...]]:
    return db.execute(_SHAPE).fetchall()


_SHAPE = """
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL
SELECT table_name || '.' || column_name, data_type || is_nullable || coalesce(column_default, '')
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL
SELECT table_name || '-' || grantee, privilege_type
FROM information_schema.role_table_grants WHERE table_schema = 'public'
ORDER BY 1, 2
"""

BEFORE = """\
0 migration b2efc515e239a779df5c6176f0002c85a157491cdd295b1b981b22190372eb6d
1 registry 894f45e3b0fb34a8cd43d920f26066f8a3601f9426e55dd718b9f0b02f755eff
2 messages 0660e4703821a05fac22bccc4b25efe32934f748f97cd64b16e250137df3a3d7
3 roles 1a2f36eefb9dd278fc20ea710f7fd010eaea5a19b155d6cc3fa7756d19ca53e6
4 retention c72994943e3e06cc049192d714e9e19ba8b81a44bedeb93132b34d0fd0453a0e
5 tenant_walls f72a6f1a85372a2e7083dcb301aff095867ec0a27641fd656ff8e8dd36d52e78
6 meters e12de2949fe56ca41879188393a8a67dfce53962f873a0bf34caeea1b4c9af28
7 api_keys 153b5648673d78fb8792cd4774eb8f0a1d1c8f5c86dc1a05a41dd610181ff1e7
8 first_outcome c17f18a9c429587809332cbcc18fe8fb10a9359410285820b6438653d109cf36
9 attempt ea3850abc2af3631b609b13b662951179202d24186cf8bd44daffd73aa15fe15
10 line_keys 52fb34be0c50c6f599e75b7b41aefd9ad2cb539218bbe1a9a620482bd20bdec4
11 unsettled 869f84fc04fd68f63cc3bd6cfb96f284a1881bd21fdb065a4d8be2a08a7bd986
12 queue 06506a6acc6fbd5229e908d4e468c0134a575d74ad1837e04ce9c55eb1c6d0db
13 rejection_rule 8c08a3b2d3c368c0e1493138224efd8e4a9faa8051da3866642612ef3110a87a
14 meter_text 34e108150570d58ef67ed66ac4ff26a67975eb021735b5750f4408709294710d
15 removed_noise 09a59648f817f8c5f6c56583f83bc9567685c7b53bad20c7b3fb0cc7aeae9935
16 locks 359c2fd9bb83136e03a914d16db7945326db48f4287ac2aa41d840a86fa4b59a
17 least_rights 5f61e0f5c084e862adaa04be22ef4bf85427f73edab0e6ac117c5b6bcdf991d2
18 public_rights ea082271cbe3a3e1030097cefc6d91346073d6c356dbb3ed48175f86b0dbc218
19 key_rights 0403d9e5819fd7e95aa1943b270f2fa288b1efc94711c83f56a212fa003b0b81
20 rejection_room e1b93427a7a2da9273d9303270b8fafe140d17f9a89dbb268b3522eebf52d6c3
21 schema_choices 4a7b8d131aa7e02ae6a5addf95e445f2f44d512479ede58017c6ab85ef19a28d
"""
