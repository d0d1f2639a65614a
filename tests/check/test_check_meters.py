"""`processor check` on meters: what they miss, and whether voids can come in."""

from typing import Any

import psycopg

from processor.check import Finding
from processor.check.meters import look_at_meters
from processor.operations import registry
from processor.usage.meters import allow_text_amounts
from processor.usage.rebuild import rebuild
from processor.usage.selection import TotalsSelection
from tests.fixtures.database import Saver
from tests.fixtures.meters import a_pulse, add_meter

Db = psycopg.Connection[Any]


def found(db: Db) -> dict[str, Finding]:
    findings = {finding.what: finding for finding in look_at_meters(db)}
    assert all(finding.fine for finding in findings.values())
    return findings


def test_without_meters_nothing_is_said_of_voids(db: Db) -> None:
    findings = found(db)

    assert [*findings] == ["meters"]
    assert (findings["meters"].found, findings["meters"].advice) == ("active: 0", None)


def test_meters_that_missed_something_today_are_named_with_the_command_that_says_why(
    saver: Saver, db: Db
) -> None:
    registry.publish_schema(db, "pulse", {})
    add_meter(db)
    add_meter(db, "fine", group_names=[], group_pointers=[])
    saver.save(a_pulse(1, "x" * 2000), a_pulse(1, "y" * 2000), a_pulse('"one"'))

    findings = list(look_at_meters(db))

    assert findings[0].found == "active: 2"
    assert [(finding.what, finding.found.partition(", last ")[0]) for finding in findings[1:4]] == [
        (
            "meter pulse",
            "2 messages stored and not counted: group_too_long at /product_sku /use_unity",
        ),
        ("meter fine", "1 messages stored and not counted: value_not_a_number at /used_amount"),
        ("meter pulse", "1 messages stored and not counted: value_not_a_number at /used_amount"),
    ]
    assert all(finding.fine for finding in findings)
    assert "processor meter show pulse names a message" in (findings[1].advice or "")
    assert "processor meter text-amounts fine lets it count" in (findings[2].advice or "")


def test_a_number_in_quotes_is_named_until_it_is_counted(saver: Saver, db: Db) -> None:
    registry.publish_schema(db, "pulse", {})
    add_meter(db, tenant_id="acme")
    saver.save(a_pulse('"2.5"'))

    def advice() -> str | None:
        return found(db)["meter pulse"].advice if "meter pulse" in found(db) else None

    assert "processor meter text-amounts pulse --tenant acme lets it count, and" in (advice() or "")

    allow_text_amounts(db, "pulse", "acme")
    assert "lets it count" not in (advice() or "lets it count")
    assert "processor usage rebuild --meter pulse --tenant acme counts" in (advice() or "")

    rebuild(db, TotalsSelection(tenant_id="acme", meter="pulse"))
    assert advice() is None


def test_misses_of_yesterday_and_of_retired_meters_are_not_named(saver: Saver, db: Db) -> None:
    registry.publish_schema(db, "pulse", {})
    add_meter(db)
    add_meter(db, "old")
    saver.save(a_pulse('"one"'))
    db.execute("UPDATE meter SET status = 'retired' WHERE meter = 'old'")
    db.execute("UPDATE meter_miss SET last_at = now() - interval '25 hours' WHERE meter_id = 1")

    assert found(db)["meters"].found == "active: 1"


def test_meters_whose_lines_look_alike_are_named(db: Db) -> None:
    """As a database has them that had them before it was migrated."""
    registry.publish_schema(db, "pulse", {})
    db.execute("DROP TRIGGER meter_pulse_lines_clear ON meter")
    add_meter(db, is_handed_over=True)
    add_meter(db, "again", is_handed_over=True, tenant_id="acme")

    assert found(db)["meters alike"].found.startswith("lines of again, pulse look alike")

    db.execute("UPDATE meter SET status = 'retired' WHERE meter = 'again'")
    assert "meters alike" not in found(db)


def test_meters_without_a_schema_for_voids_are_remarked_on(db: Db) -> None:
    registry.publish_schema(db, "pulse", {})
    add_meter(db)

    assert "processor schema publish void" in (found(db)["voids"].advice or "")

    registry.publish_schema(db, "void", {})
    assert (found(db)["voids"].found, found(db)["voids"].advice) == ("taken", None)
