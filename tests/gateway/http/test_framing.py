"""HTTP is read in one way, wherever it is cut; what could be read in two is refused, and is the end."""

from collections.abc import Iterable, Iterator
from itertools import pairwise

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from processor.devstack.servers.sqs import EmbeddedSqs
from producers.gateway.http.framing import HEAD_BYTES_MAX, Framing, UnreadableRequest
from tests.gateway.http.framing_parts import (
    ALIVE,
    BROKEN_BODIES,
    REFUSED,
    SMUGGLED,
    TAKEN,
    a_post,
    a_whole_post,
    in_chunks,
)
from tests.gateway.http.rig import Gateway, a_gateway, settings_of


@pytest.fixture(scope="module")
def gateway(sqs_server: EmbeddedSqs) -> Iterator[Gateway]:
    with a_gateway(settings_of(sqs_server, sqs_server.create_queue("http-framing")), sqs_server) as running:
        yield running


def statuses(gateway: Gateway, *parts: bytes) -> list[int]:
    """Every answer to these bytes, up to the end of the connection."""
    found = []
    with gateway.raw() as client:
        client.send(*parts).finish()
        while not client.ends():
            found.append(client.answer()[0])
    return found


# ── on a socket ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_one_request_gets_one_answer_and_the_next_its_own(gateway: Gateway, name: str) -> None:
    assert statuses(gateway, TAKEN[name], ALIVE) == [202, 200]
    assert len(gateway.queued()) == 1


@pytest.mark.parametrize("name", REFUSED)
def test_a_head_that_is_refused_is_the_last_thing_that_is_read(gateway: Gateway, name: str) -> None:
    request, status = REFUSED[name]

    assert statuses(gateway, ALIVE, request, SMUGGLED, TAKEN["plain"]) == [200, status]
    assert gateway.queued() == []


@pytest.mark.parametrize("name", BROKEN_BODIES)
def test_a_body_that_is_refused_is_the_last_thing_that_is_read(gateway: Gateway, name: str) -> None:
    assert statuses(gateway, BROKEN_BODIES[name], SMUGGLED, TAKEN["plain"]) == [400]
    assert gateway.queued() == []


def test_as_many_are_answered_as_were_asked_where_all_want_an_upgrade(gateway: Gateway) -> None:
    """The body of one is no request, be it one to look at."""
    fields = (b"connection: upgrade", b"upgrade: anything")
    requests = [a_whole_post(*fields, body=SMUGGLED), TAKEN["upgrade"], ALIVE, TAKEN["upgrade in chunks"]]

    assert statuses(gateway, *requests) == [400, 202, 200, 202]
    assert len(gateway.queued()) == 2


def test_whoever_waits_for_a_go_ahead_and_wants_an_upgrade_gets_both_answers(gateway: Gateway) -> None:
    request = TAKEN["upgrade"].replace(b"host: a", b"host: a\r\nexpect: 100-continue")
    head, _, body = request.partition(b"\r\n\r\n")
    with gateway.raw() as client:
        go_ahead, _, _ = client.send(head, b"\r\n\r\n").answer()
        status, _, _ = client.send(body).answer()

    assert (go_ahead, status) == (100, 202)
    assert len(gateway.queued()) == 1


def test_an_old_client_is_given_no_go_ahead(gateway: Gateway) -> None:
    request = a_post(b"expect: 100-continue", b"content-length: 2", line=b"POST /ingest HTTP/1.0", body=b"{}")

    assert statuses(gateway, request, SMUGGLED) == [422]


def test_a_request_that_was_answered_before_its_body_broke_gets_no_second_answer(gateway: Gateway) -> None:
    request = in_chunks(b"2", b"{}", b"zz", b"", fields=(b"content-encoding: br",))
    head, _, body = request.partition(b"\r\n\r\n")
    with gateway.raw() as client:
        status, _, _ = client.send(head, b"\r\n\r\n").answer()
        client.send(body, SMUGGLED)

        assert status == 415
        assert client.closed()


