"""Who makes the hot calls: we in the plain case, boto3 wherever the configuration is unusual."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.session
import pytest
from botocore.credentials import RefreshableCredentials
from structlog.testing import capture_logs

from processor.brokers.fast_sqs.client import LeanSqs
from processor.brokers.fast_sqs.plain_case import oddity
from processor.errors import SourceUnavailable
from processor.settings import Settings
from processor.sources.sqs import source as sqs
from processor.sources.sqs.source import SqsSource
from tests.scripted_server import ScriptedServer, an_answer, an_error

LOCAL = "http://127.0.0.1:4566"
AWS = "https://sqs.eu-west-1.amazonaws.com"


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing unusual in the environment: what this machine has of proxies, bundles and profiles is gone."""
    for name in list(os.environ):
        if name.upper().endswith("_PROXY") or name.startswith("AWS_") or name == "REQUESTS_CA_BUNDLE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def settings(endpoint_url: str, **changes: Any) -> Settings:
    given: dict[str, Any] = {
        "sqs_queue_url": f"{endpoint_url}/000000000000/events",
        "aws_region": "eu-west-1",
        "aws_access_key_id": "id",
        "aws_secret_access_key": "secret",
        "receive_wait_s": 0,
    }
    return Settings(**given | changes)


def maker_of(source: SqsSource) -> str:
    return "lean" if isinstance(source._hot_calls, LeanSqs) else "boto3"


@pytest.mark.parametrize("endpoint_url", [LOCAL, AWS])
def test_the_plain_case_is_made_by_us(endpoint_url: str) -> None:
    with capture_logs() as logs:
        assert maker_of(SqsSource.open(settings(endpoint_url))) == "lean"

    assert logs == []


@pytest.mark.parametrize(
    ("endpoint_url", "environment", "because"),
    [
        (LOCAL, {"HTTP_PROXY": "http://127.0.0.1:3128"}, "a proxy"),
        (AWS, {"HTTPS_PROXY": "http://127.0.0.1:3128"}, "a proxy"),
        (AWS, {"AWS_CA_BUNDLE": "/etc/ssl/ours.pem"}, "a CA bundle of its own"),
        (AWS, {"REQUESTS_CA_BUNDLE": "/etc/ssl/ours.pem"}, "a CA bundle of its own"),
        (
            LOCAL,
            {"AWS_ENDPOINT_URL": f"{LOCAL}/sqs"},
            "an endpoint with more than a host and a port",
        ),
    ],
)
def test_what_is_unusual_is_left_to_boto3_and_said(
    endpoint_url: str, environment: dict[str, str], because: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    with capture_logs() as logs:
        source = SqsSource.open(settings(endpoint_url))

    assert maker_of(source) == "boto3"
    assert logs == [{"event": "boto3_makes_all_calls", "because": because, "log_level": "info"}]


def test_where_there_are_no_credentials_boto3_may_say_so() -> None:
    nobody = settings(LOCAL, aws_access_key_id=None, aws_secret_access_key=None)

    source = SqsSource.open(nobody)

    assert maker_of(source) == "boto3"
    with pytest.raises(SourceUnavailable, match="NoCredentials"):
        source.receive(1, 0)


@pytest.mark.parametrize("exempt", ["NO_PROXY", "no_proxy"])
def test_a_proxy_that_is_not_for_this_host_is_nothing_unusual(
    exempt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:3128")
    monkeypatch.setenv(exempt, "127.0.0.1")

    assert maker_of(SqsSource.open(settings(LOCAL))) == "lean"


def test_a_ca_bundle_matters_to_https_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/etc/ssl/ours.pem")

    assert maker_of(SqsSource.open(settings(LOCAL))) == "lean"


def test_boto3_is_one_setting_away() -> None:
    with capture_logs() as logs:
        assert maker_of(SqsSource.open(settings(LOCAL, sqs_client="boto3"))) == "boto3"

    assert logs == []


def test_credentials_that_a_role_renews_are_asked_for_at_each_call() -> None:
    keys: Iterator[str] = iter(["first", "second", "third", "fourth"])

    def renewed() -> dict[str, str]:
        # Over before it is used: every call must come back for another.
        soon = datetime.now(UTC) + timedelta(seconds=1)
        return {"access_key": next(keys), "secret_key": "x", "token": "t", "expiry_time": soon.isoformat()}

    with ScriptedServer(an_answer()) as server:
        chosen = settings(server.url)
        session, client = sqs._session_and_client(chosen)
        session._credentials = RefreshableCredentials.create_from_metadata(renewed(), renewed, "role")
        calls = sqs._lean_calls(session, client)

        for _ in range(2):
            calls.receive_message(QueueUrl=chosen.sqs_queue_url)

    users = [request.split(b"Credential=")[1].split(b"/")[0] for request in server.requests]
    assert users == [b"second", b"third"]
    assert all(b"x-amz-security-token: t" in request for request in server.requests)


# ── both are refused alike ────────────────────────────────────────────────────────────────────────────

REFUSALS = [
    an_error("ThrottlingException"),
    an_error("RequestThrottled", 403),
    an_error("RequestExpired", 403),
    an_error("InvalidSignatureException", 403),
    an_error("RequestTimeTooSkewed", 403),
    an_error("ServiceUnavailable", 503),
    an_error("KmsThrottled"),
]


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("maker", ["lean", "boto3"])
def test_a_throttled_or_skewed_call_is_an_outage_and_its_end_the_end_of_it(
    maker: str, refusal: bytes
) -> None:
    message = {"MessageId": "m-1", "ReceiptHandle": "r", "Body": "{}"}
    refused = [refusal] * 4
    with ScriptedServer(*refused, an_answer({"Messages": [message]})) as server:
        source = SqsSource.open(settings(server.url, sqs_client=maker))

        with pytest.raises(SourceUnavailable, match="SQS refuses to receive"):
            source.receive(10, 0)
        deliveries = eventually(lambda: source.receive(10, 0))

    assert [delivery.delivery_id for delivery in deliveries] == ["m-1"]


def eventually(receive: Callable[[], list[Any]]) -> list[Any]:
    """Try again as the pipeline does, which takes as many tries as the server refuses."""
    for _ in REFUSALS * 2:
        try:
            return receive()
        except SourceUnavailable:
            continue
    raise AssertionError("it was refused for ever")


def test_plainness_is_asked_of_botocores_own_configuration() -> None:
    session, client = sqs._session_and_client(settings(LOCAL))

    assert oddity(session, client) is None
    assert oddity(botocore.session.get_session(), client) == "no credentials"
