"""What the gRPC gateway makes of what nobody should send, and of callers that go away."""

import socket
import struct
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from producers.gateway.grpc import service
from producers.gateway.grpc.service import SERVICE
from producers.gateway.grpc.streams import WINDOW_ITEMS
from producers.gateway.items import Item, Refusal, Why
from producers.protos import ingest_pb2 as pb
from tests.gateway.grpc.parts import (
    METHODS,
    WAIT_S,
    Door,
    Loop,
    PlainIntake,
    PlainKeys,
    a_door,
    a_raw,
    an_event,
    answer_of,
    refusal_of,
    streamed,
    trailing_of,
)
from tests.rig import wait_until


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


def calls_of(door: Door) -> int:
    """How many calls hold a place."""
    return door.server.service.places.taken


@pytest.mark.parametrize("method", ["Ingest", "IngestBatch"])
@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x05abc", b'{"event": {}}'])
def test_bytes_that_are_no_message_are_refused_in_our_words(loop: Loop, method: str, data: bytes) -> None:
    with a_door(loop, PlainIntake()) as door, pytest.raises(grpc.RpcError) as refused:
        list(door.bare(method)(iter([data]), timeout=WAIT_S))

    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert refusal_of(refused.value).code == pb.CODE_MALFORMED


@pytest.mark.parametrize("method", ["IngestStream", "IngestUpload"])
def test_bytes_that_are_no_message_end_a_stream_after_its_answers(loop: Loop, method: str) -> None:
    intake, replies = PlainIntake(), list[bytes]()

    with a_door(loop, intake) as door:
        if method == "IngestStream":
            with pytest.raises(grpc.RpcError) as refused:
                replies.extend(door.bare(method)(iter([a_message(method), b"\xff\xff"]), timeout=WAIT_S))
            assert refusal_of(refused.value).code == pb.CODE_MALFORMED
        else:
            [reply] = door.bare(method)(iter([a_message(method), b"\xff\xff"]), timeout=WAIT_S)
            said = pb.IngestUploadReply.FromString(reply)
            assert (len(said.results), said.ended_early) == (1, True)

    assert len(intake.items) == 1


def test_an_upload_of_bytes_that_are_no_message_is_refused(loop: Loop) -> None:
    with a_door(loop, PlainIntake()) as door, pytest.raises(grpc.RpcError) as refused:
        list(door.bare("IngestUpload")(iter([b"\xff\xff"]), timeout=WAIT_S))

    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_too_many_events_in_one_message_of_a_stream_are_refused_one_by_one(loop: Loop) -> None:
    sent = [*streamed([an_event(n) for n in range(3)], 3), *streamed([an_event(3)])]

    with a_door(loop, PlainIntake(), items_max=2) as door:
        replies = list(door.stub.IngestStream(iter(sent), timeout=WAIT_S))

    found = {one.sequence: one.result for reply in replies for one in reply.results}
    assert [found[place].refusal.code for place in range(3)] == [pb.CODE_TOO_LARGE] * 3
    assert found[3].taken.message_id == "o-3"


@pytest.mark.parametrize("method", ["Ingest", "IngestBatch"])
def test_a_unary_call_without_a_message_is_refused(loop: Loop, method: str) -> None:
    with a_door(loop, PlainIntake()) as door, pytest.raises(grpc.RpcError) as refused:
        list(door.bare(method)(iter([]), timeout=WAIT_S))

    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_stream_without_a_message_ends_well(loop: Loop) -> None:
    with a_door(loop, PlainIntake()) as door:
        assert answer_of(door, "IngestStream", []) == []
        assert answer_of(door, "IngestUpload", []) == [pb.IngestUploadReply()]


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
@pytest.mark.parametrize("method", METHODS)
def test_an_oversized_message_is_refused_before_it_is_read(
    loop: Loop, method: str, compression: grpc.Compression
) -> None:
    """Compressed it is small, and is refused as soon as it gets too large."""
    intake = PlainIntake()

    with a_door(loop, intake) as door, pytest.raises(grpc.RpcError) as refused:
        answer_of(door, method, [a_raw(b"0" * 5_000_000)], compression=compression)

    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not intake.items


def test_a_batch_of_too_many_events_is_refused_whole(loop: Loop) -> None:
    intake = PlainIntake()

    with a_door(loop, intake, items_max=2) as door, pytest.raises(grpc.RpcError) as refused:
        answer_of(door, "IngestBatch", [an_event()] * 3)

    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refusal_of(refused.value).code == pb.CODE_TOO_LARGE
    assert not intake.items


def test_an_unknown_method_is_unimplemented(loop: Loop) -> None:
    with a_door(loop, PlainIntake()) as door, pytest.raises(grpc.RpcError) as refused:
        list(door.bare("Steal")(iter([b""]), timeout=WAIT_S))

    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("method", METHODS)
