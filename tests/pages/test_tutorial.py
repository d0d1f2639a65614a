"""The tutorial, typed word for word beside `processor dev`: it prints what the page shows."""

import re
from pathlib import Path

import boto3
import pytest
from dotenv import dotenv_values

from tests.journeys import dev
from tests.rig import wait_until

# `processor dev` wants the port that awslocal looks at, and there is one.
pytestmark = pytest.mark.xdist_group("port 4566")

PAGE = (dev.ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```sh\n(.*?)```\n```\n(.*?)```", re.DOTALL)
"""What is typed, and what it prints."""

SETTINGS = "set -e; cd shop; set -a; . ../dev.env; set +a\n"
VARIES = [
    re.compile(pattern)
    for pattern in (
        r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\dZ",
        r"[0-9.]+ s, [0-9.,]+/s",
        r'(?<="key":")\w+',
        r"(?<=validated by schema )\d+",
    )
]
"""What differs each time: ids, moments, rates, keys of lines."""


def without_what_varies(text: str) -> list[str]:
    for pattern in VARIES:
        text = pattern.sub("...", text)
    return [line for line in text.splitlines() if line]


def wait_until_all_is_stored(directory: Path) -> None:
    """Return when the queue is empty: a message is deleted only after its row is committed."""
    settings = dotenv_values(directory / "dev.env")
    sqs = boto3.client(
        "sqs",
        endpoint_url=settings["AWS_ENDPOINT_URL"],
        region_name=settings["AWS_REGION"],
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )

    def is_empty() -> bool:
        counts = sqs.get_queue_attributes(
            QueueUrl=settings["SQS_QUEUE_URL"],
            AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
        )
        return not any(int(count) for count in counts["Attributes"].values())

    wait_until(is_empty, "the queue is empty")


@pytest.mark.timeout(600)
def test_the_tutorial_prints_what_it_shows(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()

    with dev.running(tmp_path):
        for typed, shown in BLOCK.findall(PAGE):
            code, printed = dev.on_a_screen(SETTINGS + typed, tmp_path)
            assert code == 0, f"{typed}\n{printed}"
            assert without_what_varies(printed) == without_what_varies(shown), f"{typed}\n{printed}"
            wait_until_all_is_stored(tmp_path)


def test_the_tutorial_shows_the_output_of_every_command() -> None:
    assert len(BLOCK.findall(PAGE)) == PAGE.count("```sh\n") >= 10
