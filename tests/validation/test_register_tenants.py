"""Tests the registration of tenants by a queue: by valid events only, within its limit, and once each."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from processor.cli import cli
from processor.database.connection import connect
from processor.operations import reader, registry
from processor.operations.queue_rules import set_queue
from processor.settings import Settings
from processor.sources.quarantine import RejectionSelection
from processor.wiring.commands import replay
from tests.builders import QUEUE, a_delivery
from tests.fixtures.database import LogIn, MakeSaver, Saver, books
from tests.rig import wait_until

pytestmark = pytest.mark.usefixtures("nothing_is_set")
Db = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def registering(db: Db) -> None:
    set_queue(db, QUEUE, {"registers_tenants": True})


def tenants(db: Db) -> dict[str, str | None]:
    return dict(db.execute("SELECT tenant_id, registered_by FROM tenant ORDER BY tenant_id").fetchall())


REGISTER = "SELECT register_tenants(%s, %s, (SELECT version FROM registry))"


def words(db: Db) -> list[str]:
    return [
        row["message"]
        for row in reader.rejections(db, RejectionSelection().parameters(), status=None, limit=99)
    ]


def test_an_unknown_tenant_is_registered_by_the_save_that_sees_it(saver: Saver, db: Db) -> None:
    with capture_logs() as logs:
        assert (
            saver.outcomes(
                a_delivery(tenant_id="new-1"),
                a_delivery(tenant_id="new-2"),
                a_delivery(tenant_id="new-1"),
                a_delivery(),
            )
            == ["stored"] * 4
        )

    assert tenants(db) == {"acme": None, "globex": None, "new-1": QUEUE, "new-2": QUEUE}
    announced = [log["tenant_id"] for log in logs if log["event"] == "tenant_registered"]
    assert announced == ["new-1", "new-2"]


def test_a_queue_without_registration_rejects_unknown_tenants(saver: Saver, db: Db) -> None:
    assert saver.outcomes(a_delivery(tenant_id="new", queue="other")) == ["unknown_tenant"]

    assert "new" not in tenants(db)
    assert "add it (processor tenant add)" in words(db)[0]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"event_type": "order.lost"}, "no schema of event type"),
        ({"payload": {"total": -1}}, "less than the minimum"),
        ({"payload": {}}, "required"),
        ({"schema_version": 9}, "no schema version 9"),
    ],
)
def test_garbage_registers_no_tenant(saver: Saver, db: Db, changes: dict[str, Any], why: str) -> None:
    assert saver.outcomes(a_delivery(tenant_id="new", **changes)) == ["unknown_tenant"]

    assert "new" not in tenants(db)
    assert "no valid event to register it by" in words(db)[0]
    assert why in words(db)[0]


@pytest.mark.parametrize("tenant_id", ["", "x" * 257, "a\nb", "a\0b", "\ud800", 7, None])
def test_an_invalid_tenant_id_is_never_registered(saver: Saver, db: Db, tenant_id: Any) -> None:
    assert saver.outcomes(a_delivery(tenant_id=tenant_id)) == ["envelope_invalid"]

    assert set(tenants(db)) == {"acme", "globex"}


def test_a_tenant_outside_the_binding_is_never_registered(saver: Saver, db: Db) -> None:
    set_queue(db, QUEUE, {"tenants": ["new-1", "acme"]})

    assert saver.outcomes(a_delivery(tenant_id="new-1"), a_delivery(tenant_id="new-2")) == [
        "stored",
        "envelope_invalid",
    ]
    # Nor by a process with an older registry.
    assert db.execute(REGISTER, [QUEUE, ["new-3"]]).fetchall() == []
    assert set(tenants(db)) == {"acme", "globex", "new-1"}


def test_tenants_beyond_the_hourly_limit_wait_as_rejections(saver: Saver, db: Db) -> None:
    set_queue(db, QUEUE, {"registers_max": 2})
    found = saver.outcomes(*(a_delivery(tenant_id=f"new-{place}") for place in range(4)))

    assert found == ["stored", "stored", "unknown_tenant", "unknown_tenant"]
    assert "its hourly limit of new tenants" in words(db)[0]
    # An hour later the limit allows more.
    db.execute("UPDATE tenant SET created_at = created_at - interval '61 minutes'")
    assert saver.outcomes(*(a_delivery(tenant_id=f"new-{place}") for place in range(4, 6))) == ["stored"] * 2


def test_manually_added_tenants_do_not_count_against_the_limit(saver: Saver, db: Db) -> None:
    set_queue(db, QUEUE, {"registers_max": 1})
    for place in range(5):
        registry.add_tenant(db, f"by-hand-{place}")

    assert saver.outcomes(a_delivery(tenant_id="new")) == ["stored"]


def at_once(work: Any, count: int) -> list[Any]:
    start = threading.Barrier(count)

    def begin(place: int) -> Any:
        start.wait()
        return work(place)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


def test_concurrent_processes_register_each_tenant_once(make_saver: MakeSaver, db: Db) -> None:
    savers = [make_saver() for _ in range(4)]

    def save(place: int) -> Sequence[str]:
        names = [f"new-{number}" for number in range(20)]
        # Each in its own order: no deadlock may occur.
        return [
            outcome
            for turn in range(20)
            for outcome in savers[place].outcomes(
                a_delivery(tenant_id=names[(turn * (place + 1)) % 20]), a_delivery(tenant_id=names[-1 - turn])
            )
        ]

    found = at_once(save, 4)

    assert {outcome for outcomes in found for outcome in outcomes} == {"stored"}
    assert sum(1 for queue in tenants(db).values() if queue == QUEUE) == 20


def test_the_bound_is_exact_however_many_ask_at_once(make_saver: MakeSaver, db: Db) -> None:
    set_queue(db, QUEUE, {"registers_max": 10})
    savers = [make_saver() for _ in range(4)]

    at_once(
        lambda place: [savers[place].outcomes(a_delivery(tenant_id=f"new-{place}-{n}")) for n in range(8)], 4
    )

    assert sum(1 for queue in tenants(db).values() if queue == QUEUE) == 10
    assert books(db) == {"message": 10, "duplicate": 0, "rejection": 22}


def test_concurrent_registrations_wait_for_each_other(database_url: str, db: Db) -> None:
    """Otherwise both would count before the other has committed."""
    set_queue(db, QUEUE, {"registers_max": 1})
    with (
        connect(database_url) as second,
        psycopg.connect(database_url) as first,
        ThreadPoolExecutor(1) as pool,
    ):
        assert first.execute(REGISTER, [QUEUE, ["new-1"]]).fetchall() == [("new-1",)]

        waiting = pool.submit(lambda: second.execute(REGISTER, [QUEUE, ["new-2"]]).fetchall())
        wait_until(
            lambda: (
                db.execute(
                    "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'",
                    [second.info.backend_pid],
                ).fetchone()
                is not None
            ),
            "it waits",
        )
        first.commit()

        assert waiting.result(30) == []


def test_a_verdict_of_an_older_registry_registers_no_tenant(db: Db) -> None:
    """Its event may no longer be valid."""
    before = "SELECT register_tenants(%s, %s, (SELECT version - 1 FROM registry))"

    assert db.execute(before, [QUEUE, ["new"]]).fetchall() == []


def test_a_schema_that_changes_under_a_registration_undoes_it(
    saver: Saver, database_url: str, db: Db
) -> None:
    """The change is committed between the first check of the version and the lock."""
    with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("INSERT INTO tenant (tenant_id, name) VALUES ('new-1', '')")
        other.execute(
            "INSERT INTO event_schema (event_type, version, definition) VALUES ('order.created', 2, 'false')"
        )
        ready = pool.submit(saver.outcomes, a_delivery(tenant_id="new-0"), a_delivery(tenant_id="new-1"))
        wait_until(
            lambda: (
                db.execute(
                    "SELECT FROM pg_stat_activity WHERE query LIKE '%register_tenants%'"
                    " AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()"
                ).fetchone()
                is not None
            ),
            "it waits for the name",
        )
        other.commit()

        assert ready.result(30) == ["unknown_tenant", "schema_violation"]
    assert set(tenants(db)) == {"acme", "globex", "new-1"}


def test_a_tenant_in_an_open_psql_transaction_blocks_no_save(saver: Saver, database_url: str, db: Db) -> None:
    with psycopg.connect(database_url) as psql:
        psql.execute("INSERT INTO tenant (tenant_id, name) VALUES ('new-1', '')")

        # A session with limits that would end it if it had to wait.
        with connect(database_url) as other:
            other.execute("SET statement_timeout = '10s'")
            other.execute("SET lock_timeout = 0")
            asked = [QUEUE, ["new-1", "new-3"]]
            assert other.execute(REGISTER, asked).fetchall() == [("new-3",)]
        found = saver.outcomes(a_delivery(tenant_id="new-1"), a_delivery(tenant_id="new-2"))
        assert found == ["unknown_tenant", "stored"]
        psql.commit()
    assert tenants(db)["new-1"] is None
    assert "this tenant is being added" in words(db)[0]


def test_an_event_is_stored_after_a_save_failed_behind_its_registration(
    saver: Saver, make_saver: MakeSaver, db: Db
) -> None:
    """A process that died in between left a tenant, and its delivery in the queue."""
    db.execute(REGISTER, [QUEUE, ["new"]])
    saver.close()

    assert make_saver().outcomes(a_delivery(tenant_id="new", receive_count=2)) == ["stored"]
    assert tenants(db)["new"] == QUEUE


def test_the_writer_registers_tenants_of_such_queues_only(log_in: LogIn, db: Db) -> None:
    with connect(log_in("processor_writer")) as writer:
        assert writer.execute(REGISTER, [QUEUE, ["new", "acme"]]).fetchall() == [("new",)]
        set_queue(db, "other", {"unwrap": "none"})
        for queue in ("other", "nowhere"):
            assert writer.execute(REGISTER, [queue, ["x"]]).fetchall() == []
        for statement in (
            "UPDATE queue SET registers_tenants = true",
            "INSERT INTO queue (queue) VALUES ('mine')",
            "DELETE FROM queue",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                writer.execute(statement)
    for role in ("processor_reader", "processor_gateway", "processor_tenant_reader", "processor_biller"):
        with connect(log_in(role)) as other, pytest.raises(psycopg.errors.InsufficientPrivilege):
            other.execute(REGISTER, [QUEUE, ["x"]])


def test_a_replay_registers_tenants_and_a_dry_run_announces_it(
    saver: Saver, database_url: str, db: Db
) -> None:
    set_queue(db, QUEUE, {"registers_tenants": False})
    saver.save(a_delivery(tenant_id="new"), a_delivery(tenant_id="bad", payload={}))
    set_queue(db, QUEUE, {"registers_tenants": True})
    settings = Settings.load(database_url=database_url)

    foretold, _ = replay(settings, RejectionSelection(), dry_run=True, forced=False)
    assert "new" not in tenants(db)
    done, _ = replay(settings, RejectionSelection(), dry_run=False, forced=False)

    assert foretold == done == {"stored": 1, "unknown_tenant": 1}
    assert tenants(db)["new"] == QUEUE


def test_no_rule_discards_rejections_that_await_a_replay(saver: Saver, database_url: str, db: Db) -> None:
    """A valid event would be deleted after a day, for a limit that ends after an hour."""
    set_queue(db, QUEUE, {"registers_max": 1})
    registry.add_rejection_rule(
        db, reason="unknown_tenant", queue=QUEUE, tenant_id=None, event_type=None, conditions={}
    )

    with psycopg.connect(database_url) as psql:
        psql.execute("INSERT INTO tenant (tenant_id, name) VALUES ('new-1', '')")
        being_added = saver.outcomes(a_delivery(tenant_id="new-1"))
        psql.rollback()
    beyond = saver.outcomes(a_delivery(tenant_id="new-2"), a_delivery(tenant_id="new-3"))
    garbage = saver.outcomes(a_delivery(tenant_id="bad", payload={}))

    assert (being_added, beyond, garbage) == (
        ["unknown_tenant"],
        ["stored", "unknown_tenant"],
        ["unknown_tenant"],
    )
    found = db.execute("SELECT tenant_id, status, rule_id FROM rejection ORDER BY rejection_id").fetchall()
    assert found == [("new-1", "open", None), ("new-3", "open", None), ("bad", "discarded", 1)]
    assert tenants(db).keys() == {"acme", "globex", "new-2"}


ODD = [
    "acme ",
    " acme",
    "  ",
    "\u00a0acme",
    "ac\u200bme",
    "\u202eevil",
    "acme\ufe0f",
    "\u3164",
    "*",
    "--help",
    "-",
    "...",
]


@pytest.mark.parametrize("tenant_id", ODD)
def test_an_ambiguous_or_invisible_name_is_not_registered(
    saver: Saver, db: Db, database_url: str, monkeypatch: pytest.MonkeyPatch, tenant_id: str
) -> None:
    assert saver.outcomes(a_delivery(tenant_id=tenant_id)) == ["unknown_tenant"]

    assert set(tenants(db)) == {"acme", "globex"}
    assert "no queue registers such a name: expected a letter or a digit" in words(db)[0]
    monkeypatch.setenv("DATABASE_URL", database_url)
    added = CliRunner().invoke(cli, ["tenant", "add", "--", tenant_id])
    assert added.exit_code == 0, added.output
    assert saver.outcomes(a_delivery(tenant_id=tenant_id)) == ["stored"]
    monkeypatch.setattr("processor.runtime.terminal.screen_width", lambda: 80)
    listed = CliRunner().invoke(cli, ["tenant", "list"]).output
    assert ascii(tenant_id) in listed
    assert "'acme'" not in listed
    assert max(map(len, listed.splitlines())) <= 80


@pytest.mark.parametrize("tenant_id", ["a b", "Zoë", "名前", "a-1_b.c:d/e", "7", "x" * 256])
def test_any_unambiguous_name_is_registered(saver: Saver, db: Db, tenant_id: str) -> None:
    assert saver.outcomes(a_delivery(tenant_id=tenant_id)) == ["stored"]
    assert tenants(db)[tenant_id] == QUEUE
