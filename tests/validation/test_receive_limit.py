"""Tests that deliveries are rejected unread after too many receives or hangs, and can be replayed."""

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from processor.database.connection import connect
from processor.errors import Reason
from processor.model import Delivery, Message, Registry, Rejection, Tries
from processor.runtime.outages import OutageRetry
from processor.settings import Settings
from processor.sources.quarantine import RejectionSelection
from processor.store.store import Store
from processor.validation.receive_limit import SuspectLimits
from processor.validation.tenant_bindings import UNBOUND
from processor.validation.validator import Schemas
from processor.wiring import commands
from tests.builders import a_body, a_delivery
from tests.fixtures.database import books
from tests.pipeline.harness import schemas_of_acme

Db = psycopg.Connection[Any]


class Untouchable(Schemas):
    """Fails on any delivery that it is given to read."""

    def validate(self, delivery: Delivery, *, may_wait: bool = True) -> Message | Rejection:  # noqa: ARG002
        raise AssertionError(f"{delivery.delivery_id} was read")


def limits(judge: Schemas, receive_count_max: int | None = 4) -> SuspectLimits:
    return SuspectLimits(judge, judge_timeout_s=10, receive_count_max=receive_count_max)


@pytest.mark.parametrize(
    ("receive_count", "tries", "receive_count_max", "reason"),
    [
        (4, Tries(1), 4, None),
        # Its workers died of other deliveries that they held.
        (5, Tries(1), 4, None),
        # A queue without counts reports every later receive as the third; attempts are counted instead.
        (3, Tries(2), 4, None),
        (3, Tries(3), 4, "dead_lettered"),
        # This queue has a dead-letter queue of its own.
        (900, Tries(800), None, None),
        (3, Tries(1, hangs=1), None, None),
        (3, Tries(1, hangs=2), None, "unstorable"),
        (3, Tries(0, hangs=2), 4, "unstorable"),
    ],
)
def test_a_delivery_is_rejected_after_too_many_receives_or_two_hangs(
    receive_count: int, tries: Tries, receive_count_max: int | None, reason: str | None
) -> None:
    limit = limits(schemas_of_acme(), receive_count_max)

    verdict = limit.unread(a_delivery(receive_count=receive_count), tries)

    assert (verdict and verdict.reason) == reason


@pytest.mark.parametrize(
    ("tries", "reason", "figures"),
    [
        (Tries(3), Reason.DEAD_LETTERED, {"receive_count": 5, "receive_count_max": 4}),
        (Tries(1, hangs=2), Reason.UNSTORABLE, {"hangs": 2, "judge_timeout_s": 10}),
    ],
)
def test_a_suspect_is_rejected_unread_without_a_tenant(
    tries: Tries, reason: Reason, figures: dict[str, int]
) -> None:
    schemas = Untouchable(body_bytes_max=1024, json_depth_max=8)
    schemas.install(Registry(7, {}, ()))

    verdict = limits(schemas).unread(a_delivery(b"poison", receive_count=5), tries)

    assert verdict is not None
    assert (verdict.reason, verdict.registry_version, verdict.key_known) == (reason, 7, False)
    assert verdict.claimed.tenant_id is None
    assert verdict.detail.items() >= figures.items()
    assert verdict.delivery.body == b"poison"


class Ledger:
    """A store on a real database, as a writer uses it for suspects."""

    def __init__(self, database_url: str, judge: Schemas, receive_count_max: int | None = 4) -> None:
        self.judge = judge
        self.store = Store(
            lambda: connect(database_url),
            judge,
            OutageRetry("database", wait_s_max=1, stop=threading.Event()),
            timeout_s=10,
            judge_unread=limits(judge, receive_count_max).unread,
        )
        self.store.load_registry()

    def take(self, delivery: Delivery) -> str:
        """Handle a suspect like a writer; return its outcome."""
        verdict = self.store.unread(delivery) or self.judge.validate(delivery)
        [settlement] = self.store.save([verdict])
        return settlement.outcome.value


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    ledger = Ledger(database_url, Schemas(body_bytes_max=1024, json_depth_max=8, bindings=UNBOUND))
    yield ledger
    ledger.store.close()


