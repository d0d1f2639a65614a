"""Known noise is discarded at once: a row as any other, counted by its rule, and gone after a day."""

import json
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from processor.check.roles import RIGHTS
from processor.cli import cli
from processor.errors import NotFound, Reason, SettingsError
from processor.operations import reader, registry
from processor.operations.audit import audit
from processor.operations.reject_alarm import RejectAlarm, RejectAlarmLimits
from processor.operations.retention import Ages, plan
from processor.pipeline.outcome_counts import count_outcomes
from processor.runtime.metrics import discarded_by_rule
from tests.builders import QUEUE, a_delivery
from tests.fixtures.audit import wrong
from tests.fixtures.database import LogIn, MakeSaver, Saver, a_bound_saver, books
from tests.operations.test_retention import removals, run
from tests.sources.test_quarantine import outcomes as replayed
from tests.sources.test_quarantine import replay

Db = psycopg.Connection[Any]

TEST_EVENT = json.dumps(
    {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "drop", "n": 7, "f": 1.5}
).encode()
NO_AGES = Ages(message=None, duplicate=None, rejection=None, key=35)


def add(db: Db, reason: str = "envelope_invalid", **said: Any) -> int:
    conditions = said.pop("conditions", {})
    named = dict.fromkeys(("queue", "tenant_id", "event_type")) | said
    return registry.add_rejection_rule(db, reason=reason, conditions=conditions, **named)


def rejections(db: Db) -> list[tuple[Any, ...]]:
    return db.execute(
        "SELECT status, rule_id, closed_at IS NOT NULL FROM rejection ORDER BY delivery_id"
    ).fetchall()


# ── what a rule matches ───────────────────────────────────────────────────────────────────────────────


def test_what_a_rule_matches_is_kept_as_discarded_and_names_the_rule(saver: Saver, db: Db) -> None:
    rule_id = add(db, conditions={"/Event": "s3:TestEvent"})

    assert saver.outcomes(a_delivery(TEST_EVENT), a_delivery(b"{}")) == ["envelope_invalid"] * 2

    assert rejections(db) == [("discarded", rule_id, True), ("open", None, False)]
    [(message,)] = db.execute(
        "SELECT detail ->> 'message' FROM rejection WHERE rule_id IS NOT NULL"
    ).fetchall()
    assert message.startswith(f"discarded by rule {rule_id}")


@pytest.mark.parametrize(
    ("said", "matches"),
    [
        ({"queue": QUEUE}, True),
        ({"queue": "another"}, False),
        ({"tenant_id": "acme", "event_type": "order.created"}, True),
        ({"tenant_id": "globex"}, False),
        ({"event_type": "order.deleted"}, False),
        ({"conditions": {"/payload/total": "-1"}}, True),
        ({"conditions": {"/payload/tags/1": "b", "/payload/ok": "true", "/payload/f": "1.50"}}, True),
        ({"conditions": {"/payload/total": "-1", "/payload/ok": "false"}}, False),
        ({"conditions": {"/payload/nothing": "None"}}, False),
        ({"conditions": {"/payload/total": "-1.0"}}, True),
        ({"conditions": {"/payload/total": "-1e0", "/payload/f": "15e-1", "/payload/big": "1e30"}}, True),
        ({"conditions": {"/payload/total": '"-1"'}}, False),
        ({"conditions": {"/payload/total": "true"}}, False),
        ({"conditions": {"/payload/one": "1"}}, False),
        ({"conditions": {"/payload/one": '"1"', "/payload/empty": '""', "/payload/tags/0": '"a"'}}, True),
        ({"conditions": {"/payload/ok": "1"}}, False),
        ({"conditions": {"/payload/ok": '"true"'}}, False),
        ({"conditions": {"/payload/f": "1e99999999999999999999"}}, False),
        ({"conditions": {"/payload/words": "no JSON", "/payload/nan": "NaN"}}, True),
        ({"tenant_id": "acme", "reason": "unknown_tenant"}, False),
    ],
)
def test_all_conditions_of_a_rule_have_to_hold(
    saver: Saver, db: Db, said: dict[str, Any], matches: bool
) -> None:
    add(db, **({"reason": "schema_violation"} | said))
    payload = (
        '{"total": -1, "tags": ["a", "b"], "ok": true, "f": 1.50, "nothing": null, "one": "1", "empty": "", '
        '"big": 1000000000000000000000000000000, "words": "no JSON", "nan": "NaN"}'
    )
    body = f'{{"tenant_id": "acme", "event_type": "order.created", "id": "1", "payload": {payload}}}'

    [settlement] = saver.save(a_delivery(body.encode()))

    assert (settlement.reason, settlement.discarded) == (Reason.SCHEMA_VIOLATION, matches)
    assert rejections(db)[0][0] == ("discarded" if matches else "open")


