"""The lean calls make the plain call themselves; whatever is not plain they leave to boto3."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError, ReadTimeoutError

from processor.brokers.fast_sqs import client as lean
from processor.brokers.fast_sqs.client import LeanSqs
from processor.brokers.fast_sqs.signature import Signer
from processor.brokers.http_client import HttpEndpoint
from tests.scripted_server import CLOSE, SILENCE, ScriptedServer, an_answer, an_error

READ_TIMEOUT_S = 20
NOT_WHOLE = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 50\r\n\r\n{"
CHUNKED = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{"Failed"\r\n5\r\n: []}\r\n0\r\n\r\n'
BY_BOTO3: dict[str, Any] = {"Failed": ["by boto3"]}
BY_US: dict[str, Any] = {"Failed": []}


class Boto3:
    """Stands where boto3's client would: counts what it is asked, and can refuse."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.refusal: Exception | None = None

    @property
    def asked(self) -> int:
        return len(self.requests)

    def receive_message(self, **request: Any) -> Any:
        return self._answer(request)

    def delete_message_batch(self, **request: Any) -> Any:
        return self._answer(request)

    def change_message_visibility_batch(self, **request: Any) -> Any:
        return self._answer(request)

    def _answer(self, request: dict[str, Any]) -> Any:
        self.requests.append(request)
        if self.refusal is not None:
            raise self.refusal
        return BY_BOTO3


@pytest.fixture
def boto3() -> Boto3:
    return Boto3()


def calls_to(url: str, boto3: Boto3, ca_file: str = "", read_timeout_s: float = READ_TIMEOUT_S) -> LeanSqs:
    signer = Signer(
        lambda: ReadOnlyCredentials("id", "secret", None), host="localhost", region="eu-west-1", service="sqs"
    )
    endpoint = HttpEndpoint(url, connect_timeout_s=20, read_timeout_s=read_timeout_s, ca_file=ca_file)
    return LeanSqs(endpoint, signer, boto3, user_agent="test")


def delete(calls: LeanSqs) -> Any:
    return calls.delete_message_batch(QueueUrl="http://localhost/1/events", Entries=[])


def test_a_call_says_what_it_wants_in_the_protocol_of_sqs(boto3: Boto3) -> None:
    with ScriptedServer(an_answer({"Failed": []})) as server:
        assert delete(calls_to(server.url, boto3)) == BY_US

    [request] = server.requests
    head, body = request.split(b"\r\n\r\n")
    assert head.startswith(b"POST / HTTP/1.1\r\n")
    assert b"x-amz-target: AmazonSQS.DeleteMessageBatch" in head
    assert b"content-type: application/x-amz-json-1.0" in head
    assert b"user-agent: test" in head
    assert body == b'{"QueueUrl":"http://localhost/1/events","Entries":[]}'


def test_one_connection_serves_many_calls(boto3: Boto3) -> None:
    with ScriptedServer(an_answer()) as server:
        calls = calls_to(server.url, boto3)

        assert [delete(calls) for _ in range(5)] == [BY_US] * 5

        assert server.connections == 1
        assert len(server.requests) == 5


def test_a_connection_that_the_server_has_closed_meanwhile_is_replaced(boto3: Boto3) -> None:
    with ScriptedServer(an_answer()) as server:
        calls = calls_to(server.url, boto3)
        delete(calls)
        server.hang_up()

        assert delete(calls) == BY_US

        assert server.connections == 2


def test_a_connection_that_the_server_wants_closed_is_not_used_again(boto3: Boto3) -> None:
    with ScriptedServer(an_answer(headers={"Connection": "close"}), an_answer()) as server:
        calls = calls_to(server.url, boto3)

        assert [delete(calls), delete(calls)] == [BY_US] * 2

        assert (server.connections, boto3.asked) == (2, 0)


def test_an_answer_in_chunks_is_read_whole(boto3: Boto3) -> None:
    with ScriptedServer(CHUNKED) as server:
        assert delete(calls_to(server.url, boto3)) == BY_US


@pytest.mark.parametrize(
    "answer",
    [
        an_error("InternalFailure", 500),
        an_error("ThrottlingException"),
        an_error("InvalidSignatureException", 403),
        an_error("RequestExpired", 403),
        an_answer(status=307, headers={"Location": "http://localhost/"}),
        an_answer(body=b"<html>Who are you?</html>"),
        an_answer([]),
        an_answer(status=204),
        NOT_WHOLE,
        b"SSH-2.0-OpenSSH\r\n",
        CLOSE,
    ],
)
def test_what_is_not_a_plain_answer_is_asked_of_boto3(boto3: Boto3, answer: bytes) -> None:
    with ScriptedServer(answer) as server:
        assert delete(calls_to(server.url, boto3)) == BY_BOTO3

    assert boto3.requests == [{"QueueUrl": "http://localhost/1/events", "Entries": []}]