def test_a_rejected_suspect_can_be_replayed_and_its_neighbour_stays_stored_once(
    ledger: Ledger, database_url: str, db: Db
) -> None:
    stored, put_aside = a_delivery(a_body(), sent_now=True), a_delivery(a_body(id=None), sent_now=True)
    ledger.store.save([ledger.judge.validate(stored)])
    for suspect in (stored, put_aside):
        for count in (3, 4):
            assert ledger.store.unread(_received(suspect, count)) is None

    outcomes = [ledger.take(_received(stored, 5)), ledger.take(_received(put_aside, 5))]

    assert outcomes == ["redelivered", "rejected"]
    assert books(db) == {"message": 1, "duplicate": 0, "rejection": 1}
    settings = Settings.load(_env_file=None, database_url=database_url)
    replayed, _ = commands.replay(
        settings, RejectionSelection(reason="dead_lettered"), dry_run=False, forced=False
    )
    assert replayed == {"stored": 1}


def test_each_attempt_is_recorded_first_and_deleted_with_the_outcome(ledger: Ledger, db: Db) -> None:
    suspect = a_delivery(a_body(), receive_count=3)
    assert ledger.store.unread(suspect) is None
    noted = db.execute("SELECT delivery_id, attempts, hangs FROM attempt").fetchall()

    outcome = ledger.take(suspect)

    assert noted == [(suspect.delivery_id, 1, 0)]
    assert outcome == "stored"
    assert db.execute("SELECT count(*) FROM attempt").fetchone() == (0,)


def test_attempts_are_counted_for_a_queue_without_receive_counts(ledger: Ledger, db: Db) -> None:
    """The queue reports each later receive as the third; a lethal message would return forever."""
    suspect = a_delivery(a_body(), receive_count=3)
    verdicts = [ledger.store.unread(suspect) for _ in range(3)]

    assert verdicts[:2] == [None, None], "the third and the fourth receive"
    assert isinstance(verdicts[2], Rejection)
    assert verdicts[2].detail["receive_count"] == 5
    assert [each.outcome.value for each in ledger.store.save([verdicts[2]])] == ["rejected"]
    assert db.execute("SELECT count(*) FROM attempt").fetchone() == (0,)


def test_a_delivery_with_two_hangs_is_rejected_and_its_replay_is_read(
    ledger: Ledger, database_url: str, db: Db
) -> None:
    suspect = a_delivery(a_body(), receive_count=3, sent_now=True)
    for _ in range(2):
        ledger.store.note_hangs(suspect.queue, [suspect.delivery_id, "beside"], keep_days=1)

    outcome = ledger.take(suspect)

    assert outcome == "rejected"
    assert db.execute("SELECT reason FROM rejection").fetchall() == [("unstorable",)]
    assert db.execute("SELECT delivery_id FROM attempt").fetchall() == [("beside",)]
    settings = Settings.load(_env_file=None, database_url=database_url)
    replayed, _ = commands.replay(
        settings, RejectionSelection(reason="unstorable"), dry_run=False, forced=False
    )
    assert replayed == {"stored": 1}


def test_an_unread_rejection_stays_when_the_registry_changes(
    ledger: Ledger, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the save would read a body that must not be read."""
    suspect = a_delivery(a_body(), receive_count=3)
    ledger.store.note_hangs(suspect.queue, [suspect.delivery_id] * 2, keep_days=1)
    ledger.store.note_hangs(suspect.queue, [suspect.delivery_id], keep_days=1)
    verdict = ledger.store.unread(suspect)
    db.execute("INSERT INTO tenant (tenant_id, name) VALUES ('another', 'Another')")
    monkeypatch.setattr(ledger.judge, "validate", Untouchable(body_bytes_max=9, json_depth_max=9).validate)

    assert verdict is not None
    assert [each.outcome.value for each in ledger.store.save([verdict])] == ["rejected"]


def test_old_attempts_expire_with_their_keys(ledger: Ledger, db: Db) -> None:
    for delivery_id in ("old", "young"):
        ledger.store.note_hangs("events", [delivery_id], keep_days=28)
    db.execute("UPDATE attempt SET noted_at = now() - interval '29 days' WHERE delivery_id = 'old'")

    ledger.store.note_hangs("events", [], keep_days=28)

    assert db.execute("SELECT delivery_id FROM attempt").fetchall() == [("young",)]


def test_a_delivery_with_an_unstorable_id_is_read(ledger: Ledger) -> None:
    assert ledger.store.unread(a_delivery(delivery_id="a\0b", receive_count=3)) is None


def _received(delivery: Delivery, count: int) -> Delivery:
    return a_delivery(delivery.body, delivery_id=delivery.delivery_id, receive_count=count, sent_now=True)
