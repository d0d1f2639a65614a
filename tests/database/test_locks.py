"""Nobody without a right on our tables stops those who have one, whatever it locks and for however long."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import psycopg
import pytest

from processor.devstack.servers.sink import Receiver
from tests.builders import a_delivery, an_event
from tests.fixtures.check import look_at_database
from tests.fixtures.database import LogIn, MakeSaver, Saver, login_of
from tests.fixtures.usage import Command, a_pulse, a_void

Db = psycopg.Connection[Any]

KEYS = range(7309453202311081, 7309453202311087)
"""Every advisory key that a release of ours ever named."""

MODES = (
    "ACCESS SHARE",
    "ROW SHARE",
    "ROW EXCLUSIVE",
    "SHARE UPDATE EXCLUSIVE",
    "SHARE",
    "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
)
ROW_LOCKS = ("KEY SHARE", "SHARE", "NO KEY UPDATE", "UPDATE")
ANALYSED = (
    "DELETE FROM {}",
    "MERGE INTO {} USING (SELECT) AS none ON false WHEN MATCHED THEN DELETE",
    *(f"SELECT FROM {{}} FOR {lock}" for lock in ROW_LOCKS),
)
"""What takes a lock when it is analysed, before any right on the table is asked for."""

DDL = (
    "CREATE RULE x AS ON INSERT TO {} DO NOTHING",
    "CREATE TRIGGER x BEFORE INSERT ON {} FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE STATISTICS x ON xmin, ctid FROM {}",
    "COMMENT ON TABLE {} IS 'x'",
    "COMMENT ON COLUMN {}.x IS 'x'",
    "COMMENT ON TRIGGER x ON {} IS 'x'",
    "COMMENT ON POLICY x ON {} IS 'x'",
    "SECURITY LABEL ON TABLE {} IS 'x'",
    "DROP RULE x ON {}",
    "DROP TRIGGER x ON {}",
    "DROP POLICY x ON {}",
    "ALTER TRIGGER x ON {} DEPENDS ON EXTENSION plpgsql",
    "ALTER TRIGGER x ON {} RENAME TO y",
    "ALTER POLICY x ON {} USING (true)",
    "CREATE POLICY x ON {}",
    "ALTER TABLE {} SET (fillfactor = 50)",
    "ALTER EXTENSION plpgsql ADD TABLE {}",
    "CREATE PUBLICATION x FOR TABLE {}",
    "CREATE INDEX ON {} ((1))",
    "CREATE TABLE x () INHERITS ({})",
    "CREATE TABLE x (LIKE {})",
    "CREATE VIEW x AS SELECT FROM {}",
    "DROP TABLE {}",
    "GRANT SELECT ON {} TO PUBLIC",
)
WITH_TEMPORARY_TABLES = (
    "CREATE TEMPORARY TABLE x () INHERITS ({})",
    "CREATE TEMPORARY TABLE x (x text REFERENCES {})",
    "CREATE TEMPORARY TABLE x AS SELECT FROM {}",
)
REFUSED = (psycopg.errors.InsufficientPrivilege, psycopg.errors.LockNotAvailable)
IMPOSSIBLE = (
    psycopg.errors.FeatureNotSupported,
    psycopg.errors.ObjectNotInPrerequisiteState,
    psycopg.errors.SyntaxError,
    psycopg.errors.UndefinedTable,
    psycopg.errors.WrongObjectType,
)


def locks_all_it_can(holder: Db) -> list[str]:
    """Take each lock that this role is not refused, in a transaction that stays open; gives what it took."""
    tables = holder.execute(
        "SELECT oid::regclass::text FROM pg_class"
        " WHERE relnamespace::regnamespace::text LIKE 'public%' AND relkind IN ('r', 'v')"
    ).fetchall()
    assert ("public_locks.registry_lock",) in tables
    prepared = itertools.count()
    statements = [
        *(f"LOCK TABLE {table} IN {mode} MODE NOWAIT" for (table,) in tables for mode in MODES),
        *(f"SELECT FROM {table} FOR {lock} NOWAIT" for (table,) in tables for lock in ROW_LOCKS),
        *(
            f"{start} {words.format(table)}"
            for (table,) in tables
            for words in ANALYSED
            for start in (f"PREPARE p{next(prepared)} AS", "EXPLAIN", f"DECLARE c{next(prepared)} CURSOR FOR")
        ),
        *(f"COPY {table} FROM STDIN" for (table,) in tables),
        "SELECT registry_lock_key()",
        "SELECT take_lock('registry_lock', true)",
        "SELECT registry_version_held()",
        "SELECT registry_version_held(true)",
        "SELECT registry_version_held(true, true)",
        "SELECT register_tenants('events', '{x}', 1)",
        "SELECT remove_messages('{}', '-infinity', '-infinity')",
        *(f"SELECT pg_advisory_lock{kind}({key})" for key in KEYS for kind in ("", "_shared")),
        *(f"SELECT pg_advisory_xact_lock{kind}({key})" for key in KEYS for kind in ("", "_shared")),
    ]
    taken = []
    for statement in statements:
        # Where one lock is refused, the transaction goes on with the others.
        with suppress(*REFUSED, *IMPOSSIBLE), holder.transaction():
            holder.execute(statement.encode())
            taken.append(statement)
    return taken


@pytest.fixture(params=["stranger", "processor_tenant_reader", "processor_reader"])
def hostile(request: pytest.FixtureRequest, log_in: LogIn, db: Db) -> Iterator[list[str]]:
    """What a login holds that may connect, or read, for one tenant or all; nobody waits for long here."""
    groups = [] if request.param == "stranger" else [request.param]
    url = log_in(*groups)
    if "processor_tenant_reader" in groups:
        db.execute("INSERT INTO tenant_reader VALUES (%s, 'acme')", [login_of(url)])
    # As where no superuser took them from PUBLIC.
    for kind in ("lock", "lock_shared", "xact_lock", "xact_lock_shared"):
        db.execute(f"GRANT EXECUTE ON FUNCTION pg_advisory_{kind}(bigint) TO PUBLIC".encode())
    db.execute(f"ALTER DATABASE {db.info.dbname} SET lock_timeout = '5s'")
    with ExitStack() as stack:
        held = [
            locks_all_it_can(stack.enter_context(psycopg.connect(url, options="-c lock_timeout=100ms")))
            for _ in range(2)
        ]
        yield held[0]


@pytest.mark.usefixtures("pulses")
def test_whatever_a_login_without_rights_locks_all_goes_on(
    hostile: list[str], make_saver: MakeSaver, processor: Command, database_url: str, receiver: Receiver
) -> None:
    saver, sink = make_saver(), {"USAGE_SINK_URL": receiver.url}

    outcomes = saver.outcomes(
        a_delivery(**an_event(id="o-1")), a_delivery(b"no"), a_pulse(message_id="p-1"), a_void("p-2")
    )
    answers = {
        words: processor(*words.split(), **sink).code
        for words in (
            "tenant add newcomer",
            "tenant suspend acme",
            "tenant resume acme",
            "migrate",
            "usage rebuild --meter pulse",
            "usage close --meter pulse",
            "dispatch --once",
            "retention apply --message-days 40 --duplicate-days 40 --rejection-days 40",
        )
    }
    checked = look_at_database(database_url)

    assert outcomes == ["stored", "not_json", "stored", "stored"]
    assert set(answers.values()) == {0}, answers
    assert receiver.books.lines
    assert checked["role processor_writer"].fine
    assert len([words for words in hostile if "advisory" in words]) >= len(KEYS)
    assert not [words for words in hostile if words.startswith("LOCK") and "ACCESS SHARE" not in words]
    assert not [words for words in hostile if words.startswith("SELECT FROM") or "remove" in words]
    assert not [words for words in hostile if "public_locks" in words or "register" in words]
    assert [words for words in hostile if words.startswith("PREPARE") and "message" in words]


@pytest.fixture(params=["stranger", "processor_tenant_reader", "processor_reader", "processor_gateway"])
def impatient(request: pytest.FixtureRequest, log_in: LogIn) -> Iterator[tuple[str, Db]]:
    """A group, and a login of it that gives up at once where it would wait for a lock."""
    url = log_in(*([] if request.param == "stranger" else [request.param]))
    with psycopg.connect(url, autocommit=True, options="-c lock_timeout=50ms") as one:
        yield request.param, one


@pytest.mark.parametrize("table", ["message", "tenant", "pg_class", "pg_database"])
def test_ddl_of_who_may_make_nothing_waits_for_no_lock(
    impatient: tuple[str, Db], table: str, database_url: str
) -> None:
    """PostgreSQL waits for the lock before it asks for the right, and all others would wait behind it."""
    group, one = impatient
    may_make_temporary = group == "processor_reader"
    with psycopg.connect(database_url) as holder:
        # It keeps waiting whatever does more than SELECT and INSERT.
        holder.execute(f"LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE".encode())
        for words in DDL if may_make_temporary else (*DDL, *WITH_TEMPORARY_TABLES):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                one.execute(words.format(table).encode())


def test_ddl_of_who_may_make_something_goes_on(log_in: LogIn, db: Db) -> None:
    """The owner's, another application's, and the temporary tables that our commands make."""
    url, owner_url = log_in(name="application"), log_in(name="owner")
    db.execute("CREATE SCHEMA elsewhere")
    db.execute(f"GRANT USAGE, CREATE ON SCHEMA elsewhere TO {login_of(url)}".encode())
    db.execute(f"ALTER TABLE tenant_reader OWNER TO {login_of(owner_url)}".encode())
    db.execute(f"GRANT processor_tenant_reader TO {login_of(owner_url)}".encode())

    with psycopg.connect(url, autocommit=True) as application:
        application.execute("CREATE TABLE elsewhere.its_own (id int)")
        application.execute("COMMENT ON TABLE elsewhere.its_own IS 'x'")
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("COMMENT ON TABLE tenant_reader IS 'x'")
    db.execute("ALTER TABLE tenant_reader OWNER TO CURRENT_USER")
    for group in ("processor_writer", "processor_reader", "processor_biller"):
        with psycopg.connect(log_in(group), autocommit=True) as ours:
            ours.execute("CREATE TEMPORARY TABLE its_own (id int)")
            ours.execute("CREATE INDEX ON its_own (id)")
            ours.execute("CREATE TEMPORARY TABLE another AS SELECT * FROM its_own")
            ours.execute("DROP TABLE its_own, another")


def test_every_function_that_locks_finds_its_table(db: Db) -> None:
    """A migration that replaces one ends with keep_locks_apart()."""
    paths = db.execute(
        "SELECT proname, proconfig FROM pg_proc"
        " WHERE pronamespace = 'public'::regnamespace AND prosrc ~ 'LOCK TABL[E]'"
    ).fetchall()

    assert len(paths) > 6
    for name, settings in paths:
        assert "search_path=public_locks, public, pg_temp" in settings, name


def test_walls_that_are_put_up_again_keep_no_save_waiting_behind_a_reader(
    saver: Saver, log_in: LogIn, db: Db
) -> None:
    """They take each table alone for a moment, and who saves would be behind them in its queue."""
    failed = []

    def puts_up() -> None:
        try:
            db.execute("SELECT put_up_tenant_walls()")
        except psycopg.errors.LockNotAvailable as error:
            failed.append(error)

    with psycopg.connect(log_in("processor_tenant_reader")) as reader:
        reader.execute("SELECT FROM message")
        owner = threading.Thread(target=puts_up, daemon=True)
        owner.start()
        assert saver.outcomes(a_delivery(id="o-1")) == ["stored"]
        owner.join(30)
        assert saver.outcomes(a_delivery(id="o-2")) == ["stored"]

    assert len(failed) == 1


@pytest.mark.parametrize("group", ["processor_writer", "processor_retention", "processor_biller"])
def test_only_who_saves_can_keep_the_registry_as_it_is(log_in: LogIn, group: str) -> None:
    with psycopg.connect(log_in(group), autocommit=True) as one:
        for question in ("SELECT registry_lock_key()", "SELECT registry_version_held(true, true)"):
            if group == "processor_writer":
                one.execute(question.encode())
            else:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    one.execute(question.encode())


def test_a_processor_of_the_release_before_keeps_all_others_out(
    saver: Saver, database_url: str, db: Db
) -> None:
    """It takes an advisory lock on a key that the database gives."""
    with psycopg.connect(database_url) as older:
        older.execute("SELECT pg_advisory_xact_lock(registry_lock_key())")
        db.execute("SET lock_timeout = '100ms'")

        with pytest.raises(psycopg.errors.LockNotAvailable):
            db.execute("UPDATE tenant SET status = 'suspended'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            db.execute("SELECT registry_version_held(true, true)")

    assert saver.outcomes(a_delivery(id="o-1")) == ["stored"]