def test_a_call_whose_deadline_passes_leaves_nothing_behind(loop: Loop, method: str) -> None:
    intake = PlainIntake()
    loop.call(intake.open.clear)

    with a_door(loop, intake) as door:
        with pytest.raises(grpc.RpcError) as expired:
            answer_of(door, method, [an_event()], timeout=0.2)

        assert expired.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        wait_until(lambda: calls_of(door) == 0, "its place is free", wait_s=WAIT_S)
        assert intake.waiting == 0


@pytest.mark.parametrize("method", METHODS)
def test_a_call_that_is_cancelled_leaves_nothing_behind(loop: Loop, method: str) -> None:
    intake = PlainIntake()
    loop.call(intake.open.clear)

    with a_door(loop, intake) as door:
        begun = door.bare(method)(iter([a_message(method)]), timeout=WAIT_S)
        wait_until(lambda: bool(intake.waiting), "it is in the intake", wait_s=WAIT_S)
        begun.cancel()

        wait_until(lambda: calls_of(door) == 0, "its place is free", wait_s=WAIT_S)
        assert intake.waiting == 0
        assert not door.server.service._streams


def test_a_message_that_never_comes_to_its_end_has_a_time_out(loop: Loop) -> None:
    with a_door(loop, PlainIntake(), read_timeout_s=0.2) as door, a_connection(door) as connection:
        half_a_call(connection, "Ingest")
        wait_until(lambda: calls_of(door) == 1, "it holds a place", wait_s=WAIT_S)

        wait_until(lambda: calls_of(door) == 0, "its place is free", wait_s=WAIT_S)


@pytest.mark.parametrize("method", METHODS)
def test_a_caller_that_dies_in_the_middle_of_a_message_leaves_nothing_behind(loop: Loop, method: str) -> None:
    intake = PlainIntake()
    loop.call(intake.open.clear)

    with a_door(loop, intake) as door:
        with a_connection(door) as connection:
            half_a_call(connection, method, a_message(method))
            wait_until(lambda: calls_of(door) == 1, "it holds a place", wait_s=WAIT_S)

        wait_until(lambda: calls_of(door) == 0, "its place is free", wait_s=WAIT_S)
        assert intake.waiting == 0


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(range(256)) * 40, b""])
def test_what_is_no_http2_does_no_harm(loop: Loop, data: bytes) -> None:
    with a_door(loop, PlainIntake()) as door:
        with a_connection(door) as connection:
            connection.sendall(data)

        assert answer_of(door, "Ingest", [an_event()])


def test_a_call_beyond_the_places_is_refused_and_health_still_answers(loop: Loop) -> None:
    intake = PlainIntake()
    loop.call(intake.open.clear)

    with a_door(loop, intake, calls_max=2) as door:
        # Kept, because a call that nobody keeps is cancelled.
        held = [door.bare("Ingest")(iter([a_message("Ingest")]), timeout=WAIT_S) for _ in range(2)]
        wait_until(lambda: calls_of(door) == 2, "all places are held", wait_s=WAIT_S)

        with pytest.raises(grpc.RpcError) as refused:
            answer_of(door, "Ingest", [an_event()])

        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert trailing_of(refused.value)["refusal-code"] == "over_quota"
        assert trailing_of(refused.value)["grpc-retry-pushback-ms"] == "1000"
        assert door.health() == "SERVING"
        loop.call(intake.open.set)
        assert all(list(call) for call in held)


