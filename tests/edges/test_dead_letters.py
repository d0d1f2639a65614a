"""The dead-letter queue: what SQS moved there for real comes into the books once, and can be replayed."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest
import structlog
from click.testing import CliRunner
from msgspec.structs import replace

from processor.audit import audit
from processor.cli import cli
from processor.dead_letters import DeadLetterJudge, bring_in, look
from processor.devstack.sqs import EmbeddedSqs
from processor.errors import NotFound, SettingsError, SourceUnavailable
from processor.model import Delivery, Settlement
from processor.settings import Settings
from processor.sources.memory import MemorySource
from processor.sources.quarantine import Selection
from processor.sources.sqs import SqsSource
from processor.wiring import commands
from tests.builders import a_body, a_delivery
from tests.fix_check import with_changes
from tests.fix_database import Saver, books
from tests.rig import wait_until

Db = psycopg.Connection[Any]

pytestmark = pytest.mark.usefixtures("nothing_is_set")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty queue is believed at once: there is but one server to ask."""
    monkeypatch.setattr("processor.dead_letters._POLL_S", 0)
    yield
    structlog.reset_defaults()


def queue_name(url: str) -> str:
    return url.rsplit("/", 1)[-1]


def kill(sqs_server: EmbeddedSqs, queue_url: str, *bodies: bytes) -> list[str]:
    """Send messages and receive each too often, until SQS has moved them; gives their ids in that order."""
    with closing(sqs_server.client()) as client:
        redrive = client.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["RedrivePolicy"])
        policy = json.loads(redrive["Attributes"]["RedrivePolicy"]) | {"maxReceiveCount": 2}
        client.set_queue_attributes(
            QueueUrl=queue_url, Attributes={"RedrivePolicy": json.dumps(policy), "VisibilityTimeout": "0"}
        )
        ids = [
            client.send_message(QueueUrl=queue_url, MessageBody=body.decode())["MessageId"] for body in bodies
        ]

        def emptied() -> bool:
            return not client.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10).get("Messages")

        wait_until(emptied, "SQS has moved them")
    return ids


def bring(settings: Settings, **changes: Any) -> dict[str, int]:
    """Import the dead letters; gives the outcomes."""
    arguments: dict[str, Any] = {"source_name": None, "limit": None, "unread": False}
    _, outcomes, _ = commands.import_dead_letters(
        settings, **arguments | changes, stop=threading.Event(), on_batch=lambda _count: None
    )
    return outcomes


def dead_letters(settings: Settings) -> SqsSource:
    source = SqsSource.open(settings).dead_letters(visibility_timeout_s=30)
    assert source is not None
    return source


def rejections(db: Db, columns: str) -> list[tuple[Any, ...]]:
    return db.execute(f"SELECT {columns} FROM rejection ORDER BY rejection_id").fetchall()


def holds(db: Db, settings: Settings) -> bool:
    return audit(db, [], SqsSource.open(settings).depth_with_dead_letters).holds


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
    outcomes, _ = commands.replay(settings, Selection(reason="dead_lettered"), dry_run=False, forced=False)
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
        wait_until(lambda: waits(db, "advisory") or not importing.is_alive(), "the import waits")
    importing.join(30)

    assert outcomes == [{"redelivered": 1}]
    assert books(db) == {"message": 1, "duplicate": 0, "rejection": 0}


def waits(db: Db, kind: str) -> bool:
    """Whether somebody waits for a lock of this kind in our database."""
    row = db.execute(
        "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database "
        "WHERE datname = current_database() AND locktype = %s AND NOT granted",
        [kind],
    ).fetchone()
    return row is not None and row[0] > 0


def test_a_registry_that_changes_under_the_import_leaves_it_an_import(saver: Saver, db: Db) -> None:
    judge = DeadLetterJudge(saver.schemas, "events-dlq")
    verdict = judge.validate(a_delivery(tenant_id="newcomer"))
    db.execute("INSERT INTO tenant (tenant_id, name) VALUES ('newcomer', 'x')")
    saver.store._judge = judge

    [settlement] = saver.store.save([verdict])

    assert settlement.reason == "dead_lettered"
    [(message,)] = rejections(db, "detail ->> 'message'")
    assert "would be stored" in message


# ── whose they are ────────────────────────────────────────────────────────────────────────────────────


