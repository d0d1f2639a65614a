"""After retention the audit still proves what can be proved, and an old rejection is not counted twice."""

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import structlog
from click.testing import CliRunner, Result

from processor.cli import cli
from processor.model import Delivery
from processor.operations import registry
from processor.operations.audit import audit
from processor.operations.retention import Ages
from processor.sources.quarantine import QuarantineSource, RejectionSelection, discard
from tests.builders import QUEUE, a_delivery, an_event
from tests.fixtures.audit import Audited, Producer, ids, wrong
from tests.fixtures.database import Saver, books
from tests.operations.registry.test_rejection_rules import NO_AGES, add
from tests.operations.test_retention import OLD_MESSAGES, age, removals, run
from tests.sources.test_quarantine import replay

Db = psycopg.Connection[Any]


def remove_messages(db: Db, where: str = "true") -> None:
    """Make messages old, and remove them."""
    db.execute(f"UPDATE message SET stored_at = stored_at - interval '100 days' WHERE {where}")
    run(db)


# ── the audit by the tables alone ─────────────────────────────────────────────────────────────────────


def old_pair(saver: Saver, db: Db, **changes: Any) -> None:
    """A message and its duplicate, of which the message is old enough to go."""
    event = an_event(**changes)
    saver.save(a_delivery(**event), a_delivery(**event))
    db.execute("UPDATE duplicate SET received_at = now() - interval '39 days'")
    db.execute("UPDATE message SET stored_at = now() - interval '50 days'")


def test_a_duplicate_whose_message_was_removed_is_no_problem(saver: Saver, db: Db) -> None:
    old_pair(saver, db)

    run(db)

    assert books(db) == {"message": 0, "duplicate": 1, "rejection": 0}
    assert wrong(audit(db, [], None)) == {}


def test_more_duplicates_of_nothing_than_messages_were_removed_are_found(saver: Saver, db: Db) -> None:
    old_pair(saver, db)
    run(db)
    saver.save(a_delivery(id="o-2"), a_delivery(id="o-2"))
    db.execute("DELETE FROM message")

    assert wrong(audit(db, [], None)) == {"duplicates_of_nothing": 1}


def test_what_was_removed_of_one_tenant_excuses_no_other(saver: Saver, db: Db) -> None:
    old_pair(saver, db, tenant_id="globex")
    run(db)
    event = an_event()
    orphan = a_delivery(**event)
    saver.save(a_delivery(**event), orphan)
    db.execute("DELETE FROM message")

    report = audit(db, [], None)

    assert wrong(report) == {"duplicates_of_nothing": 1}
    assert ids(report, "duplicates_of_nothing") == [orphan.delivery_id]


def test_a_duplicate_from_before_all_that_was_removed_is_found(saver: Saver, db: Db) -> None:
    old_pair(saver, db)
    db.execute("UPDATE duplicate SET received_at = now() - interval '60 days'")

    run(db, Ages(message=40, duplicate=None, rejection=None, key=35))

    assert wrong(audit(db, [], None)) == {"duplicates_of_nothing": 1}


@pytest.mark.parametrize("tenant_known", [True, False])
def test_a_replayed_rejection_whose_message_was_removed_is_no_problem(
    saver: Saver, db: Db, tenant_known: bool
) -> None:
    saver.save(a_delivery(tenant_id="newcomer"))
    registry.add_tenant(db, "newcomer")
    replay(saver, db)
    age(db, 100)
    if not tenant_known:
        # As of a body that could not be read then.
        db.execute("UPDATE rejection SET tenant_id = NULL")

    run(db, Ages(message=40, duplicate=None, rejection=None, key=35))
    assert wrong(audit(db, [], None)) == {}

    # A second one is not explained by the one message that went.
    saver.save(a_delivery(b"x"))
    db.execute("UPDATE rejection SET status = 'replayed', closed_at = now() WHERE status = 'open'")
    db.execute("UPDATE rejection SET tenant_id = (SELECT min(tenant_id) FROM rejection)")
    assert wrong(audit(db, [], None)) == {"replayed_to_nothing": 1}


def test_a_replayed_rejection_that_is_removed_counts_beside_the_equation(saver: Saver, db: Db) -> None:
    saver.save(a_delivery(tenant_id="newcomer"))
    registry.add_tenant(db, "newcomer")
    replay(saver, db)
    age(db, 100)

    run(db)

    assert removals(db) == {("newcomer", "message"): 1, ("newcomer", "rejection_replayed"): 1}
    assert "+ removed                     1" in audit(db, [], None).text()


# ── the audit against manifests ───────────────────────────────────────────────────────────────────────


