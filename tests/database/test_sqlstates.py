"""SQLSTATE by SQLSTATE: each raised by a real PostgreSQL amid a save, and what is done about it."""

import os
import random
import signal
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from processor.database.connection import Deadline, connect
from processor.errors import StoreFault
from processor.model import Settlement
from processor.pipeline.limits import PipelineLimits
from processor.pipeline.pipeline import Pipeline
from processor.runtime.outages import OutageRetry
from processor.store.store import Store
from processor.validation.validator import Schemas
from tests.builders import a_body, a_delivery
from tests.fixtures.database import MakeSaver, Saver, books
from tests.pipeline.harness import WatchedSource
from tests.rig import wait_until

Db = psycopg.Connection[Any]
Raise = Callable[..., None]

CONTENT = "22P05 22P02 22003 22007 22008 22021 54000 54001 23514 23502".split()  # noqa: SIM905 - as it is listed
OURS = "23505 28000 28P01 42501 42703 42P01 42883 XX000 P0001 0A000 22012 25P02 26000 57P04 58030".split()  # noqa: SIM905
MEETING = ["40P01", "40001", "55P03"]
TOO_MUCH = ["53200", "57014"]
AWAY = "57P01 57P02 57P03 25006 25P03 08000 08003 08006 53100 53300".split()  # noqa: SIM905


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that met wait for each other for milliseconds, and ten times in a row for seconds."""
    monkeypatch.setattr(random, "uniform", lambda _least, _most: 0.0)


@pytest.fixture
def trouble(db: Db) -> Raise:
    """Makes the database raise a SQLSTATE for a message, so many times, on insert or at the commit."""
    db.execute("CREATE SEQUENCE raised")  # Not undone with the transaction that it counts.

    def arm(code: str, *, times: int = 1_000_000, rows: str = "true", at_commit: bool = False) -> None:
        db.execute(
            "CREATE OR REPLACE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF {rows} AND nextval('raised') <= {times}"
            f" THEN RAISE EXCEPTION 'trouble' USING ERRCODE = '{code}'; END IF; RETURN NEW; END $$"
        )
        when = (
            "CONSTRAINT TRIGGER trouble AFTER INSERT ON message DEFERRABLE INITIALLY DEFERRED"
            if at_commit
            else "TRIGGER trouble BEFORE INSERT ON message"
        )
        db.execute(f"CREATE {when} FOR EACH ROW EXECUTE FUNCTION trouble()")

    return arm


both_moments = pytest.mark.parametrize("at_commit", [False, True], ids=["in the insert", "at the commit"])


@both_moments
@pytest.mark.parametrize("code", CONTENT + OURS)
def test_what_a_row_is_not_guilty_of_is_a_fault_and_rejects_nobody(
    saver: Saver, db: Db, trouble: Raise, code: str, at_commit: bool
) -> None:
    """A trigger of somebody's may raise the very codes of bad content: no tenant can know of it."""
    trouble(code, at_commit=at_commit)

    with pytest.raises(StoreFault, match=code):
        saver.save(a_delivery(), a_delivery())

    assert books(db) == {"message": 0, "duplicate": 0, "rejection": 0}


@both_moments
@pytest.mark.parametrize("code", MEETING + TOO_MUCH + AWAY)
def test_what_passes_is_saved_once_when_it_has_passed(
    saver: Saver, db: Db, trouble: Raise, code: str, at_commit: bool
) -> None:
    trouble(code, times=3, at_commit=at_commit)

    assert saver.outcomes(a_delivery(), a_delivery(b"nonsense"), a_delivery()) == [
        "stored",
        "not_json",
        "stored",
    ]
    assert books(db) == {"message": 2, "duplicate": 0, "rejection": 1}


@pytest.mark.parametrize(
    "obstacle",
    [
        "ALTER TABLE message ADD CONSTRAINT house_rule CHECK (payload ? 'vat') NOT VALID",
        "ALTER TABLE message ADD COLUMN vat numeric NOT NULL",
        "CREATE UNIQUE INDEX house_rule ON message (queue)",
        "CREATE INDEX house_rule ON message ((payload ->> 'note'))",
        "ALTER TABLE message ALTER COLUMN delivery_id TYPE varchar(4)",
        "ALTER TABLE message DROP COLUMN context",
        "ALTER TABLE message ADD CONSTRAINT house_rule FOREIGN KEY (message_id) REFERENCES tenant NOT VALID",
    ],
)
def test_what_somebody_put_on_our_table_rejects_nobody(saver: Saver, db: Db, obstacle: str) -> None:
    db.execute(obstacle)
    # Incompressible, so that an index entry of it is too large.
    note = "".join(chr(0x20000 + place * 7919 % 40_000) for place in range(3000))

    with pytest.raises(StoreFault):
        saver.save(*[a_delivery(payload={"total": 1, "note": note}) for _ in range(4)])

    assert books(db)["rejection"] == 0


def test_bad_content_is_found_beside_what_is_stored_whatever_its_code(saver: Saver, db: Db) -> None:
    bad = [a_delivery(payload={"total": 1, "note": note}) for note in ("\0", "\ud800")]

    outcomes = saver.outcomes(a_delivery(), bad[0], a_delivery(), bad[1], a_delivery())

    assert outcomes == ["stored", "unstorable", "stored", "unstorable", "stored"]
    errors = db.execute("SELECT detail ->> 'error' FROM rejection ORDER BY rejection_id").fetchall()
    assert errors == [("22P05",), ("22P02",)]


