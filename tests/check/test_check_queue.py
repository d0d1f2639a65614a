"""The queue's part of `processor check`: each problem provoked for real."""

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from botocore.stub import Stubber

from processor.check.queue import check_queue, judge_visibility
from processor.devstack.servers.children import free_port
from processor.devstack.servers.sqs import EmbeddedSqs
from processor.settings import Settings
from processor.sources.sqs.source import sqs_client
from processor.wiring.commands import run_check
from tests.fixtures.check import look_at_queue, problems, with_changes

pytestmark = pytest.mark.usefixtures("nothing_is_set")
DAY_S = 24 * 3600


def _set(sqs_server: EmbeddedSqs, url: str, **attributes: str) -> None:
    with closing(sqs_server.client()) as client:
        client.set_queue_attributes(QueueUrl=url, Attributes=attributes)  # type: ignore[arg-type]


def _new_queue(sqs_server: EmbeddedSqs, name: str, **attributes: str) -> str:
    with closing(sqs_server.client()) as client:
        return client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]  # type: ignore[arg-type]


def test_a_good_queue_is_fine(settings: Settings) -> None:
    assert problems(look_at_queue(settings)) == set()


def test_a_queue_without_a_dead_letter_queue_is_a_problem(
    settings: Settings, sqs_server: EmbeddedSqs
) -> None:
    url = _new_queue(sqs_server, "lonely")

    findings = look_at_queue(with_changes(settings, sqs_queue_url=url))
    forgetful = look_at_queue(with_changes(settings, sqs_queue_url=url, key_retention_days=3))

    assert problems(findings) == {"dead-letter queue"}
    assert findings["dead-letter queue"].found == "none"
    assert problems(forgetful) == {"dead-letter queue", "key retention"}


