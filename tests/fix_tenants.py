"""Two tenants with rows in every table, and a login that reads for one of them."""

from collections.abc import Iterator
from contextlib import closing
from datetime import date
from typing import Any

import psycopg
import pytest

from processor.operations import registry
from processor.validation.tenant_bindings import Bindings
from tests.builders import QUEUE, a_delivery, an_event
from tests.fix_database import LogIn, a_bound_saver, login_of

Db = psycopg.Connection[Any]

OWNERS = {
    "message": "tenant_id",
    "duplicate": "tenant_id",
    "rejection": "bound_tenant_id",
    "removal": "tenant_id",
    "tenant": "tenant_id",
    "event_schema": "tenant_id",
    "tenant_reader": "tenant_id",
    "meter": "tenant_id",
    "total": "tenant_id",
    "meter_miss": "tenant_id",
    "voided": "tenant_id",
    "usage_line": "tenant_id",
    "usage_removal": "tenant_id",
}
"""Each table with a wall, and the column that says whose a row is."""

_USAGE = """
    INSERT INTO meter (meter, tenant_id, event_type, aggregation)
    VALUES (%(tenant)s || '-own', %(tenant)s, 'order.created', 'count');
    INSERT INTO total (tenant_id, meter_id, window_start, group_key, slot, value, messages, first_at, last_at)
    SELECT %(tenant)s, meter_id, '2026-01-01Z', '{"sku": "of ' || %(tenant)s || '"}', 0, 7, 1, now(), now()
    FROM meter WHERE tenant_id IS NULL OR tenant_id = %(tenant)s;
    INSERT INTO usage_line (tenant_id, meter_id, window_start, group_key, revision, value, messages,
      total_value, total_messages)
    SELECT tenant_id, meter_id, window_start, group_key, 1, value, messages, value, messages
    FROM total WHERE tenant_id = %(tenant)s;
    INSERT INTO usage_removal (tenant_id, meter_id, window_start, group_key, value, messages, removed_at)
    SELECT tenant_id, meter_id, window_start, group_key, value, messages, now()
    FROM total WHERE tenant_id = %(tenant)s;
    INSERT INTO meter_miss (tenant_id, meter_id, reason, schema_id, slot, messages, first_at, last_at,
      last_message_id)
    SELECT %(tenant)s, min(meter_id), 'too_old', 1, 0, 1, now(), now(), 'of ' || %(tenant)s FROM meter;
    INSERT INTO voided VALUES (%(tenant)s, 'of ' || %(tenant)s, '', 'v-1', now());
    INSERT INTO usage_batch (batch_key, line_count) VALUES ('of ' || %(tenant)s, 1);
    UPDATE usage_line SET batch_id = (SELECT max(batch_id) FROM usage_batch) WHERE tenant_id = %(tenant)s
"""


def add_usage(db: Db, *tenants: str) -> None:
    """A shared meter, and of each tenant one of its own, with rows in every table of usage."""
    db.execute(
        "INSERT INTO meter (meter, event_type, aggregation) VALUES ('shared', 'order.created', 'count')"
    )
    with closing(psycopg.ClientCursor(db)) as cursor:
        for tenant in tenants:
            cursor.execute(_USAGE, {"tenant": tenant})


@pytest.fixture
def two_tenants(database_url: str, db: Db) -> None:
    """Rows of acme and of globex in every table, and rejections that claim what isn't so."""
    for tenant in ("acme", "globex"):
        registry.publish_schema(db, f"{tenant}.secret", {}, tenant)
        bindings = Bindings(QUEUE, frozenset({tenant}))
        with closing(a_bound_saver(database_url, bindings)) as saver:
            event = an_event(id="o-1", tenant_id=tenant, payload={"total": 1, "note": f"of {tenant}"})
            saver.save(a_delivery(**event), a_delivery(**event))
            # Says that it is from the other one; and says nothing at all.
            saver.save(a_delivery(tenant_id="globex" if tenant == "acme" else "acme"))
            saver.save(a_delivery(b"nonsense"))
        rows = [(tenant, "message"), (tenant, "duplicate"), (tenant, "rejection_discarded")]
        for row in rows:
            db.execute("INSERT INTO removal VALUES (%s, %s, %s, 7, now())", [*row, date(2026, 1, 1)])
    add_usage(db, "acme", "globex")
    with closing(a_bound_saver(database_url, Bindings())) as saver:
        # Of a stranger, who claims to be acme.
        saver.save(a_delivery(b'{"tenant_id": "acme", "event_type": "x", "payload": ""}'))
        saver.save(a_delivery(tenant_id="acme", event_type="unheard-of"))


def map_tenants(db: Db, url: str, *tenants: str) -> None:
    for tenant in tenants:
        db.execute("INSERT INTO tenant_reader VALUES (%s, %s)", [login_of(url), tenant])


@pytest.fixture
def acme_url(two_tenants: None, log_in: LogIn, db: Db) -> str:
    """The URL of a login that reads for acme; another one reads for globex."""
    acme = log_in("processor_tenant_reader", name="acme_reader")
    map_tenants(db, acme, "acme")
    map_tenants(db, log_in("processor_tenant_reader", name="globex_reader"), "globex")
    return acme


@pytest.fixture
def acme(acme_url: str) -> Iterator[Db]:
    with psycopg.connect(acme_url, autocommit=True) as connection:
        yield connection


def owners(db: Db, table: str) -> set[Any]:
    """Whose rows are seen."""
    return {owner for (owner,) in db.execute(f"SELECT {OWNERS[table]} FROM {table}")}


def drop_wall(db: Db, table: str) -> None:
    db.execute(f"DROP POLICY {table}_of_tenant ON {table}")


def let_make_temporary(db: Db, reader: Db) -> None:
    """Give the right back to make temporary tables and functions: the policies hold without that wall."""
    db.execute(f"GRANT TEMPORARY ON DATABASE {db.info.dbname} TO {reader.info.user}")
    db.execute(f"GRANT USAGE ON LANGUAGE plpgsql TO {reader.info.user}")
    db.execute("ALTER EVENT TRIGGER processor_ddl DISABLE")