def test_what_was_removed_is_not_lost_and_the_equation_says_where_it_is(
    saver: Saver, db: Db, producer: Producer, audited: Audited
) -> None:
    event = an_event()
    saver.save(
        producer.sends(a_delivery(**event)),
        producer.sends(a_delivery(**event)),
        producer.sends(a_delivery(b"nonsense")),
        producer.sends(a_delivery(tenant_id="globex")),
    )
    discard(db, RejectionSelection())
    age(db, 100, "receive_count = 1")
    db.execute("UPDATE message SET stored_at = now() WHERE tenant_id = 'globex'")
    run(db)

    report = audited(queued=0)

    assert wrong(report) == {}
    assert report.accepted == {"accepted": 4, "message": 1, "duplicate": 0, "rejection": 0, "missing": 3}
    assert "+ removed                     3   (of 3 that retention removed" in report.text()
    assert "+ lost                        0" in report.text()


def test_what_is_missing_beyond_what_was_removed_is_lost(
    saver: Saver, db: Db, producer: Producer, audited: Audited
) -> None:
    saver.save(producer.sends(a_delivery()), producer.sends(a_delivery()))
    remove_messages(db)
    producer.sends(a_delivery())
    producer.sends(a_delivery())

    assert wrong(audited(queued=0)) == {"lost": 2}
    report = audited(queued=1)
    assert wrong(report) == {"lost": 1}
    assert "+ removed                     2" in report.text()
    assert "+ lost                        1" in report.text()
    assert wrong(audited(queued=2)) == {}


def test_what_was_removed_of_a_tenant_hides_no_loss_of_another(
    saver: Saver, db: Db, producer: Producer, audited: Audited
) -> None:
    saver.save(producer.sends(a_delivery(tenant_id="globex")), a_delivery(tenant_id="globex"))
    remove_messages(db)
    producer.sends(a_delivery(tenant_id="acme"))

    assert wrong(audited(queued=0)) == {"lost": 1}


def test_a_line_without_tenant_is_explained_by_any_tenants_removed_rows_but_once(
    saver: Saver, db: Db, producer: Producer, audited: Audited
) -> None:
    """Manifests name no tenant where a body says it in another way, as CloudEvents do."""
    event = an_event()
    saver.save(producer.sends(a_delivery(**event)))
    stored = a_delivery()
    saver.save(stored)
    producer.sends(a_delivery(b"{}", delivery_id=stored.delivery_id))
    remove_messages(db)

    assert wrong(audited(queued=0)) == {}

    producer.sends(a_delivery(b"{}"))
    assert wrong(audited(queued=0)) == {"lost": 1}


def noise_removed(saver: Saver, db: Db, *deliveries: Delivery) -> None:
    """Deliveries are discarded by rules, and removed a day later."""
    saver.save(*deliveries)
    db.execute("UPDATE rejection SET closed_at = now() - interval '2 days' WHERE rule_id IS NOT NULL")
    run(db, NO_AGES)


def test_a_loss_does_not_hide_behind_removed_noise(
    saver: Saver, db: Db, producer: Producer, audited: Audited
) -> None:
    """Noise of others explains nothing that a registered tenant misses, be it anybody's or nobody's."""
    for reason in ("envelope_invalid", "unknown_tenant", "schema_violation"):
        add(db, reason, queue=QUEUE)
    noise = [a_delivery(b"{}"), a_delivery(tenant_id="ghost"), a_delivery(tenant_id="globex", payload={})]
    noise_removed(saver, db, *noise)
    producer.sends(a_delivery(tenant_id="acme"))

    report = audited(queued=0)

    assert removals(db) == {("", "rejection_ruled"): 2, ("globex", "rejection_ruled"): 1}
    assert (wrong(report), report.unproven) == ({"lost": 1}, 0)
    assert "+ lost                        1" in report.text()


def test_removed_noise_explains_what_it_can_be_and_the_audit_says_that_it_is_not_proven(
    saver: Saver, db: Db, producer: Producer, audited: Audited
) -> None:
    for reason in ("not_json", "unknown_tenant", "schema_violation", "too_large"):
        add(db, reason, queue=QUEUE)
    noise = [a_delivery(b"{"), a_delivery(tenant_id="ghost"), a_delivery(payload={})]
    # Too large to be read: its line names a tenant, and its row none.
    noise.append(a_delivery(tenant_id="globex", payload={"filler": "x" * 1024 * 1024}))
    noise_removed(saver, db, *[producer.sends(delivery) for delivery in noise])

    report = audited(queued=0)

    assert (wrong(report), report.unproven) == ({}, 4)
    assert report.text().endswith(
        "the audit holds; not proven for 4: as many were removed, and a loss would look the same"
    )
    assert report.as_dict()["unproven"] == 4
    producer.sends(a_delivery(tenant_id="ghost"))
    assert wrong(audited(queued=0)) == {"lost": 1}