def test_the_bytes_of_all_messages_together_are_bounded(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MESSAGES_HELD_MAX", 1)
    intake, large = PlainIntake(), a_raw(b"0" * 60_000)
    loop.call(intake.open.clear)

    with a_door(loop, intake, message_bytes_max=100_000) as door:
        held: Any = door.stub.Ingest.future(large, timeout=WAIT_S)
        wait_until(lambda: bool(intake.waiting), "it is in the intake", wait_s=WAIT_S)
        with pytest.raises(grpc.RpcError) as refused:
            answer_of(door, "IngestBatch", [large])
        loop.call(intake.open.set)

        assert held.result(WAIT_S)
        assert refusal_of(refused.value).code == pb.CODE_OVER_QUOTA
        assert answer_of(door, "Ingest", [large])
        assert door.server.service.room.taken == 0


def test_of_a_stream_no_more_than_a_window_is_without_an_answer(loop: Loop) -> None:
    intake = PlainIntake()
    loop.call(intake.open.clear)

    with a_door(loop, intake) as door:
        replies = door.stub.IngestStream(streamed(an_event(n) for n in range(3000)), timeout=WAIT_S)
        wait_until(lambda: intake.waiting == WINDOW_ITEMS, "the window is full", wait_s=WAIT_S)
        loop.call(intake.open.set)
        found = [one.sequence for reply in replies for one in reply.results]

    assert sorted(found) == list(range(3000))
    assert intake.waiting_most == WINDOW_ITEMS


def test_of_a_stream_of_large_events_no_more_bytes_than_the_window_has_are_held(loop: Loop) -> None:
    intake = PlainIntake()
    loop.call(intake.open.clear)
    large = a_raw(b"0" * 1_000_000)

    with a_door(loop, intake, message_bytes_max=2_000_000) as door:
        replies = door.stub.IngestStream(streamed(large for _ in range(20)), timeout=WAIT_S)
        wait_until(lambda: intake.waiting == 5, "five of a megabyte are held", wait_s=WAIT_S)
        loop.call(intake.open.set)
        found = [one.sequence for reply in replies for one in reply.results]

    assert sorted(found) == list(range(20))
    assert intake.waiting_most == 5


def test_who_reads_no_answers_is_not_read_either(loop: Loop) -> None:
    intake = PlainIntake(lambda _item: Refusal(Why.INVALID, "€" * 900))

    with a_door(loop, intake) as door:
        replies = door.stub.IngestStream(streamed(an_event(n) for n in range(20_000)), timeout=WAIT_S)
        wait_until(lambda: bool(door.server.service._streams), "it has begun", wait_s=WAIT_S)
        [stream] = door.server.service._streams
        wait_until(lambda: stream._window.items == WINDOW_ITEMS, "the window is full", wait_s=WAIT_S)
        taken = len(intake.items)
        replies.cancel()

    assert taken < 5_000


def test_a_stream_whose_key_is_revoked_ends_and_takes_no_more(loop: Loop) -> None:
    intake, keys = PlainIntake(), PlainKeys("secret")

    def events() -> Iterator[pb.IngestRequest]:
        yield an_event(0)
        wait_until(lambda: len(intake.items) == 1, "the first is taken", wait_s=WAIT_S)
        keys.known = "another"
        yield an_event(1)

    with a_door(loop, intake, keys) as door:
        replies = door.stub.IngestStream(
            streamed(events()), timeout=WAIT_S, metadata=[("x-api-key", "secret")]
        )
        first, second = next(replies), next(replies)
        with pytest.raises(grpc.RpcError) as refused:
            next(replies)

    assert first.results[0].result.taken.message_id == "o-0"
    assert second.results[0].result.refusal.code == pb.CODE_UNAUTHENTICATED
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert len(intake.items) == 1


def test_an_upload_beyond_its_bound_is_answered_early_for_what_was_read(loop: Loop) -> None:
    intake = PlainIntake(lambda _item: Refusal(Why.INVALID, "€" * 900))

    with a_door(loop, intake) as door:
        reply = door.stub.IngestUpload(streamed(an_event(n) for n in range(20_000)), timeout=WAIT_S)

    assert reply.ended_early
    assert len(reply.results) == len(intake.items) < 2_000


@pytest.mark.parametrize("method", METHODS)
def test_a_fault_of_ours_tells_nothing_of_the_event(
    loop: Loop, method: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(item: Item) -> Refusal:
        raise ValueError(f"secret {item}")

    with a_door(loop, PlainIntake(fail)) as door, pytest.raises(grpc.RpcError) as failed:
        answer_of(door, method, [an_event(payload='"secret"')])

    said = capsys.readouterr()
    assert failed.value.code() == grpc.StatusCode.INTERNAL
    assert "secret" not in f"{failed.value.details()} {caplog.text} {said.out} {said.err}"
    assert "call_failed" in said.out


# ── HTTP/2 by hand, for what no client does ───────────────────────────────────────────────────────────


def a_message(method: str) -> bytes:
    event = an_event()
    if method == "Ingest":
        return event.SerializeToString()
    kind = pb.IngestBatchRequest if method == "IngestBatch" else pb.IngestStreamRequest
    return kind(items=[event]).SerializeToString()


def a_connection(door: Door) -> socket.socket:
    return socket.create_connection(("127.0.0.1", door.server.port), timeout=WAIT_S)


def half_a_call(connection: socket.socket, method: str, whole: bytes | None = None) -> None:
    """Begin a call, send a whole message if there is one, and of another one only the beginning."""
    names = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/{SERVICE}/{method}",
        ":authority": "x",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    head = b"".join(b"\x00" + _text(name) + _text(value) for name, value in names.items())
    data = b"" if whole is None else b"\x00" + struct.pack(">I", len(whole)) + whole
    data += b"\x00" + struct.pack(">I", 1000) + b"only some"
    frames = _frame(4, 0, 0, b"") + _frame(1, 4, 1, head) + _frame(0, 0, 1, data)
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frames)


def _frame(kind: int, flags: int, stream: int, data: bytes) -> bytes:
    return struct.pack(">I", len(data))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + data


def _text(text: str) -> bytes:
    return bytes((len(text),)) + text.encode()
