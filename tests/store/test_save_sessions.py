"""What a save does not depend on: the role's defaults, the schema's name, how long judging takes."""

import threading
import time
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from processor.database.connection import connect
from processor.database.migrations import migrate
from processor.devstack.servers.postgres import EmbeddedPostgres
from processor.errors import Stopped
from processor.model import Delivery, Settlement, Verdict
from processor.operations import registry
from processor.runtime.outages import OutageRetry
from processor.store.store import Store
from processor.validation.validator import Schemas
from tests.builders import ORDER_SCHEMA, a_delivery
from tests.fixtures.database import REGISTRY_WAITS, MakeSaver, Saver, books, count

Db = psycopg.Connection[Any]


@pytest.mark.parametrize("default", ["repeatable read", "serializable"])
def test_a_role_with_old_snapshots_never_judges_by_an_old_registry(
    make_saver: MakeSaver, db: Db, database_url: str, default: str
) -> None:
    """A snapshot taken before the lock was granted would not see the change that the lock was held for."""
    db.execute(f"ALTER DATABASE {db.info.dbname} SET default_transaction_isolation = '{default}'")
    saver = make_saver()
    with psycopg.connect(database_url) as changer:
        changer.execute("LOCK TABLE public_locks.registry_lock IN EXCLUSIVE MODE")
        changer.execute("INSERT INTO tenant (tenant_id, name) VALUES ('new_tenant', 'new_tenant')")
        outcomes: list[str] = []
        saving = threading.Thread(
            target=lambda: outcomes.extend(saver.outcomes(a_delivery(tenant_id="new_tenant"))), daemon=True
        )
        saving.start()
        _wait_for_lock(db)
        changer.commit()
    saving.join(10)

    assert outcomes == ["stored"]


def test_a_session_never_wakes_the_compiler(saver: Saver) -> None:
    """Where sequential scans are priced out, PostgreSQL 15 compiled the read of one row, 20 ms a save."""
    row = saver.store._open().execute("SHOW jit").fetchone()

    assert row == ("off",)


def test_judging_that_takes_longer_than_a_transaction_may_is_not_done_in_one(
    database_url: str, db: Db
) -> None:
    class SlowSchemas(Schemas):
        def validate(self, delivery: Delivery, *, may_wait: bool = True) -> Verdict:
            time.sleep(0.3)
            return super().validate(delivery, may_wait=may_wait)

    schemas = SlowSchemas(body_bytes_max=1024 * 1024, json_depth_max=64)
    retry = OutageRetry("database", wait_s_max=0.1, stop=threading.Event())
    store = Store(lambda: connect(database_url, timeout_s=1), schemas, retry, timeout_s=1)
    store.load_registry()
    verdicts = [Schemas.validate(schemas, a_delivery()) for _ in range(6)]
    registry.add_tenant(db, "new_tenant")

    settlements = store.save(verdicts)

    assert [settlement.outcome for settlement in settlements] == ["stored"] * 6
    store.close()


def test_a_batch_that_takes_longer_than_a_statement_may_is_halved(database_url: str, db: Db) -> None:
    db.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END'"
    )
    db.execute("CREATE TRIGGER slow BEFORE INSERT ON message FOR EACH ROW EXECUTE FUNCTION slow()")
    schemas = Schemas(body_bytes_max=1024 * 1024, json_depth_max=64)
    retry = OutageRetry("database", wait_s_max=0.1, stop=threading.Event())
    store = Store(lambda: connect(database_url, timeout_s=1), schemas, retry, timeout_s=1)
    store.load_registry()

    settlements = store.save([schemas.validate(a_delivery()) for _ in range(40)])

    assert len(settlements) == 40
    assert books(db) == {"message": 40, "duplicate": 0, "rejection": 0}
    store.close()


def test_a_stop_ends_the_tries_of_a_transaction_that_meets_others(database_url: str, db: Db) -> None:
    db.execute(
        "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN RAISE EXCEPTION 'met another' USING ERRCODE = '40001'; END$$"
    )
    db.execute("CREATE TRIGGER lose BEFORE INSERT ON message FOR EACH ROW EXECUTE FUNCTION lose()")
    schemas = Schemas(body_bytes_max=1024 * 1024, json_depth_max=64)
    stop = threading.Event()
    patience = OutageRetry("database", wait_s_max=0.1, stop=stop)
    store = Store(lambda: connect(database_url, timeout_s=1), schemas, patience, timeout_s=1)
    store.load_registry()
    stop.set()

    with capture_logs() as logs, pytest.raises(Stopped):
        store.save([schemas.validate(a_delivery())])

    assert [entry["event"] for entry in logs] == ["save_failed"]
    store.close()


def test_a_locked_table_is_an_outage_at_once(database_url: str) -> None:
    """Halved as a batch that takes too long, it would show after as many time-outs as there are halves."""
    schemas = Schemas(body_bytes_max=1024 * 1024, json_depth_max=64)
    retry = OutageRetry("database", wait_s_max=0.1, stop=threading.Event())
    store = Store(lambda: connect(database_url, timeout_s=2), schemas, retry, timeout_s=2)
    store.load_registry()
    verdicts = [schemas.validate(a_delivery()) for _ in range(64)]
    settlements: list[Settlement] = []
    saving = threading.Thread(target=lambda: settlements.extend(store.save(verdicts)), daemon=True)

    with psycopg.connect(database_url) as careless:
        careless.execute("LOCK TABLE message IN ACCESS EXCLUSIVE MODE")
        saving.start()
        give_up_at = time.monotonic() + 6
        while retry.working.is_set() and time.monotonic() < give_up_at:
            time.sleep(0.02)
        trouble = retry.trouble
    saving.join(10)

    assert trouble == "the database can't save now: 55P03"
    assert [settlement.outcome for settlement in settlements] == ["stored"] * 64
    store.close()