def test_what_boto3_raises_comes_through(boto3: Boto3) -> None:
    boto3.refusal = ClientError({"Error": {"Code": "AccessDenied"}}, "DeleteMessageBatch")

    with ScriptedServer(an_error("AccessDenied", 403)) as server, pytest.raises(ClientError):
        delete(calls_to(server.url, boto3))


def test_nobody_listening_is_left_to_boto3(boto3: Boto3) -> None:
    with ScriptedServer(an_answer()) as server:
        url = server.url

    assert delete(calls_to(url, boto3)) == BY_BOTO3


def test_a_server_that_says_nothing_is_not_waited_for_twice(boto3: Boto3) -> None:
    with ScriptedServer(SILENCE) as server, pytest.raises(ReadTimeoutError):
        delete(calls_to(server.url, boto3, read_timeout_s=0.2))

    assert boto3.asked == 0


def test_messages_that_came_beside_half_a_surrogate_pair_are_not_let_slip(boto3: Boto3) -> None:
    """Asking again would bring others, and burn a receive of these."""
    body = b'{"Messages": [{"Body": "\\ud800"}, {"Body": "{}"}]}'
    with ScriptedServer(an_answer(body=body)) as server:
        answer = calls_to(server.url, boto3).receive_message(QueueUrl="http://localhost/1/events")

    assert [message["Body"] for message in answer["Messages"]] == ["\ud800", "{}"]
    assert boto3.asked == 0


# ── over TLS ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Authority:
    """Somebody who vouches for servers, and the file by which a client knows it."""

    ca: trustme.CA
    file: str

    def server_of(self, host: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(host).configure_cert(context)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return Authority(ca, str(tmp_path / "ca.pem"))


def test_an_https_server_is_called_over_one_connection(boto3: Boto3, authority: Authority) -> None:
    with ScriptedServer(an_answer(), tls=authority.server_of("127.0.0.1")) as server:
        calls = calls_to(server.url, boto3, authority.file)

        assert [delete(calls) for _ in range(3)] == [BY_US] * 3

        assert (server.connections, boto3.asked) == (1, 0)


def test_a_server_that_nobody_known_vouches_for_is_told_nothing(boto3: Boto3, authority: Authority) -> None:
    stranger = Authority(trustme.CA(), "").server_of("127.0.0.1")
    with ScriptedServer(an_answer(), tls=stranger) as server:
        assert delete(calls_to(server.url, boto3, authority.file)) == BY_BOTO3

        assert server.requests == []


def test_a_server_with_the_name_of_another_is_told_nothing(boto3: Boto3, authority: Authority) -> None:
    with ScriptedServer(an_answer(), tls=authority.server_of("sqs.example.com")) as server:
        assert delete(calls_to(server.url, boto3, authority.file)) == BY_BOTO3

        assert server.requests == []


# ── giving up ─────────────────────────────────────────────────────────────────────────────────────────


def test_where_only_boto3_succeeds_it_makes_all_calls_from_then_on(boto3: Boto3) -> None:
    with ScriptedServer(an_error("InvalidSignatureException", 403)) as server:
        calls = calls_to(server.url, boto3)

        for _ in range(lean.STRIKES_MAX + 5):
            delete(calls)

        assert len(server.requests) == lean.STRIKES_MAX
        assert boto3.asked == lean.STRIKES_MAX + 5


def test_a_call_of_ours_that_works_is_a_new_start(boto3: Boto3) -> None:
    blinks = [an_error("InternalFailure", 500)] * (lean.STRIKES_MAX - 1)
    with ScriptedServer(*blinks, an_answer(), *blinks, an_answer()) as server:
        calls = calls_to(server.url, boto3)

        answers = [delete(calls) for _ in range(2 * lean.STRIKES_MAX)]

    assert answers == ([BY_BOTO3] * (lean.STRIKES_MAX - 1) + [BY_US]) * 2


def test_an_outage_that_boto3_sees_too_is_no_reason_to_give_up(boto3: Boto3) -> None:
    boto3.refusal = ClientError({"Error": {"Code": "InternalFailure"}}, "DeleteMessageBatch")
    outage = [an_error("InternalFailure", 500)] * (2 * lean.STRIKES_MAX)
    with ScriptedServer(*outage, an_answer()) as server:
        calls = calls_to(server.url, boto3)
        for _ in outage:
            with pytest.raises(ClientError):
                delete(calls)

        assert delete(calls) == BY_US
