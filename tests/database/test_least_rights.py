"""What a role can't falsify, whoever has its password: what is stored, and what is billed."""

import threading
from typing import Any

import psycopg
import pytest

from processor.database.connection import connect
from processor.errors import SettingsError
from processor.operations.retention import Ages, apply
from processor.sources.quarantine import RejectionSelection, discard
from tests.builders import a_delivery, an_event
from tests.fixtures.database import LogIn, Saver, books

Db = psycopg.Connection[Any]

AGED = {"message": "stored_at", "duplicate": "received_at", "rejection": "closed_at"}
EVERYTHING = "'(0,0)', '(1000,0)'"
NEXT_YEAR = "now() + interval '1 year'"


def removes(days: str) -> list[str]:
    """Each way to ask for rows that are so old, and were seen as long ago."""
    before = f"now() - interval '24 hours' * {days}"
    places = "ARRAY(SELECT ctid FROM message)"
    return [
        f"SELECT remove_messages({places}, {before}, {before} - interval '24 hours')",
        f"SELECT * FROM remove_duplicates({EVERYTHING}, {before}, 100)",
        f"SELECT * FROM remove_rejections({EVERYTHING}, {before}, NULL, 100)",
    ]


@pytest.fixture
def aged(saver: Saver, db: Db) -> None:
    """A message, a duplicate and a closed rejection that are 28 days old, but for a minute."""
    event = an_event(id="o-1")
    saver.save(a_delivery(**event), a_delivery(**event), a_delivery(b"nonsense"))
    discard(db, RejectionSelection())
    for table, column in AGED.items():
        db.execute(f"UPDATE {table} SET {column} = now() - interval '27 days 23 hours 59 minutes'")


YOUNG = [
    *removes("27.9"),
    *removes("0"),
    *removes("-400"),
    *("DELETE FROM message", "DELETE FROM duplicate", "DELETE FROM rejection", "DELETE FROM usage_line"),
    *("TRUNCATE message", "DROP TABLE message", "UPDATE retention_floor SET days = 1"),
    # The message is kept as long as what showed its key again is young.
    f"SELECT remove_messages(ARRAY(SELECT ctid FROM message), now() - interval '28 days', {NEXT_YEAR})",
    "SELECT remove_messages(ARRAY(SELECT ctid FROM message), NULL, NULL)",
    "SELECT remove_messages(ARRAY(SELECT ctid FROM message), now() - interval '28 days', NULL)",
    f"SELECT * FROM remove_duplicates({EVERYTHING}, NULL, 100)",
    f"SELECT * FROM remove_rejections({EVERYTHING}, NULL, now(), 100)",
    # A removal that is only said would be given back by a rebuild, or hide a loss from the audit.
    "INSERT INTO usage_removal SELECT * FROM usage_removal",
    "INSERT INTO removal VALUES ('acme', 'message', now(), 1000, now())",
    "UPDATE removal SET row_count = 1000",
]


@pytest.mark.usefixtures("aged")
@pytest.mark.parametrize("statement", YOUNG)
def test_nothing_young_is_removed_by_whoever_removes(log_in: LogIn, db: Db, statement: str) -> None:
    with connect(log_in("processor_retention")) as one, pytest.raises(psycopg.errors.InsufficientPrivilege):
        one.execute(statement.encode())

    assert books(db) == {"message": 1, "duplicate": 1, "rejection": 1}


@pytest.mark.usefixtures("aged")
def test_what_is_old_enough_is_removed_and_counted_by_the_same_role(log_in: LogIn, db: Db) -> None:
    for table, column in AGED.items():
        db.execute(f"UPDATE {table} SET {column} = {column} - interval '2 days'")
    with connect(log_in("processor_retention")) as one:
        for statement in reversed(removes("28")):
            one.execute(statement.encode())

    assert books(db) == {"message": 0, "duplicate": 0, "rejection": 0}
    removed = db.execute("SELECT outcome, row_count FROM removal ORDER BY outcome").fetchall()
    assert removed == [("duplicate", 1), ("message", 1), ("rejection_discarded", 1)]


@pytest.mark.parametrize("role", ["PUBLIC", "processor_writer", "processor_biller", "processor_reader"])
def test_nobody_else_removes(log_in: LogIn, role: str) -> None:
    with connect(log_in(*([] if role == "PUBLIC" else [role]))) as one:
        for statement in removes("400"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                one.execute(statement.replace("(SELECT ctid FROM message)", "[]::tid[]").encode())


@pytest.mark.usefixtures("aged")
def test_a_stolen_writer_shows_no_rejection_to_another_tenant(log_in: LogIn, db: Db) -> None:
    db.execute("ALTER TABLE rejection DISABLE TRIGGER rejection_unbound")
    db.execute("UPDATE rejection SET bound_tenant_id = 'acme'")
    db.execute("ALTER TABLE rejection ENABLE TRIGGER rejection_unbound")
    with connect(log_in("processor_writer")) as one:
        shown = []
        for tenant in ("acme", "globex", "globex"):
            one.execute("UPDATE rejection SET bound_tenant_id = %s", [tenant])
            shown.append(one.execute("SELECT bound_tenant_id FROM rejection").fetchall())

    assert shown == [[("acme",)], [(None,)], [(None,)]]


@pytest.mark.usefixtures("aged")
def test_the_owner_says_how_young_may_go(log_in: LogIn, db: Db) -> None:
    ages, url = Ages(message=20, duplicate=20, rejection=20, key=20), log_in("processor_retention")

    def removed() -> dict[str, int]:
        with connect(url) as one:
            return apply(one, ages, step_size=10, pause_s=0, stop=threading.Event(), statement_timeout_s=20)

    with pytest.raises(SettingsError, match="is less than the 28 days"):
        removed()
    db.execute("UPDATE retention_floor SET days = 20")

    assert removed() == {"message": 1, "duplicate": 1, "rejection": 1}