def test_the_first_rule_that_matches_is_the_one_that_is_named(saver: Saver, db: Db) -> None:
    first = add(db, queue=QUEUE)
    add(db, conditions={"/Event": "s3:TestEvent"})

    saver.save(a_delivery(TEST_EVENT))

    assert rejections(db) == [("discarded", first, True)]


def test_a_body_that_can_not_be_read_has_no_values_and_takes_nobody_down(saver: Saver, db: Db) -> None:
    add(db, "unknown_tenant", conditions={"/a": "1"})
    add(db, "not_json", queue=QUEUE)

    assert saver.outcomes(a_delivery(b"{"), a_delivery(b"\xff")) == ["not_json", "not_utf8"]

    assert [status for status, *_ in rejections(db)] == ["discarded", "open"]


def test_a_rule_holds_from_the_next_save_on_whatever_a_process_knew(saver: Saver, db: Db) -> None:
    """A verdict that was made before the rule is made again, since the registry's version was raised."""
    made_before = saver.schemas.validate(a_delivery(TEST_EVENT))
    add(db, queue=QUEUE)

    saver.store.save([made_before])
    registry.retire_rejection_rule(db, 1)
    saver.save(a_delivery(TEST_EVENT))

    assert [status for status, *_ in rejections(db)] == ["discarded", "open"]


def test_a_redelivery_of_what_was_discarded_has_its_outcome(saver: Saver, db: Db) -> None:
    add(db, queue=QUEUE)
    delivery = a_delivery(TEST_EVENT)
    saver.save(delivery)

    assert saver.outcomes(delivery) == ["redelivered"]
    assert books(db)["rejection"] == 1


def test_what_a_person_replays_stays_open_where_it_is_refused_again(saver: Saver, db: Db) -> None:
    saver.save(a_delivery(TEST_EVENT))
    add(db, queue=QUEUE)

    assert replayed(replay(saver, db)) == ["envelope_invalid"]

    assert rejections(db) == [("open", None, False)]
    [(message,)] = db.execute("SELECT detail ->> 'message' FROM rejection").fetchall()
    assert "by rule" not in message


def test_an_id_conflict_is_never_discarded(saver: Saver, db: Db) -> None:
    add(db, "schema_violation", queue=QUEUE)
    saver.save(a_delivery(id="o-1"))

    [settlement] = saver.save(a_delivery(id="o-1", payload={"total": 1}))

    assert (settlement.reason, settlement.discarded) == (Reason.ID_CONFLICT, False)
    for reason in ("id_conflict", "unstorable", "dead_lettered"):
        with pytest.raises(SettingsError, match="not id_conflict"):
            add(db, reason, queue=QUEUE)


