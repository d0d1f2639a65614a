"""What stands between those who have no key, or one tenant, and all others of the gRPC gateway."""

import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from hypothesis import given
from hypothesis import strategies as st

from producers.gateway.grpc import front as grpc_front
from producers.gateway.grpc import open_methods, places, service
from producers.gateway.grpc.places import (
    FIRST_FRAMES,
    FIRST_FRAMES_PER_S,
    FRAMES_AT_ONCE,
    FRAMES_OF_ALL_PER_S,
    Budget,
    FrameMeter,
    Frames,
    Stage,
)
from producers.gateway.items import Caller, Refusal, Why
from producers.protos import ingest_pb2 as pb
from tests.gateway.grpc import raw_http2 as raw
from tests.gateway.grpc.parts import (
    WAIT_S,
    Door,
    Loop,
    PlainIntake,
    PlainKeys,
    a_door,
    a_raw,
    an_event,
    streamed,
)
from tests.rig import wait_until


class TwoKeys(PlainKeys):
    """Knows a key for each of two tenants, which is the tenant's name."""

    async def caller(self, authorization: str | None) -> Caller | Refusal:
        if authorization in ("acme", "globex"):
            return Caller(authorization)
        return Refusal(Why.UNAUTHENTICATED, "no API key that is known")


def ingested(channel: grpc.Channel, key: str = "globex") -> None:
    call: Any = channel.unary_unary(raw.INGEST)
    call(an_event(tenant=key).SerializeToString(), metadata=[("x-api-key", key)], timeout=WAIT_S)


def held(door: Door) -> int:
    return door.server.front.places.taken


@contextlib.contextmanager
def a_neighbour(door: Door, key: str = "globex") -> Iterator[None]:
    """Somebody with a key, whom nothing that happens meanwhile may stop, on old channels or new ones."""
    ingested(door.channel, key)
    states: list[grpc.ChannelConnectivity] = []
    door.channel.subscribe(states.append)
    yield
    for _ in range(3):
        ingested(door.channel, key)
        with grpc.insecure_channel(door.target, (("grpc.use_local_subchannel_pool", 1),)) as other:
            ingested(other, key)
    lost = {grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.TRANSIENT_FAILURE}
    assert not lost & set(states[1:]), states


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


@pytest.fixture
def door(loop: Loop) -> Iterator[Door]:
    with a_door(loop, PlainIntake(), TwoKeys()) as door:
        yield door


def some_frames(pace: pytest.MonkeyPatch) -> None:
    """Let nothing but what may come at once come in from one address without a key."""
    pace.setattr(places, "FRAMES_PER_S", 0.001)


# ── connections ───────────────────────────────────────────────────────────────────────────────────────


BEGUN = raw.PREFACE + raw.frame(raw.SETTINGS)
HALF_A_HEAD = BEGUN + raw.frame(raw.HEADERS, 0, 1, raw.head(raw.INGEST))


@pytest.mark.parametrize("addresses", [1, 7])
@pytest.mark.parametrize("said", [b"", raw.PREFACE, BEGUN, HALF_A_HEAD])
def test_connections_without_a_key_never_take_the_place_of_one_that_has_shown_it(
    loop: Loop, said: bytes, addresses: int
) -> None:
    with (
        a_door(loop, PlainIntake(), TwoKeys(), connections_max=40) as door,
        contextlib.ExitStack() as attack,
        a_neighbour(door),
    ):
        for number in range(200):
            address = f"127.0.0.{10 + number % addresses}"
            connection = attack.enter_context(raw.a_connection(door.port, address=address, said=False))
            with contextlib.suppress(OSError):
                connection.sendall(said)
        wait_until(lambda: held(door) >= 35, "most places are taken", wait_s=WAIT_S)
        assert held(door) <= 40


def test_connections_of_a_tenant_leave_some_to_others(loop: Loop) -> None:
    with a_door(loop, PlainIntake(), TwoKeys(), connections_max=40) as door, contextlib.ExitStack() as attack:
        for _ in range(80):
            options = (("grpc.use_local_subchannel_pool", 1),)
            channel = attack.enter_context(grpc.insecure_channel(door.target, options))
            with contextlib.suppress(grpc.RpcError):
                ingested(channel, "acme")
        with a_neighbour(door):
            assert held(door) <= 40


