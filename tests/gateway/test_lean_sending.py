"""The gateway's own call to SQS: few connections, bounded waits, and boto3 wherever it is not plain."""

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from processor.brokers.http_client import HttpResponse, HttpTimeout, HttpTrouble
from processor.settings import Settings
from producers.gateway.items import Caller
from producers.gateway.opening import open_intake
from producers.gateway.queue import fast_sqs
from producers.gateway.queue.fast_sqs import LeanSenders
from producers.gateway.queue.posting import AsyncEndpoint
from producers.gateway.queue.sending import Senders
from tests.gateway.taking import an_intake, an_item, run, taken, words
from tests.rig import wait_until
from tests.scripted_server import CLOSE, SILENCE, ScriptedServer, an_answer, an_error

READ_TIMEOUT_S = 20
NOT_WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\nConnection: close\r\n\r\n{"


async def post(
    server: ScriptedServer, count: int = 1, ca_file: str = "", read_timeout_s: float = READ_TIMEOUT_S
) -> list[HttpResponse]:
    endpoint = AsyncEndpoint(server.url, connect_timeout_s=20, read_timeout_s=read_timeout_s, ca_file=ca_file)
    try:
        return [await endpoint.post([("host", "localhost")], b"{}") for _ in range(count)]
    finally:
        endpoint.close()


def test_one_connection_serves_many_calls() -> None:
    with ScriptedServer(an_answer({"a": 1})) as server:
        found = run(post(server, 5))

        assert found == [HttpResponse(200, b'{"a": 1}')] * 5
        assert server.connections == 1


def test_calls_at_once_have_a_connection_each() -> None:
    async def both(server: ScriptedServer) -> None:
        endpoint = AsyncEndpoint(server.url, connect_timeout_s=1, read_timeout_s=1, ca_file="")
        await asyncio.gather(endpoint.post([], b"{}"), endpoint.post([], b"{}"))
        await asyncio.gather(endpoint.post([], b"{}"), endpoint.post([], b"{}"))
        endpoint.close()

    with ScriptedServer(an_answer()) as server:
        run(both(server))

        assert server.connections == 2


def test_a_connection_that_the_server_wants_closed_or_has_closed_is_not_used_again() -> None:
    async def twice(server: ScriptedServer) -> None:
        endpoint = AsyncEndpoint(server.url, connect_timeout_s=1, read_timeout_s=1, ca_file="")
        await endpoint.post([], b"{}")
        await endpoint.post([], b"{}")
        server.hang_up()
        # It is heard of before the next call, since somebody listens.
        await asyncio.to_thread(wait_until, lambda: not endpoint._idle[0].usable, "it is closed")
        await endpoint.post([], b"{}")
        endpoint.close()

    with ScriptedServer(an_answer(headers={"Connection": "close"}), an_answer()) as server:
        run(twice(server))

        assert server.connections == 3


@pytest.mark.parametrize("answer", [CLOSE, NOT_WHOLE, b"nonsense\r\n\r\n"])
def test_an_answer_that_is_none_is_trouble(answer: bytes) -> None:
    with ScriptedServer(answer) as server, pytest.raises(HttpTrouble):
        run(post(server))


def test_silence_ends_in_time() -> None:
    with ScriptedServer(SILENCE) as server, pytest.raises(HttpTimeout):
        run(post(server, read_timeout_s=0.2))


def test_nobody_there_is_trouble() -> None:
    with ScriptedServer(an_answer()) as server:
        pass

    with pytest.raises(HttpTrouble, match="no connection"):
        run(post(server))


def test_a_server_is_known_by_its_authority(tmp_path: Path) -> None:
    authority, file = trustme.CA(), tmp_path / "ca.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(file))
    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(str(stranger))

    with ScriptedServer(an_answer(), tls=context) as server:
        assert run(post(server, ca_file=str(file))) == [HttpResponse(200, b"{}")]
        with pytest.raises(HttpTrouble, match="no connection"):
            run(post(server, ca_file=str(stranger)))


def test_after_ten_calls_that_boto3_could_make_and_we_could_not_it_makes_them_all(
    queue_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(server: ScriptedServer) -> None:
        async with an_intake(queue_settings) as intake:
            senders = intake._senders
            assert isinstance(senders, LeanSenders)
            senders._endpoint = AsyncEndpoint(server.url, connect_timeout_s=1, read_timeout_s=1, ca_file="")
            for _ in range(fast_sqs.STRIKES_MAX + 3):
                taken(await intake.take([an_item()], Caller()))

    with ScriptedServer(an_error("AccessDenied")) as server:
        run(work(server))

        assert len(server.requests) == fast_sqs.STRIKES_MAX
    assert caplog.text.count("boto3 makes all calls now") == 1


def test_a_call_that_works_again_wipes_the_strikes(queue_settings: Settings) -> None:
    async def work(server: ScriptedServer) -> None:
        async with an_intake(queue_settings) as intake:
            senders = intake._senders
            assert isinstance(senders, LeanSenders)
            good, bad = (
                senders._endpoint,
                AsyncEndpoint(server.url, connect_timeout_s=1, read_timeout_s=1, ca_file=""),
            )
            for endpoint in [*[bad] * (fast_sqs.STRIKES_MAX - 1), good, bad]:
                senders._endpoint = endpoint
                assert words(await intake.take([an_item()], Caller())) == ["taken"]
            assert senders._strikes == 1
            good.close()

    with ScriptedServer(an_error("AccessDenied")) as server:
        run(work(server))


def test_what_is_not_plain_is_boto3s(queue_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def kind(settings: Settings) -> type:
        return type(open_intake(settings)._senders)

    assert kind(queue_settings) is LeanSenders
    assert kind(queue_settings.model_copy(update={"sqs_client": "boto3"})) is Senders
    assert kind(queue_settings.model_copy(update={"localstack_host": "127.0.0.1"})) is Senders
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert kind(queue_settings) is Senders
