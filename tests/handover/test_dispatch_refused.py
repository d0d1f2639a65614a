"""Handing over to a sink that does not accept: nothing is lost, and nothing holds up the rest."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trustme

from processor.devstack.servers.sink import GOOD, Behaviour, Receiver
from tests.fixtures.database import Saver
from tests.fixtures.usage import HandOver, a_pulse, assert_balanced, states, waiting_troubles
from tests.scripted_server import CLOSE, SILENCE, ScriptedServer, an_answer

Db = psycopg.Connection[Any]

pytestmark = pytest.mark.usefixtures("pulses")


PATIENCE_S = 20

# ── when it does not accept ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("behaviour", "words", "reached"),
    [
        (Behaviour(status=500, accepts=False), "status 500", True),
        (Behaviour(status=503, accepts=True), "status 503", True),
        (Behaviour(status=302, headers={"Location": "/"}), "redirects are not followed", True),
        (Behaviour(status=200, body=b"<html>log in</html>"), "a body that is not JSON", True),
        (Behaviour(status=200, body=b"[" * 70_000), "more than", True),
        (Behaviour(drops=True), "connection lost", False),
        (Behaviour(wait_s=0.6), "no complete response within 0.2 s", False),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
def test_nothing_is_marked_unless_accepted_and_the_same_is_sent_again(
    saver: Saver,
    db: Db,
    receiver: Receiver,
    hand_over: HandOver,
    behaviour: Behaviour,
    words: str,
    reached: bool,
) -> None:
    saver.save(a_pulse("0.1"), a_pulse(2, "cpu"))
    receiver.behaviour = behaviour

    tally, waiting = hand_over(usage_sink_timeout_s=0.2 if behaviour.wait_s else PATIENCE_S)

    assert words in tally.trouble
    assert (tally.reached, tally.lines_accepted, waiting.lines) == (reached, 0, 2)
    assert states(db) == {"cpu": "closed", "disk": "closed"}
    receiver.behaviour = GOOD

    tally, waiting = hand_over()

    assert (tally.trouble, tally.lines_accepted, waiting.lines) == ("", 2, 0)
    assert 1 < len(receiver.requests) <= 4
    assert len({(request.key, request.body) for request in receiver.requests}) == 1
    assert_balanced(db, receiver)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"220 mail.example.com ESMTP\r\n\r\n", "the response is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}", "no complete response within"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n{}", "connection lost"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", "connection lost"),
        (SILENCE, "no complete response within"),
        (CLOSE, "connection lost"),
    ],
)
def test_an_answer_that_is_none_is_no_yes(
    saver: Saver, hand_over: HandOver, answer: bytes | None, words: str
) -> None:
    saver.save(a_pulse(1))
    timeout_s = 0.2 if "within" in words else PATIENCE_S
    with ScriptedServer(answer) as server:
        tally, waiting = hand_over(usage_sink_url=server.url, usage_sink_timeout_s=timeout_s)

    assert words in tally.trouble
    assert (tally.lines_accepted, waiting.lines) == (0, 1)


@pytest.fixture(params=[b"X: x", b"\r\n "], ids=["head", "body"])
def dripping(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a sink that answers one byte at a time, each sooner than any time-out, and never ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            while True:
                try:
                    client, _ = server.accept()
                    with client:
                        client.sendall(b"HTTP/1.1 200 OK\r\n" + request.param)
                        while True:
                            client.sendall(request.param[-1:])
                            time.sleep(0.05)
                except OSError:
                    if server.fileno() < 0:
                        return

        threading.Thread(target=drip, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def test_an_answer_that_never_ends_is_cut_off(saver: Saver, hand_over: HandOver, dripping: str) -> None:
    saver.save(a_pulse(1))

    tally, waiting = hand_over(usage_sink_url=dripping, usage_sink_timeout_s=0.2)

    assert "no complete response within 0.2 s" in tally.trouble
    assert waiting.lines == 1


def test_a_sink_that_can_not_prove_its_name_gets_no_line(saver: Saver, hand_over: HandOver) -> None:
    saver.save(a_pulse(1))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)

    with ScriptedServer(an_answer(), tls=tls) as server:
        tally, waiting = hand_over(usage_sink_url=server.url)

    assert tally.trouble == "certificate verification failed"
    assert (server.requests, waiting.lines) == ([], 1)


def test_a_sink_of_an_authority_of_ones_own_is_believed_where_that_is_named(
    saver: Saver, hand_over: HandOver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver.save(a_pulse(1))
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))

    with ScriptedServer(an_answer(), tls=tls) as server:
        _, waiting = hand_over(usage_sink_url=server.url)

    assert waiting.lines == 0


def test_a_sink_that_asks_for_rest_gets_it(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(a_pulse(1))
    busy = Behaviour(status=429, accepts=False, headers={"Retry-After": "1"})
    receiver.behaviour = lambda number: busy if number == 0 else GOOD

    hand_over(retry_wait_s_max=5)

    first, second = receiver.requests
    assert second.began_s - first.ended_s >= 0.99
    assert_balanced(db, receiver)


def test_an_answer_after_we_gave_up_costs_a_second_sending_and_no_line_twice(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(a_pulse("0.1"))
    receiver.behaviour = lambda number: Behaviour(wait_s=3) if number == 0 else GOOD

    tally, _ = hand_over(usage_sink_timeout_s=2)

    assert (tally.requests, tally.lines_accepted, receiver.books.doubled) == (2, 1, 1)
    assert_balanced(db, receiver)


# ── line by line ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [422, 503])
def test_lines_that_are_refused_one_by_one_hold_up_no_other(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver, status: int
) -> None:
    saver.save(*(a_pulse(number, f"sku-{number}") for number in range(1, 9)))
    bad = {"sku-2", "sku-5"}
    receiver.behaviour = Behaviour(statuses=lambda line: status if line["product_sku"] in bad else 201)

    tally, waiting = hand_over()

    assert (tally.lines_accepted, waiting.lines, waiting.refused) == (6, 2, 2)
    assert waiting_troubles(db) == [f"status {status}"] * 2
    assert {sku for sku, state in states(db).items() if state == "closed"} == bad
    saver.save(a_pulse(1, "new"))
    tally, waiting = hand_over()
    assert (tally.lines_accepted, waiting.lines) == (1, 2)
    receiver.behaviour = GOOD

    tally, waiting = hand_over()

    assert (tally.lines_accepted, waiting.lines, waiting_troubles(db)) == (2, 0, [])
    assert len({request.key for request in receiver.requests}) == 3
    assert_balanced(db, receiver)


def test_a_line_that_the_sink_had_already_is_handed_over(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(a_pulse(1))
    receiver.behaviour = Behaviour(statuses=lambda _: 409)

    _, waiting = hand_over()

    assert waiting.lines == 0
    assert states(db) == {"disk": "handed_over"}


def test_a_line_that_the_answer_does_not_name_is_not_handed_over(
    saver: Saver, db: Db, hand_over: HandOver
) -> None:
    saver.save(a_pulse(1))

    with ScriptedServer(an_answer({"results": [{"key": "another", "status": 200}]})) as server:
        _, waiting = hand_over(usage_sink_url=server.url)

    assert waiting.lines == 1
    assert waiting_troubles(db) == ["missing from the response"]


# ── a batch that is refused whole ──────────────────────────────────────────────────────────────────


def test_a_line_that_spoils_its_batch_is_found_by_halves(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(*(a_pulse(number, f"sku-{number}") for number in range(40)))
    receiver.behaviour = Behaviour(refuses_batch_with=lambda line: line["product_sku"] == "sku-13")

    tally, waiting = hand_over()

    assert (tally.lines_accepted, waiting.lines, waiting.refused) == (39, 1, 1)
    assert waiting_troubles(db) == ["status 422"]
    assert tally.requests <= 2 * 6 + 1
    saver.save(a_pulse(1, "new"))
    assert hand_over()[0].lines_accepted == 1
    receiver.behaviour = GOOD
    assert hand_over()[1].lines == 0
    assert_balanced(db, receiver)


def test_a_sink_that_refuses_everything_is_not_asked_for_every_line(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(*(a_pulse(number, f"sku-{number}") for number in range(100)))
    receiver.behaviour = Behaviour(status=400, accepts=False)

    tally, waiting = hand_over()

    assert waiting.lines == 100
    assert tally.requests < 40
    receiver.behaviour = GOOD
    assert hand_over()[1].lines == 0
    assert_balanced(db, receiver)


def test_a_line_at_which_the_sink_breaks_down_holds_up_the_others_for_some_tries_only(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver
) -> None:
    saver.save(*(a_pulse(number, f"sku-{number}") for number in range(8)))

    def breaks_at(number: int) -> Behaviour:
        spoilt = b'"sku-3"' in receiver.requests[number].body
        return Behaviour(status=500, accepts=False) if spoilt else GOOD

    receiver.behaviour = breaks_at

    waiting = None
    for _ in range(8):
        _, waiting = hand_over()

    assert waiting is not None
    assert (waiting.lines, waiting_troubles(db)) == (1, ["status 500"])
