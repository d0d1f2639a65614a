"""Who sends, and what they have used, is looked at before a byte of what they send is read, at every door."""

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from processor.devstack.servers.sqs import EmbeddedSqs
from producers.gateway.effort import Effort
from producers.gateway.http.app import EVENTS, INGEST
from producers.gateway.items import Refusal, Why
from tests.gateway.grpc.parts import WAIT_S, Door, Loop, PlainIntake, PlainKeys, a_door
from tests.gateway.http.rig import Gateway, a_gateway, a_request, settings_of

KEY = "ep_of_acme"
DEBT = Refusal(Why.OVER_QUOTA, "it has used too much", retry_after_s=7)
METHODS = ("Ingest", "IngestBatch", "IngestStream", "IngestUpload")


class HttpKeys(PlainKeys):
    """Keys that have nothing to open."""

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def gateway(sqs_server: EmbeddedSqs) -> Iterator[Gateway]:
    """A door at which acme, whose key alone is known, owes."""
    settings = settings_of(sqs_server, sqs_server.create_queue("key-first"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.gateway.http.rig.open_keys", lambda _: HttpKeys(KEY))
        patch.setattr(Effort, "owing", lambda _, holder: DEBT if holder == "acme" else None)
        with a_gateway(settings, sqs_server) as gateway:
            yield gateway


@pytest.mark.parametrize("path", [INGEST, EVENTS])
@pytest.mark.parametrize(("key", "status"), [("ep_of_nobody", 401), (KEY, 429)])
@pytest.mark.parametrize(
    "headers", [(), ("content-encoding: gzip",), ("expect: 100-continue",), ("transfer-encoding: chunked",)]
)
def test_over_http_the_answer_comes_though_the_body_never_does(
    gateway: Gateway, path: str, key: str, status: int, headers: tuple[str, ...]
) -> None:
    head = a_request(b"", f"authorization: Bearer {key}", *headers, path=path, length=1000)

    with gateway.raw() as raw:
        found, said, _ = raw.send(head).answer()

    assert found == status, "and no 100 before it"
    assert said.get("retry-after") == ("7" if status == 429 else None)


def test_a_body_after_the_refusal_is_never_taken_for_a_request(gateway: Gateway) -> None:
    body = a_request(b"{}", path=EVENTS) * 3
    with gateway.raw() as raw:
        status, _, _ = raw.send(a_request(b"", "x-api-key: nobody", length=len(body))).answer()
        raw.send(body, b"GET /livez HTTP/1.1\r\nhost: gateway\r\n\r\n")

        assert status == 401
        assert raw.answer()[0] == 200


@pytest.fixture
def door(loop: Loop) -> Iterator[Door]:
    with a_door(loop, PlainIntake(debt=DEBT), PlainKeys(KEY), serves_usage=True) as door:
        yield door


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


@pytest.mark.parametrize("method", [*METHODS, "Consume"])
@pytest.mark.parametrize(
    ("key", "code"),
    [("ep_of_nobody", grpc.StatusCode.UNAUTHENTICATED), (KEY, grpc.StatusCode.RESOURCE_EXHAUSTED)],
)
def test_over_grpc_the_status_comes_though_no_message_does(
    door: Door, method: str, key: str, code: grpc.StatusCode
) -> None:
    usage: Any = door.channel.stream_stream("/usage.UsageService/Consume")
    call = usage if method == "Consume" else door.bare(method)

    def never() -> Iterator[bytes]:
        done.wait(WAIT_S)
        yield from ()

    done = threading.Event()
    with pytest.raises(grpc.RpcError) as refused:
        list(call(never(), timeout=WAIT_S, metadata=[("x-api-key", key)]))
    done.set()

    error: Any = refused.value
    assert error.code() == code