def test_a_missing_privilege_is_a_fault(make_saver: MakeSaver, db: Db) -> None:
    saver = make_saver()
    saver.store._open().execute("SET ROLE processor_reader")

    # A table in a schema that the role may not use is none.
    with pytest.raises(StoreFault, match=r"42501|42P01"):
        saver.save(a_delivery())

    assert books(db) == {"message": 0, "duplicate": 0, "rejection": 0}


@pytest.mark.parametrize(
    ("cause", "remedy", "code"),
    [
        ("SET default_transaction_read_only = on", "RESET default_transaction_read_only", "25006"),
        ("SET lock_timeout = '20ms'", "RESET lock_timeout", "55P03"),
        ("SET statement_timeout = '50ms'", "RESET statement_timeout", "57014"),
    ],
)
def test_a_real_cause_is_waited_out_and_said(
    database_url: str, db: Db, cause: str, remedy: str, code: str
) -> None:
    schemas = Schemas(body_bytes_max=1024 * 1024, json_depth_max=64)
    retry = OutageRetry("database", wait_s_max=0.05, stop=threading.Event())
    causes = [cause]

    def open_with_cause() -> psycopg.Connection[Any]:
        connection = connect(database_url, timeout_s=20)
        connection.execute(causes[0] if causes else remedy)
        return connection

    store = Store(open_with_cause, schemas, retry, timeout_s=20)
    store.load_registry()
    verdicts = [schemas.validate(a_delivery()) for _ in range(3)]
    outcomes: list[str] = []
    with psycopg.connect(database_url) as other:
        if code != "25006":
            other.execute("LOCK TABLE message IN SHARE MODE")
        saving = threading.Thread(
            target=lambda: outcomes.extend(s.outcome for s in store.save(verdicts)), daemon=True
        )
        saving.start()
        wait_until(lambda: code in retry.trouble, f"the trouble is said to be {code}")
        assert not retry.working.is_set()
        causes.clear()
    saving.join(20)

    assert outcomes == ["stored"] * 3
    assert books(db) == {"message": 3, "duplicate": 0, "rejection": 0}
    store.close()


@pytest.mark.parametrize("code", ["53100", "53300", "25006", "57P03"])
def test_while_the_database_cannot_save_nothing_is_received_and_the_reason_is_said(
    database_url: str, db: Db, trouble: Raise, code: str
) -> None:
    schemas = Schemas(body_bytes_max=1024 * 1024, json_depth_max=64)
    source, stop, give_up = WatchedSource(), threading.Event(), threading.Event()
    database = OutageRetry("database", wait_s_max=0.05, stop=give_up)
    store = Store(lambda: connect(database_url, timeout_s=20), schemas, database, timeout_s=20)
    store.load_registry()
    pipeline = Pipeline(
        source,
        schemas,
        [store],
        limits=PipelineLimits(receive_wait_s=0.05),
        database=database,
        broker=OutageRetry("queue", wait_s_max=0.05, stop=give_up),
        give_up=give_up,
    )
    trouble(code)
    source.send(a_body())
    runner = threading.Thread(target=lambda: pipeline.run(stop), daemon=True)
    runner.start()
    wait_until(lambda: code in pipeline.trouble, f"/readyz would say {code}")
    wait_until(lambda: not source.polling, "the polls under way have ended")

    for _ in range(20):
        source.send(a_body())
    attempts = _raised(db)
    wait_until(lambda: _raised(db) > attempts + 5, "the save has been tried some times more")

    assert source.depth()["visible"] == 20, "receives would be burnt"
    db.execute("DROP TRIGGER trouble ON message")
    wait_until(lambda: not sum(source.depth().values()), "the queue is empty")
    stop.set()
    runner.join(20)
    assert books(db) == {"message": 21, "duplicate": 0, "rejection": 0}


def _raised(db: Db) -> int:
    row = db.execute("SELECT last_value FROM raised").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.skipif(bool(os.environ.get("DATABASE_URL_TEST")), reason="its process is not ours to freeze")
def test_a_server_that_freezes_amid_a_save_is_given_up_and_the_row_is_stored_once(
    saver: Saver, db: Db, database_url: str
) -> None:
    saver.store._deadline = Deadline(1)
    pid = saver.store._open().info.backend_pid
    settlements: list[Settlement] = []
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE message IN SHARE MODE")
        saving = threading.Thread(
            target=lambda: settlements.extend(saver.save(a_delivery(id="o-1"))), daemon=True
        )
        saving.start()
        waiting = "SELECT FROM pg_locks WHERE pid = %s AND NOT granted"
        wait_until(lambda: bool(db.execute(waiting, [pid]).fetchall()), "the save is under way")
        os.kill(pid, signal.SIGSTOP)
    try:
        # Its lock is granted, and it does not know: whoever comes next must not wait for it for ever.
        saving.join(15)
        assert [settlement.outcome for settlement in settlements] == ["stored"]
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(
        lambda: not db.execute("SELECT FROM pg_stat_activity WHERE pid = %s", [pid]).fetchall(), "it is gone"
    )

    assert books(db) == {"message": 1, "duplicate": 0, "rejection": 0}
    assert saver.outcomes(a_delivery(id="o-1")) == ["duplicate"]
