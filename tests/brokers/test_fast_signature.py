"""Our signature is botocore's, to the last digit: no server within reach of a test checks one."""

from datetime import UTC, datetime, timedelta

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials
from hypothesis import given
from hypothesis import strategies as st

from processor.brokers.fast_sqs.signature import Signer

keys = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
moments = st.datetimes(datetime(2020, 1, 1), datetime(2099, 12, 31)).map(lambda at: at.replace(tzinfo=UTC))  # noqa: DTZ001
hosts = st.sampled_from(["sqs.eu-west-1.amazonaws.com", "127.0.0.1:4566", "[::1]:9324", "localhost"])


def botocores_signature(
    credentials: ReadOnlyCredentials, host: str, headers: dict[str, str], body: bytes, at: datetime
) -> str:
    request = AWSRequest("POST", f"https://{host}/", data=body)
    for name in ("content-type", "x-amz-target"):
        request.headers[name] = headers[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auth, "get_current_datetime", lambda: at)
        auth.SigV4Auth(Credentials(*credentials), "sqs", "eu-west-1").add_auth(request)
    return str(request.headers["Authorization"])


@given(
    credentials=st.builds(ReadOnlyCredentials, keys, keys, st.none() | keys),
    host=hosts,
    target=st.sampled_from(["AmazonSQS.ReceiveMessage", "AmazonSQS.DeleteMessageBatch"]),
    body=st.binary(max_size=200),
    at=moments,
)
def test_a_request_is_signed_as_botocore_signs_it(
    credentials: ReadOnlyCredentials, host: str, target: str, body: bytes, at: datetime
) -> None:
    signer = Signer(lambda: credentials, host=host, region="eu-west-1", service="sqs", clock=at.timestamp)

    headers = dict(signer.headers(target, body))

    assert headers["authorization"] == botocores_signature(credentials, host, headers, body, at)
    assert headers.get("x-amz-security-token") == credentials.token


def test_the_signing_key_is_made_anew_for_another_day_and_another_secret() -> None:
    evening = datetime(2026, 11, 22, 23, 59, tzinfo=UTC)
    signed_by: list[ReadOnlyCredentials] = []
    now = 0.0
    signer = Signer(
        lambda: signed_by[-1],
        host="localhost",
        region="eu-west-1",
        service="sqs",
        clock=lambda: now,
    )

    for secret in ("secret", "another", "secret"):
        for at in (evening, evening + timedelta(minutes=2)):
            signed_by.append(ReadOnlyCredentials("id", secret, None))
            now = at.timestamp()
            headers = dict(signer.headers("AmazonSQS.ReceiveMessage", b"{}"))

            assert headers["authorization"] == botocores_signature(
                signed_by[-1], "localhost", headers, b"{}", at
            )
