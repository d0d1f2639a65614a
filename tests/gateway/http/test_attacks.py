"""One tenant, or a client without a key, that takes all it can get leaves the others what they need."""

import gzip
import json
from collections.abc import Iterator

import pytest

from processor.devstack.servers.sqs import EmbeddedSqs
from producers.gateway.items import Caller, Refusal, Why
from tests.gateway.http.framing_parts import ALIVE
from tests.gateway.http.rig import Gateway, Raw, a_gateway, a_pulse, a_request, settings_of
from tests.rig import wait_until

REQUESTS_MAX = 9
BYTES = 10_000


class KeysOfAll:
    """Knows a key of every tenant, which is its name."""

    async def start(self) -> None:
        """Nothing is to be read."""

    async def close(self) -> None:
        """Nothing is open."""

    async def caller(self, authorization: str | None) -> Caller | Refusal:
        return Caller(authorization) if authorization else Refusal(Why.UNAUTHENTICATED, "no key")

    async def ready(self) -> str:
        return ""


@pytest.fixture
def gateway(sqs_server: EmbeddedSqs, queue_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    monkeypatch.setattr("tests.gateway.http.rig.open_keys", lambda _: KeysOfAll())
    bounds = {"gateway_requests_max": REQUESTS_MAX, "gateway_tenant_bytes": BYTES}
    with a_gateway(settings_of(sqs_server, queue_url, **bounds), sqs_server) as running:
        yield running


def a_post_of(tenant_id: str, *headers: str, size: int | None = None, length: int | None = None) -> bytes:
    """A pulse of a tenant by its key, padded to a size."""
    body = json.dumps(a_pulse(tenant_id=tenant_id)).encode()
    return a_request(body.ljust(size or 0), f"x-api-key: {tenant_id}", *headers, length=length)


def hold(gateway: Gateway, tenant_id: str, number: int) -> list[Raw]:
    """Send so many requests whose bodies never come to their end."""
    held = [gateway.raw().send(a_post_of(tenant_id, length=200)) for _ in range(number)]
    wait_until(lambda: len(gateway.server.server_state.tasks) == number, "all are inside")
    return held


def let_go(held: list[Raw]) -> None:
    for one in held:
        one.socket.close()


def test_a_tenant_with_slow_bodies_leaves_a_place_to_another(gateway: Gateway) -> None:
    held = hold(gateway, "hostile", REQUESTS_MAX - 1)

    with gateway.raw() as client:
        refused = client.send(a_post_of("hostile")).answer()
        taken = client.send(a_post_of("acme")).answer()
    let_go(held)

    assert (refused[0], refused[2]["code"], taken[0]) == (429, "over_quota", 202)


def test_probes_are_answered_and_hold_no_place_while_all_are_taken(gateway: Gateway) -> None:
    held = hold(gateway, "hostile", REQUESTS_MAX - 1)
    held += [gateway.raw().send(a_post_of("acme", length=200))]
    wait_until(lambda: len(gateway.server.server_state.tasks) == REQUESTS_MAX, "all places are taken")
    idle = [gateway.raw().send(ALIVE) for _ in range(5 * REQUESTS_MAX)]

    statuses = [
        gateway.client.get(path).status_code for path in ("/livez", "/readyz", "/metrics", "/nothing")
    ]
    with gateway.raw() as stranger:
        nobody = stranger.send(a_request(b"{}")).answer()[0]
    answers = [one.send(b" " * 200).answer()[0] for one in held]
    let_go([*held, *idle])

    assert statuses == [200, 200, 200, 404]
    assert nobody == 401
    assert answers == [202] * REQUESTS_MAX, "whoever was inside has lost nothing"


def test_a_tenant_sends_as_many_bytes_as_it_may_and_the_next_are_not_read(gateway: Gateway) -> None:
    """What two seconds give may come at once, and one more body before it owes."""
    with gateway.raw() as client:
        sizes = (BYTES, BYTES - 1, 3 * BYTES)
        first = [client.send(a_post_of("hostile", size=size)).answer()[0] for size in sizes]
        status, headers, problem = client.send(a_post_of("hostile", length=9)[: -len("{...")]).answer()
    with gateway.raw() as client:
        neighbour = client.send(a_post_of("acme", size=BYTES)).answer()[0]

    assert first == [202] * 3
    assert (status, problem["code"]) == (429, "over_quota")
    assert "GATEWAY_TENANT_BYTES" in problem["detail"]
    assert int(headers["retry-after"]) >= 2
    assert neighbour == 202


def test_bytes_without_a_length_are_charged_as_they_come(gateway: Gateway) -> None:
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    head = a_request(b"", "x-api-key: hostile", "transfer-encoding: chunked")
    with gateway.raw() as client:
        status, _, problem = client.send(head, chunk * 8).answer()

    assert (status, problem["code"]) == (429, "over_quota")


def test_bytes_count_as_they_are_unpacked(gateway: Gateway) -> None:
    body = gzip.compress(json.dumps(a_pulse(tenant_id="hostile")).encode().ljust(3 * BYTES))
    request = a_request(body, "x-api-key: hostile", "content-encoding: gzip")
    with gateway.raw() as client:
        statuses = [client.send(request).answer()[0] for _ in range(2)]

    assert len(body) < BYTES
    assert statuses == [202, 429]


def test_what_is_refused_for_what_it_says_is_charged_all_the_same(gateway: Gateway) -> None:
    request = a_request(b"{" * 3 * BYTES, "x-api-key: hostile")
    with gateway.raw() as client:
        statuses = [client.send(request).answer()[0] for _ in range(2)]

    assert statuses == [400, 429]


def test_without_keys_bytes_are_charged_to_the_tenant_that_an_event_names(
    sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    settings = settings_of(sqs_server, queue_url, gateway_tenant_bytes=1024)
    with a_gateway(settings, sqs_server) as gateway:
        large = a_pulse(context="x" * 3000)
        statuses = [gateway.post("/ingest", large).status_code for _ in range(2)]
        statuses += [gateway.post("/ingest", large | {"tenant_id": "globex"}).status_code]

    assert statuses == [202, 429, 202]