def test_a_dead_letter_queue_that_is_gone_is_a_problem(
    settings: Settings, sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    with closing(sqs_server.client()) as client:
        client.delete_queue(QueueUrl=queue_url + "-dlq")

    findings = look_at_queue(settings)

    assert problems(findings) == {"dead-letter queue"}
    assert "does not exist" in findings["dead-letter queue"].found


def test_a_small_max_receive_count_is_a_problem(
    settings: Settings, sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    sqs_server.create_queue(settings.queue_name(), max_receive_count=3)

    findings = look_at_queue(settings)

    assert problems(findings) == {"max receive count"}
    assert findings["max receive count"].found == "3"


def test_a_short_retention_is_a_problem(settings: Settings, sqs_server: EmbeddedSqs, queue_url: str) -> None:
    _set(sqs_server, queue_url, MessageRetentionPeriod=str(DAY_S))

    findings = look_at_queue(settings)

    assert problems(findings) == {"retention"}
    assert findings["retention"].found == "1 days"


def test_dead_letters_must_be_kept_for_longer_than_the_living(
    settings: Settings, sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    _set(sqs_server, queue_url + "-dlq", MessageRetentionPeriod=str(4 * DAY_S))

    assert problems(look_at_queue(settings)) == {"dead-letter retention"}


@pytest.mark.parametrize(("key_retention_days", "fine"), [(17, False), (18, True)])
def test_keys_must_outlive_the_queue_and_its_dead_letters(
    settings: Settings, key_retention_days: int, fine: bool
) -> None:
    found = look_at_queue(with_changes(settings, key_retention_days=key_retention_days))["key retention"]

    assert (found.fine, found.found) == (fine, f"{key_retention_days} days")
    assert fine or "to 18 or more" in (found.advice or "")


def test_dead_letters_are_told(settings: Settings, sqs_server: EmbeddedSqs, queue_url: str) -> None:
    with closing(sqs_server.client()) as client:
        client.send_message(QueueUrl=queue_url + "-dlq", MessageBody="dead")
        client.send_message(QueueUrl=queue_url, MessageBody="alive")

    findings = look_at_queue(settings)

    assert problems(findings) == set()
    assert "1 message(s)" in findings["dead-letter queue"].found
    assert "processor dlq import" in (findings["dead-letter queue"].advice or "")
    assert findings["backlog"].found.startswith("1 visible, 0 in flight")


def test_looking_burns_no_receive(settings: Settings, sqs_server: EmbeddedSqs, queue_url: str) -> None:
    with closing(sqs_server.client()) as client:
        client.send_message(QueueUrl=queue_url, MessageBody="alive")
        look_at_queue(settings)

        [message] = client.receive_message(
            QueueUrl=queue_url, MessageSystemAttributeNames=["ApproximateReceiveCount"]
        )["Messages"]

    assert message["Attributes"]["ApproximateReceiveCount"] == "1"


def test_a_queue_that_takes_more_than_we_do_is_a_problem(settings: Settings) -> None:
    findings = look_at_queue(with_changes(settings, body_bytes_max=1024))

    assert problems(findings) == {"message size"}


def test_a_fifo_queue_is_fine_and_told(settings: Settings, sqs_server: EmbeddedSqs) -> None:
    dead = _new_queue(
        sqs_server, "ordered-dlq.fifo", FifoQueue="true", MessageRetentionPeriod=str(14 * DAY_S)
    )
    arn = f"arn:aws:sqs:us-east-1:000000000000:{dead.rsplit('/', 1)[-1]}"
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 10})
    url = _new_queue(sqs_server, "ordered.fifo", FifoQueue="true", RedrivePolicy=redrive)

    findings = look_at_queue(with_changes(settings, sqs_queue_url=url))

    assert problems(findings) == set()
    assert findings["queue"].found == "ordered.fifo, FIFO"
    assert findings["queue"].advice


def test_deduplication_by_content_is_noted(settings: Settings, sqs_server: EmbeddedSqs) -> None:
    by_content = {"FifoQueue": "true", "ContentBasedDeduplication": "true"}
    url = _new_queue(sqs_server, "deduplicated.fifo", **by_content)

    finding = look_at_queue(with_changes(settings, sqs_queue_url=url))["deduplication"]

    assert finding.mark == "note"
    assert "same body within five minutes" in (finding.advice or "")
    plain = look_at_queue(
        with_changes(settings, sqs_queue_url=_new_queue(sqs_server, "p.fifo", FifoQueue="true"))
    )
    assert "deduplication" not in plain


def test_a_missing_queue_is_a_problem_and_no_outage(settings: Settings) -> None:
    findings = look_at_queue(with_changes(settings, sqs_queue_url=f"{settings.sqs_queue_url}-not"))

    assert problems(findings) == {"queue"}
    assert not findings["queue"].unreachable
    assert "does not exist" in findings["queue"].found


def test_a_queue_whose_clock_is_off_is_a_problem(settings: Settings) -> None:
    findings = look_at_queue(settings, lambda: datetime.now(UTC) - timedelta(minutes=6))

    assert problems(findings) == {"queue clock"}
    assert "ahead of ours" in findings["queue clock"].found


def test_an_endpoint_that_is_closed_is_one_finding(settings: Settings) -> None:
    where = f"127.0.0.1:{free_port()}"
    findings = look_at_queue(with_changes(settings, aws_endpoint_url=f"http://{where}"))

    assert [(f.what, f.fine, f.unreachable) for f in findings.values()] == [("queue", False, True)]
    assert where in findings["queue"].found


def test_no_credentials_is_a_problem_and_no_outage(settings: Settings) -> None:
    findings = look_at_queue(with_changes(settings, aws_access_key_id=None, aws_secret_access_key=None))

    assert problems(findings) == {"queue"}
    assert not findings["queue"].unreachable
    assert "credentials" in findings["queue"].found


def test_no_region_is_a_problem(settings: Settings) -> None:
    [finding] = [f for f in run_check(with_changes(settings, aws_region=None)) if f.what == "queue"]

    assert not finding.fine
    assert "AWS_REGION" in (finding.advice or "")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"visibility_timeout_s": 30}, "VISIBILITY_TIMEOUT_S to 53"),
        ({"database_timeout_s": 60}, "VISIBILITY_TIMEOUT_S to 90"),
        ({"visibility_timeout_s": 43_200}, "HOLD_S_MAX to 0"),
        ({"hold_s_max": 43_000, "visibility_timeout_s": 300}, "HOLD_S_MAX to 42900"),
    ],
)
def test_a_visibility_timeout_that_is_off_is_a_problem(changes: dict[str, int], word: str) -> None:
    finding = judge_visibility(Settings.load(**changes), own_s=30, read_timeout_s=35)

    assert not finding.fine
    assert word in (finding.advice or "")


def test_the_defaults_are_judged_fine() -> None:
    assert judge_visibility(Settings.load(), own_s=30, read_timeout_s=35).fine


@pytest.mark.parametrize(
    ("code", "status", "unreachable"),
    [
        ("AccessDenied", 403, False),
        ("InvalidClientTokenId", 403, False),
        ("RequestThrottled", 429, True),
        ("InternalError", 500, True),
        ("ServiceUnavailable", 503, True),
    ],
)
def test_a_refusal_is_a_problem_and_a_fault_of_the_service_an_outage(
    settings: Settings, code: str, status: int, unreachable: bool
) -> None:
    """Our SQS refuses nobody and never fails: the answer is botocore's stub."""
    with closing(sqs_client(settings)) as client, Stubber(client) as stub:
        stub.add_client_error("get_queue_attributes", code, http_status_code=status)

        [finding] = check_queue(client, settings)

    assert (finding.what, finding.fine, finding.unreachable) == ("queue", False, unreachable)
    assert code in finding.found
