"""`sql/erase_tenant.sql`, typed as its page has it: nothing of a tenant is left, and the books add up."""

import subprocess
from contextlib import closing
from typing import Any

import psycopg
import pytest

from processor.database.queries import sql_folder
from processor.devstack.servers.binaries import find_binaries, server_account
from processor.operations import registry
from processor.operations.audit import audit
from processor.sources.quarantine import RejectionSelection, discard
from processor.validation.tenant_bindings import Bindings
from tests.builders import QUEUE, a_delivery, an_event
from tests.fixtures.audit import Audited, Producer
from tests.fixtures.database import Saver, a_bound_saver, books, count
from tests.fixtures.meters import add_meter
from tests.fixtures.tenants import add_usage

Db = psycopg.Connection[Any]

SECRET = "acme"


@pytest.fixture
def lived_in(database_url: str, saver: Saver, db: Db, producer: Producer) -> None:
    """Traces of acme in every table, and rows of globex beside them."""
    for tenant in ("acme", "globex"):
        registry.publish_schema(db, f"{tenant}.secret", {}, tenant)
        registry.publish_schema(db, "order.created", {}, tenant)
        db.execute("INSERT INTO tenant_reader VALUES (%s, %s)", [f"{tenant}_reader", tenant])
        registry.add_key(db, tenant, f"of {tenant}")
        event = an_event(id="o-1", tenant_id=tenant, payload={"total": 1, "note": f"of {tenant}"})
        saver.save(producer.sends(a_delivery(**event)), producer.sends(a_delivery(**event)))
        saver.save(producer.sends(a_delivery(id=f"{tenant}-x", tenant_id=tenant, event_type="unheard-of")))
    discard(db, RejectionSelection(rejection_ids=[1]))
    for tenant in ("acme", "globex"):
        registry.add_rejection_rule(
            db, reason="unknown_event_type", queue=None, tenant_id=tenant, event_type=None, conditions={}
        )
        saver.save(producer.sends(a_delivery(id=f"{tenant}-y", tenant_id=tenant, event_type="noise")))
    add_usage(db, "acme", "globex")
    db.execute("INSERT INTO usage_rebuild SELECT meter_id, '2026-01-01Z', '2026-02-01Z' FROM meter")
    db.execute("INSERT INTO reopened_window SELECT meter_id, '2026-01-01Z' FROM meter")
    with closing(a_bound_saver(database_url, Bindings(QUEUE, frozenset({"acme"})))) as bound:
        # From acme, and says that it is from globex; and of acme, but nobody can read it.
        bound.save(producer.sends(a_delivery(id="o-2", tenant_id="globex")))
        bound.save(producer.sends(a_delivery(b'{"tenant_id": "acme"')))


