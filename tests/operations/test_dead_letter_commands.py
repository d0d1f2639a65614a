"""An import of dead letters, as a person meets it: whose they are, how far it goes, what it says."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from processor.cli import cli
from processor.devstack.servers.sqs import EmbeddedSqs
from processor.errors import NotFound, SettingsError, SourceUnavailable
from processor.model import Delivery, Settlement
from processor.operations.dead_letters import DeadLetterJudge, bring_in, look
from processor.settings import Settings
from processor.sources.memory import MemorySource
from processor.wiring import commands
from tests.builders import a_body
from tests.fixtures.check import with_changes
from tests.fixtures.database import Saver, books
from tests.fixtures.dead_letters import (
    bring,
    dead_letters,
    environment_of,
    kill,
    queue_name,
    rejections,
    waits,
)
from tests.rig import wait_until

Db = psycopg.Connection[Any]

pytestmark = pytest.mark.usefixtures("nothing_is_set", "impatient")


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
            env=os.environ | environment_of(settings),
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
