"""What needs no key costs little, and whoever asks for it without end waits, while who has a key does not."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from processor.devstack.servers.sqs import EmbeddedSqs
from producers.gateway.http import places
from producers.gateway.http.pages import AT_ONCE, Shared
from producers.gateway.http.problems import Answer
from tests.gateway.http.framing_parts import ALIVE
from tests.gateway.http.rig import Gateway, a_gateway, a_request, settings_of
from tests.gateway.http.test_attacks import KeysOfAll, a_post_of
from tests.gateway.taking import run
from tests.rig import wait_until

KEYLESS = {
    "the page": b"GET /docs HTTP/1.1\r\nhost: a\r\n\r\n",
    "the document": b"GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n",
    "metrics": b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n",
    "404": b"GET /nothing HTTP/1.1\r\nhost: a\r\n\r\n",
    "405": b"PUT /ingest HTTP/1.1\r\nhost: a\r\n\r\n",
    "a handshake": b"OPTIONS /ingest HTTP/1.1\r\nhost: a\r\n\r\n",
    "no key": a_request(b"{}"),
}


@pytest.fixture
def gateway(sqs_server: EmbeddedSqs, queue_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """A door that answers one request without a key, and the next one of the same address a day later."""
    monkeypatch.setattr("tests.gateway.http.rig.open_keys", lambda _: KeysOfAll())
    for name, value in {"_KEYLESS_PER_S": 1e-5, "_KEYLESS_AT_ONCE": 1, "_WAITS_S": 86_400.0}.items():
        monkeypatch.setattr(places, name, value)
    with a_gateway(settings_of(sqs_server, queue_url), sqs_server) as running:
        yield running


@pytest.mark.parametrize("request_", KEYLESS.values(), ids=KEYLESS.keys())
def test_who_asks_without_a_key_too_often_waits_and_neither_keys_nor_probes_do(
    gateway: Gateway, request_: bytes
) -> None:
    with gateway.raw() as first, gateway.raw() as second, gateway.raw() as other:
        assert first.send(request_).socket.recv(9) == b"HTTP/1.1 "
        wait_until(lambda: not gateway.server.server_state.tasks, "the first one is answered")
        second.send(request_)
        wait_until(lambda: len(gateway.server.server_state.tasks) == 1, "the second one is inside")

        assert [other.send(a_post_of("acme")).answer()[0] for _ in range(3)] == [202] * 3
        assert other.send(ALIVE).answer()[0] == 200
        wait_until(lambda: len(gateway.server.server_state.tasks) == 1, "the second one waits")
        second.socket.settimeout(0)
        with pytest.raises(BlockingIOError):
            second.socket.recv(1)

    gateway.wait_until_quiet()


def test_the_body_of_who_waits_without_a_key_is_nobodys(gateway: Gateway) -> None:
    body_bytes = 50_000
    with gateway.raw() as client:
        client.send(KEYLESS["404"]).answer()
        client.send(a_request(b"", length=2 * body_bytes))
        connection: Any = next(iter(gateway.server.server_state.connections))
        wait_until(lambda: connection._gone is not None, "it waits")
        client.send(bytes(body_bytes))
        wait_until(lambda: connection._bytes >= body_bytes, "it came")

        assert len(connection.cycle.body) == 0


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Making:
    """Makes answers, each with its number, when it is let to."""

    def __init__(self) -> None:
        self.made = 0
        self.go_on = asyncio.Event()

    async def __call__(self) -> Answer:
        self.made += 1
        await self.go_on.wait()
        return self.made, [], b""


def test_what_is_shared_is_made_once_a_second_over_time_however_often_it_is_asked_for() -> None:
    async def asked() -> list[int]:
        making, clock = Making(), Clock()
        making.go_on.set()
        shared = Shared(making, clock=clock)
        counts = []
        for _ in range(3):
            for _ in range(100):
                await shared.get()
            counts.append(making.made)
            clock.now_s += 1
        return counts

    assert run(asked()) == [AT_ONCE + 1, AT_ONCE + 2, AT_ONCE + 3]


def test_who_asks_while_it_is_made_gets_the_same_and_who_goes_away_takes_it_from_nobody() -> None:
    async def asked() -> tuple[list[Answer], int]:
        making = Making()
        shared = Shared(making)
        gone, *others = [asyncio.create_task(shared.get()) for _ in range(4)]
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        making.go_on.set()
        return await asyncio.gather(*others), making.made

    assert run(asked()) == ([(1, [], b"")] * 3, 1)