def test_without_retention_the_audit_reads_as_before(
    saver: Saver, producer: Producer, audited: Audited, db: Db
) -> None:
    saver.save(producer.sends(a_delivery()))

    assert "removed" not in audited().text()
    assert "removed" not in audit(db, [], None).text()
    assert audited().as_dict()["removed"] == {
        "message": 0,
        "duplicate": 0,
        "rejection_discarded": 0,
        "rejection_replayed": 0,
    }


# ── replay of what is old ─────────────────────────────────────────────────────────────────────────────


def received(db: Db, key_days: int | None) -> int:
    return len(QuarantineSource(db, RejectionSelection(), key_days=key_days).receive(100, 0))


def an_old_rejection(saver: Saver, db: Db, days_ago: int, body: bytes | None = None) -> None:
    saver.save(a_delivery(body, tenant_id="newcomer", id="o-1", sent_now=True))
    db.execute("UPDATE rejection SET rejected_at = now() - %s * interval '1 day'", [days_ago])


def messages_removed(db: Db, days_ago: int) -> None:
    db.execute(OLD_MESSAGES, [1])
    db.execute("UPDATE message SET stored_at = now() - %s * interval '1 day'", [days_ago])
    assert run(db)["message"] == 1


def test_an_old_rejection_is_replayed_while_no_message_ever_was_removed(saver: Saver, db: Db) -> None:
    an_old_rejection(saver, db, 1000)
    saver.save(a_delivery(b"x"))
    discard(db, RejectionSelection(rejection_ids=[2]))
    db.execute("UPDATE rejection SET closed_at = now() - interval '100 days' WHERE status <> 'open'")
    run(db)

    assert received(db, key_days=35) == 1


@pytest.mark.parametrize(
    ("body", "days_ago", "removed_days_ago", "handed_over"),
    [
        (None, 34, 41, 1),  # younger than keys are: it held its message
        (None, 36, 41, 0),
        (None, 36, 60, 0),
        # Came longer after the last removed message than keys are kept: never to be the same.
        (None, 36, 80, 1),
        (None, 200, 80, 0),
        (b"?", 0, 41, 1),  # came when the message was gone already
        (b"?", 2, 41, 0),  # its key is in nothing that can be read, so it held none
        (b"?", 2, 80, 0),
        (b"?", 200, 80, 0),
    ],
)
def test_a_rejection_is_left_out_where_its_message_may_have_been_removed(
    saver: Saver, db: Db, body: bytes | None, days_ago: int, removed_days_ago: int, handed_over: int
) -> None:
    messages_removed(db, removed_days_ago)
    an_old_rejection(saver, db, days_ago, body)

    assert received(db, key_days=35) == handed_over
    assert QuarantineSource(db, RejectionSelection(), key_days=35).count_left_out() == 1 - handed_over
    assert received(db, key_days=None) == 1


def test_a_replay_that_failed_makes_no_rejection_younger(saver: Saver, db: Db) -> None:
    messages_removed(db, 41)
    an_old_rejection(saver, db, 36)
    replay(saver, db)

    first, last = "extract(day FROM now() - first_rejected_at)", "extract(day FROM now() - rejected_at)"
    assert db.execute(f"SELECT {first}, {last} FROM rejection").fetchone() == (36, 0)
    assert received(db, key_days=35) == 0


def test_the_last_moment_of_replay_without_force_finds_its_message(saver: Saver, db: Db) -> None:
    """A rejection that is just young enough still holds the message that was stored another way."""
    saver.save(a_delivery(tenant_id="newcomer", id="o-1"))
    registry.add_tenant(db, "newcomer")
    saver.save(a_delivery(tenant_id="newcomer", id="o-1"))
    db.execute("UPDATE rejection SET rejected_at = now() - interval '35 days' + interval '1 minute'")
    db.execute("UPDATE message SET stored_at = now() - interval '90 days'")
    messages_removed(db, 41)

    assert [s.outcome.value for s in replay(saver, db)] == ["duplicate"]


# ── the commands ──────────────────────────────────────────────────────────────────────────────────────

Command = Callable[..., Result]


