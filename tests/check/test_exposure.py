"""What everybody knows goes to no other machine, and who answers there must prove who it is."""

import os
import subprocess
import sys
from typing import Any

import pytest

from processor.check.exposure import key_trouble, password_trouble, unverified
from processor.settings import Settings

QUEUE = "https://sqs.eu-west-1.amazonaws.com/1/events"


@pytest.fixture(autouse=True)
def _plain_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("PG", "AWS_")):
            monkeypatch.delenv(name)


def settings(url: str = "postgresql://127.0.0.1/x", **changes: Any) -> Settings:
    return Settings.load(_env_file=None, database_url=url, **changes)


@pytest.mark.parametrize("password", ["postgres", "Password", "processor", "changeme", "123456", "anna"])
@pytest.mark.parametrize("host", ["db.example.com", "10.0.0.5", "127.0.0.1,db", "postgres"])
def test_a_password_that_everybody_knows_goes_to_no_other_machine(host: str, password: str) -> None:
    trouble = password_trouble(settings(f"postgresql://anna:{password}@{host}/x"))

    assert trouble is not None
    assert "ALTER ROLE" in trouble
    assert "anna" not in trouble


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:postgres@127.0.0.1/x",
        "postgresql://u:postgres@localhost/x",
        "postgresql://u:postgres@[::1]/x",
        "postgresql://u:postgres@/x?host=/run/postgresql",
        "postgresql:///x",
        "postgresql://u@db.example.com/x",
        "postgresql://db.example.com/x",
        "postgresql://u:mVq3-kTz9@db.example.com/x",
    ],
)
def test_any_other_is_no_trouble(url: str) -> None:
    assert password_trouble(settings(url)) is None


def test_a_password_from_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "changeme")

    assert password_trouble(settings("postgresql://u@db/x")) is not None


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"sqs_queue_url": QUEUE, "aws_access_key_id": "test"}, True),
        ({"sqs_queue_url": QUEUE, "aws_access_key_id": "AKIAIOSFODNN7EXAMPLE"}, True),
        ({"sqs_queue_url": QUEUE, "aws_access_key_id": "AKIA0000000000000000"}, False),
        ({"sqs_queue_url": QUEUE}, False),
        ({"sqs_queue_url": "http://127.0.0.1:4566/1/events", "aws_access_key_id": "test"}, False),
        (
            {
                "sqs_queue_url": QUEUE,
                "aws_access_key_id": "test",
                "aws_endpoint_url": "http://localstack:4566",
            },
            False,
        ),
        (
            {
                "sqs_queue_url": QUEUE,
                "aws_access_key_id": "test",
                "aws_endpoint_url": "https://sqs.eu-west-1.amazonaws.com",
            },
            True,
        ),
    ],
)
def test_a_stand_in_for_a_key_goes_to_no_aws(changes: dict[str, str], refused: bool) -> None:
    assert (key_trouble(settings(**changes)) is not None) == refused


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("postgresql://db/x", "prefer"),
        ("postgresql://db/x?sslmode=require", "require"),
        ("postgresql://db/x?sslmode=verify-full", None),
        ("postgresql://127.0.0.1/x", None),
    ],
)
def test_another_machine_that_need_not_prove_its_name_is_noticed(url: str, mode: str | None) -> None:
    assert unverified(settings(url)) == mode


@pytest.mark.parametrize(("command", "code"), [("run", 2), ("check", 4)])
def test_run_refuses_a_password_that_everybody_knows_and_check_finds_it(command: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "processor", command],
        env={
            "DATABASE_URL": "postgresql://processor:processor@database.invalid/x",
            "SQS_QUEUE_URL": "http://127.0.0.1:1/1/events",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "COLUMNS": "400",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == code, done.stderr
    said = done.stdout + done.stderr
    assert "with a well-known password" in said
    if command == "check":
        assert "sslmode=prefer" in said
