"""`processor check` as a whole: content with a good setup, and exit codes for all others."""

import json
import threading
from contextlib import closing
from typing import Any

import pytest
from click.testing import CliRunner, Result

from processor.cli import cli
from processor.database.connection import connect
from processor.devstack.servers.children import free_port
from processor.runtime.outages import OutageRetry
from processor.settings import Settings
from processor.store.store import Store
from processor.validation.validator import Schemas
from processor.wiring.commands import run_check
from tests.builders import a_delivery
from tests.fixtures.check import with_changes

pytestmark = pytest.mark.usefixtures("nothing_is_set")


def test_a_good_setup_is_fine_and_needs_no_advice(writer_url: str, settings: Settings) -> None:
    findings = run_check(with_changes(settings, database_url=_secret(writer_url)))

    assert [f for f in findings if not f.fine or f.advice] == []
    assert {finding.what for finding in findings} == {
        "database",
        "database version",
        "encoding",
        "writable",
        "fsync",
        "full_page_writes",
        "synchronous_commit",
        "database clock",
        "pooler",
        "migrations",
        "rights",
        "least privilege",
        "role processor_writer",
        "role processor_reader",
        "role processor_biller",
        "role processor_retention",
        "role processor_gateway",
        "role processor_tenant_reader",
        "public",
        "every login",
        "login",
        "row-level security",
        "tenant readers",
        "tenant databases",
        "tenant limits",
        "tenant walls",
        "registry",
        "schemas",
        "meters",
        "storage",
        "API keys",
        "queue binding",
        "queue",
        "queue clock",
        "backlog",
        "retention",
        "message size",
        "visibility timeout",
        "max receive count",
        "dead-letter queue",
        "dead-letter retention",
        "key retention",
    }


def test_the_rights_that_it_asks_for_are_enough_to_save(writer_url: str) -> None:
    schemas = Schemas(body_bytes_max=1024 * 1024, json_depth_max=64)
    retry = OutageRetry("database", wait_s_max=0.2, stop=threading.Event())
    store = Store(lambda: connect(writer_url, timeout_s=20), schemas, retry, timeout_s=20)
    with closing(store):
        store.load_registry()
        deliveries = [a_delivery(id="o-1"), a_delivery(id="o-1"), a_delivery(b"nonsense")]

        settlements = store.save([schemas.validate(delivery) for delivery in deliveries])

    assert [settlement.outcome.value for settlement in settlements] == ["stored", "duplicate", "rejected"]


def _secret(value: str) -> Any:
    return Settings.load(database_url=value).database_url


# ── the command ───────────────────────────────────────────────────────────────────────────────────────


def _check(settings: Settings, **environment: str) -> Result:
    named = {
        "DATABASE_URL": settings.need_database_url(),
        "SQS_QUEUE_URL": settings.need_queue_url(),
        "AWS_ENDPOINT_URL": settings.aws_endpoint_url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    return CliRunner().invoke(cli, ["check", "--json"], env={**named, **environment})


def test_the_command_is_content_with_a_good_setup(writer_url: str, settings: Settings) -> None:
    result = _check(settings, DATABASE_URL=writer_url)

    assert result.exit_code == 0
    assert all(finding["fine"] for finding in json.loads(result.stdout))


def test_a_problem_is_exit_code_3(writer_url: str, settings: Settings) -> None:
    assert _check(settings, DATABASE_URL=writer_url, BODY_BYTES_MAX="1024").exit_code == 3


@pytest.mark.parametrize(("variable", "what"), [("DATABASE_URL", "database"), ("SQS_QUEUE_URL", "queue")])
def test_what_is_not_set_is_said_and_the_other_is_looked_at(
    writer_url: str, settings: Settings, variable: str, what: str
) -> None:
    result = _check(settings, **{"DATABASE_URL": writer_url, variable: ""})

    assert result.exit_code == 3
    [problem] = [finding for finding in json.loads(result.stdout) if not finding["fine"]]
    assert (problem["what"], problem["found"]) == (what, f"{variable} is not set")
    assert len(json.loads(result.stdout)) > 5


@pytest.mark.parametrize("away", ["database", "queue"])
def test_what_is_away_is_exit_code_4_and_the_other_is_looked_at(
    writer_url: str, settings: Settings, away: str
) -> None:
    port = free_port()
    change = (
        {"DATABASE_URL": f"postgresql://postgres@127.0.0.1:{port}/none"}
        if away == "database"
        else {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    )
    result = _check(settings, **{"DATABASE_URL": writer_url, **change})

    assert result.exit_code == 4
    [problem] = [finding for finding in json.loads(result.stdout) if not finding["fine"]]
    assert (problem["what"], problem["unreachable"]) == (away, True)
    assert len(json.loads(result.stdout)) > 5


def test_people_get_a_table(settings: Settings) -> None:
    result = CliRunner().invoke(cli, ["check"], env={"DATABASE_URL": "", "SQS_QUEUE_URL": ""})

    assert result.exit_code == 3
    assert "DATABASE_URL is not set" in result.stdout
    assert "what to do" in result.stdout


def test_the_command_marks_notes_and_counts_the_findings(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run_check(settings)
    marks = [finding.mark for finding in found]
    assert {"note", "!!", "ok"} == set(marks)
    monkeypatch.setattr("processor.wiring.commands.run_check", lambda _settings: found)

    said = CliRunner().invoke(cli, ["check"]).stdout.splitlines()

    assert [line.split()[0] for line in said[1:-1]] == marks
    counts = [marks.count(mark) for mark in ("ok", "note", "!!")]
    notes, problems = ("s" if count != 1 else "" for count in counts[1:])
    assert said[-1] == f"{counts[0]} ok, {counts[1]} note{notes}, {counts[2]} problem{problems}"


def test_a_setting_under_another_systems_name_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:4566")

    [finding] = [finding for finding in run_check(Settings.load()) if finding.what == "settings"]

    assert finding.mark == "note"
    assert "AWS_ENDPOINT is set, which is AWS_ENDPOINT_URL here" in (finding.advice or "")