def test_a_question_about_the_server_as_a_whole_gets_an_answer(gateway: Gateway) -> None:
    assert statuses(gateway, b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", ALIVE) == [404, 200]


# ── cut anywhere ──────────────────────────────────────────────────────────────────────────────────────

Read = list[tuple[object, ...]]


def read_in_pieces(pieces: Iterable[bytes]) -> Read:
    """Give what is found: each request with its body, and the status of a refusal."""
    framing, found = Framing(), Read()
    try:
        is_whole = True
        for piece in pieces:
            framing.receive(piece)
            while True:
                if is_whole:
                    if (head := framing.head()) is None:
                        break
                    found.append((head.method, head.target, head.version, tuple(head.headers), b""))
                is_whole = False
                body, is_whole = framing.body()
                found[-1] = (*found[-1][:-1], found[-1][-1] + body)  # type: ignore[operator]  # bytes
                if not is_whole:
                    break
    except UnreadableRequest as error:
        # How much of a body came through before it broke is no matter.
        return [*found[: len(found) - (not is_whole)], (error.problem.status, error.problem.code)]
    return found


ALL = TAKEN | {name: request for name, (request, _) in REFUSED.items()} | BROKEN_BODIES


@pytest.mark.parametrize("name", ALL)
def test_where_it_is_cut_changes_nothing(name: str) -> None:
    text = TAKEN["plain"] + ALL[name] + SMUGGLED
    whole = read_in_pieces([text])

    assert read_in_pieces(text[at : at + 1] for at in range(len(text))) == whole
    for at in range(1, len(text), 1 + len(text) // 2000):
        assert read_in_pieces([text[:at], text[at:]]) == whole, text[:at]


@pytest.mark.parametrize("size", [HEAD_BYTES_MAX - 1, HEAD_BYTES_MAX, HEAD_BYTES_MAX + 1, 2 * HEAD_BYTES_MAX])
def test_a_head_is_as_large_in_pieces_as_whole(size: int) -> None:
    before, after = b"GET / HTTP/1.1\r\nhost: a\r\nx-a: ", b"\r\n\r\n"
    text = before + b"a" * (size - len(before) - len(after)) + after
    whole = read_in_pieces([text])

    assert (whole == [(431, "head_too_large")]) is (size > HEAD_BYTES_MAX)
    assert read_in_pieces(text[at : at + 1000] for at in range(0, size, 1000)) == whole
    assert read_in_pieces([text[:-1], text[-1:]]) == whole


# ── as another reader has it ──────────────────────────────────────────────────────────────────────────

PARTS = st.sampled_from(
    [
        *(
            b"GET / HTTP/1.1\r\n",
            b"POST /a?b HTTP/1.1\r\n",
            b"POST http://a/b HTTP/1.0\r\n",
            b"HEAD * HTTP/1.1\r\n",
        ),
        *(b"host: a\r\n", b"Host:b:1\r\n", b"host:\r\n", b"content-length: 3\r\n", b"content-length: 0\r\n"),
        *(b"transfer-encoding: chunked\r\n", b"Transfer-Encoding:Chunked \r\n", b"x: \t y\t \r\n", b"x:\r\n"),
        *(
            b"connection: close\r\n",
            b"connection: upgrade\r\n",
            b"upgrade: x\r\n",
            b"expect: 100-continue\r\n",
        ),
        *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b",", b";", b"\x00", b"\xff", b"0", b"3", b"a", b"abc"),
        *(b"3\r\nabc\r\n", b"0\r\n", b"0\r\n\r\n", b"3;x=y\r\n", b"a: b\r\n\r\n", b"HTTP/1.1", b"GET "),
    ]
)


def as_h11_reads(text: bytes) -> Read | None:
    """Give the requests that h11 finds whole at the beginning; None: it refuses the first."""
    found = Read()
    while text:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        connection.receive_data(text)
        connection.receive_data(b"")
        body = b""
        try:
            request = connection.next_event()
            if not isinstance(request, h11.Request):
                break
            while isinstance(event := connection.next_event(), h11.Data):
                body += bytes(event.data)
        except h11.RemoteProtocolError:
            return found or None
        if not isinstance(event, h11.EndOfMessage):
            break
        version = request.http_version.decode()
        found.append((request.method.decode(), request.target, version, tuple(request.headers), body))
        text = connection.trailing_data[0]
    return found


@given(st.lists(PARTS, max_size=14), st.lists(st.integers(0, 200), max_size=3))
@example([b"POST /a?b HTTP/1.1\r\n", b"host: a\r\n", b"content-length: 3\r\n", b"\r\n", b"abc"], [5])
@example(
    [b"POST /a?b HTTP/1.1\r\n", b"host: a\r\n", b"transfer-encoding: chunked\r\n", b"\r\n", b"0\r\n\r\n"], []
)
def test_what_is_read_is_what_h11_reads(parts: list[bytes], cuts: list[int]) -> None:
    """Whatever is taken here is taken there with the same body; that one may take more."""
    text = b"".join(parts)
    edges = [0, *sorted(cuts), len(text)]
    ours = read_in_pieces(text[start:end] for start, end in pairwise(edges))

    assert ours == read_in_pieces([text])
    requests = [one for one in ours if len(one) > 2]
    if requests and isinstance(ours[-1][0], str):
        # The last may be without the end of its body.
        requests.pop()
    theirs = as_h11_reads(text) or []
    for mine, other in zip(requests, theirs, strict=False):
        assert (mine[0], mine[2:]) == (other[0], other[2:])
    assert len(requests) <= len(theirs)