@pytest.fixture
def command(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Command:
    """Runs `processor` with the test's database."""
    monkeypatch.chdir(tmp_path)

    def command(words: str, **environment: str) -> Result:
        try:
            return CliRunner().invoke(cli, words.split(), env={"DATABASE_URL": database_url} | environment)
        finally:
            structlog.reset_defaults()

    return command


def test_replay_leaves_old_ones_out_says_so_and_takes_force(command: Command, saver: Saver, db: Db) -> None:
    messages_removed(db, 41)
    an_old_rejection(saver, db, 100)
    saver.save(a_delivery(tenant_id="newcomer", sent_now=True))
    registry.add_tenant(db, "newcomer")

    for words in ("1", "--reason unknown_tenant --dry-run", "--all"):
        result = command(f"rejection replay {words}")
        assert (
            "left out 1 rejection(s) whose message may be among those that retention removed" in result.stderr
        )
        assert "--force" in result.stderr
        assert result.exit_code == (0 if "dry-run" in words else 1)
    assert books(db)["message"] == 1

    again = command("rejection replay --all --json")
    assert json.loads(again.stdout) == {"dry_run": False, "outcomes": {}, "left_out": 1}
    forced = command("rejection replay 1 --force")
    assert (forced.exit_code, forced.stdout, forced.stderr) == (0, "1 stored, 0 still open\n", "")
    assert command("rejection replay 1 --force").stdout == "no open rejections are selected\n"


def test_plan_and_apply_say_what_they_would_do_and_did(command: Command, saver: Saver, db: Db) -> None:
    db.execute(OLD_MESSAGES, [3])
    saver.save(a_delivery(id="old-1"))
    db.execute("UPDATE duplicate SET received_at = now()")
    names = {"MESSAGE_RETENTION_DAYS": "90", "DUPLICATE_RETENTION_DAYS": "90"}

    shown = command("retention plan", **names)
    assert shown.exit_code == 0
    assert "2 row(s) would be removed by: processor retention apply" in shown.stdout
    assert "1 old message(s) are kept: seen again within the last 35 days" in shown.stdout
    assert "90 days" in shown.stdout
    planned = json.loads(command("retention plan --json", **names).stdout)
    assert planned["days"] == {"duplicate": 90, "rejection": None, "message": 90}
    assert planned["key_days"] == 35
    [row] = planned["removable"]
    assert (row["outcome"], row["tenant_id"], row["row_count"], row["kept_count"]) == (
        "message",
        "acme",
        2,
        1,
    )
    assert command("retention plan --message-days 101", **names).stdout == "nothing is old enough\n"
    assert books(db)["message"] == 3

    done = command("retention apply", **names)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "message: 2 removed\nduplicate: 0 removed\n", "")
    again = json.loads(command("retention apply --message-days 90 --json").stdout)
    assert (again["finished"], again["removed"]) == (True, {"message": 0})


@pytest.mark.parametrize("deed", ["plan", "apply"])
def test_nothing_goes_while_no_age_is_set(command: Command, db: Db, deed: str) -> None:
    db.execute(OLD_MESSAGES, [3])

    result = command(f"retention {deed}")

    assert result.exit_code == 0
    assert result.stdout.startswith("nothing is ever removed: no age is set. Set MESSAGE_RETENTION_DAYS")
    assert books(db)["message"] == 3


def test_an_age_below_the_keys_is_refused_and_says_why(command: Command, db: Db) -> None:
    db.execute(OLD_MESSAGES, [3])

    for result in (
        command("retention apply --message-days 34"),
        command("retention apply", MESSAGE_RETENTION_DAYS="34"),
        command("retention apply --message-days 40", KEY_RETENTION_DAYS="41"),
    ):
        assert result.exit_code == 2
        assert "MESSAGE_RETENTION_DAYS: " in result.stderr
        assert "is below KEY_RETENTION_DAYS=" in result.stderr
    assert books(db)["message"] == 3


def test_keys_that_live_shorter_than_the_queue_may_hold_are_remarked_on(command: Command, db: Db) -> None:
    refused = command("retention apply --message-days 40", KEY_RETENTION_DAYS="27")
    assert refused.exit_code == 2
    assert "is less than the 28 days that the database keeps each row at least" in refused.stderr
    db.execute("UPDATE retention_floor SET days = 27")

    assert "KEY_RETENTION_DAYS=27 is below 28" in command("retention plan", KEY_RETENTION_DAYS="27").stderr
    assert command("retention plan", KEY_RETENTION_DAYS="28").stderr == ""


def test_a_second_apply_at_the_same_time_is_exit_code_1(command: Command, database_url: str) -> None:
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE public_locks.books_lock IN EXCLUSIVE MODE")
        result = command("retention apply --message-days 40")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "or sql/erase_tenant.sql, is at work on this database; let it end first" in result.stderr


def test_who_locks_old_rows_is_not_waited_for_long(command: Command, database_url: str, db: Db) -> None:
    db.execute(OLD_MESSAGES, [3])
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM message FOR UPDATE")

        result = command("retention apply --message-days 40")

    assert (result.exit_code, result.stderr.count("\n")) == (4, 1)
    assert "55P03" in result.stderr
    assert books(db)["message"] == 3
    assert removals(db) == {}