def _erase(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    psql = find_binaries(server_account()) / "psql"
    script = sql_folder() / "erase_tenant.sql"
    return subprocess.run(
        [psql, "-X", *options, "-f", script, url], capture_output=True, text=True, check=False, timeout=60
    )


def _traces(db: Db) -> dict[str, int]:
    """Rows by table in which the name stands anywhere at all."""
    found = {}
    tables = db.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    for (table,) in tables:
        body = "|| convert_from(body, 'UTF8')" if table == "rejection" else ""
        query = f"SELECT count(*) FROM {table} AS t WHERE (t::text {body}) LIKE '%{SECRET}%'"
        row = db.execute(query.encode()).fetchone()
        assert row is not None
        found[table] = row[0]
    return {table: rows for table, rows in found.items() if rows}


def test_nothing_is_left_of_an_erased_tenant_but_how_much_there_was(
    lived_in: None, database_url: str, db: Db, audited: Audited
) -> None:
    assert set(_traces(db)) == {
        "message", "duplicate", "rejection", "tenant", "event_type", "event_schema", "tenant_reader",
        "meter", "total", "meter_miss", "voided", "usage_line", "usage_removal", "usage_batch", "api_key",
        "rejection_rule", "rejection_room",
    }  # fmt: skip
    registry.set_tenant_status(db, "acme", "suspended")

    done = _erase(database_url, "-v", "tenant=acme")

    assert done.returncode == 0, done.stderr
    assert set(_traces(db)) == {"removal"}
    assert db.execute("SELECT outcome, sum(row_count) FROM removal GROUP BY 1 ORDER BY 1").fetchall() == [
        ("duplicate", 1),
        ("message", 1),
        ("rejection_discarded", 4),
    ]
    assert books(db) == {"message": 1, "duplicate": 1, "rejection": 2}
    assert audit(db, [], None).holds
    assert audited().holds


def test_others_keep_what_is_theirs(lived_in: None, database_url: str, saver: Saver, db: Db) -> None:
    registry.set_tenant_status(db, "acme", "suspended")
    _erase(database_url, "-v", "tenant=acme")

    assert db.execute("SELECT event_type FROM event_type ORDER BY 1").fetchall() == [
        ("globex.secret",),
        ("order.created",),
    ]
    assert saver.outcomes(a_delivery(tenant_id="globex"), a_delivery(tenant_id="acme")) == [
        "stored",
        "unknown_tenant",
    ]


USAGE = ("meter", "total", "meter_miss", "voided", "usage_line", "usage_removal", "usage_batch")


def test_others_keep_their_usage_and_the_shared_meters(lived_in: None, database_url: str, db: Db) -> None:
    registry.set_tenant_status(db, "acme", "suspended")
    # A batch with lines of both goes on with those of the other.
    db.execute("UPDATE usage_line SET batch_id = 2")

    done = _erase(database_url, "-v", "tenant=acme")

    assert done.returncode == 0, done.stderr
    assert db.execute("SELECT meter FROM meter ORDER BY 1").fetchall() == [("globex-own",), ("shared",)]
    assert db.execute("SELECT tenant_id, meter FROM usage ORDER BY 2").fetchall() == [
        ("globex", "globex-own"),
        ("globex", "shared"),
    ]
    assert {table: count(db, table) for table in USAGE} == {
        "meter": 2, "total": 2, "meter_miss": 1, "voided": 1, "usage_line": 2, "usage_removal": 2,
        "usage_batch": 1,
    }  # fmt: skip
    assert (count(db, "usage_rebuild"), count(db, "reopened_window")) == (2, 2)


def test_lines_that_were_never_handed_over_are_counted_aloud(
    lived_in: None, database_url: str, db: Db
) -> None:
    registry.set_tenant_status(db, "acme", "suspended")
    db.execute("UPDATE meter SET is_handed_over = true WHERE meter = 'shared'")

    done = _erase(database_url, "-v", "tenant=acme", "-A", "-t")

    assert "2|1" in done.stdout.splitlines()


def test_an_event_type_that_a_meter_of_others_counts_stays(lived_in: None, database_url: str, db: Db) -> None:
    registry.set_tenant_status(db, "acme", "suspended")
    db.execute("INSERT INTO event_type (event_type) VALUES ('acme.metered')")
    add_meter(db, "on-its-secret", event_type="acme.secret")
    add_meter(db, "its-own", event_type="acme.metered", tenant_id="acme")

    done = _erase(database_url, "-v", "tenant=acme")

    assert done.returncode == 0, done.stderr
    types = [name for (name,) in db.execute("SELECT event_type FROM event_type ORDER BY 1")]
    assert types == ["acme.secret", "globex.secret", "order.created"]


def test_an_active_tenant_is_not_erased(lived_in: None, database_url: str, db: Db) -> None:
    before = _traces(db)

    done = _erase(database_url, "-v", "tenant=acme")

    assert done.returncode == 3
    assert "tenant acme is active" in done.stderr
    assert _traces(db) == before


def test_without_a_tenant_nothing_is_erased(lived_in: None, database_url: str, db: Db) -> None:
    before = _traces(db)

    done = _erase(database_url)

    assert done.returncode == 3
    assert "which tenant?" in done.stderr
    assert _traces(db) == before


def test_erasing_again_takes_what_came_after(lived_in: None, database_url: str, saver: Saver, db: Db) -> None:
    registry.set_tenant_status(db, "acme", "suspended")
    _erase(database_url, "-v", "tenant=acme")
    saver.save(a_delivery(tenant_id="acme"))
    saver.save(a_delivery(b'{"tenant_id": "acme"'))

    done = _erase(database_url, "-v", "tenant=acme")

    assert done.returncode == 0, done.stderr
    assert audit(db, [], None).holds
    assert "not_json" in done.stdout.splitlines()[-3]
    assert set(_traces(db)) == {"removal", "rejection"}
