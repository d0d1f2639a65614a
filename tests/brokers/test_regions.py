"""A queue is asked for in the region that its URL names, or not at all."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from processor.cli import cli as processor_cli
from processor.errors import SettingsError
from processor.settings import Settings
from processor.sources.sqs.source import sqs_client
from producers.cli import main as producers_cli
from producers.gateway.opening import open_intake
from producers.publishers.session import open_client

QUEUE = "https://sqs.us-east-1.amazonaws.com/000000000000/twin"
ELSEWHERE = {"SQS_QUEUE_URL": QUEUE, "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x"}


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("region", ["AWS_REGION", "AWS_DEFAULT_REGION"])
@pytest.mark.parametrize(
    ("program", "words"),
    [
        (processor_cli, "run"),
        (processor_cli, "check"),
        (processor_cli, "audit"),
        (processor_cli, "dlq list"),
        (processor_cli, "dlq import"),
        (processor_cli, "rejection replay --reason not_json"),
        (producers_cli, "fake --events 1"),
        (producers_cli, "send -"),
        (producers_cli, f"send - --url {QUEUE}"),
        (producers_cli, "gateway http"),
        (producers_cli, "gateway grpc"),
    ],
)
def test_every_command_refuses_two_regions_in_one_line(program: click.Group, words: str, region: str) -> None:
    result = CliRunner().invoke(program, words.split(), env={**ELSEWHERE, region: "eu-west-1"}, input="")

    assert result.exit_code == 2
    [line] = result.stderr.splitlines()
    assert "us-east-1" in line
    assert "eu-west-1" in line


_MAKERS: dict[str, Callable[[Settings], Any]] = {
    "processor": sqs_client,
    "producers": lambda settings: open_client(settings, 1),
    "gateway": open_intake,
}


@pytest.mark.parametrize("maker", _MAKERS)
def test_an_endpoint_of_a_profile_in_another_region_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, maker: str
) -> None:
    """boto3 finds it by itself, where no setting is."""
    config = "[default]\nregion = us-east-1\nendpoint_url = https://sqs.eu-west-1.amazonaws.com\n"
    (tmp_path / "config").write_text(config, encoding="utf-8")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))

    with pytest.raises(SettingsError, match=r"us-east-1, and the endpoint of the AWS profile says eu-west-1"):
        _MAKERS[maker](Settings.load(sqs_queue_url=QUEUE))


def test_the_region_of_a_profile_gives_way_to_the_queues(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text("[default]\nregion = eu-west-1\n", encoding="utf-8")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))

    client = sqs_client(Settings.load(sqs_queue_url=QUEUE))

    assert client.meta.region_name == "us-east-1"
    assert client.meta.endpoint_url == "https://sqs.us-east-1.amazonaws.com"
