"""Clients that are slow, broken or gone: each gets a word or an end in time, and leaves nothing behind."""

import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager

import httpx
import pytest

from processor.devstack.servers.sqs import EmbeddedSqs
from producers.gateway.http.framing import HEAD_BYTES_MAX
from producers.gateway.http.protocol import GuardedProtocol
from tests.gateway.http.rig import PROBLEM, Gateway, a_gateway, a_pulse, a_request, settings_of
from tests.rig import wait_until

PULSE = json.dumps(a_pulse()).encode()
IMPATIENT_S = 0.7


def _running(sqs: EmbeddedSqs, name: str, read_timeout_s: float) -> AbstractContextManager[Gateway]:
    changes = {
        "gateway_read_timeout_s": read_timeout_s,
        "gateway_body_bytes_max": 20_000,
        "gateway_requests_max": 5,
    }
    return a_gateway(settings_of(sqs, sqs.create_queue(name), **changes), sqs)


@pytest.fixture(scope="module")
def patient_one(sqs_server: EmbeddedSqs) -> Iterator[Gateway]:
    with _running(sqs_server, "http-clients", 20) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def impatient_one(sqs_server: EmbeddedSqs) -> Iterator[Gateway]:
    with _running(sqs_server, "http-slow-clients", IMPATIENT_S) as gateway:
        yield gateway


def _as_it_was(running: Gateway) -> None:
    """Demand that the test left nothing: no connection, no request, no event."""
    running.client.close()
    running.client = httpx.Client(base_url=running.client.base_url, timeout=30)
    running.wait_until_quiet()
    running.queued()


@pytest.fixture
def gateway(patient_one: Gateway) -> Iterator[Gateway]:
    """A gateway that waits longer than any of these tests takes."""
    yield patient_one
    _as_it_was(patient_one)


@pytest.fixture
def impatient(impatient_one: Gateway) -> Iterator[Gateway]:
    """A gateway that waits IMPATIENT_S for what should come."""
    yield impatient_one
    _as_it_was(impatient_one)


# ── slow ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_head_that_trickles_in_ends_with_408(impatient: Gateway) -> None:
    with impatient.raw() as client:
        client.send(b"POST /ingest HTTP/1.1\r\nhost: a\r\n")
        stop = threading.Event()
        trickle = threading.Thread(target=_trickle, args=(client.socket, b"x-a: b\r\n", stop), daemon=True)
        trickle.start()

        status, headers, problem = client.answer()
        stop.set()
        trickle.join()

    assert (status, headers["connection"], headers["content-type"]) == (408, "close", PROBLEM)
    assert f"within {IMPATIENT_S:g} s" in problem["detail"]


def _trickle(connection: socket.socket, drop: bytes, stop: threading.Event) -> None:
    while not stop.wait(0.05):
        try:
            connection.sendall(drop)
        except OSError:
            return


def test_a_body_that_trickles_in_ends_with_408(impatient: Gateway) -> None:
    with impatient.raw() as client:
        client.send(a_request(b"{", length=1000))
        stop = threading.Event()
        trickle = threading.Thread(target=_trickle, args=(client.socket, b" ", stop), daemon=True)
        trickle.start()

        status, _, problem = client.answer()
        stop.set()
        trickle.join()

    assert (status, problem["code"]) == (408, "timeout")


def test_a_connection_that_says_nothing_is_ended(impatient: Gateway) -> None:
    with impatient.raw() as client:
        assert client.closed()


def test_a_connection_that_sends_empty_lines_between_requests_is_ended(impatient: Gateway) -> None:
    with impatient.raw() as client:
        assert client.send(a_request(PULSE)).answer()[0] == 202
        stop = threading.Event()
        trickle = threading.Thread(target=_trickle, args=(client.socket, b"\r\n", stop), daemon=True)
        trickle.start()

        status, ended = client.answer()[0], client.closed()
        stop.set()
        trickle.join()

    assert (status, ended) == (400, True)


