"""The samples of demo and dev are put into the registry once, and leave alone what is there already."""

from typing import Any

import psycopg
import pytest

from processor.devstack.seed import seed
from processor.operations import registry

Db = psycopg.Connection[Any]


def everything(db: Db) -> list[list[tuple[Any, ...]]]:
    return [
        db.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
        for table in ("registry", "tenant", "event_type", "event_schema", "meter")
    ]


def test_to_seed_twice_changes_nothing(db: Db, database_url: str) -> None:
    seed(database_url)
    once = everything(db)

    seed(database_url)

    assert everything(db) == once


def test_the_samples_have_their_meters_and_scopes(db: Db, database_url: str) -> None:
    seed(database_url)

    assert db.execute(
        "SELECT meter, event_type, aggregation, value_pointer, group_names, group_pointers, window_size,"
        " past_limit::text, is_handed_over, tenant_id FROM meter ORDER BY meter"
    ).fetchall() == [
        ("created", "created", "count", None, ["user_id"], ["/user_id"], "none", None, False, None),
        ("deleted", "deleted", "count", None, ["user_id"], ["/user_id"], "none", None, False, None),
        (
            *("pulse", "pulse", "sum", "/used_amount", ["product_sku", "use_unity"]),
            *(["/product_sku", "/use_unity"], "hour", "92 days", True, None),
        ),
        ("updated", "updated", "count", None, ["user_id"], ["/user_id"], "none", None, False, None),
    ]
    assert db.execute(
        "SELECT event_type FROM event_type WHERE id_scope = '{/user_id}' ORDER BY 1"
    ).fetchall() == [
        ("created",),
        ("deleted",),
        ("updated",),
    ]


def test_an_event_type_and_a_meter_of_the_same_name_are_left_as_they_are(db: Db, database_url: str) -> None:
    registry.publish_schema(db, "created", {"type": "object"})
    db.execute(
        "INSERT INTO meter (meter, tenant_id, event_type, aggregation)"
        " VALUES ('updated', 'acme', 'created', 'count')"
    )

    seed(database_url)

    assert db.execute("SELECT id_scope FROM event_type WHERE event_type = 'created'").fetchall() == [([],)]
    assert db.execute("SELECT tenant_id, event_type FROM meter WHERE meter = 'updated'").fetchall() == [
        ("acme", "created")
    ]


@pytest.mark.parametrize("column", ["id_scope = '{/other}'", "id_scope = '{}'"])
def test_the_scope_of_an_event_type_that_has_a_schema_stays_as_it_is_in_psql_too(
    db: Db, database_url: str, column: str
) -> None:
    seed(database_url)

    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="stays what it is"):
        db.execute(f"UPDATE event_type SET {column} WHERE event_type = 'created'")

    db.execute(
        "UPDATE event_type SET description = 'other', id_scope = id_scope WHERE event_type = 'created'"
    )


@pytest.mark.parametrize(
    "scope", ["{user_id}", "{NULL}", "{/a,/b,/c,/d,/e}", "[2:2]={/a}", "{{/a},{/b}}", "{/a/01}"]
)
def test_a_scope_is_made_of_few_json_pointers(db: Db, scope: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="event_type_id_scope_fit"):
        db.execute("INSERT INTO event_type (event_type, id_scope) VALUES ('created', %s::text[])", (scope,))
