"""Nobody without a right on our tables stops those who have one, whatever it locks and for however long."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import psycopg
import pytest

from processor.devstack.sink import Receiver
from tests.builders import a_delivery, an_event
from tests.fix_check import look_at_database
from tests.fix_database import LogIn, MakeSaver, Saver, login_of
from tests.fix_usage import Command, a_pulse, a_void

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
REFUSED = (psycopg.errors.InsufficientPrivilege, psycopg.errors.LockNotAvailable)


def locks_all_it_can(holder: Db) -> list[str]:
    """Take each lock that this role is not refused, in a transaction that stays open; gives what it took."""
    tables = holder.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')"
    ).fetchall()
    statements = [
        *(f"LOCK TABLE {table} IN {mode} MODE NOWAIT" for (table,) in tables for mode in MODES),
        *(f"SELECT FROM {table} FOR {lock} NOWAIT" for (table,) in tables for lock in ROW_LOCKS),
        "SELECT registry_lock_key()",
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
        with suppress(*REFUSED, psycopg.errors.FeatureNotSupported), holder.transaction():
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
    assert not [words for words in hostile if " FOR " in words or "remove" in words or "register" in words]


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
