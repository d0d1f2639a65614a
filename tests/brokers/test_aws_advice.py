"""What AWS and its client say comes with what to do, from every command, and never as a traceback."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner

from processor.brokers.aws_advice import advice
from processor.cli import cli as processor_cli
from producers.cli import main as producers_cli
from tests.scripted_server import ScriptedServer, an_error

COMMANDS = {
    "check": processor_cli,
    "check --json": processor_cli,
    "audit": processor_cli,
    "dlq list": processor_cli,
    "send - --wait 0": producers_cli,
}
REFUSALS = [
    "ExpiredToken",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "AccessDenied",
    "QueueDoesNotExist",
]
KEYS = {"AWS_ACCESS_KEY_ID": "AKIA0000000000000000", "AWS_SECRET_ACCESS_KEY": "hunter2"}


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    yield
    structlog.reset_defaults()


def _said(command: str, database_url: str, endpoint: str, **environment: str) -> tuple[int, str]:
    queue = {"SQS_QUEUE_URL": f"{endpoint}/000000000000/events", "DATABASE_URL": database_url}
    result = CliRunner().invoke(
        COMMANDS[command], command.split(), env=queue | environment, input='{"id": "1"}\n'
    )
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.output


def _is_in(told: str, output: str) -> bool:
    return "".join(told.split()) in "".join(output.replace("\\u0060", "`").split())


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("code", REFUSALS)
def test_a_refusal_says_what_to_do(command: str, code: str, database_url: str) -> None:
    with ScriptedServer(an_error(code, 403)) as server:
        exit_code, output = _said(command, database_url, server.url, AWS_REGION="eu-west-1", **KEYS)

    assert exit_code in (2, 3, 4)
    assert advice(code)
    assert _is_in(advice(code), output)
    assert "hunter2" not in output


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("environment", "error"),
    [
        ({"AWS_REGION": "eu-west-1"}, "NoCredentialsError"),
        (KEYS, "NoRegionError"),
        (KEYS | {"AWS_REGION": "eu-west-1", "AWS_PROFILE": "nobody"}, "ProfileNotFound"),
    ],
)
def test_what_the_client_lacks_says_what_to_set(
    command: str, environment: dict[str, str], error: str, database_url: str
) -> None:
    exit_code, output = _said(command, database_url, "http://127.0.0.1:1", **environment)

    assert exit_code in (2, 3, 4)
    assert _is_in(advice(error), output)