def test_a_redelivery_waits_for_the_standby_as_a_first_delivery_does(
    sound_server: EmbeddedPostgres, writer_url: str
) -> None:
    """What it finds may be on the primary alone, of a session that was ended while it waited."""
    schemas = Schemas(body_bytes_max=1024 * 1024, json_depth_max=64)
    retry = OutageRetry("database", wait_s_max=0.1, stop=threading.Event())
    saver = Saver(schemas, Store(lambda: connect(writer_url, timeout_s=20), schemas, retry, timeout_s=20))
    saver.store.load_registry()
    delivery = a_delivery()
    assert saver.outcomes(delivery) == ["stored"]
    outcomes: list[str] = []

    def save_again() -> threading.Thread:
        saving = threading.Thread(target=lambda: outcomes.extend(saver.outcomes(delivery)), daemon=True)
        saving.start()
        return saving

    with psycopg.connect(sound_server.url(), autocommit=True) as admin:
        _need_standby(admin, "one-that-is-away")
        try:
            saving = save_again()
            give_up_at = time.monotonic() + 10
            waiting = "SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = 'worker'"
            while admin.execute(waiting).fetchone() is None:
                assert time.monotonic() < give_up_at
                if not saving.is_alive():
                    # The server takes a moment to need its standby; until then nobody waits for one.
                    saving = save_again()
                time.sleep(0.01)
        finally:
            _need_standby(admin, "")
    saving.join(10)

    assert set(outcomes) == {"redelivered"}
    saver.store.close()


def _need_standby(admin: Db, name: str) -> None:
    admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name and chr(34) + name + chr(34)}'")
    admin.execute("SELECT pg_reload_conf()")


def test_verdicts_made_before_the_connection_was_lost_are_made_again(saver: Saver, db: Db) -> None:
    """After a failover or a restore the same version of the registry may mean something else."""
    verdict = saver.schemas.validate(a_delivery())
    db.execute("ALTER TABLE tenant DISABLE TRIGGER USER")
    db.execute("UPDATE tenant SET status = 'suspended'")
    db.execute("ALTER TABLE tenant ENABLE TRIGGER USER")
    saver.store.close()

    [settlement] = saver.store.save([verdict])

    assert settlement.reason == "tenant_suspended"


def test_ids_too_long_together_are_refused_in_words_that_fit(saver: Saver, db: Db) -> None:
    # Of different characters, since the index compresses what repeats.
    name = "".join(chr(0x20000 + place * 7919 % 40_000) for place in range(256))
    registry.add_tenant(db, name)

    assert saver.outcomes(a_delivery(tenant_id=name, id=name, producer=name)) == ["unstorable"]

    row = db.execute("SELECT detail ->> 'message' FROM rejection").fetchone()
    assert row is not None
    assert "too large" in row[0]


def test_the_tables_may_live_in_a_schema_of_the_owners_name(server_url: str, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute("DROP SCHEMA public CASCADE")
        admin.execute("CREATE SCHEMA events_owner")
    url = f"{database_url}?options=-c%20search_path%3Devents_owner"
    with psycopg.connect(url, autocommit=True) as owner:
        migrate(owner)
        registry.add_tenant(owner, "acme")
        registry.publish_schema(owner, "order.created", ORDER_SCHEMA)
        schemas = Schemas(body_bytes_max=1024 * 1024, json_depth_max=64)
        store = Store(
            lambda: connect(url, timeout_s=5),
            schemas,
            OutageRetry("database", wait_s_max=0.1, stop=threading.Event()),
            timeout_s=5,
        )
        store.load_registry()
        store.save([schemas.validate(a_delivery())])
        store.close()

        assert count(owner, "events_owner.message") == 1


def test_a_reader_cannot_borrow_the_owners_rights(db: Db, database_url: str) -> None:
    """Its own temporary table named registry must not be found by our trigger, nor our trigger be its own."""
    with psycopg.connect(database_url, autocommit=True) as reader:
        reader.execute("SET ROLE processor_reader")
        reader.execute("CREATE TEMPORARY TABLE bait (tenant_id text)")

        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute(
                "CREATE TRIGGER bite AFTER INSERT ON bait FOR EACH ROW EXECUTE FUNCTION registry_changed()"
            )

    paths = db.execute(
        "SELECT proname, proconfig FROM pg_proc"
        " WHERE proname IN ('registry_changed', 'registry_version_held')"
    ).fetchall()
    assert sorted(paths) == [
        ("registry_changed", ["search_path=public_locks, public, pg_temp"]),
        # Without an argument, with one and with two, for older code, and with three, which locks.
        *[("registry_version_held", ["search_path=public, pg_temp"])] * 3,
        ("registry_version_held", ["search_path=public_locks, public, pg_temp"]),
    ]


def _wait_for_lock(db: Db) -> None:
    give_up_at = time.monotonic() + 10
    while db.execute(REGISTRY_WAITS).fetchone() is None:
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
