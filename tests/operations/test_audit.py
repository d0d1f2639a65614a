"""The proof finds what is wrong, names it, and calls nothing wrong that is right."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from processor.cli import cli
from processor.errors import SettingsError
from processor.operations.audit import audit
from processor.sources.quarantine import RejectionSelection, discard
from tests.builders import a_delivery, an_event
from tests.fixtures.audit import Audited, Producer, ids, wrong
from tests.fixtures.database import Saver

Db = psycopg.Connection[Any]

COPY_AS_MESSAGE = """
    INSERT INTO message (
      tenant_id, message_id, event_type, schema_id, sent_at, payload, queue, delivery_id, receive_count)
    SELECT 'acme', 'copy', 'order.created', 1, now(), '{}', queue, delivery_id, 1 FROM
"""


# ── what the tables prove by themselves ───────────────────────────────────────────────────────────────


def test_books_as_save_writes_them_hold(saver: Saver, db: Db) -> None:
    event = an_event(id="o-1")
    deliveries = [a_delivery(**event), a_delivery(**event), a_delivery(b"x"), a_delivery(b"y")]
    saver.save(*deliveries)
    saver.save(*deliveries)
    discard(db, RejectionSelection(rejection_ids=[1]))

    report = audit(db, [], lambda: {"visible": 2, "in_flight": 1})

    assert report.holds
    assert wrong(report) == {}
    assert report.outcomes == {
        "message": 1,
        "duplicate": 1,
        "rejection_open": 1,
        "rejection_discarded": 1,
        "rejection_replayed": 0,
    }
    assert report.queued == {"visible": 2, "in_flight": 1}


@pytest.mark.parametrize("table", ["duplicate", "rejection", "message"])
def test_a_delivery_in_two_tables_is_found(saver: Saver, db: Db, table: str) -> None:
    event = an_event(id="o-1")
    deliveries = {
        "message": a_delivery(**event),
        "duplicate": a_delivery(**event),
        "rejection": a_delivery(b"x"),
    }
    saver.save(*deliveries.values())
    db.execute(f"{COPY_AS_MESSAGE} {table}")

    report = audit(db, [], None)

    assert wrong(report) == {"twice": 1}
    assert ids(report, "twice") == [deliveries[table].delivery_id]
    assert not report.holds


def test_a_duplicate_and_a_rejection_of_one_delivery_are_found(saver: Saver, db: Db) -> None:
    event = an_event(id="o-1")
    twice, bad = a_delivery(**event), a_delivery(b"x")
    saver.save(a_delivery(**event), twice, bad)
    db.execute("UPDATE rejection SET delivery_id = %s", [twice.delivery_id])

    assert wrong(audit(db, [], None)) == {"twice": 1}


def test_a_replayed_delivery_that_is_in_two_other_tables_is_found(saver: Saver, db: Db) -> None:
    rejected = a_delivery(b"x")
    saver.save(rejected, a_delivery(id="o-1"))
    db.execute("UPDATE rejection SET status = 'replayed', closed_at = now()")
    db.execute(f"{COPY_AS_MESSAGE} rejection")
    assert wrong(audit(db, [], None)) == {}

    db.execute(
        "INSERT INTO duplicate (queue, delivery_id, tenant_id, message_id, producer, sent_at, receive_count,"
        " received_at) SELECT queue, delivery_id, 'acme', 'o-1', '', sent_at, 1, sent_at FROM rejection"
    )

    report = audit(db, [], None)
    assert wrong(report) == {"twice": 1}
    assert ids(report, "twice") == [rejected.delivery_id]


def test_a_duplicate_of_nothing_is_found(saver: Saver, db: Db) -> None:
    event = an_event(id="o-1")
    duplicate = a_delivery(**event)
    saver.save(a_delivery(**event), duplicate)
    db.execute("DELETE FROM message")

    report = audit(db, [], None)

    assert wrong(report) == {"duplicates_of_nothing": 1}
    assert ids(report, "duplicates_of_nothing") == [duplicate.delivery_id]


def test_a_rejection_replayed_to_nothing_is_found(saver: Saver, db: Db) -> None:
    bad = a_delivery(b"x")
    saver.save(bad)
    db.execute("UPDATE rejection SET status = 'replayed', closed_at = now()")

    report = audit(db, [], None)

    assert wrong(report) == {"replayed_to_nothing": 1}
    assert ids(report, "replayed_to_nothing") == [bad.delivery_id]


# ── against what producers say they sent ──────────────────────────────────────────────────────────────


def test_all_that_was_sent_is_found(saver: Saver, producer: Producer, audited: Audited) -> None:
    event = an_event(id="o-1", payload={"total": 1.50})
    saver.save(
        producer.sends(a_delivery(**event)),
        producer.sends(a_delivery(**event)),
        producer.sends(a_delivery(b"nonsense")),
        producer.sends(a_delivery(tenant_id="nobody")),
    )

    report = audited()

    assert wrong(report) == {}
    assert report.accepted == {"accepted": 4, "message": 1, "duplicate": 1, "rejection": 2, "missing": 0}
    assert "the audit holds" in report.text()


def test_what_is_still_queued_is_not_lost(saver: Saver, producer: Producer, audited: Audited) -> None:
    saver.save(producer.sends(a_delivery()))
    producer.sends(a_delivery())

    assert audited(queued=1).holds
    assert wrong(audited(queued=0)) == {"lost": 1}
    assert wrong(audited(queued=None)) == {"lost": 1}


def test_what_was_accepted_and_is_nowhere_is_lost(saver: Saver, producer: Producer, audited: Audited) -> None:
    saver.save(producer.sends(a_delivery()))
    lost = [producer.sends(a_delivery()) for _ in range(2)]

    report = audited()

    assert wrong(report) == {"lost": 2}
    assert ids(report, "lost") == sorted(delivery.delivery_id for delivery in lost)


def test_a_rejection_replayed_to_nothing_is_lost_too(
    saver: Saver, db: Db, producer: Producer, audited: Audited
) -> None:
    saver.save(producer.sends(a_delivery(b"x")))
    db.execute("UPDATE rejection SET status = 'replayed', closed_at = now()")

    assert wrong(audited()) == {"lost": 1, "replayed_to_nothing": 1}


def test_what_nobody_sent_is_unexpected(saver: Saver, producer: Producer, audited: Audited) -> None:
    stranger = a_delivery()
    saver.save(producer.sends(a_delivery()), stranger)

    report = audited()

    assert wrong(report) == {"unexpected": 1}
    assert ids(report, "unexpected") == [stranger.delivery_id]
    assert report.others == 0


@pytest.mark.parametrize("changes", [{"tenant_id": "globex"}, {"producer": "another"}])
def test_rows_of_a_tenant_or_producer_that_no_manifest_speaks_of_are_counted_apart(
    saver: Saver, producer: Producer, audited: Audited, changes: dict[str, Any]
) -> None:
    saver.save(producer.sends(a_delivery()), a_delivery(**changes), a_delivery(**changes))

    report = audited()

    assert report.holds
    assert report.others == 2
    assert "other producers'              2   (messages of tenants or producers" in report.text()


@pytest.mark.parametrize(
    "change",
    [
        "payload || '{\"total\": 12.51}'",
        "payload || '{\"note\": null}'",
        "'{}'",
        'payload || \'{"total": "12.5"}\'',
        "jsonb_set(payload, '{total}', '12.500000000000000000001')",
    ],
)
def test_a_payload_that_was_changed_is_altered(
    saver: Saver, db: Db, producer: Producer, audited: Audited, change: str
) -> None:
    [altered, _] = [producer.sends(a_delivery()) for _ in range(2)]
    saver.save(altered)
    saver.save(producer.sends(a_delivery()))
    db.execute(f"UPDATE message SET payload = {change} WHERE delivery_id = %s", [altered.delivery_id])

    report = audited(queued=1)

    assert wrong(report) == {"altered": 1}
    assert ids(report, "altered") == [altered.delivery_id]


@pytest.mark.parametrize(
    "payload", [{"total": 1e-7}, {"total": 100000}, {"total": 1, "é": ["\U0001f980", {"a": None}]}]
)
def test_a_payload_that_is_only_written_otherwise_is_not_altered(
    saver: Saver, producer: Producer, audited: Audited, payload: dict[str, Any]
) -> None:
    saver.save(producer.sends(a_delivery(payload=payload)))

    assert audited().holds


def test_a_retried_send_is_no_problem(saver: Saver, producer: Producer, audited: Audited) -> None:
    # The first answer was lost: the queue has it twice, the manifest knows of one delivery.
    event = an_event(id="o-1")
    first, second = producer.intends(a_delivery(**event)), producer.sends(a_delivery(**event))

    saver.save(first, second)

    report = audited()
    assert wrong(report) == {}
    assert report.accepted == {"accepted": 1, "message": 0, "duplicate": 1, "rejection": 0, "missing": 0}


def test_a_lost_answer_is_no_problem_whatever_became_of_the_send(
    saver: Saver, producer: Producer, audited: Audited
) -> None:
    arrived, _ = producer.intends(a_delivery()), producer.intends(a_delivery())

    saver.save(arrived)

    assert wrong(audited()) == {}


def test_several_manifests_are_taken_together(saver: Saver, db: Db, tmp_path: Path) -> None:
    producers = [Producer(tmp_path / name) for name in ("one", "two")]
    saver.save(*[producer.sends(a_delivery()) for producer in producers])

    report = audit(db, [producer.path for producer in producers], None)

    assert report.holds


def test_a_manifest_that_is_torn_or_holds_odd_ids_is_read(
    saver: Saver, producer: Producer, audited: Audited
) -> None:
    saver.save(producer.sends(a_delivery(b'{"tenant_id": "a\\u0000", "id": "\\ud800"}')))
    with producer.path.open("ab") as file:
        file.write(b'{"state": "inte')

    report = audited()

    assert report.holds
    assert report.torn == [str(producer.path)]


def test_a_manifest_that_is_none_is_refused(db: Db, tmp_path: Path) -> None:
    path = tmp_path / "manifest"
    path.write_text("nonsense\n")

    with pytest.raises(SettingsError, match="line 1"):
        audit(db, [path], None)


# ── the command ───────────────────────────────────────────────────────────────────────────────────────


def test_the_command_ends_with_3_and_names_the_ids(
    saver: Saver, producer: Producer, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SQS_QUEUE_URL", raising=False)
    lost = producer.sends(a_delivery())
    saver.save(producer.sends(a_delivery()))
    words = ["audit", "--manifest", str(producer.path)]

    text = CliRunner().invoke(cli, words, env={"DATABASE_URL": database_url})
    data = CliRunner().invoke(cli, [*words, "--json"], env={"DATABASE_URL": database_url})

    assert (text.exit_code, data.exit_code) == (3, 3)
    assert "THE AUDIT DOES NOT HOLD" in text.stdout
    assert lost.delivery_id in text.stdout
    report = json.loads(data.stdout)
    assert report["holds"] is False
    assert report["problems"]["lost"] == 1
    assert report["examples"]["lost"][0]["delivery_id"] == lost.delivery_id
    assert report.keys() == {
        "holds",
        "outcomes",
        "removed",
        "queued",
        "accepted",
        "unproven",
        "others",
        "problems",
        "examples",
        "torn_manifests",
    }