# ── what a rule may say ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("reason", "said", "words"),
    [
        ("envelope_invalid", {}, "a reason alone"),
        ("not_json", {"conditions": {"/a": "b"}}, "none that can be read"),
        ("envelope_invalid", {"conditions": {"a": "b"}}, "expected a JSON pointer"),
        ("envelope_invalid", {"conditions": {"/a~2": "b"}}, "expected a JSON pointer"),
        ("envelope_invalid", {"conditions": {"": "b"}}, "expected a JSON pointer"),
        ("envelope_invalid", {"tenant_id": "x" * 257}, "--tenant: expected 1 to 256"),
        ("envelope_invalid", {"queue": "a\0b"}, "does not take this rule"),
        ("envelope_invalid", {"queue": "\ud800"}, "does not take this rule"),
        ("envelope_invalid", {"conditions": {"/a": "\ud800"}}, "does not take this rule"),
        ("envelope_invalid", {"conditions": {"/a": "\0"}}, "does not take this rule"),
        ("envelope_invalid", {"conditions": {"/a": "x" * 5000}}, "--when: 5010 bytes"),
    ],
)
def test_a_rule_that_says_too_little_or_matches_nothing_is_refused(
    db: Db, reason: str, said: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        add(db, reason, **said)
    assert reader.rejection_rules(db) == []


def test_the_database_holds_rules_to_the_same_and_never_lets_one_say_something_else(db: Db) -> None:
    for columns, values in (
        ("reason", "'envelope_invalid'"),
        ("reason, queue", "'id_conflict', 'q'"),
        ("reason, queue, conditions", "'not_json', 'q', '[]'"),
    ):
        with pytest.raises(psycopg.errors.CheckViolation):
            db.execute(f"INSERT INTO rejection_rule ({columns}) VALUES ({values})")
    rule_id = add(db, queue=QUEUE)
    registry.retire_rejection_rule(db, rule_id)
    for change in (
        "reason = 'not_json'",
        "queue = 'another'",
        'conditions = \'{"/a": "1"}\'',
        "retired_at = NULL",
    ):
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
            db.execute(f"UPDATE rejection_rule SET {change}")


def test_a_rule_raises_the_version_of_the_registry_and_what_retention_counts_does_not(db: Db) -> None:
    def version() -> int:
        row = db.execute("SELECT version FROM registry").fetchone()
        assert row is not None
        return int(row[0])

    before = version()
    rule_id = add(db, queue=QUEUE)
    added = version()
    db.execute("UPDATE rejection_rule SET removed_count = 5, removed_last_at = now()")
    counted = version()
    registry.retire_rejection_rule(db, rule_id)

    assert (added, counted, version()) == (before + 1, before + 1, before + 2)
    with pytest.raises(NotFound, match="no rule 99"):
        registry.retire_rejection_rule(db, 99)


# ── never silent ──────────────────────────────────────────────────────────────────────────────────────


def test_a_rule_knows_how_many_it_discarded_and_when_the_last_also_after_they_went(
    saver: Saver, db: Db
) -> None:
    add(db, conditions={"/Event": "s3:TestEvent"})
    add(db, "unknown_tenant", queue="nobody's")
    saver.save(*(a_delivery(TEST_EVENT) for _ in range(3)))
    [found, idle] = reader.rejection_rules(db)
    last = found["last_at"]

    assert (found["discarded"], idle["discarded"], idle["last_at"]) == (3, 0, None)
    db.execute("UPDATE rejection SET closed_at = closed_at - interval '25 hours'")
    run(db, NO_AGES)
    saver.save(a_delivery(TEST_EVENT))
    [found, _] = reader.rejection_rules(db)
    assert (found["discarded"], books(db)["rejection"]) == (4, 1)
    assert found["last_at"] > last


def test_what_a_rule_discarded_goes_after_a_day_whatever_the_ages_and_stays_counted(
    saver: Saver, db: Db
) -> None:
    add(db, queue=QUEUE)
    saver.save(a_delivery(TEST_EVENT), a_delivery(TEST_EVENT), a_delivery(tenant_id="nobody"))
    db.execute("UPDATE rejection SET closed_at = closed_at - interval '23 hours' WHERE rule_id IS NOT NULL")
    young = run(db, NO_AGES)
    db.execute("UPDATE rejection SET closed_at = closed_at - interval '2 hours' WHERE rule_id IS NOT NULL")
    [planned] = plan(db, NO_AGES)
    old = run(db, NO_AGES)

    assert (young, old) == ({"rejection": 0}, {"rejection": 2})
    assert (planned["row_count"], planned["by_rule"]) == (2, True)
    assert removals(db) == {("", "rejection_ruled"): 2}
    report = audit(db, [], None)
    assert wrong(report) == {}
    assert (report.outcomes["rejection_open"], report.removed["rejection_discarded"]) == (1, 2)
    assert "+ removed                     2" in report.text()


def test_without_a_rule_and_without_ages_nothing_is_looked_through(saver: Saver, db: Db) -> None:
    saver.save(a_delivery(TEST_EVENT))
    db.execute("UPDATE rejection SET status = 'discarded', closed_at = now() - interval '3 days'")

    assert run(db, NO_AGES) == {}
    assert plan(db, NO_AGES) == []


def test_it_is_counted_and_raises_no_alarm(saver: Saver, db: Db) -> None:
    add(db, "schema_violation", tenant_id="acme")
    limits = RejectAlarmLimits(0.2, 5, 300)
    alarm = RejectAlarm(limits, saver.schemas.registered)
    saver.save()
    verdicts = [saver.schemas.validate(a_delivery(payload={})) for _ in range(20)]
    before = discarded_by_rule.labels(reason="schema_violation")._value.get()

    settlements = saver.store.save(verdicts)
    alarm.note(verdicts, settlements)
    alarm.look()

    assert count_outcomes(settlements) == {"rejected": 20}
    assert discarded_by_rule.labels(reason="schema_violation")._value.get() == before + 20
    assert alarm._alarms == set()
    assert reader.reject_alarms(db, limits) == []
    [stats] = reader.rejection_stats(
        db, dict.fromkeys(("rejection_ids", "tenant_id", "queue", "event_type", "reason", "since", "until"))
    )
    assert (stats["status"], stats["count"]) == ("discarded", 20)


def test_savers_that_discard_by_one_rule_do_not_wait_for_each_other(make_saver: MakeSaver, db: Db) -> None:
    add(db, queue=QUEUE)
    one, other = make_saver(), make_saver()
    with db.transaction():
        # A save that is not committed: its row points to the rule.
        db.execute(
            "INSERT INTO rejection (queue, delivery_id, reason, detail, body, attributes, sent_at, "
            "receive_count, rule_id, status, closed_at) "
            "SELECT 'q', 'd', 'not_json', '{}', '', '{}', now(), 1, rule_id, 'discarded', now() "
            "FROM rejection_rule"
        )
        assert other.outcomes(a_delivery(TEST_EVENT)) == ["envelope_invalid"]
    assert one.outcomes(a_delivery(TEST_EVENT)) == ["envelope_invalid"]


# ── roles ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_writer_saves_by_rules_and_retention_counts_and_neither_changes_one(
    saver: Saver, db: Db, log_in: LogIn
) -> None:
    add(db, queue=QUEUE)
    writer = a_bound_saver(log_in("processor_writer"))
    assert writer.outcomes(a_delivery(TEST_EVENT)) == ["envelope_invalid"]
    writer.close()
    db.execute("UPDATE rejection SET closed_at = closed_at - interval '2 days'")
    with psycopg.connect(log_in("processor_retention"), autocommit=True) as remover:
        assert run(remover, NO_AGES) == {"rejection": 1}
        for change in ("retired_at = now()", "queue = 'another'", 'conditions = \'{"/a": "b"}\''):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                remover.execute(f"UPDATE rejection_rule SET {change}")
    assert [rule["discarded"] for rule in reader.rejection_rules(db)] == [1]
    for role in ("processor_writer", "processor_reader", "processor_tenant_reader", "processor_gateway"):
        assert set(RIGHTS[role].get("rejection_rule", ())) <= {"SELECT"}
    with (
        psycopg.connect(log_in("processor_tenant_reader"), autocommit=True) as tenant,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        tenant.execute("SELECT FROM rejection_rule")


# ── the commands ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def processor(database_url: str) -> Any:
    def call(*arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments, env={"DATABASE_URL": database_url})

    return call


def test_a_person_adds_lists_and_removes_rules(processor: Any, saver: Saver) -> None:
    add_words = ("rejection", "rule", "add", "--reason", "envelope_invalid")
    assert "no rules" in processor("rejection", "rule", "list").output

    added = processor(*add_words, "--queue", QUEUE, "--when", "/Event=s3:TestEvent", "--when", "/n=7")
    saver.save(a_delivery(TEST_EVENT))
    [row] = json.loads(processor("rejection", "rule", "list", "--json").output)
    table = processor("rejection", "rule", "list").output
    discarded = processor("rejection", "list", "--status", "discarded").output

    assert (added.exit_code, added.output.startswith("rule 1 added")) == (0, True)
    assert (row["rule_id"], row["queue"], row["discarded"]) == (1, QUEUE, 1)
    assert row["conditions"] == {"/Event": "s3:TestEvent", "/n": "7"}
    assert "/Event=s3:TestEvent" in table
    assert "discarded by rule 1" in discarded
    assert "rule_id           1" in processor("rejection", "show", "1").output
    assert processor("rejection", "rule", "remove", "1").exit_code == 0
    [row] = json.loads(processor("rejection", "rule", "list", "--json").output)
    assert row["retired_at"] is not None
    again = processor("rejection", "rule", "remove", "1")
    assert (again.exit_code, again.output.startswith("rule 1 was removed before, at 2")) == (0, True)
    assert processor("rejection", "rule", "remove", "2").exit_code == 1
    assert processor(*add_words, "--when", "/Event").exit_code == 2
    assert processor(*add_words, "--when", "/a=1", "--when", "/a=2").exit_code == 2
    assert processor(*add_words).exit_code == 2
    assert processor("rejection", "rule", "add", "--reason", "id_conflict", "--queue", "q").exit_code == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--when", "/a="), "--when /a=: expected a text, number or boolean behind the =; the empty text is"),
        (("--when", "/a=null"), "--when /a=null: expected a text, number or boolean"),
        (("--when", "/a={}"), "--when /a={}: expected a text, number or boolean"),
        (("--when", "/a=" + "x" * 4087), "--when: 4097 bytes as JSON, together; expected at most 4096"),
        (("--queue", "q" * 257), "--queue: expected 1 to 256 characters, and not 257"),
        (("--queue", "", "--tenant", "acme"), "--queue: expected 1 to 256 characters, and not 0"),
        (("--tenant", "t" * 300), "--tenant: expected 1 to 256 characters, and not 300"),
        (("--event-type", "e" * 300), "--event-type: expected 1 to 256 characters, and not 300"),
    ],
)
def test_what_no_rule_can_be_made_of_is_named(processor: Any, options: tuple[str, ...], words: str) -> None:
    answer = processor("rejection", "rule", "add", "--reason", "schema_violation", *options)

    assert (answer.exit_code, words in answer.output) == (2, True)


