"""What a check needs: settings of real servers, a server as a deployment has it, and eyes for findings."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from processor.check import Finding
from processor.check.clock import Now, utc_now
from processor.check.database import check_database
from processor.check.queue import check_queue
from processor.database.connection import connect
from processor.database.migrations import migrate
from processor.devstack.servers.postgres import EmbeddedPostgres
from processor.devstack.servers.sqs import EmbeddedSqs
from processor.operations import registry
from processor.settings import Settings
from processor.sources.sqs.source import sqs_client
from tests.builders import ORDER_SCHEMA


@pytest.fixture
def nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of this machine that names a server or a right on one, and no .env beside us."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name in ("DATABASE_URL", "SQS_QUEUE_URL"):
            monkeypatch.delenv(name)
    # No wait for a metadata service that isn't there, and no profile of whoever runs the tests.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def settings(sqs_server: EmbeddedSqs, queue_url: str, database_url: str) -> Settings:
    """Settings of this test's own database and queue."""
    return Settings.load(
        database_url=database_url,
        sqs_queue_url=queue_url,
        aws_endpoint_url=sqs_server.endpoint_url,
        aws_region="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def with_changes(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update=changes)


def look_at_database(url: str, now: Now = utc_now) -> dict[str, Finding]:
    found = check_database(lambda: connect(url), timeout_s=20, now=now)
    return {finding.what: finding for finding in found}


def look_at_queue(settings: Settings, now: Now = utc_now) -> dict[str, Finding]:
    with closing(sqs_client(settings)) as client:
        return {finding.what: finding for finding in check_queue(client, settings, now)}


def problems(findings: dict[str, Finding]) -> set[str]:
    for finding in findings.values():
        assert finding.fine or finding.advice, f"{finding.what} is not fine and says not what to do"
    return {what for what, finding in findings.items() if not finding.fine}


def url_as(url: str, user: str, **parts: str) -> str:
    split = urlsplit(url)
    return urlunsplit(split._replace(netloc=f"{user}@{split.hostname}:{split.port}", **parts))


@pytest.fixture(scope="session")
def sound_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server as a deployment has it; the one of the other tests gives up fsync for speed."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("sound"), passwords=False) as server:
        yield server


@pytest.fixture
def writer_url(sound_server: EmbeddedPostgres) -> Iterator[str]:
    """The URL of a login that may do what the processor does, and no more."""
    with psycopg.connect(sound_server.url(), autocommit=True) as owner:
        owner.execute("CREATE DATABASE sound")
        with psycopg.connect(sound_server.url("sound"), autocommit=True) as connection:
            migrate(connection)
            registry.add_tenant(connection, "acme")
            registry.publish_schema(connection, "order.created", ORDER_SCHEMA)
        owner.execute("CREATE ROLE worker LOGIN IN ROLE processor_writer")
        yield sound_server.url("sound", "worker")
        owner.execute("DROP DATABASE sound WITH (FORCE)")
        owner.execute("DROP ROLE worker")
