"""The alarm of rejections by the tables, by `rejection stats`, and by a running processor."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
import structlog
from click.testing import CliRunner, Result

from processor.cli import cli
from processor.devstack.servers.sqs import EmbeddedSqs
from processor.operations import reader, registry
from processor.operations.reject_alarm import RejectAlarmLimits
from processor.pipeline.pipeline import once
from processor.settings import Settings
from processor.sources.quarantine import QuarantineSource, RejectionSelection
from tests.builders import a_body, a_delivery
from tests.fixtures.database import Saver

Db = psycopg.Connection[Any]

LIMITS = RejectAlarmLimits(share=0.2, count_min=10, window_s=300)


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """A command sets what is logged for the whole process."""
    yield
    structlog.reset_defaults()


def a_bad_order() -> Any:
    return a_delivery(payload={"total": -1})


def alarms(db: Db) -> list[tuple[Any, int, int]] | None:
    return reader.reject_alarms(db, LIMITS)


def stats(database_url: str, *options: str, **limits: str) -> Result:
    environment = {"DATABASE_URL": database_url, "REJECT_ALARM_COUNT_MIN": "10"} | limits
    result = CliRunner().invoke(cli, ["rejection", "stats", *options], env=environment)
    assert result.exit_code == 0, result.output
    return result


# ── by the tables ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("good", "bad", "found"), [(8, 2, True), (9, 2, False), (0, 9, False)])
def test_the_share_of_a_pair_is_known_from_its_rows(
    saver: Saver, db: Db, good: int, bad: int, found: bool
) -> None:
    saver.save(*[a_delivery() for _ in range(good)], *[a_bad_order() for _ in range(bad)])
    saver.save(
        *[a_delivery(tenant_id="globex") for _ in range(50)], a_delivery(tenant_id="globex", event_type="x")
    )

    assert alarms(db) == ([(("acme", "order.created"), bad, good + bad)] if found else [])


def test_what_is_older_than_the_window_does_not_count(saver: Saver, db: Db) -> None:
    saver.save(*[a_bad_order() for _ in range(20)])
    db.execute("UPDATE rejection SET rejected_at = now() - interval '301 seconds'")

    assert alarms(db) == []


def test_names_that_are_not_registered_are_taken_together(saver: Saver, db: Db) -> None:
    for place in range(10):
        saver.save(
            a_delivery(tenant_id=f"made-up-{place}"),
            a_delivery(b"nonsense"),
            a_delivery(event_type=f"made.up.{place}"),
        )

    assert alarms(db) == [(("acme", None), 10, 10), ((None, None), 20, 20)]


def test_what_a_person_asked_for_is_no_alarm(saver: Saver, db: Db) -> None:
    registry.set_tenant_status(db, "acme", "suspended")
    saver.save(*[a_delivery() for _ in range(20)])
    db.execute("UPDATE rejection SET reason = 'dead_lettered' WHERE rejection_id <= 10")

    assert alarms(db) == []


def test_a_replay_raises_no_alarm(saver: Saver, db: Db) -> None:
    """What it rejects again is as fresh as any by its time."""
    saver.save(*[a_bad_order() for _ in range(20)])
    db.execute("UPDATE rejection SET rejected_at = now() - interval '1 day'")

    settlements = once(
        QuarantineSource(db, RejectionSelection()), saver.schemas, saver.store, limit=100, wait_s=0
    )

    assert {settlement.reason for settlement in settlements} == {"schema_violation"}
    assert alarms(db) == []


def test_more_than_can_be_counted_in_time_is_said_and_not_waited_for(
    saver: Saver, db: Db, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver.save(*[a_bad_order() for _ in range(20)])
    monkeypatch.setattr("processor.operations.reader._COUNT_MS_MAX", 50)

    with psycopg.connect(database_url) as person:
        person.execute("LOCK TABLE message IN ACCESS EXCLUSIVE MODE")
        assert alarms(db) is None
        answer = stats(database_url)

    assert "schema_violation" in answer.stdout
    assert "too much was stored lately" in answer.stderr


@pytest.mark.parametrize("role", ["processor_writer", "processor_reader"])
def test_who_may_read_may_see_alarms(saver: Saver, db: Db, role: str) -> None:
    saver.save(*[a_bad_order() for _ in range(10)])
    db.execute(f"SET ROLE {role}")

    assert alarms(db) == [(("acme", "order.created"), 10, 10)]


# ── by the command ────────────────────────────────────────────────────────────────────────────────────


def test_stats_names_the_pair_and_the_command(saver: Saver, database_url: str) -> None:
    saver.save(*[a_delivery() for _ in range(6)], *[a_bad_order() for _ in range(6)])

    line = stats(database_url).stdout.splitlines()[-1]

    assert line == (
        "alarm: tenant 'acme', event type 'order.created': 6 of 12 deliveries of the last 300 s were "
        "rejected (50%); once mended: processor rejection replay --tenant acme --event-type order.created"
    )
    assert "alarm" not in stats(database_url, REJECT_ALARM_SHARE="0.6").stdout
    assert "alarm" not in stats(database_url, REJECT_ALARM_COUNT_MIN="13").stdout


def test_stats_in_json_stays_json_and_says_alarms_beside_it(saver: Saver, database_url: str) -> None:
    saver.save(*[a_bad_order() for _ in range(10)])

    answer = stats(database_url, "--json")

    [row] = json.loads(answer.stdout)
    assert row["count"] == 10
    assert answer.stderr.startswith("alarm: ")


# ── by a running processor ────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("nothing_is_set")
def test_a_running_processor_says_it_once(
    settings: Settings, sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    bodies = [a_body(payload={"total": -1}).decode() for _ in range(30)]
    with closing(sqs_server.client()) as client:
        for start in range(0, 30, 10):
            entries: Any = [
                {"Id": str(place), "MessageBody": body}
                for place, body in enumerate(bodies[start : start + 10])
            ]
            client.send_message_batch(QueueUrl=queue_url, Entries=entries)

    ended = subprocess.run(
        [sys.executable, "-m", "processor", "run", "--until-idle", "0.5"],
        env=os.environ
        | {
            "DATABASE_URL": settings.need_database_url(),
            "SQS_QUEUE_URL": queue_url,
            "AWS_ENDPOINT_URL": sqs_server.endpoint_url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "HTTP_PORT": "0",
            "REJECT_ALARM_COUNT_MIN": "5",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 0
    lines = [json.loads(line) for line in ended.stderr.decode().splitlines()]
    [alarm] = [line for line in lines if line["event"] == "reject_alarm"]
    assert (alarm["tenant_id"], alarm["event_type"]) == ("acme", "order.created")