def test_a_dead_letter_of_another_queue_is_imported_under_that_name(
    settings: Settings, sqs_server: EmbeddedSqs, queue_url: str, db: Db
) -> None:
    other = sqs_server.create_queue(queue_name(queue_url) + "-other", visibility_timeout_s=0)
    arn = f"arn:aws:sqs:us-east-1:000000000000:{queue_name(queue_url)}-dlq"
    with closing(sqs_server.client()) as client:
        client.set_queue_attributes(
            QueueUrl=other,
            Attributes={"RedrivePolicy": json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 2})},
        )
    kill(sqs_server, other, a_body())
    kill(sqs_server, queue_url, a_body())

    # What SQS tells is true, whatever a person says.
    assert bring(settings, source_name="else") == {"rejected": 2}

    assert set(rejections(db, "queue")) == {(queue_name(other),), (queue_name(queue_url),)}


class Untold(MemorySource):
    """A dead-letter queue of which SQS does not say where its messages are from."""

    def __init__(self, names: Sequence[str] | None) -> None:
        super().__init__()
        self._names = names

    def receive(self, limit: int, wait_s: float) -> list[Delivery]:
        return [replace(delivery, queue="") for delivery in super().receive(limit, wait_s)]

    def moved_from(self) -> list[str]:
        if self._names is None:
            raise SourceUnavailable("SQS refuses to list: AccessDenied")
        return list(self._names)


def bring_untold(saver: Saver, source: Untold, named: str | None) -> dict[str, int]:
    judge = DeadLetterJudge(saver.schemas, "events-dlq")
    return dict(
        bring_in(
            source,
            judge,
            saver.store,
            named=named,
            limit=None,
            stop=threading.Event(),
            on_batch=lambda _count: None,
        )
    )


@pytest.mark.parametrize(("names", "named", "queue"), [(["a"], None, "a"), (["a", "b"], "b", "b")])
def test_where_sqs_does_not_tell_the_only_queue_or_the_named_one_is_meant(
    saver: Saver, db: Db, names: list[str], named: str | None, queue: str
) -> None:
    source = Untold(names)
    source.send(a_body())

    assert bring_untold(saver, source, named) == {"rejected": 1}

    assert rejections(db, "queue") == [(queue,)]


@pytest.mark.parametrize("names", [["a", "b"], [], None])
def test_nobody_guesses_whose_a_dead_letter_is(saver: Saver, db: Db, names: list[str] | None) -> None:
    source = Untold(names)
    source.send(a_body())

    with pytest.raises(SettingsError, match="--source QUEUE_NAME"):
        bring_untold(saver, source, None)

    assert books(db)["rejection"] == 0
    assert len(source.receive(10, 0)) == 1, "it was given back"


def test_a_server_that_can_not_list_is_no_reason_to_guess(
    settings: Settings, sqs_server: EmbeddedSqs, queue_url: str, db: Db
) -> None:
    """Sent straight to the dead-letter queue it was moved from nowhere; and ministack lists no sources."""
    with closing(sqs_server.client()) as client:
        client.send_message(QueueUrl=queue_url + "-dlq", MessageBody=a_body().decode())

    with pytest.raises(SettingsError, match="--source QUEUE_NAME"):
        bring(settings)
    assert bring(settings, source_name="events") == {"rejected": 1}

    assert rejections(db, "queue") == [("events",)]


# ── how far ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_limit_is_kept(settings: Settings, sqs_server: EmbeddedSqs, queue_url: str, db: Db) -> None:
    kill(sqs_server, queue_url, *[a_body() for _ in range(13)])

    assert bring(settings, limit=11) == {"rejected": 11}

    assert books(db)["rejection"] == 11
    assert dead_letters(settings).depth()["visible"] == 2


def test_a_stop_ends_it_after_the_batch_under_way(
    settings: Settings, sqs_server: EmbeddedSqs, queue_url: str, db: Db
) -> None:
    kill(sqs_server, queue_url, *[a_body() for _ in range(15)])
    stop = threading.Event()

    _, outcomes, left = commands.import_dead_letters(
        settings, source_name=None, limit=None, unread=False, stop=stop, on_batch=lambda _count: stop.set()
    )

    assert outcomes == {"rejected": 10}
    assert left == {"visible": 5, "in_flight": 0, "delayed": 0}
    assert books(db)["rejection"] == 10


def test_what_was_saved_before_an_outage_is_deleted_and_the_rest_given_back(saver: Saver, db: Db) -> None:
    source = Untold(["events"])
    for _ in range(5):
        source.send(a_body())
    saves: list[int] = []

    class Failing:
        def save(self, verdicts: Any) -> list[Settlement]:
            saves.append(len(verdicts))
            if len(saves) == 3:
                raise SourceUnavailable("gone")
            return saver.store.save(verdicts)

    with pytest.raises(SourceUnavailable):
        bring_in(
            source,
            DeadLetterJudge(saver.schemas, "events-dlq"),
            Failing(),
            named=None,
            limit=None,
            stop=threading.Event(),
            on_batch=lambda _count: None,
        )

    assert saves == [1, 1, 1], "each alone: the next one may be what kills its readers"
    assert books(db)["rejection"] == 2
    assert len(source.receive(10, 0)) == 3


