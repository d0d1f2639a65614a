"""Tests that a save enforces the rights of a tenant's own queue."""

import json
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from processor.cli import cli
from processor.model import Delivery
from processor.operations import registry
from processor.operations.queue_rules import set_queue
from processor.settings import Settings
from processor.sources.quarantine import RejectionSelection
from processor.wiring.commands import replay, run_check
from tests.fixtures.database import Saver, books
from tests.fixtures.meters import a_pulse, a_void, add_meter, totals

pytestmark = pytest.mark.usefixtures("nothing_is_set")
Db = psycopg.Connection[Any]

OWN = "acme-queue"
REFUSED = "envelope_invalid"


@pytest.fixture(autouse=True)
def metered(db: Db) -> None:
    """The meter of pulses; the schemas accept everything."""
    for event_type in ("pulse", "void"):
        registry.publish_schema(db, event_type, {})
    add_meter(db, allows_corrections=True)


def by(queue: str, delivery: Delivery) -> Delivery:
    return replace(delivery, queue=queue)


def rules(**changes: Any) -> dict[str, Any]:
    return {"tenants": ["acme"], "producers": ["acme-app"], "may_void": False, "may_correct": False} | changes


@pytest.mark.parametrize("producer", ["platform", ""])
def test_a_tenants_queue_neither_voids_nor_takes_the_id_of_what_the_platform_sends(
    producer: str, saver: Saver, db: Db
) -> None:
    set_queue(db, OWN, rules(may_void=True))
    platform = {"producer": producer} if producer else {}
    saver.save(a_pulse(1000, id="p-1", **platform))

    found = saver.outcomes(
        by(OWN, a_void("p-1", producer, id="v-1")),
        by(OWN, a_pulse(0, id="p-2", **platform)),
        by(OWN, a_pulse(5, id="p-1")),
    )
    saver.save(a_pulse(1000, id="p-2", **platform))

    # An event without a producer gets the only one of the queue.
    assert found == [REFUSED, "stored" if not producer else REFUSED, "stored"]
    assert totals(db) == [("acme", "disk", 2005, 4 if not producer else 3)]
    named = db.execute("SELECT DISTINCT producer FROM message WHERE queue = %s", [OWN]).fetchall()
    assert named == [("acme-app",)]


def test_an_event_without_a_queue_right_is_rejected_with_the_missing_right(saver: Saver, db: Db) -> None:
    set_queue(db, OWN, rules(event_types=["pulse"]))

    found = saver.outcomes(
        by(OWN, a_void("p-1")),
        by(OWN, a_pulse(-1)),
        by(OWN, a_pulse(1, producer="platform")),
        by(OWN, a_pulse(1, event_type="order.created")),
        by(OWN, a_pulse(1, tenant_id="globex")),
        by(OWN, a_pulse(1)),
    )

    assert found == [*[REFUSED] * 5, "stored"]
    details = db.execute("SELECT detail FROM rejection ORDER BY rejection_id").fetchall()
    rights = [detail["errors"][0]["rule"] for (detail,) in details if "errors" in detail]
    assert sorted(rights) == ["event_types", "may_correct", "may_void", "producers"]
    [words] = [detail["message"] for (detail,) in details if "platform" in detail["message"]]
    assert words == (
        "producer: expected acme-app (right producers); saw platform, and queue 'acme-queue' may not "
        "carry it: send it to another queue, or correct `processor queue set` and replay"
    )


def test_a_queue_without_rights_carries_everything(saver: Saver, db: Db) -> None:
    registry.publish_schema(db, "created", {}, id_scope=["/user_id"])
    set_queue(db, OWN, {"tenants": ["acme"]})

    found = saver.outcomes(
        by(OWN, a_pulse(-1, producer="created/ada")),
        by(OWN, a_void("p-1")),
        a_pulse(1, producer="created/ada"),
    )

    assert found == ["stored"] * 3