def test_a_client_that_reads_nothing_is_ended(impatient: Gateway) -> None:
    """It asks for far more than the buffers hold, and never reads: its place must come free."""
    request = b"GET /docs HTTP/1.1\r\nhost: a\r\n\r\n"
    with impatient.raw() as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.send(request * 200)

        impatient.wait_until_quiet()


def test_a_request_may_come_in_pieces(gateway: Gateway) -> None:
    request = a_request(PULSE)
    with gateway.raw() as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(request), 7):
            client.send(request[at : at + 7])

        assert client.answer()[0] == 202


# ── lying ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_body_shorter_than_its_length_is_refused_when_the_client_has_finished(gateway: Gateway) -> None:
    with gateway.raw() as client:
        status, _, problem = client.send(a_request(PULSE, length=len(PULSE) + 10)).finish().answer()

    assert status == 400
    assert f"ended after {len(PULSE)} bytes; expected {len(PULSE) + 10}" in problem["detail"]
    assert gateway.queued() == []


def test_a_body_longer_than_its_length_spoils_neither_answer_nor_server(gateway: Gateway) -> None:
    with gateway.raw() as client:
        status, _, problem = client.send(a_request(PULSE, length=10)).answer()
        rest_status, headers, _ = client.answer()
        assert client.closed()

    assert (status, problem["code"]) == (400, "malformed")
    assert (rest_status, headers["connection"]) == (400, "close"), "what is left over is no request"


@pytest.mark.parametrize(
    "lines",
    [
        ["content-length: -1"],
        ["content-length: 1e3"],
        ["content-length: 5", "content-length: 6"],
        ["content-length: 5", "transfer-encoding: chunked"],
        ["transfer-encoding: gzip"],
        ["transfer-encoding: chunked, identity"],
    ],
)
def test_lengths_that_can_be_read_two_ways_are_refused(gateway: Gateway, lines: list[str]) -> None:
    with gateway.raw() as client:
        head = ["POST /ingest HTTP/1.1", "host: a", "content-type: application/json", *lines]
        status, headers, problem = client.send("\r\n".join([*head, "", ""]).encode(), PULSE).finish().answer()

    assert (status, problem["code"]) == (400, "malformed")
    assert headers["content-type"] == PROBLEM
    assert gateway.queued() == []


def test_a_body_too_large_is_refused_before_it_is_sent(gateway: Gateway) -> None:
    with gateway.raw() as client:
        status, headers, problem = client.send(a_request(b"", length=10**9)).answer()

    assert (status, problem["code"]) == (413, "too_large")
    assert headers["content-type"] == PROBLEM


def test_a_body_in_chunks_is_read_up_to_the_limit(impatient: Gateway) -> None:
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    with impatient.raw() as client:
        client.send(a_request(b"", "transfer-encoding: chunked"), chunk * 5)

        status, _, problem = client.answer()

        assert (status, problem["code"]) == (413, "too_large")
        assert client.closed(), "it never sent the last chunk"


def test_a_body_in_chunks_is_taken(gateway: Gateway) -> None:
    half = len(PULSE) // 2
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (PULSE[:half], PULSE[half:]))
    with gateway.raw() as client:
        status, _, _ = client.send(
            a_request(b"", "transfer-encoding: chunked"), chunks, b"0\r\n\r\n"
        ).answer()

    assert status == 202


def test_a_chunk_that_is_none_is_refused(gateway: Gateway) -> None:
    with gateway.raw() as client:
        status, _, problem = client.send(a_request(b"", "transfer-encoding: chunked"), b"zz\r\n{}").answer()
        assert client.closed()

    assert (status, problem["code"]) == (400, "malformed")


def test_trailers_say_nothing(gateway: Gateway) -> None:
    body = b"%x\r\n%s\r\n0\r\nidempotency-key: late\r\ntraceparent: x\r\n\r\n" % (len(PULSE), PULSE)
    with gateway.raw() as client:
        status, _, answer = client.send(a_request(b"", "transfer-encoding: chunked"), body).answer()

    assert status == 202
    assert answer["made_id"]