def test_any_condition_that_is_taken_fits_the_table(processor: Any) -> None:
    """What is counted is what PostgreSQL counts: one byte more, and the words are ours."""
    words = ("rejection", "rule", "add", "--reason", "schema_violation")
    for filler, width in (('"', 2), ("\x01", 6), ("\x7f", 1), ("\U0001f600", 4), ("é", 2)):
        most = (4096 - len('{"/a": ""}') - len(', "/b": "x"')) // width
        assert processor(*words, "--when", f"/a={filler * most}", "--when", "/b=x").exit_code == 0
        beyond = processor(*words, "--when", f"/a={filler * (most + 1)}", "--when", "/b=x")
        assert (beyond.exit_code, "--when: " in beyond.output) == (2, True)


def test_what_a_rule_discarded_is_replayed_by_its_id_and_is_a_persons_then(
    processor: Any, saver: Saver, db: Db
) -> None:
    rule_id = add(db, "unknown_tenant", queue=QUEUE)
    saver.save(a_delivery(tenant_id="ghost"), a_delivery(tenant_id="nobody"), a_delivery(tenant_id="ghost"))
    registry.add_tenant(db, "ghost")

    shown = processor("rejection", "show", "1").output
    assert "processor rejection replay 1" in shown
    assert "(replay it by its id while it is kept)" in shown
    # No selection but that by ids takes what nobody has looked at.
    assert "no open rejections" in processor("rejection", "replay", "--all").output
    assert "no open rejections" in processor("rejection", "replay", "1", "--queue", "another").output
    assert "would be: 2 stored" in processor("rejection", "replay", "1", "3", "--dry-run").output
    assert rejections(db) == [("discarded", rule_id, True)] * 3

    done = processor("rejection", "replay", "1", "2")
    assert (done.exit_code, done.output) == (1, "1 stored, 1 still open (1 unknown_tenant)\n")
    again = processor("rejection", "replay", "1")

    assert rejections(db) == [("replayed", None, True), ("open", None, False), ("discarded", rule_id, True)]
    assert (again.exit_code, "rejection 1 was replayed already" in again.output) == (1, True)
    [rule] = reader.rejection_rules(db)
    assert (rule["discarded"], books(db)) == (1, {"message": 1, "duplicate": 0, "rejection": 3})
    # What a person took back does not go with the rule's noise.
    db.execute("UPDATE rejection SET closed_at = closed_at - interval '2 days' WHERE status <> 'open'")
    assert run(db, NO_AGES) == {"rejection": 1}
    assert wrong(audit(db, [], None)) == {}


def test_a_person_who_discards_what_a_rule_discarded_hears_of_the_rule(
    processor: Any, saver: Saver, db: Db
) -> None:
    add(db, queue=QUEUE)
    saver.save(a_delivery(TEST_EVENT))

    answer = processor("rejection", "discard", "1")

    assert (answer.exit_code, "rejection 1 was discarded already by rule 1, at 2" in answer.output) == (
        0,
        True,
    )


def test_retention_says_what_goes_by_a_rule_where_no_age_is_set(processor: Any, saver: Saver, db: Db) -> None:
    add(db, queue=QUEUE)
    saver.save(a_delivery(TEST_EVENT))
    db.execute("UPDATE rejection SET closed_at = closed_at - interval '2 days'")

    planned = processor("retention", "plan").output
    applied = processor("retention", "apply").output

    assert "1 row(s) would be removed" in planned
    assert "only what a rule discarded goes after a day" in planned
    assert "rejection: 1 removed" in applied