def test_a_right_revoked_between_verdict_and_save_is_enforced(saver: Saver, db: Db) -> None:
    set_queue(db, OWN, {"tenants": ["acme"]})
    saver.store.load_registry()
    verdict = saver.schemas.validate(by(OWN, a_void("p-1")))
    set_queue(db, OWN, {"may_void": False})

    [settlement] = saver.store.save([verdict])

    assert settlement.reason == REFUSED
    assert books(db) == {"message": 0, "duplicate": 0, "rejection": 1}


def test_a_replay_without_settings_obeys_the_rights_of_its_queue(
    saver: Saver, db: Db, database_url: str
) -> None:
    set_queue(db, OWN, rules())
    saver.save(by(OWN, a_void("p-1", "acme-app")), by(OWN, a_pulse(1, producer="platform")))
    settings = Settings.load(database_url=database_url)

    before, _ = replay(settings, RejectionSelection(), dry_run=False, forced=False)
    set_queue(db, OWN, {"may_void": True})
    after, _ = replay(settings, RejectionSelection(), dry_run=False, forced=False)

    assert before == {REFUSED: 2}
    assert after == {"stored": 1, REFUSED: 1}
    assert db.execute("SELECT event_type, producer FROM message").fetchall() == [("void", "acme-app")]


def test_a_processor_without_support_for_rights_stores_nothing_once_a_queue_is_restricted(db: Db) -> None:
    set_queue(db, OWN, {"tenants": ["acme"]})
    db.execute("SELECT registry_version_held(true, true)")

    for change in ({"may_void": False}, {"may_correct": False}, {"producers": ["a"]}, {"event_types": ["a"]}):
        set_queue(db, OWN, change)
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="too old to keep to them"):
            db.execute("SELECT registry_version_held(true, true)")
        db.execute("SELECT registry_version_held(true, true, true)")
        db.execute(
            "UPDATE queue SET may_void = true, may_correct = true, producers = NULL, event_types = NULL"
        )


# ── the commands ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def command(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("DATABASE_URL", database_url)

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(cli, ["queue", *arguments])

    return call


def test_rights_are_set_shown_and_unset(command: Any) -> None:
    done = command(
        "set", OWN, "--tenant", "acme", "--event-types", "pulse,order.created", "--producer", "acme-app",
        "--producer", "/acme/*", "--no-void", "--no-correct",
    )  # fmt: skip

    assert done.output == (
        f"queue {OWN}: tenants acme; event types order.created, pulse; producers acme-app, /acme/*; "
        "no voids; no negative amounts\n"
    )
    row = json.loads(command("show", OWN, "--json").output)
    assert (row["event_types"], row["producers"]) == (["order.created", "pulse"], ["acme-app", "/acme/*"])
    assert (row["may_void"], row["may_correct"]) == (False, False)
    shown = command("show", OWN).output
    for line in ("producers         acme-app, /acme/*", "may_void          no", "may_correct       no"):
        assert line in shown
    for option in ("event-types", "producer", "no-void", "no-correct"):
        done = command("set", OWN, "--unset", option)
        assert done.exit_code == 0
    assert done.output == f"queue {OWN}: tenants acme\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--event-types", "void"), "void is a right of its own"),
        (("--producer", "x" * 257), "is no producer"),
        (("--no-void", "--unset", "no-void"), "contradicts"),
    ],
)
def test_what_can_not_be_meant_is_refused(options: tuple[str, ...], words: str, command: Any, db: Db) -> None:
    refused = command("set", OWN, *options)

    assert refused.exit_code == 2
    assert words in refused.stderr
    assert db.execute("SELECT FROM queue").fetchall() == []


def test_a_check_lists_the_rights_of_its_queue(settings: Settings, db: Db) -> None:
    set_queue(db, settings.queue_name(), rules(event_types=["pulse"]))

    found = {finding.what: finding for finding in run_check(settings)}["queue rules"]

    assert found.found == (
        f"{settings.queue_name()}: tenants: acme; event types: pulse; producers: acme-app; "
        "refuses: voids and negative amounts"
    )