def test_the_socket_behind_is_nobody_elses_and_needs_no_disk(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/nowhere")
    with a_door(loop, PlainIntake()) as door:
        folder = Path(door.server.front.behind).parent
        assert folder.stat().st_mode & 0o777 == 0o700
        ingested(door.channel)
    assert not folder.exists()


def test_a_connection_that_says_nothing_ends(loop: Loop) -> None:
    with a_door(loop, PlainIntake(), read_timeout_s=0.1) as door:
        with raw.a_connection(door.port, said=False) as connection:
            assert connection.recv(1) == b""
        assert held(door) == 0


def test_nothing_is_left_of_connections_that_have_ended(loop: Loop, door: Door) -> None:
    for said in (b"", raw.PREFACE, raw.PREFACE + raw.frame(raw.SETTINGS) + raw.a_call(raw.INGEST)):
        with raw.a_connection(door.port, said=False) as connection:
            connection.sendall(said)

    wait_until(lambda: held(door) == 0, "no place is held", wait_s=WAIT_S)
    front = door.server.front
    wait_until(lambda: not front._pipes and not front.early.taken, "and nothing else", wait_s=WAIT_S)


# ── calls and frames without a key ────────────────────────────────────────────────────────────────────

FLOODS: dict[str, Callable[[int], bytes]] = {
    "calls without a key": lambda stream: raw.a_call(raw.INGEST, stream, b""),
    "unknown methods": lambda stream: raw.a_call("/a.b/C", stream, b""),
    "rapid resets": lambda stream: raw.a_call(raw.INGEST, stream) + raw.reset(stream),
    "pings": lambda _stream: raw.frame(raw.PING, 0, 0, b"12345678"),
    "settings": lambda _stream: raw.frame(raw.SETTINGS),
    "continuations": lambda stream: raw.frame(
        raw.HEADERS if stream == 1 else raw.CONTINUATION, 0, 1, raw.head(raw.INGEST) * 10
    ),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_without_a_key_comes_in_at_a_pace(
    loop: Loop, door: Door, flood: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_frames(monkeypatch)
    passed: list[int] = []
    some = Frames.some

    def counted(self: Frames, data: bytearray, most: int) -> tuple[int, int]:
        found = some(self, data, most)
        passed.append(found[0])
        return found

    monkeypatch.setattr(Frames, "some", counted)
    sent = b"".join(FLOODS[flood](stream) for stream in range(1, 4001, 2))

    with contextlib.ExitStack() as attack, a_neighbour(door):
        for _ in range(5):
            connection = attack.enter_context(raw.a_connection(door.port))
            connection.setblocking(False)  # noqa: FBT003 - Python's own
            with contextlib.suppress(BlockingIOError):
                connection.send(sent)
        wait_until(lambda: sum(passed) > FRAMES_AT_ONCE / 2, "some came in", wait_s=WAIT_S)
    # The first ones of each, and of the neighbour's seven calls.
    assert sum(passed) <= FRAMES_AT_ONCE + places.FRAMES_IN_TURN + (5 + 7) * FIRST_FRAMES


@pytest.mark.parametrize("keys", [TwoKeys(), PlainKeys()], ids=["keys", "keys are off"])
def test_any_number_of_new_channels_is_answered_as_each_that_has_shown_its_key_makes_room(
    loop: Loop, keys: PlainKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "FIRST_FRAMES_PER_S", 50)

    async def answered(target: str) -> None:
        async with grpc.aio.insecure_channel(target, (("grpc.use_local_subchannel_pool", 1),)) as channel:
            call: Any = channel.unary_unary(raw.INGEST)
            await call(an_event().SerializeToString(), metadata=[("x-api-key", "acme")], timeout=WAIT_S)

    with a_door(loop, PlainIntake(), keys, calls_max=1000) as door:
        asyncio.run(_all(answered(door.target) for _ in range(300)))


def test_of_connections_that_have_ended_nothing_waits_for_its_turn(
    loop: Loop, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "FIRST_FRAMES_PER_S", 20)
    said = b"".join(raw.a_call(raw.INGEST, stream, b"") for stream in range(1, 99, 2))

    with contextlib.ExitStack() as storm:
        for _ in range(300):
            storm.enter_context(raw.a_connection(door.port, address="127.0.0.1")).sendall(said)
        wait_until(lambda: held(door) == 300, "all are here", wait_s=WAIT_S)

    wait_until(lambda: held(door) == 0, "all are gone", wait_s=WAIT_S)
    ingested(door.channel)


class _Hand:
    """A clock that is set by hand, and no timer."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def call_later(self, _delay_s: float, _callback: object) -> None:
        return None


class _Waiter:
    """A connection that sends so many frames."""

    def __init__(self, meter: FrameMeter, got: list[str], name: str, frames: float) -> None:
        self._meter, self._got, self._name, self._frames = meter, got, name, frames

    def ask(self, stage: Stage) -> None:
        self._meter.ask(self, stage)  # type: ignore[arg-type]  # as much of one as is asked

    def turn(self) -> float:
        self._got.append(self._name)
        return self._frames


@pytest.mark.parametrize("of_all_at_once", [FRAMES_OF_ALL_PER_S, 10 * FRAMES_OF_ALL_PER_S])
def test_who_came_first_has_the_first_turn_and_suspects_take_none_of_newcomers(of_all_at_once: int) -> None:
    hand, got = _Hand(), list[str]()
    of_all = Budget(FRAMES_OF_ALL_PER_S, of_all_at_once, hand.time)
    meter = FrameMeter(hand, of_all)  # type: ignore[arg-type]  # as much of a loop as is used
    waiter = partial(_Waiter, meter, got)
    waiter("suspect", FRAMES_AT_ONCE).ask(Stage.SUSPECT)
    waiter("second suspect", 1).ask(Stage.SUSPECT)
    waiter("flood", FIRST_FRAMES_PER_S).ask(Stage.NEW)
    assert got == ["suspect", "flood"]

    waiter("large", 2 * FRAMES_AT_ONCE).ask(Stage.NEW)
    waiter("third", 1).ask(Stage.NEW)
    waiter("one that is in", 1).ask(Stage.IN)
    gone = waiter("gone", 1)
    gone.ask(Stage.NEW)
    meter.leave(gone)  # type: ignore[arg-type]
    hand.now += 1
    meter.give_back(0)
    assert got[2:] == ["one that is in", "large", "third", "second suspect"]


def test_a_key_counts_as_shown_whatever_its_tenant_owes(loop: Loop) -> None:
    intake = PlainIntake(debt=Refusal(Why.OVER_QUOTA, "later", retry_after_s=1))
    with a_door(loop, intake, TwoKeys()) as door:
        with pytest.raises(grpc.RpcError):
            ingested(door.channel)
        assert [pipe.is_stranger for pipe in door.server.front._pipes.values()] == [False]


def test_a_connection_has_as_many_calls_as_its_tenant(loop: Loop) -> None:
    async def answered(target: str) -> None:
        async with grpc.aio.insecure_channel(target) as channel:
            call: Any = channel.unary_unary(raw.INGEST)
            sent = an_event().SerializeToString()
            await _all(call(sent, metadata=[("x-api-key", "acme")], timeout=60) for _ in range(3000))

    with a_door(loop, PlainIntake(), TwoKeys(), calls_max=4000) as door:
        asyncio.run(answered(door.target))


async def _all(calls: Iterable[Awaitable[object]]) -> None:
    await asyncio.gather(*calls)


def test_who_has_shown_a_key_waits_for_no_turn(
    loop: Loop, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_frames(monkeypatch)

    for _ in range(2 * FRAMES_AT_ONCE):
        ingested(door.channel)
    for _ in range(FRAMES_AT_ONCE // 4):
        with grpc.insecure_channel(door.target, (("grpc.use_local_subchannel_pool", 1),)) as channel:
            ingested(channel)


def test_a_large_first_message_waits_for_no_second_of_its_own(
    loop: Loop, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_frames(monkeypatch)
    call: Any = door.channel.unary_unary(raw.INGEST)

    sent = a_raw(b"0" * 250_000).SerializeToString()
    assert call(sent, metadata=[("x-api-key", "acme")], timeout=WAIT_S)


def test_what_waits_for_its_turn_is_bounded_in_bytes(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    some_frames(monkeypatch)
    monkeypatch.setattr(grpc_front, "EARLY_BYTES_MAX", 900_000)

    with (
        a_door(loop, PlainIntake(), TwoKeys()) as door,
        contextlib.ExitStack() as attack,
        a_neighbour(door),
    ):
        for _ in range(20):
            connection = attack.enter_context(raw.a_connection(door.port))
            connection.settimeout(0.2)
            with contextlib.suppress(OSError):
                connection.sendall(raw.frame(raw.PING, 0, 0, b"12345678") * 20_000)
        front = door.server.front
        wait_until(lambda: len(front._open) < 20, "those beyond it end", wait_s=WAIT_S)
        assert sum(len(pipe._early) for pipe in front._open) <= 900_000


@given(st.data())
def test_frames_are_counted_however_they_are_cut(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 40), max_size=30))
    sent = bytearray(raw.PREFACE + b"".join(raw.frame(raw.DATA, 0, 1, b"x" * size) for size in sizes))
    frames, found, early = Frames(), 0, bytearray()

    while sent or early:
        cut = data.draw(st.integers(1, 50))
        early += sent[:cut]
        del sent[:cut]
        most = data.draw(st.integers(1, 3))
        number, size_bytes = frames.some(early, most)
        assert number <= most
        found += number
        del early[:size_bytes]

    assert found == len(sizes)


# ── what needs no key ─────────────────────────────────────────────────────────────────────────────────


def test_watches_take_no_place_of_what_has_a_key_and_leave_check_alone(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_methods, "WATCHES_MAX", 9)
    with a_door(loop, PlainIntake(), TwoKeys(), calls_max=9) as door, a_neighbour(door):
        stub: Any = HealthStub(door.channel)
        watches = [stub.Watch(HealthCheckRequest(), timeout=WAIT_S) for _ in range(50)]
        said = [next(watch, None) for watch in watches[:8]]
        codes = [watch.code() for watch in watches[9:]]

        assert all(said)
        assert set(codes) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert door.health() == "SERVING"
        with raw.a_connection(door.port) as other:
            other.sendall(raw.a_call(raw.WATCH, 1, raw.message()))
            wait_until(lambda: b"\x08\x01" in other.recv(65536), "another address watches", wait_s=WAIT_S)
        for watch in watches:
            watch.cancel()


def test_a_watch_ends_in_time(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_methods, "WATCH_S", 0.1)
    with a_door(loop, PlainIntake()) as door:
        stub: Any = HealthStub(door.channel)
        watch = stub.Watch(HealthCheckRequest(), timeout=WAIT_S)
        with pytest.raises(grpc.RpcError) as ended:
            list(watch)

    assert ended.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "call again" in str(ended.value.details())


@pytest.mark.parametrize("path", [raw.CHECK, raw.REFLECTION, raw.WATCH])
def test_a_call_without_a_key_that_sends_no_message_ends_in_time(
    loop: Loop, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_methods, "CALL_S", 0.1)
    with a_door(loop, PlainIntake(), TwoKeys()) as door, raw.a_connection(door.port) as connection:
        connection.sendall(raw.a_call(path))
        said = b""
        while b"call again" not in said:
            said += connection.recv(65_536)


@pytest.mark.parametrize("path", [raw.CHECK, raw.REFLECTION, raw.WATCH])
def test_bytes_that_are_no_request_of_health_or_reflection_are_refused(loop: Loop, path: str) -> None:
    with a_door(loop, PlainIntake(), TwoKeys()) as door:
        call: Any = door.channel.stream_stream(path)
        assert call(iter([b"\xff\xff"]), timeout=WAIT_S).code() == grpc.StatusCode.INVALID_ARGUMENT


# ── tenants ───────────────────────────────────────────────────────────────────────────────────────────


def test_one_tenants_calls_leave_places_to_another(loop: Loop) -> None:
    intake = PlainIntake()
    loop.call(intake.open.clear)
    with a_door(loop, intake, TwoKeys(), calls_max=20) as door:
        call: Any = door.channel.unary_unary(raw.INGEST)
        sent = an_event().SerializeToString()
        calls = [call.future(sent, metadata=[("x-api-key", "acme")], timeout=WAIT_S) for _ in range(30)]
        wait_until(lambda: sum(one.done() for one in calls) >= 12, "those beyond its share are refused")
        assert door.server.service.places.held("acme") < 20

        other = call.future(sent, metadata=[("x-api-key", "globex")], timeout=WAIT_S)
        wait_until(lambda: door.server.service.places.held("globex") == 1, "the other has a place")
        loop.call(intake.open.set)
        assert other.result(WAIT_S)
        refused = {one.exception().code() for one in calls if one.exception() is not None}
    assert refused == {grpc.StatusCode.RESOURCE_EXHAUSTED}


def test_streams_of_one_tenant_leave_room_for_the_messages_of_another(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MESSAGES_HELD_MAX", 1)
    intake, large = PlainIntake(), a_raw(b"0" * 200_000)
    loop.call(intake.open.clear)
    with a_door(loop, intake, TwoKeys(), message_bytes_max=900_000) as door:
        replies = door.stub.IngestStream(
            streamed(large for _ in range(6)), timeout=WAIT_S, metadata=[("x-api-key", "acme")]
        )
        first = next(replies).results
        wait_until(lambda: intake.waiting == 4, "the others are held", wait_s=WAIT_S)
        other: Any = door.stub.Ingest.future(
            a_raw(b"0" * 50_000), timeout=WAIT_S, metadata=[("x-api-key", "globex")]
        )
        wait_until(lambda: intake.waiting == 5, "and that of another tenant", wait_s=WAIT_S)
        loop.call(intake.open.set)
        assert other.result(WAIT_S)
        found = [*first, *(one for reply in replies for one in reply.results)]

        codes = [one.result.refusal.code for one in found if one.result.HasField("refusal")]
        assert (len(found), codes) == (6, [pb.CODE_OVER_QUOTA] * 2)
        wait_until(lambda: door.server.service.room.taken == 0, "all is given back", wait_s=WAIT_S)
