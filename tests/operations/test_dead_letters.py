"""The dead-letter queue: what SQS moved there for real comes into the books once, and can be replayed."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from processor.devstack.servers.sqs import EmbeddedSqs
from processor.model import Delivery
from processor.operations.dead_letters import DeadLetterJudge
from processor.settings import Settings
from processor.sources.quarantine import RejectionSelection
from processor.sources.sqs.source import SqsSource
from processor.wiring import commands
from tests.builders import a_body, a_delivery
from tests.fixtures.check import with_changes
from tests.fixtures.database import REGISTRY_WAITS, Saver, books
from tests.fixtures.dead_letters import bring, dead_letters, holds, kill, queue_name, rejections
from tests.rig import wait_until

Db = psycopg.Connection[Any]

pytestmark = pytest.mark.usefixtures("nothing_is_set", "impatient")


# ── the whole way ─────────────────────────────────────────────────────────────────────────────────────


def test_what_sqs_moved_there_is_imported_and_replayed_under_its_own_queue_and_id(
    settings: Settings, sqs_server: EmbeddedSqs, queue_url: str, db: Db
) -> None:
    [killed, nonsense] = kill(sqs_server, queue_url, a_body(id=None), b"nonsense")
    name = queue_name(queue_url)

    assert bring(settings) == {"rejected": 2}

    assert set(rejections(db, "queue, delivery_id, reason, status")) == {
        (name, killed, "dead_lettered", "open"),
        (name, nonsense, "dead_lettered", "open"),
    }
    assert dead_letters(settings).depth() == {"visible": 0, "in_flight": 0, "delayed": 0}
    assert holds(db, settings)
    outcomes, _ = commands.replay(
        settings, RejectionSelection(reason="dead_lettered"), dry_run=False, forced=False
    )
    assert outcomes == {"stored": 1, "not_json": 1}
    # Without an id of its own it is known by its delivery, which no other way back keeps.
    assert db.execute("SELECT message_id, queue, delivery_id FROM message").fetchall() == [
        (f"{name}/{killed}", name, killed)
    ]
    assert books(db) == {"message": 1, "duplicate": 0, "rejection": 2}
    assert holds(db, settings)


def test_a_dead_letter_says_when_it_was_sent_how_often_received_and_what_it_would_be_today(
    settings: Settings, sqs_server: EmbeddedSqs, queue_url: str, db: Db
) -> None:
    kill(sqs_server, queue_url, a_body(id="o-1"))
    bring(settings)
    kill(sqs_server, queue_url, a_body(tenant_id="nobody", id="o-2"))
    bring(settings)

    [(good, *of_good), (bad, *of_bad)] = rejections(
        db, "detail, sent_at, receive_count, tenant_id, message_id"
    )

    sent_at, receive_count, *claimed = of_good
    assert claimed == ["acme", "o-1"]
    assert receive_count == 3
    assert good["message"] == (
        f"dead letter, sent {sent_at:%Y-%m-%dT%H:%M:%SZ}, received 3 times; would be stored if replayed"
    )
    assert good["dead_letter_queue"] == queue_name(queue_url) + "-dlq"
    assert "would be rejected: unknown_tenant, no tenant 'nobody'" in bad["message"]
    assert bad["verdict_today"]["reason"] == "unknown_tenant"
    assert of_bad[2:] == ["nobody", "o-2"]


# ── rule 1: what has an outcome is only deleted ───────────────────────────────────────────────────────


@pytest.mark.parametrize("place", ["message", "duplicate", "rejection"])
def test_a_delivery_that_has_an_outcome_is_only_deleted(
    settings: Settings, sqs_server: EmbeddedSqs, queue_url: str, saver: Saver, db: Db, place: str
) -> None:
    """Its delete was lost, and so were all that its redeliveries asked for."""
    body = b"nonsense" if place == "rejection" else a_body(id="o-1")
    [delivery_id] = kill(sqs_server, queue_url, body)
    if place == "duplicate":
        saver.save(a_delivery(body))
    saver.save(a_delivery(body, queue=queue_name(queue_url), delivery_id=delivery_id))
    before = books(db)
    assert before[place] == 1

    assert bring(settings) == {"redelivered": 1}

    assert books(db) == before
    assert sum(dead_letters(settings).depth().values()) == 0


@pytest.mark.parametrize("changes", [{"body_bytes_max": 1024}, {"unread": True}])
def test_a_stored_one_that_can_not_be_read_now_is_known(
    settings: Settings,
    sqs_server: EmbeddedSqs,
    queue_url: str,
    saver: Saver,
    db: Db,
    changes: dict[str, Any],
) -> None:
    body = a_body(payload={"total": 1, "note": "x" * 2000})
    [delivery_id] = kill(sqs_server, queue_url, body)
    saver.save(a_delivery(body, queue=queue_name(queue_url), delivery_id=delivery_id, sent_now=True))
    unread = changes.pop("unread", False)

    assert bring(with_changes(settings, **changes), unread=unread) == {"redelivered": 1}

    assert books(db) == {"message": 1, "duplicate": 0, "rejection": 0}


def test_a_stored_one_of_a_fifo_queue_is_known_though_sqs_dates_it_anew(saver: Saver, db: Db) -> None:
    delivery = a_delivery(b"nonsense", queue="orders.fifo", sent_now=True)
    saver.save(a_delivery(queue="orders.fifo", delivery_id=delivery.delivery_id))
    db.execute("UPDATE message SET stored_at = now() - interval '13 days'")
    judge = DeadLetterJudge(saver.schemas, "orders-dlq.fifo")

    [settlement] = saver.store.save([judge.validate(delivery)])

    assert settlement.outcome == "redelivered"


def test_an_unread_dead_letter_claims_nobody_and_is_kept_whole(
    settings: Settings, sqs_server: EmbeddedSqs, queue_url: str, db: Db
) -> None:
    body = a_body()
    kill(sqs_server, queue_url, body)

    assert bring(settings, unread=True) == {"rejected": 1}

    [(kept, tenant_id, detail)] = rejections(db, "body, tenant_id, detail ->> 'message'")
    assert (bytes(kept), tenant_id) == (body, None)
    assert "not read" in detail


# ── two at once, and beside a processor ───────────────────────────────────────────────────────────────


def test_imports_side_by_side_put_each_dead_letter_in_one_place(
    settings: Settings, sqs_server: EmbeddedSqs, queue_url: str, db: Db
) -> None:
    """Each gets all of them, since nothing hides a message from the others here."""
    ids = kill(sqs_server, queue_url, *[a_body() for _ in range(12)])
    start = threading.Barrier(3)

    polite = SqsSource.receive

    def impolite(source: SqsSource, limit: int, wait_s: float) -> list[Delivery]:
        deliveries = polite(source, limit, wait_s)
        source.release(deliveries)
        return deliveries

    def one() -> dict[str, int]:
        start.wait(10)
        return bring(settings)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(3) as pool:
        patch.setattr(SqsSource, "receive", impolite)
        found = [done.result(60) for done in [pool.submit(one) for _ in range(3)]]

    assert sum(outcomes.get("rejected", 0) for outcomes in found) == 12
    assert {delivery_id for (delivery_id,) in rejections(db, "delivery_id")} == set(ids)
    assert sum(dead_letters(settings).depth().values()) == 0


def test_a_late_save_of_the_same_delivery_is_waited_for(
    settings: Settings, sqs_server: EmbeddedSqs, queue_url: str, db: Db, database_url: str
) -> None:
    """A processor held it too long, SQS moved it, and both commit at once: neither sees the other's row."""
    [delivery_id] = kill(sqs_server, queue_url, a_body(id="o-1"))
    outcomes: list[dict[str, int]] = []
    importing = threading.Thread(target=lambda: outcomes.append(bring(settings)), daemon=True)

    with psycopg.connect(database_url) as late:
        late.execute("SELECT registry_version_held()")
        late.execute(
            "INSERT INTO message (tenant_id, message_id, event_type, schema_id, sent_at, payload, queue, "
            "delivery_id, receive_count) SELECT 'acme', 'o-1', event_type, schema_id, now(), '{}', %s, %s, 1 "
            "FROM event_schema",
            [queue_name(queue_url), delivery_id],
        )
        importing.start()
        wait_until(
            lambda: db.execute(REGISTRY_WAITS).fetchone() or not importing.is_alive(), "the import waits"
        )
    importing.join(30)

    assert outcomes == [{"redelivered": 1}]
    assert books(db) == {"message": 1, "duplicate": 0, "rejection": 0}


def test_a_registry_that_changes_under_the_import_leaves_it_an_import(saver: Saver, db: Db) -> None:
    judge = DeadLetterJudge(saver.schemas, "events-dlq")
    verdict = judge.validate(a_delivery(tenant_id="newcomer"))
    db.execute("INSERT INTO tenant (tenant_id, name) VALUES ('newcomer', 'x')")
    saver.store._judge = judge

    [settlement] = saver.store.save([verdict])

    assert settlement.reason == "dead_lettered"
    [(message,)] = rejections(db, "detail ->> 'message'")
    assert "would be stored" in message