# ── broken ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS, say\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /ingest HTTP/9.9\r\n\r\n",
        b"POST /ingest HTTP/1.1\r\nno colon\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /in\xff\xfegest HTTP/1.1\r\nhost: a\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
        b"CONNECT a:443 HTTP/1.1\r\nhost: a\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_a_problem(gateway: Gateway, garbage: bytes) -> None:
    with gateway.raw() as client:
        status, headers, _ = client.send(garbage).answer()

    assert status in (400, 404, 505)
    assert headers["content-type"] == PROBLEM


def test_a_head_too_large_ends_with_431(gateway: Gateway) -> None:
    with gateway.raw() as client:
        client.send(b"POST /ingest HTTP/1.1\r\nx-a: ", b"a" * (HEAD_BYTES_MAX // 2))
        client.send(b"a" * 8 * HEAD_BYTES_MAX)

        status, headers, problem = client.answer()

    assert (status, problem["code"]) == (431, "head_too_large")
    assert headers["content-type"] == PROBLEM


def test_a_client_that_has_finished_sending_still_gets_its_answer(gateway: Gateway) -> None:
    with gateway.raw() as client:
        status, headers, _ = client.send(a_request(PULSE)).finish().answer()
        assert client.closed()

    assert (status, headers["connection"]) == (202, "close")
    assert len(gateway.queued()) == 1


def test_requests_one_after_the_other_are_answered_in_order(gateway: Gateway) -> None:
    requests = [a_request(PULSE, f"idempotency-key: {number}") for number in range(20)]
    with gateway.raw() as client:
        client.send(*requests)
        answers = [client.answer() for _ in requests]

    assert [answer[2]["message_id"] for answer in answers] == [str(number) for number in range(20)]
    assert len(gateway.queued()) == 20


def test_a_connection_with_endless_requests_in_a_row_is_ended(impatient: Gateway) -> None:
    """They wait unread while nobody reads the answers."""
    many = b"GET /docs HTTP/1.1\r\nhost: a\r\n\r\n" * 2000
    with impatient.raw() as client, pytest.raises(OSError, match=r"reset|Broken pipe"):
        client.send(*[many] * 200)


def test_a_client_that_vanishes_leaves_nothing_behind(gateway: Gateway) -> None:
    for request in (b"", b"POST /ing", a_request(PULSE, length=1000), a_request(PULSE)):
        client = gateway.raw()
        client.send(request)
        # No farewell, but a reset.
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.socket.close()

    gateway.wait_until_quiet()


def test_a_client_that_waits_for_a_go_ahead_is_given_it_or_a_refusal(gateway: Gateway) -> None:
    expecting = "expect: 100-continue"
    with gateway.raw() as client:
        client.send(a_request(b"", expecting, length=len(PULSE)))
        assert client.answer()[0] == 100
        assert client.send(PULSE).answer()[0] == 202
    with gateway.raw() as client:
        status, headers, _ = client.send(a_request(b"", expecting, length=10**9)).answer()

    assert status == 413
    assert headers["connection"] == "close", "nobody could tell whether the body comes"


def test_an_event_whose_sender_vanished_is_taken_all_the_same(gateway: Gateway) -> None:
    """It may have been about to be acknowledged: whoever sends it again does so under the same id."""
    client = gateway.raw()
    client.send(a_request(PULSE, "idempotency-key: vanished"))
    client.socket.close()

    taken: list[str] = []

    def is_queued() -> bool:
        taken.extend(event["id"] for event in gateway.queued())
        return bool(taken)

    wait_until(is_queued, "the event is on the queue")
    assert taken == ["vanished"]


# ── too many ──────────────────────────────────────────────────────────────────────────────────────────


def test_requests_beyond_the_limit_are_told_to_come_again_and_the_others_go_on(gateway: Gateway) -> None:
    inside = [gateway.raw() for _ in range(5)]
    for client in inside:
        client.send(a_request(PULSE[:5], length=len(PULSE)))
    wait_until(lambda: len(gateway.server.server_state.tasks) == 5, "all five are inside")

    answer = gateway.post("/ingest", a_pulse())
    probe = gateway.client.get("/livez")
    statuses = [client.send(PULSE[5:]).answer()[0] for client in inside]
    for client in inside:
        client.socket.close()

    assert (answer.status_code, answer.json()["code"]) == (429, "over_quota")
    assert int(answer.headers["retry-after"]) >= 1
    assert probe.status_code == 200
    assert statuses == [202] * 5


def test_the_longest_idle_connection_makes_room_for_a_new_one(gateway: Gateway) -> None:
    working = gateway.raw().send(a_request(PULSE[:5], length=len(PULSE)))
    wait_until(lambda: len(gateway.server.server_state.tasks) == 1, "it is inside")
    idle = [gateway.raw() for _ in range(17)]
    wait_until(lambda: gateway.connections == 18, "as many are connected as one address may")
    assert idle[0].send(a_request(PULSE)).answer()[0] == 202

    with gateway.raw() as client:
        status = client.send(a_request(PULSE)).answer()[0]
        evicted = idle[1].closed()
    answers = [
        one.send(rest).answer()[0] for one, rest in ((working, PULSE[5:]), (idle[0], a_request(PULSE)))
    ]
    for one in (working, *idle):
        one.socket.close()

    assert (status, evicted) == (202, True), "the first one that has said nothing has ended"
    assert answers == [202, 202]


def test_clients_that_read_no_answer_to_what_needs_no_key_shut_nobody_out(gateway: Gateway) -> None:
    readers = [gateway.raw() for _ in range(18)]
    for reader in readers:
        reader.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.send(b"GET /docs HTTP/1.1\r\nhost: a\r\n\r\n" * 200)
    protocols = gateway.server.server_state.connections
    wait_until(
        lambda: sum(one.flow.write_paused for one in protocols if isinstance(one, GuardedProtocol)) == 18,
        "all of them are in the middle of an answer",
    )

    assert gateway.post("/ingest", a_pulse()).status_code == 202
    for reader in readers:
        reader.socket.close()


def test_connections_that_come_one_after_the_other_and_say_nothing_shut_nobody_out(gateway: Gateway) -> None:
    open_ones = [gateway.raw() for _ in range(100)]

    assert gateway.client.get("/livez").status_code == 200
    assert gateway.post("/ingest", a_pulse()).status_code == 202
    assert gateway.connections <= 20
    for one in open_ones:
        one.socket.close()


def test_time_and_size_of_what_comes_after_a_refusal_are_bounded(impatient: Gateway) -> None:
    """A refused body may go on coming: the connection ends, and soon."""
    with impatient.raw() as client:
        status, _, _ = client.send(a_request(b"", length=10**9)).answer()
        stop = threading.Event()
        flood = threading.Thread(target=_trickle, args=(client.socket, bytes(50_000), stop), daemon=True)
        flood.start()

        assert client.closed()
        stop.set()
        flood.join()

    assert status == 413


def test_what_is_held_is_given_back_whatever_came_of_it(gateway: Gateway) -> None:
    [(places, room)] = {taking._shares for taking in gateway.app._takings.values()}
    for body in (PULSE, b"{", b" " * 30_000):
        gateway.post("/ingest", body)
    with gateway.raw() as client:
        client.send(a_request(b"{" * 5000, length=6000))
        wait_until(lambda: (places.taken, room.taken) == (1, 5000), "what came of a body is held")
    with gateway.raw() as client:
        client.send(b"POST /ing")
        wait_until(lambda: (places.taken, room.taken) == (0, 9), "what is no head yet is held")

    wait_until(lambda: room.taken == 0, "all of it was given back")