# ── looking ───────────────────────────────────────────────────────────────────────────────────────────


def test_looking_shows_whom_they_claim_to_be_from_and_gives_them_back(
    settings: Settings, sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    body = a_body(id="o-1", tenant_id="nobody")
    [delivery_id] = kill(sqs_server, queue_url, body)

    # No database is asked.
    name, counts, [row] = commands.list_dead_letters(
        with_changes(settings, database_url=None), limit=20, unread=False
    )

    assert name == queue_name(queue_url) + "-dlq"
    assert counts == {"visible": 1, "in_flight": 0, "delayed": 0}
    assert row["delivery_id"] == delivery_id
    assert row["receive_count"] == 3
    assert row["size_bytes"] == len(body)
    assert (row["queue"], row["tenant_id"], row["event_type"], row["message_id"]) == (
        queue_name(queue_url),
        "nobody",
        "order.created",
        "o-1",
    )
    assert dead_letters(settings).depth() == counts


def test_only_counting_receives_nothing(settings: Settings, sqs_server: EmbeddedSqs, queue_url: str) -> None:
    kill(sqs_server, queue_url, a_body())

    _, counts, rows = commands.list_dead_letters(settings, limit=0, unread=False)

    assert (counts["visible"], rows) == (1, [])
    [delivery] = look(dead_letters(settings), 5)
    assert delivery.receive_count == 3


def test_a_queue_that_hands_one_over_again_and_again_is_looked_at_once() -> None:
    source = MemorySource()
    source.send(a_body())
    [delivery] = source.receive(1, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "receive", lambda _limit, _wait_s: [delivery])

        assert look(source, 50) == [delivery]


def test_a_queue_without_a_dead_letter_queue_is_said(settings: Settings, sqs_server: EmbeddedSqs) -> None:
    with closing(sqs_server.client()) as client:
        url = client.create_queue(QueueName="without-dead-letters")["QueueUrl"]

    with pytest.raises(NotFound, match="no dead-letter queue"):
        bring(with_changes(settings, sqs_queue_url=url))


# ── the commands ──────────────────────────────────────────────────────────────────────────────────────


def environment_of(settings: Settings) -> dict[str, str]:
    return {
        "DATABASE_URL": settings.need_database_url(),
        "SQS_QUEUE_URL": settings.need_queue_url(),
        "AWS_ENDPOINT_URL": str(settings.aws_endpoint_url),
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }


def test_the_commands_say_what_is_there_and_what_to_do_next(
    settings: Settings, sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    [delivery_id, _] = kill(sqs_server, queue_url, a_body(id="o-1"), a_body())

    def run(*words: str) -> str:
        result = CliRunner().invoke(cli, ["dlq", *words], env=environment_of(settings))
        assert result.exit_code == 0, result.output
        return result.stdout

    listed = run("list")
    assert f"{queue_name(queue_url)}-dlq: 2 visible, 0 in flight, 0 delayed" in listed
    assert delivery_id in listed
    assert "o-1" in listed
    assert {row["delivery_id"] for row in json.loads(run("list", "--json"))["shown"]} >= {delivery_id}
    assert json.loads(run("import", "--limit", "1", "--json")) == {
        "dead_letter_queue": f"{queue_name(queue_url)}-dlq",
        "finished": True,
        "outcomes": {"rejected": 1},
        "left": {"visible": 1, "in_flight": 0, "delayed": 0},
    }
    imported = run("import")
    assert imported.startswith("imported: 1\nknown already, so only deleted: 0\nstill in ")
    assert "processor rejection replay --reason dead_lettered" in imported
    assert "imported: 0" in run("import")


def test_a_real_import_that_is_told_to_stop_finishes_its_batch(
    settings: Settings, sqs_server: EmbeddedSqs, queue_url: str, db: Db, database_url: str
) -> None:
    kill(sqs_server, queue_url, *[a_body() for _ in range(13)])

    with psycopg.connect(database_url) as person:
        person.execute("LOCK TABLE rejection IN SHARE MODE")
        importing = subprocess.Popen(
            [sys.executable, "-m", "processor", "dlq", "import", "--json"],
            env=os.environ | environment_of(settings) | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: waits(db, "relation"), "it saves the first of ten")
        importing.send_signal(signal.SIGTERM)
    out, _ = importing.communicate(timeout=30)

    answer = json.loads(out)
    assert (importing.returncode, answer["finished"]) == (128 + signal.SIGTERM, False)
    assert books(db)["rejection"] == answer["outcomes"]["rejected"] == 10
    assert answer["left"] == {"visible": 3, "in_flight": 0, "delayed": 0}
