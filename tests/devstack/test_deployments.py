"""The scripts of deployments/compose do on real servers what the compose file relies on."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest

from processor.check.queue import check_queue
from processor.devstack.servers.binaries import find_binaries, server_account
from processor.devstack.servers.sqs import EmbeddedSqs
from processor.settings import Settings
from processor.sources.sqs.source import sqs_client

Db = psycopg.Connection[Any]
SCRIPTS = Path(__file__).parents[2] / "deployments" / "compose"
BIN = Path(sys.executable).parent


def _environment(**more: str) -> dict[str, str]:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "HOME": os.environ.get("HOME", "/"), **more}


def _run(*command: str | Path, **environment: str) -> str:
    result = subprocess.run(
        command, env=_environment(**environment), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_the_queues_are_made_as_the_check_wants_them(sqs_server: EmbeddedSqs) -> None:
    aws = {
        "AWS_ENDPOINT_URL": sqs_server.endpoint_url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    name = f"made-{os.getpid()}"

    for _ in range(2):
        _run(SCRIPTS / "make-queues.sh", QUEUE_NAME=name, **aws)

    settings = Settings.load(
        sqs_queue_url=sqs_server.queue_url(name), **{key.lower(): value for key, value in aws.items()}
    )
    with closing(sqs_client(settings)) as client:
        findings = check_queue(client, settings)
    assert [finding for finding in findings if not finding.fine or finding.advice] == []
    assert "dead-letter retention" in {finding.what for finding in findings}


@pytest.mark.parametrize("password", ["plain", 'it\'s; "odd" $1 \\ %s @/:#?'])
def test_the_login_may_write_and_has_the_password(database_url: str, db: Db, password: str) -> None:
    psql = find_binaries(server_account()) / "psql"
    already = db.execute("SELECT FROM pg_roles WHERE rolname = 'processor'").fetchone()
    if already is not None:
        pytest.skip("the server has a role processor, which is somebody's")
    try:
        for _ in range(2):
            _run(
                psql,
                "--no-psqlrc",
                "--quiet",
                f"--file={SCRIPTS / 'make-login.sql'}",
                database_url,
                PROCESSOR_PASSWORD=password,
            )

        row = db.execute(
            "SELECT pg_has_role('processor', 'processor_writer', 'USAGE'), rolcanlogin, rolsuper,"
            " rolpassword LIKE 'SCRAM-SHA-256$%%' FROM pg_authid WHERE rolname = 'processor'"
        ).fetchone()
        assert row == (True, True, False, True)
        # The server of the tests asks for no password; that it is sent right is libpq's affair.
        server = urlsplit(database_url)
        url = (
            f"postgresql://processor:{quote(password, safe='')}@{server.hostname}:{server.port}{server.path}"
        )
        with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM message")
    finally:
        db.execute("DROP ROLE IF EXISTS processor")


def test_the_sample_tenants_are_registered_once(database_url: str, db: Db, tmp_path: Path) -> None:
    db.execute("TRUNCATE event_schema, event_type, tenant CASCADE")

    for _ in range(2):
        subprocess.run(
            ["sh", str(SCRIPTS / "seed.sh")],
            env=_environment(DATABASE_URL=database_url),
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )

    row = db.execute(
        "SELECT (SELECT count(*) FROM tenant), count(*), count(tenant_id), max(version) FROM event_schema"
    ).fetchone()
    assert row is not None
    tenants, schemas, own, version = row
    assert (tenants, version) == (5, 1)
    assert schemas > own > 0
